// The matrices that a subgroup holds together: a product takes Rows, whose elements of a row lie next to
// each other in memory, and Columns, whose elements of a column do. See shaders/matmul_matrices.wgsl for
// flags. coopLoadT and coopStoreT are of matrices that lie in memory row by row, coopLoad column by column.

//#if HALF
alias Part = f16;
//#else
alias Part = f32;
//#endif
//#if EIGHTS
const SIZE: u32 = 8u;
alias Rows = coop_mat8x8<Part, A>;
alias Columns = coop_mat8x8<Part, B>;
alias Sums = coop_mat8x8<f32, C>;
//#else
const SIZE: u32 = 16u;
alias Rows = coop_mat16x16<Part, A>;
alias Columns = coop_mat16x16<Part, B>;
alias Sums = coop_mat16x16<f32, C>;
//#endif
const AREA: u32 = SIZE * SIZE;
