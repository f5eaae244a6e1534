// In place on each head of each row, one workgroup a head: `rope` dimensions from `start` on are rotated
// in pairs, (a, b) -> (a c - b s, a s + b c).
//
// x      [rows, heads * dims] f32
// table  [rows, rope] f32: the cosines (rope / 2), then the sines

// A lane a pair of the usual 64 rotated dimensions.
override WG: u32 = 32u;
//#include step

struct Params {
    heads: u32,
    dims: u32,
    rope: u32,
    start: u32,
    gap: u32,           // dimensions between a and b
    next: u32,          // and from one pair's a to the next one's
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let head = group_index(ids);
    let row = head / params.heads;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let base = head * params.dims;
    let half = params.rope / 2u;
    for (var i = ids.lane; i < half; i += WG) {
        let c = table[row * params.rope + i];
        let s = table[row * params.rope + half + i];
        let at = base + params.start + i * params.next;
        let a = x[at];
        let b = x[at + params.gap];
        x[at] = a * c - b * s;
        x[at + params.gap] = a * s + b * c;
    }
}
