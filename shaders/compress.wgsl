// Puts what a token row leaves to be pooled into the ring and, if it closes a window, pools that into a
// cache entry, normalises it and rotates its tail. One workgroup a token row. What it pools of this
// step's rows it reads where they have it from: the ring has it only when the step is done. See
// src/ops/compress.rs.
//
// rows   [T] Row
// kv     [T, kv_cols] f32, of which `width` columns, a series or two of `dim`, from kv_at on
// score  [T, score_cols] f32, of which `width` from score_at on
// ape    [ratio, width] f32, rows ape_stride apart
// norm   [dim] f32
// table  [T, rotated] f32, cosines then sines
// ring   [slots * cap, 2 * width] f32: kv, then score
// cache  [slots * entries, dim] f32

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
    ape_stride: u32,
    kv_cols: u32,
    kv_at: u32,
    score_cols: u32,
    score_at: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> kv: array<f32>;
@group(0) @binding(4) var<storage, read> score: array<f32>;
@group(0) @binding(5) var<storage, read> ape: array<f32>;
@group(0) @binding(6) var<storage, read> norm: array<f32>;
@group(0) @binding(7) var<storage, read> table: array<f32>;
@group(0) @binding(8) var<storage, read_write> ring: array<f32>;
@group(0) @binding(9) var<storage, read_write> cache: array<f32>;

var<workgroup> pooled: array<f32, MOST>;

// Channel c of what row `at` of the step, at position p, gives.
fn own_kv(at: u32, c: u32) -> f32 {
    return kv[at * params.kv_cols + params.kv_at + c];
}

fn own_score(at: u32, p: u32, c: u32) -> f32 {
    let bias = ape[p % params.ratio * params.ape_stride + c];
    return score[at * params.score_cols + params.score_at + c] + bias;
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids);
    if at >= step.rows {
        return;
    }
    let slot = rows[at].slot;
    let position = rows[at].position;
    let width = params.dim * (1u + params.overlap);
    let base = slot * params.cap;
    let mine = (base + position % params.cap) * 2u * width;
    for (var c = ids.lane; c < width; c += WG) {
        ring[mine + c] = own_kv(at, c);
        ring[mine + width + c] = own_score(at, position, c);
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
    for (var c = ids.lane; c < params.dim; c += WG) {
        var top = -3e38;
        var sum = 0.0;
        var total = 0.0;
        for (var p = from_position; p < end; p++) {
            // With overlap, series A of the window before, series B of the window itself.
            let channel = c + params.dim * params.overlap * u32(p >= start);
            var s: f32;
            var v: f32;
            if p < fresh {
                let i = (base + p % params.cap) * 2u * width + channel;
                s = ring[i + width];
                v = ring[i];
            } else {
                s = own_score(at + p - position, p, channel);
                v = own_kv(at + p - position, channel);
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
