// Reads N residual streams into a sub-layer's input and makes the coefficients that will write its
// output back, one workgroup a row:
//
//   m     = mix * rsqrt(mean(streams^2) + eps)
//   pre_i = sigmoid(m[i] * scale[0] + base[i]) + hc_eps
//   post_i = 2 sigmoid(m[N + i] * scale[1] + base[N + i])
//   C_ij  = Sinkhorn(m[2N + N i + j] * scale[2] + base[2N + N i + j])
//   y     = x * rsqrt(mean(x^2) + eps) * norm,   x = sum_i pre_i streams_i
//
// streams  [rows, N * cols] f32
// mix      [rows, (2 + N) * N] f32, the product of the streams with the mixing matrix
// base     [(2 + N) * N] f32
// scale    [3] f32
// norm     [cols] f32
// y        [rows, cols] f32
// coef     [rows, N + N * N] f32: post, then C row by row

// Wide: a decode step has one row, and thus one workgroup, with N * cols elements to read.
override WG: u32 = 256u;
// Streams. A constant, so that the coefficients live in registers.
override N: u32 = 4u;
//#include reduce

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    iters: u32,
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
@group(0) @binding(8) var<storage, read_write> coef: array<f32>;

fn sigmoid(v: f32) -> f32 {
    // The bound keeps exp finite where sigmoid has long been 0.
    return 1.0 / (1.0 + exp(-max(v, -80.0)));
}

alias Square = array<array<f32, N>, N>;

fn divide_columns(square: Square) -> Square {
    var c = square;
    for (var j = 0u; j < N; j++) {
        var sum = params.hc_eps;
        for (var i = 0u; i < N; i++) {
            sum += c[i][j];
        }
        for (var i = 0u; i < N; i++) {
            c[i][j] /= sum;
        }
    }
    return c;
}

fn divide_rows(square: Square) -> Square {
    var c = square;
    for (var i = 0u; i < N; i++) {
        var sum = params.hc_eps;
        for (var j = 0u; j < N; j++) {
            sum += c[i][j];
        }
        for (var j = 0u; j < N; j++) {
            c[i][j] /= sum;
        }
    }
    return c;
}

// Softmax over each row, then columns and rows by turns, ending on columns.
fn sinkhorn(logits: Square) -> Square {
    var c = logits;
    for (var i = 0u; i < N; i++) {
        var top = c[i][0];
        for (var j = 1u; j < N; j++) {
            top = max(top, c[i][j]);
        }
        var sum = 0.0;
        for (var j = 0u; j < N; j++) {
            c[i][j] = exp(c[i][j] - top);
            sum += c[i][j];
        }
        for (var j = 0u; j < N; j++) {
            c[i][j] = c[i][j] / sum + params.hc_eps;
        }
    }
    c = divide_columns(c);
    for (var k = 1u; k < params.iters; k++) {
        c = divide_columns(divide_rows(c));
    }
    return c;
}

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

    // m[k] is the k-th of the row's mixing products.
    let m = row * (2u + N) * N;
    var pre: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        pre[i] = sigmoid(mix[m + i] * unit * scale[0] + base[i]) + params.hc_eps;
    }
    // The rest is small and serial: the first lane does it while the others go on.
    if ids.lane == 0u {
        let to = row * (N + N * N);
        var logits: Square;
        for (var i = 0u; i < N; i++) {
            coef[to + i] = 2.0 * sigmoid(mix[m + N + i] * unit * scale[1] + base[N + i]);
            for (var j = 0u; j < N; j++) {
                let k = 2u * N + N * i + j;
                logits[i][j] = mix[m + k] * unit * scale[2] + base[k];
            }
        }
        let square = sinkhorn(logits);
        for (var i = 0u; i < N; i++) {
            for (var j = 0u; j < N; j++) {
                coef[to + N + N * i + j] = square[i][j];
            }
        }
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
