// x in 8 bits for the matmul kernels. Of Params, `x_cols`, `x_step` and `x_at` count groups of 32.
@group(0) @binding(2) var<storage, read> x: array<Activations>;
//#include weight_q8 W=w
