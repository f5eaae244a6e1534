// Puts what a token row leaves to be pooled into the ring and, if it closes a window, pools that into a
// cache entry, normalises it and rotates its tail. What it pools of this
// step's rows it reads where they have it from: the ring has it only when the step is done. See
// src/ops/compress.rs.
//
// There may be two pools, one after the other in columns and weights (TWO), each row with a workgroup for
// each.
//
// rows     [T] Row
// x        [T, x_cols] f32; of a pool, from x_at on: kv `width` wide, a series or two of `dim`, then score
// weights  f32; of a pool: ape [ratio, width], then norm [dim]
// table    [T, rotated] f32, cosines then sines
// ring     [slots * cap, ring_cols] f32; of a pool: kv, then score + ape
// cache    [slots * entries, dim] f32; cache2 that of the second pool

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
    dim2: u32,     // of the second pool
    overlap: u32,  // 0 or 1
    eps: f32,
    x_cols: u32,
    x_at: u32,
    ring_cols: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> table: array<f32>;
@group(0) @binding(6) var<storage, read_write> ring: array<f32>;
@group(0) @binding(7) var<storage, read_write> cache: array<f32>;
//#if TWO
@group(0) @binding(8) var<storage, read_write> cache2: array<f32>;
const POOLS = 2u;
//#else
const POOLS = 1u;
//#endif

var<workgroup> pooled: array<f32, MOST>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids) / POOLS;
    if at >= step.rows {
        return;
    }
    // Channels of this workgroup's pool, and where its columns and its weights begin.
    var dim = params.dim;
    var first = 0u;
    var ape = 0u;
//#if TWO
    let second = group_index(ids) % POOLS == 1u;
    if second {
        first = 2u * dim * (1u + params.overlap);
        ape = params.ratio * dim * (1u + params.overlap) + dim;
        dim = params.dim2;
    }
//#endif
    // Channels that a token has.
    let width = dim * (1u + params.overlap);
    let norm = ape + params.ratio * width;

    let slot = rows[at].slot;
    let position = rows[at].position;
    let base = slot * params.cap;
    let from_x = params.x_at + first;
    let mine = (base + position % params.cap) * params.ring_cols + first;
    for (var c = ids.lane; c < width; c += WG) {
        let i = at * params.x_cols + from_x + c;
        ring[mine + c] = x[i];
        ring[mine + width + c] = x[i + width] + weights[ape + position % params.ratio * width + c];
    }

    let end = position + 1u;
    if end % params.ratio != 0u {
        return;
    }
    let start = end - params.ratio;
    let from_position = start - select(0u, params.ratio * params.overlap, start > 0u);
    // The first of the window's positions that is in this step, in the row before the next one's.
    var fresh = position;
    while fresh > from_position && end - fresh <= at && rows[at + fresh - end].slot == slot
        && rows[at + fresh - end].position == fresh - 1u {
        fresh--;
    }

    var square = 0.0;
    for (var c = ids.lane; c < dim; c += WG) {
        var top = -3e38;
        var sum = 0.0;
        var total = 0.0;
        for (var p = from_position; p < end; p++) {
            // With overlap, series A of the window before, series B of the window itself.
            let channel = c + dim * params.overlap * u32(p >= start);
            var s: f32;
            var v: f32;
            if p < fresh {
                let i = (base + p % params.cap) * params.ring_cols + first + channel;
                s = ring[i + width];
                v = ring[i];
            } else {
                let i = (at + p - position) * params.x_cols + from_x + channel;
                s = x[i + width] + weights[ape + p % params.ratio * width + channel];
                v = x[i];
            }
            // e^-|s - top| weighs the new one, or else all that were before.
            let e = exp(-abs(s - top));
            let larger = s > top;
            sum = select(fma(e, v, sum), fma(e, sum, v), larger);
            total = select(total + e, fma(e, total, 1.0), larger);
            top = max(top, s);
        }
        let v = sum / total;
        pooled[c] = v;
        square = fma(v, v, square);
    }
    // Shows all of `pooled` to all.
    workgroupBarrier();
    let scale = inverseSqrt(reduce_sum(ids, square) / f32(dim) + params.eps);

    let out = (slot * params.entries + start / params.ratio) * dim;
    let plain = dim - params.rotated;
    for (var c = ids.lane; c < dim; c += WG) {
        var v = pooled[c] * scale * weights[norm + c];
        if c >= plain {
            let i = c - plain;
            let other_c = plain + (i ^ 1u);
            let other = pooled[other_c] * scale * weights[norm + other_c];
            let angle = at * params.rotated + i / 2u;
            let sine = table[angle + params.rotated / 2u];
            v = v * table[angle] + select(-other, other, (i & 1u) == 1u) * sine;
        }
//#if TWO
        if second {
            cache2[out + c] = v;
            continue;
        }
//#endif
        cache[out + c] = v;
    }
}
