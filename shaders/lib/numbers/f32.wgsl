//#include numbers_octs W=$W
