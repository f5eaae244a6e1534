// Numbers of a buffer, four at a time. A buffer is an array<Cell>: of fours where FOURS says that they
// begin at multiples of 4, and then every index counts fours.
//#if FOURS
alias Cell = vec4<f32>;
const FOUR = 1u;  // cells a four
//#else
alias Cell = f32;
const FOUR = 4u;
//#endif
