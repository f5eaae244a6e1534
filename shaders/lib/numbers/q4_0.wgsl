//#include numbers_bits4 W=$W MINIMUM=false
