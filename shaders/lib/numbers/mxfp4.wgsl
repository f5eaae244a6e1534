//#include numbers_table W=$W MEANING=e2m1
