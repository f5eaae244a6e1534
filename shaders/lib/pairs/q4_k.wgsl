// Q4_K.
//#include pairs_bits4
