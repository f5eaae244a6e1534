//#include numbers_e4m3 W=$W
