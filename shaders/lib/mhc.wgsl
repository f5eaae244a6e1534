// What the kernels that read residual streams share: parameters, bindings, and the way from N streams
// to one normed row. `pre` and `y` of a row with streams x_i, mixing products m_i:
//
//   pre_i = sigmoid(m_i * rsqrt(mean(x^2) + eps) * scale[0] + base[i]) + hc_eps
//   y     = x * rsqrt(mean(x^2) + eps) * norm,   x = sum_i pre_i x_i

// Wide: a decode step has one row, and thus one workgroup, with N * cols elements to read.
override WG: u32 = 256u;
// Streams. A constant, so that `pre` lives in registers.
override N: u32 = 4u;
//#include reduce

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    iters: u32,         // of Sinkhorn, in mhc_pre
    hc_eps: f32,
    eps: f32,
    parts: u32,         // of mix, in mhc_pre; 0 if it is whole
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> streams: array<f32>;  // [rows, N * cols]
@group(0) @binding(3) var<storage, read> mix: array<f32>;      // the streams times the mixing matrix
@group(0) @binding(4) var<storage, read> base: array<f32>;     // as wide as mix
@group(0) @binding(5) var<storage, read> scale: array<f32>;
@group(0) @binding(6) var<storage, read> norm: array<f32>;     // [cols]
@group(0) @binding(7) var<storage, read_write> y: array<f32>;  // [rows, cols]

fn sigmoid(v: f32) -> f32 {
    // The bound keeps exp finite where sigmoid has long been 0.
    return 1.0 / (1.0 + exp(-max(v, -80.0)));
}

fn row_exists(row: u32) -> bool {
    return row < params.rows_per_row * step.rows + params.rows_per_out * step.outs;
}

// rsqrt(mean(x^2) + eps) over all streams of a row.
fn streams_unit(ids: Ids, row: u32) -> f32 {
    let n = N * params.cols;
    var sum = 0.0;
    for (var c = ids.lane; c < n; c += WG) {
        let v = streams[row * n + c];
        sum += v * v;
    }
    return inverseSqrt(reduce_sum(ids, sum) / f32(n) + params.eps);
}

// Writes y of a row with mixing products `m`.
fn fold_streams(ids: Ids, row: u32, m: array<f32, N>, unit: f32) {
    var pre: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        pre[i] = sigmoid(m[i] * unit * scale[0] + base[i]) + params.hc_eps;
    }
    let cols = params.cols;
    var sum = 0.0;
    for (var c = ids.lane; c < cols; c += WG) {
        var x = 0.0;
        for (var i = 0u; i < N; i++) {
            x += pre[i] * streams[(row * N + i) * cols + c];
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
