//#include numbers_bits5 W=$W MINIMUM=false
