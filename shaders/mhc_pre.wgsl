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
// Streams. A constant, so that `pre` lives in registers.
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

// C while it is being made.
var<workgroup> square: array<f32, N * N>;

// Divides N elements of C, `stride` apart, by their sum.
fn divide(first: u32, stride: u32) {
    var sum = params.hc_eps;
    for (var k = 0u; k < N; k++) {
        sum += square[first + k * stride];
    }
    for (var k = 0u; k < N; k++) {
        square[first + k * stride] /= sum;
    }
}

// Puts softmax(logits) + hc_eps in a row of C. m[k] is the k-th mixing product of the matrix row.
fn softmax_row(line: u32, m: u32, unit: f32) {
    var top = -3.0e38;
    for (var j = 0u; j < N; j++) {
        let k = (2u + line) * N + j;
        let logit = mix[m + k] * unit * scale[2] + base[k];
        square[line * N + j] = logit;
        top = max(top, logit);
    }
    var sum = 0.0;
    for (var j = 0u; j < N; j++) {
        let v = exp(square[line * N + j] - top);
        square[line * N + j] = v;
        sum += v;
    }
    for (var j = 0u; j < N; j++) {
        square[line * N + j] = square[line * N + j] / sum + params.hc_eps;
    }
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

    let m = row * (2u + N) * N;
    var pre: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        pre[i] = sigmoid(mix[m + i] * unit * scale[0] + base[i]) + params.hc_eps;
    }

    // Sinkhorn: columns and rows by turns, ending on columns, a lane a row or column.
    let worker = ids.lane < N;
    if worker {
        softmax_row(ids.lane, m, unit);
    }
    for (var half = 1u; half < 2u * params.iters; half++) {
        let columns = half % 2u == 1u;
        workgroupBarrier();
        if worker {
            divide(select(ids.lane * N, ids.lane, columns), select(1u, N, columns));
        }
    }
    if worker {
        // A lane writes its own column, which no other lane has touched since.
        let to = row * (N + N * N) + ids.lane;
        coef[to] = 2.0 * sigmoid(mix[m + N + ids.lane] * unit * scale[1] + base[N + ids.lane]);
        for (var i = 0u; i < N; i++) {
            coef[to + N + N * i] = square[i * N + ids.lane];
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
