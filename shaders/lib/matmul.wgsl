// What the matmul kernels share: parameters, bindings and the epilogue.
//
// Dense: y[r, y_at(g) + n] = sum_k x[r, x_at(g) + k] * w[w_at(g) + n, k] (+ bias) (+ residual), with
// G groups g of N outputs, each with its own columns of x and y and rows of w, `step` apart.
// Flag EXPERTS: a row of y is a slot (token, choice) and w is a bank of N rows an expert. Flag GATED:
// two banks, y = silu(min(w x, limit)) * clamp(w3 x) * weight of the slot; or, without EXPERTS, the two
// halves of one weight, `up` apart, and nothing to weigh by.
// Flag NORM: x is what the row of the buffer becomes by root-mean-square norm, that is, times
// rsqrt(mean(row^2) + eps) and norm, column by column. The first factor is that of all products, so
// that it is left for the end, when the squares are summed up too.
//
// With this goes lib/matmul_f32.wgsl, lib/matmul_q8.wgsl or lib/x_numbers.wgsl, which have x.
//#include matmul_params
//#include chunk

// [G*N or pages*N, K]
@group(0) @binding(3) var<storage, read> w: array<Chunk>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

//#if BIAS
@group(0) @binding(next) var<storage, read> bias: array<f32>;  // one a column of y
//#endif
//#if RESIDUAL
@group(0) @binding(next) var<storage, read> residual: array<f32>;  // as y
//#endif

// Ends the product that is column `col` of row `row` of y.
fn put(row: u32, col: u32, product: f32) {
    var sum = product;
//#if BIAS
    sum += bias[col];
//#endif
    let to = row * params.y_cols + col;
//#if RESIDUAL
    sum += residual[to];
//#endif
    y[to] = sum;
}
