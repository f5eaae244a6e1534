// Folds N residual streams into one normed row, one workgroup a row:
//
//   pre_i = sigmoid(mix[i] * rsqrt(mean(streams^2) + eps) * scale + base[i]) + hc_eps
//   y     = x * rsqrt(mean(x^2) + eps) * norm,   x = sum_i pre_i streams_i
//
// streams  [rows, N * cols] f32
// mix      [rows, N] f32, the product of the streams with the mixing matrix
// base     [N] f32
// scale    [1] f32
// norm     [cols] f32
// y        [rows, cols] f32

// Wide: a decode step has one row, and thus one workgroup, with N * cols elements to read.
override WG: u32 = 256u;
// Streams. A constant, so that the coefficients live in registers.
override N: u32 = 4u;
//#include reduce

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    hc_eps: f32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> streams: array<f32>;
@group(0) @binding(3) var<storage, read> mix: array<f32>;
@group(0) @binding(4) var<storage, read> base: array<f32>;
@group(0) @binding(5) var<storage, read> scale: array<f32>;
@group(0) @binding(6) var<storage, read> norm: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let cols = params.cols;
    let origin = row * N * cols;
    var sum = 0.0;
    for (var c = ids.lane; c < N * cols; c += WG) {
        let v = streams[origin + c];
        sum += v * v;
    }
    let unit = inverseSqrt(reduce_sum(ids, sum) / f32(N * cols) + params.eps);
    var pre: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        let m = mix[row * N + i] * unit * scale[0] + base[i];
        // The bound keeps exp finite where the sigmoid has long been 0.
        pre[i] = 1.0 / (1.0 + exp(-max(m, -80.0))) + params.hc_eps;
    }

    sum = 0.0;
    for (var c = ids.lane; c < cols; c += WG) {
        var x = 0.0;
        for (var i = 0u; i < N; i++) {
            x += pre[i] * streams[origin + i * cols + c];
        }
        y[row * cols + c] = x;
        sum += x * x;
    }
    let shrink = inverseSqrt(reduce_sum(ids, sum) / f32(cols) + params.eps);
    // Each lane reads back only what it wrote.
    for (var c = ids.lane; c < cols; c += WG) {
        y[row * cols + c] *= shrink * norm[c];
    }
}
