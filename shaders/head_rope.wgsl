// In place on each head of each row, one workgroup a head: with NORM first x *= rsqrt(mean(x^2) +
// eps), then `rope` dimensions from `start` on are rotated in pairs, (a, b) -> (a c - b s, a s + b c).
//
// x      [rows, heads * dims] f32
// table  [rows, rope] f32: the cosines (rope / 2), then the sines

override WG: u32 = 64u;
//#if NORM
//#include reduce
//#else
//#include step
//#endif

struct Params {
    heads: u32,
    dims: u32,
    rope: u32,
    start: u32,
    gap: u32,           // dimensions between a and b
    next: u32,          // and from one pair's a to the next one's
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    sign: f32,          // of the sines: -1 turns back
    eps: f32,
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
    var scale = 1.0;
//#if NORM
    var sum = 0.0;
    for (var d = ids.lane; d < params.dims; d += WG) {
        let v = x[base + d];
        sum += v * v;
    }
    // The barriers within also part these reads from the writes below.
    scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.dims) + params.eps);
    for (var d = ids.lane; d < params.dims; d += WG) {
        if d < params.start || d >= params.start + params.rope {
            x[base + d] *= scale;
        }
    }
//#endif
    let half = params.rope / 2u;
    for (var i = ids.lane; i < half; i += WG) {
        let c = table[row * params.rope + i];
        let s = table[row * params.rope + half + i] * params.sign;
        let at = base + params.start + i * params.next;
        let a = x[at] * scale;
        let b = x[at + params.gap] * scale;
        x[at] = a * c - b * s;
        x[at + params.gap] = a * s + b * c;
    }
}
