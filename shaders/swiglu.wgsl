// y = silu(min(g, limit)) * clamp(u, -limit, limit), with silu(g) = g / (1 + exp(-g)). An invocation
// does one column of a row; with EIGHT_BITS, 32 of them.
//
// gate  [rows, cols] f32: g; or with PACKED [rows, 2 * cols]: g, then u
// y     [rows, cols] f32; with EIGHT_BITS [rows, cols / 32] Activations
// up    [rows, cols] f32: u, unless PACKED
// kept  [rows, cols] f32, with KEEP: y as it is before it is rounded to 8 bits

override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    limit: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
//#if EIGHT_BITS
//#include eight_bits
@group(0) @binding(3) var<storage, read_write> y: array<Activations>;
//#else
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#endif
//#if PACKED
//#if KEEP
@group(0) @binding(4) var<storage, read_write> kept: array<f32>;
//#endif
//#else
@group(0) @binding(4) var<storage, read> up: array<f32>;
//#endif

fn activated(row: u32, c: u32) -> f32 {
    let cols = params.cols;
//#if PACKED
    let from_gate = gate[row * 2u * cols + c];
    let from_up = gate[row * 2u * cols + cols + c];
//#else
    let from_gate = gate[row * cols + c];
    let from_up = up[row * cols + c];
//#endif
    let g = min(from_gate, params.limit);
    let u = clamp(from_up, -params.limit, params.limit);
    // The bound keeps exp finite where silu has long been 0.
    return g / (1.0 + exp(-max(g, -80.0))) * u;
}

//#if EIGHT_BITS
// Columns `c` and on.
fn four(row: u32, c: u32) -> vec4<f32> {
    return vec4(activated(row, c), activated(row, c + 1u), activated(row, c + 2u), activated(row, c + 3u));
}
//#endif

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
    let c = at % groups * 32u;
    let v = array(
        four(row, c), four(row, c + 4u), four(row, c + 8u), four(row, c + 12u),
        four(row, c + 16u), four(row, c + 20u), four(row, c + 24u), four(row, c + 28u),
    );
//#if KEEP
    for (var i = 0u; i < 32u; i++) {
        kept[row * params.cols + c + i] = v[i / 4u][i % 4u];
    }
//#endif
    y[at] = eight_bits(v);
//#else
    let blocks = (params.cols + WG - 1u) / WG;
    let row = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    if row < rows && c < params.cols {
        y[row * params.cols + c] = activated(row, c);
    }
//#endif
}
