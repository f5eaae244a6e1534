// copied[t, h * to_step + to_at + i] = source[t, h * from_step + from_at + i] for h < count, i < width.
// An element an invocation.
//
// source  [rows, from_cols] f32
// copied  [rows, to_cols] f32

override WG: u32 = 64u;
//#include step

struct Params {
    from_cols: u32,
    from_step: u32,
    from_at: u32,
    to_cols: u32,
    to_step: u32,
    to_at: u32,
    count: u32,
    width: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> source: array<f32>;
@group(0) @binding(3) var<storage, read_write> copied: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let n = group_index(ids) * WG + ids.lane;
    let row = n / (params.count * params.width);
    let h = n / params.width % params.count;
    let i = n % params.width;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let value = source[row * params.from_cols + h * params.from_step + params.from_at + i];
    copied[row * params.to_cols + h * params.to_step + params.to_at + i] = value;
}
