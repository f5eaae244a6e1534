// In place: streams_j = post_j * block + sum_i C_ij streams_i, the sum over C's first index. A
// workgroup does WG * PER cells of columns of every stream of one row. See src/ops/mhc_post.rs.
//
// streams  [rows, N * cols] f32
// coef     [rows, N + N * N] f32: post, then C row by row
// block    [rows, cols] f32, the sub-layer's output; with SUM [rows * k, cols], k rows to be added up, and
//          with BESIDE one of `beside` with them
// w        [MIXES, N * cols] f32, rows w_pitch apart (with MIX)
// mix      [rows, blocks * (MIXES + 1)] f32: of each block of columns the new streams times w, and the
//          sum of their squares
//
// With FOURS there are four columns to a cell, and cols and w_pitch count cells; MIX comes with it.

override WG: u32 = 64u;
// Cells a lane, so that reading the coefficients counts little.
override PER: u32 = 4u;
// Streams. A constant, so that the coefficients live in registers.
override N: u32 = 4u;
const MIXES = (2u + N) * N;
//#include step
//#if FOURS
alias Cell = vec4<f32>;
//#else
alias Cell = f32;
//#endif

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    k: u32,
    w_pitch: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> streams: array<Cell>;
@group(0) @binding(3) var<storage, read> coef: array<f32>;
@group(0) @binding(4) var<storage, read> block: array<Cell>;
//#if BESIDE
@group(0) @binding(next) var<storage, read> beside: array<Cell>;
//#endif
//#if MIX
@group(0) @binding(next) var<storage, read> w: array<Cell>;
@group(0) @binding(next) var<storage, read_write> mix: array<f32>;

// Of each lane its part of each sum, a lane's parts not all in one bank.
const PITCH = WG + 1u;
var<workgroup> partial: array<f32, (MIXES + 1u) * PITCH>;
//#endif

fn output(row: u32, c: u32) -> Cell {
//#if SUM
    var sum = Cell();
    for (var j = 0u; j < params.k; j++) {
        sum += block[(row * params.k + j) * params.cols + c];
    }
//#if BESIDE
    sum += beside[row * params.cols + c];
//#endif
    return sum;
//#else
    return block[row * params.cols + c];
//#endif
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let cols = params.cols;
    let blocks = (cols + WG * PER - 1u) / (WG * PER);
    let row = group_index(ids) / blocks;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let first = group_index(ids) % blocks * (WG * PER) + ids.lane;

    var k: array<f32, N + N * N>;
    for (var i = 0u; i < N + N * N; i++) {
        k[i] = coef[row * (N + N * N) + i];
    }
//#if MIX
    for (var m = 0u; m <= MIXES; m += step.one) {
        partial[m * PITCH + ids.lane] = 0.0;
    }
//#endif
    for (var c = first; c < min(first + WG * PER, cols); c += WG * step.one) {
        let at = row * N * cols + c;
        let b = output(row, c);
//#each J N
        var x_$J = Cell(k[$J]) * b;
//#end
//#each I N
        let old_$I = streams[at + $Iu * cols];
//#each J N
        x_$J = fma(Cell(k[N + N * $Iu + $Ju]), old_$I, x_$J);
//#end
//#end
//#each J N
        streams[at + $Ju * cols] = x_$J;
//#end
//#if MIX
        var squares = 0.0;
//#each J N
        squares += dot(x_$J, x_$J);
//#end
        partial[MIXES * PITCH + ids.lane] += squares;
        for (var m = 0u; m < MIXES; m += step.one) {
            var sum = 0.0;
//#each J N
            sum += dot(w[m * params.w_pitch + $Ju * cols + c], x_$J);
//#end
            partial[m * PITCH + ids.lane] += sum;
        }
//#endif
    }
//#if MIX
    workgroupBarrier();
    for (var m = ids.lane; m <= MIXES; m += WG) {
        var sum = 0.0;
        for (var l = 0u; l < WG; l += step.one) {
            sum += partial[m * PITCH + l];
        }
        mix[group_index(ids) * (MIXES + 1u) + m] = sum;
    }
//#endif
}
