// Reads N residual streams into a sub-layer's input (lib/mhc.wgsl has the formula) and makes the
// coefficients that will write its output back, one workgroup a row. With m the row's mixing products
// times rsqrt(mean(streams^2) + eps):
//
//   post_i = 2 sigmoid(m[N + i] * scale[1] + base[N + i])
//   C_ij   = Sinkhorn(m[2N + N i + j] * scale[2] + base[2N + N i + j])
//
// mix    [rows, (2 + N) * N] f32; or [rows, parts * ((2 + N) * N + 1)], to be summed up, with the squares
// base   [(2 + N) * N] f32
// scale  [3] f32
// coef   [rows, N + N * N] f32: post, then C row by row

//#include mhc

@group(0) @binding(8) var<storage, read_write> coef: array<f32>;

const MIXES = (2u + N) * N;
// The row's mixing products; then, of parts, the sum of its squares.
var<workgroup> mixed: array<f32, MIXES + 1u>;
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

// Puts softmax(logits) + hc_eps in a row of C.
fn softmax_row(line: u32, unit: f32) {
    var top = -3.0e38;
    for (var j = 0u; j < N; j++) {
        let k = (2u + line) * N + j;
        let logit = mixed[k] * unit * scale[2] + base[k];
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
    let each = MIXES + u32(params.parts > 0u);
    for (var k = ids.lane; k < each; k += WG) {
        let at = row * each * max(params.parts, 1u) + k;
        var sum = mix[at];
        for (var part = 1u; part < params.parts; part++) {
            sum += mix[at + part * each];
        }
        mixed[k] = sum;
    }
    workgroupBarrier();
    var unit: f32;
    if params.parts > 0u {
        unit = inverseSqrt(mixed[MIXES] / f32(N * params.cols) + params.eps);
    } else {
        unit = streams_unit(ids, row);
    }

    // Sinkhorn: columns and rows by turns, ending on columns, a lane a row or column.
    for (var line = ids.lane; line < N; line += WG) {
        softmax_row(line, unit);
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
        coef[to] = 2.0 * sigmoid(mixed[N + col] * unit * scale[1] + base[N + col]);
        for (var i = 0u; i < N; i++) {
            coef[to + N + N * i] = square[i * N + col];
        }
    }
    var m: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        m[i] = mixed[i];
    }
    fold_streams(ids, row, m, unit);
}
