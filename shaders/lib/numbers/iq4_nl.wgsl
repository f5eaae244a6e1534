//#include numbers_table W=$W MEANING=iq4
