// y = silu(min(g, limit)) * clamp(u, -limit, limit), with silu(g) = g / (1 + exp(-g)). An invocation
// does four columns of a row; with EIGHT_BITS, 32 of them.
//
// gate  [rows, cols] f32: g; or with PACKED [rows, 2 * cols]: g, then u
// y     [rows, cols] f32; with EIGHT_BITS [rows, cols / 32] Activations
// up    [rows, cols] f32: u, unless PACKED
// kept  [rows, cols] f32, with KEEP: y as it is before it is rounded to 8 bits
//
// With FOURS cols is a multiple of 4. See lib/fours.wgsl.

override WG: u32 = 64u;
//#include step
//#include fours

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    limit: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> gate: array<ReadCell>;
//#include read_four B=gate
//#if EIGHT_BITS
//#include eight_bits
@group(0) @binding(3) var<storage, read_write> y: array<Activations>;
//#else
@group(0) @binding(3) var<storage, read_write> y: array<Cell>;
//#include write_four B=y
//#endif
//#if PACKED
//#if KEEP
@group(0) @binding(4) var<storage, read_write> kept: array<Cell>;
//#include write_four B=kept
//#endif
//#else
@group(0) @binding(4) var<storage, read> up: array<ReadCell>;
//#include read_four B=up
//#endif

// Where in y, or another matrix of its shape, the `c`th four columns of a row begin.
fn cell(row: u32, c: u32) -> u32 {
    return row * (params.cols * FOUR / 4u) + c * FOUR;
}

// The `c`th four columns.
fn four(row: u32, c: u32) -> vec4<f32> {
    let left = params.cols - 4u * c;
//#if PACKED
    let at = cell(2u * row, c);
    let from_up = read_gate(at + cell(1u, 0u), left);
//#else
    let at = cell(row, c);
    let from_up = read_up(at, left);
//#endif
    let g = min(read_gate(at, left), vec4(params.limit));
    let u = clamp(from_up, vec4(-params.limit), vec4(params.limit));
    // The bound keeps exp finite where silu has long been 0.
    return g / (1.0 + exp(-max(g, vec4(-80.0)))) * u;
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let rows = params.rows_per_row * step.rows + params.rows_per_out * step.outs;
//#if EIGHT_BITS
    let at = group_index(ids) * WG + ids.lane;
    let groups = params.cols / 32u;
    let row = at / groups;
    if row >= rows {
        return;
    }
    let c = at % groups * 8u;
    let v = array(
        four(row, c), four(row, c + 1u), four(row, c + 2u), four(row, c + 3u),
        four(row, c + 4u), four(row, c + 5u), four(row, c + 6u), four(row, c + 7u),
    );
//#if KEEP
    for (var i = 0u; i < 8u; i++) {
        write_kept(cell(row, c + i), 4u, v[i]);
    }
//#endif
    y[at] = eight_bits(v);
//#else
    let fours = (params.cols + 3u) / 4u;
    let blocks = (fours + WG - 1u) / WG;
    let row = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    if row < rows && c < fours {
        write_y(cell(row, c), params.cols - 4u * c, four(row, c));
    }
//#endif
}
