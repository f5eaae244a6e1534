// Q4_1.
//#include pairs_bits4
