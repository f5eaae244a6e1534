// Pools a closed window into a cache entry, normalises it and rotates its tail. One workgroup a
// token row; those of rows that close no window leave at once. See src/ops/compress.rs.
//
// rows       [T] Row
// kv, score  [slots * cap, width] f32, rings
// norm       [dim] f32
// table      [T, rotated] f32, cosines then sines
// cache      [slots * entries, dim] f32

// Few windows close in a step, so a workgroup is wider than elsewhere: a channel a lane.
override WG: u32 = 128u;
// The most channels of an entry: the pooled vector in workgroup memory.
override MOST: u32 = 512u;
//#include reduce

struct Params {
    cap: u32,
    entries: u32,
    ratio: u32,
    rotated: u32,
    dim: u32,
    overlap: u32,  // 0 or 1
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> kv: array<f32>;
@group(0) @binding(4) var<storage, read> score: array<f32>;
@group(0) @binding(5) var<storage, read> norm: array<f32>;
@group(0) @binding(6) var<storage, read> table: array<f32>;
@group(0) @binding(7) var<storage, read_write> cache: array<f32>;

var<workgroup> pooled: array<f32, MOST>;

// Where position p of the sequence whose ring starts at `base` keeps channel c of what is pooled
// into the window that starts at `start`.
fn place(base: u32, p: u32, start: u32, c: u32) -> u32 {
    // With overlap, series A of the window before, series B of the window itself.
    let series = params.overlap * u32(p >= start);
    return ((base + p % params.cap) * (1u + params.overlap) + series) * params.dim + c;
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids);
    if at >= step.rows {
        return;
    }
    let slot = rows[at].slot;
    let end = rows[at].position + 1u;
    if end % params.ratio != 0u {
        return;
    }
    let start = end - params.ratio;
    let from_position = start - select(0u, params.ratio * params.overlap, start > 0u);
    let base = slot * params.cap;

    var square = 0.0;
    for (var c = ids.lane; c < params.dim; c += WG) {
        var top = score[place(base, from_position, start, c)];
        for (var p = from_position + 1u; p < end; p++) {
            top = max(top, score[place(base, p, start, c)]);
        }
        var sum = 0.0;
        var total = 0.0;
        for (var p = from_position; p < end; p++) {
            let i = place(base, p, start, c);
            let e = exp(score[i] - top);
            sum = fma(e, kv[i], sum);
            total += e;
        }
        let v = sum / total;
        pooled[c] = v;
        square = fma(v, v, square);
    }
    // Shows all of `pooled` to all.
    workgroupBarrier();
    let scale = inverseSqrt(reduce_sum(ids, square) / f32(params.dim) + params.eps);

    let out = (slot * params.entries + start / params.ratio) * params.dim;
    let plain = params.dim - params.rotated;
    for (var c = ids.lane; c < params.dim; c += WG) {
        var v = pooled[c] * scale * norm[c];
        if c >= plain {
            let i = c - plain;
            let other_c = plain + (i ^ 1u);
            let other = pooled[other_c] * scale * norm[other_c];
            let angle = at * params.rotated + i / 2u;
            let sine = table[angle + params.rotated / 2u];
            v = v * table[angle] + select(-other, other, (i & 1u) == 1u) * sine;
        }
        cache[out + c] = v;
    }
}
