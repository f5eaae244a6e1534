//#include numbers_iq4 W=$W
