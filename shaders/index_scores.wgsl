// I[s] = sum_h (scale * w_h) * relu(q_h . k_s). One workgroup a token row and block of WG * KEYS
// entries, KEYS a lane. See src/ops/index_scores.rs.
//
// rows     [T] Row
// q        [T, q_cols] f32, of which heads * dim from q_at on
// weights  [T, weights_cols] f32, of which `heads` from weights_at on
// keys     [slots * entries, dim] f32
// out      [part, entries] f32, for token rows from `first` on
//
// With FOURS dim, q_cols and q_at are multiples of 4; q_cols, q_at and pitch, which is dim, count cells of
// lib/fours.wgsl. With SERIAL, where loads are dear, as on software adapters, whose lanes load one after
// the other, a workgroup is one subgroup: a lane loads queries of few heads and shows them to the others.
// Elsewhere all lanes load the same, which devices do once for all.

override WG: u32 = 64u;
// Entries a lane.
override KEYS: u32 = 2u;
// Heads that a lane multiplies what it has loaded of its keys with.
override HEADS: u32 = 16u;
//#if SERIAL
// Of the heads, which are a multiple of the lanes, how many a lane loads.
const LOADS = HEADS / WG;
//#endif
//#include step
//#include add_dot
//#include fours

struct Params {
    heads: u32,
    dim: u32,
    pitch: u32,
    entries: u32,
    ratio: u32,
    first: u32,
    part: u32,
    scale: f32,
    q_cols: u32,
    q_at: u32,
    weights_cols: u32,
    weights_at: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<ReadCell>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> keys: array<ReadCell>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
//#include read_four B=q
//#include read_four B=keys

// A four of a head's query. Beyond the last head that is repeated, and counts for nothing.
fn query4(at: u32, head: u32, c: u32) -> vec4<f32> {
    let place = at * params.q_cols + params.q_at + min(head, params.heads - 1u) * params.pitch;
    return read_q(place + c * FOUR, params.dim - 4u * c);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (params.entries + WG * KEYS - 1u) / (WG * KEYS);
    let group = group_index(ids);
    let line = group / blocks;
    let at = params.first + line;
    if line >= params.part || at >= step.rows {
        return;
    }
    let start = group % blocks * WG * KEYS;
    let count = min((rows[at].position + 1u) / params.ratio, params.entries);
    if start >= count {
        return;
    }
    var base = rows[at].slot * params.entries * params.pitch;
//#if SERIAL
    // A number of each 64 bytes in order, so that a cache has the keys when they are wanted: as many in
    // turns as there are here are not what processors foresee.
    var touched = 0u;
    let end = base + min(start + WG * KEYS, count) * params.pitch;
    for (var i = base + start * params.pitch + 4u * FOUR * ids.lane; i < end; i += 4u * FOUR * WG) {
        touched |= bitcast<u32>(read_keys(i, 1u).x);
    }
    // Zero, which compilers cannot know.
    base += select(0u, 1u, touched == 1u && params.heads == 0u);
//#endif
    // Beyond the last entry it is multiplied again, and dropped.
    var key_at: array<u32, KEYS>;
    var total: array<f32, KEYS>;
    for (var k = 0u; k < KEYS; k++) {
        let entry = min(start + k * WG + ids.lane, count - 1u);
        key_at[k] = base + entry * params.pitch;
        total[k] = 0.0;
    }
    let fours = (params.dim + 3u) / 4u;
    for (var head0 = 0u; head0 < params.heads; head0 += HEADS * step.one) {
        // Written out, or Mesa keeps sums in memory.
//#each K KEYS
        var dots_$K: array<f32, HEADS>;
        for (var h = 0u; h < HEADS; h++) {
            dots_$K[h] = 0.0;
        }
//#end
        for (var c = 0u; c < fours; c += step.one) {
            let left = params.dim - 4u * c;
//#each K KEYS
            let k4_$K = read_keys(key_at[$K] + c * FOUR, left);
//#end
//#if SERIAL
            var mine: array<vec4<f32>, LOADS>;
            for (var i = 0u; i < LOADS; i++) {
                mine[i] = query4(at, head0 + i * WG + ids.sublane, c);
            }
//#endif
//#each H HEADS
//#if SERIAL
            let q4_$H = subgroupShuffle(mine[$Hu / WG], $Hu % WG);
//#else
            let q4_$H = query4(at, head0 + $Hu, c);
//#endif
//#each K KEYS
            dots_$K[$H] = add_dot(dots_$K[$H], q4_$H, k4_$K);
//#end
//#end
        }
        for (var h = 0u; h < HEADS; h++) {
            if head0 + h < params.heads {
                let w_at = at * params.weights_cols + params.weights_at + head0 + h;
                let w = params.scale * weights[w_at];
//#each K KEYS
                total[$K] = fma(w, max(dots_$K[h], 0.0), total[$K]);
//#end
            }
        }
    }
    for (var k = 0u; k < KEYS; k++) {
        let entry = start + k * WG + ids.lane;
        if entry < count {
            out[line * params.entries + entry] = total[k];
        }
    }
}
