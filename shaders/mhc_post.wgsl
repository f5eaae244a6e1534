// In place: streams_j = post_j * block + sum_i C_ij streams_i, the sum over C's first index. A
// workgroup does WG * PER columns of every stream of one row.
//
// streams  [rows, N * cols] f32
// coef     [rows, N + N * N] f32: post, then C row by row
// block    [rows, cols] f32, the sub-layer's output

override WG: u32 = 64u;
// Columns a lane, so that reading the coefficients counts little.
override PER: u32 = 4u;
// Streams. A constant, so that the coefficients live in registers.
override N: u32 = 4u;
//#include step

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> streams: array<f32>;
@group(0) @binding(3) var<storage, read> coef: array<f32>;
@group(0) @binding(4) var<storage, read> block: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let cols = params.cols;
    let blocks = (cols + WG * PER - 1u) / (WG * PER);
    let row = group_index(ids) / blocks;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let first = group_index(ids) % blocks * (WG * PER);
    let end = min(first + WG * PER, cols);

    var k: array<f32, N + N * N>;
    for (var i = 0u; i < N + N * N; i++) {
        k[i] = coef[row * (N + N * N) + i];
    }
    for (var c = first + ids.lane; c < end; c += WG) {
        let at = row * N * cols + c;
        var x: array<f32, N>;
        for (var i = 0u; i < N; i++) {
            x[i] = streams[at + i * cols];
        }
        let b = block[row * cols + c];
        for (var j = 0u; j < N; j++) {
            var sum = k[j] * b;
            for (var i = 0u; i < N; i++) {
                sum = fma(k[N + N * i + j], x[i], sum);
            }
            streams[at + j * cols] = sum;
        }
    }
}
