// Numbers of a buffer, four at a time. A buffer is an array<Cell>, or array<ReadCell> if it is only
// read: of fours where FOURS says that they begin at multiples of 4, and then every index counts fours.
//#if FOURS
alias Cell = vec4<f32>;
//#if WIDE
// See lib/quads.wgsl.
alias ReadCell = vec2<u64>;
//#else
alias ReadCell = vec4<f32>;
//#endif
const FOUR = 1u;  // cells a four
//#else
alias Cell = f32;
alias ReadCell = f32;
const FOUR = 4u;
//#endif
