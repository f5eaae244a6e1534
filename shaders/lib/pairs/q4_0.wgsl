// Q4_0.
//#include pairs_bits4
