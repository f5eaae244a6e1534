// The heads of a row's queries, keys and values: queries and keys are rotated, (a, b) -> (a c - b s,
// a s + b c) in pairs of their last `rope` dimensions, queries in place; keys and values go into the
// state of the row's position. A workgroup does SPAN pairs of dimensions of one row.
//
// rows          [T] Row
// qkv           [T, (heads + 2 * groups) * dims] f32
// table         [T, rope] f32: the cosines (rope / 2), then the sines
// keys, values  [slots * context, groups * dims] f32

override WG: u32 = 64u;
override SPAN: u32 = 256u;
//#include step

struct Params {
    heads: u32,
    groups: u32,
    dims: u32,
    rope: u32,
    gap: u32,      // dimensions between a and b
    next: u32,     // and from one pair's a to the next one's
    context: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(4) var<storage, read> table: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<f32>;
@group(0) @binding(6) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let half = params.dims / 2u;
    let pairs = (params.heads + 2u * params.groups) * half;
    let blocks = (pairs + SPAN - 1u) / SPAN;
    let row = group_index(ids) / blocks;
    if row >= step.rows {
        return;
    }
    let first = group_index(ids) % blocks * SPAN;
    let end = min(first + SPAN, pairs);
    let turning = params.rope / 2u;
    let still = params.dims - params.rope;
    let kept = (rows[row].slot * params.context + rows[row].position) * params.groups;
    for (var i = first + ids.lane; i < end; i += WG) {
        let head = i / half;
        let pair = i % half;
        // Pairs that turn come first, then those of the dimensions before them.
        var at = still + pair * params.next;
        var gap = params.gap;
        var c = 1.0;
        var s = 0.0;
        if pair < turning {
            c = table[row * params.rope + pair];
            s = table[row * params.rope + turning + pair];
        } else {
            at = 2u * (pair - turning);
            gap = 1u;
        }
        let from_at = row * 2u * pairs + head * params.dims + at;
        let a = qkv[from_at];
        let b = qkv[from_at + gap];
        let turned_a = a * c - b * s;
        let turned_b = a * s + b * c;
        if head < params.heads {
            qkv[from_at] = turned_a;
            qkv[from_at + gap] = turned_b;
        } else if head < params.heads + params.groups {
            let to = (kept + head - params.heads) * params.dims + at;
            keys[to] = turned_a;
            keys[to + gap] = turned_b;
        } else {
            let to = (kept + head - params.heads - params.groups) * params.dims + at;
            values[to] = a;
            values[to + gap] = b;
        }
    }
}
