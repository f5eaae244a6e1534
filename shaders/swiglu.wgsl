// y = silu(min(g, limit)) * clamp(u, -limit, limit), with silu(g) = g / (1 + exp(-g)). A workgroup
// does WG columns of one row.
//
// gate  [rows, cols] f32: g; or with PACKED [rows, 2 * cols]: g, then u
// y     [rows, cols] f32
// up    [rows, cols] f32: u, unless PACKED

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
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#if PACKED
//#else
@group(0) @binding(4) var<storage, read> up: array<f32>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let cols = params.cols;
    let blocks = (cols + WG - 1u) / WG;
    let row = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs || c >= cols {
        return;
    }
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
    y[row * cols + c] = g / (1.0 + exp(-max(g, -80.0))) * u;
}
