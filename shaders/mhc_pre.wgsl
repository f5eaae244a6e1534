// Reads N residual streams into a sub-layer's input (lib/mhc.wgsl has the formula) and makes the
// coefficients that will write its output back, one workgroup a row. With m the row's mixing products
// times rsqrt(mean(streams^2) + eps):
//
//   post_i = 2 sigmoid(m[N + i] * scale[1] + base[N + i])
//   C_ij   = Sinkhorn(m[2N + N i + j] * scale[2] + base[2N + N i + j])
//
// mix, base  [rows, (2 + N) * N], [(2 + N) * N] f32
// scale      [3] f32
// coef       [rows, N + N * N] f32: post, then C row by row

//#include mhc

@group(0) @binding(8) var<storage, read_write> coef: array<f32>;

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
    if !row_exists(row) {
        return;
    }
    let unit = streams_unit(ids, row);
    let m = row * (2u + N) * N;

    // Sinkhorn: columns and rows by turns, ending on columns, a lane a row or column.
    for (var line = ids.lane; line < N; line += WG) {
        softmax_row(line, m, unit);
    }
    for (var half = 1u; half < 2u * params.iters; half++) {
        let columns = half % 2u == 1u;
        workgroupBarrier();
        for (var line = ids.lane; line < N; line += WG) {
            divide(select(line * N, line, columns), select(1u, N, columns));
        }
    }
    for (var col = ids.lane; col < N; col += WG) {
        // A lane writes its own columns, which no other lane has touched since.
        let to = row * (N + N * N) + col;
        coef[to] = 2.0 * sigmoid(mix[m + N + col] * unit * scale[1] + base[N + col]);
        for (var i = 0u; i < N; i++) {
            coef[to + N + N * i] = square[i * N + col];
        }
    }
    fold_streams(ids, row, m, unit);
}
