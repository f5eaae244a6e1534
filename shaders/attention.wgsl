// Multi-query attention with sinks over a ring and compressed entries, softmax on line over tiles
// of keys. One workgroup a token row and block of 4 * HEAD_GROUPS heads. See src/ops/attention.rs.
//
// rows    [T] Row
// q, o    [T, heads * dim] f32
// ring    [slots * cap, dim] f32
// sinks   [heads] f32
// cache   [slots * entries, dim] f32; without compressed entries any buffer, and entries is 0
// picked  [T, select_cols] u32, a count and then entries; any buffer, and select_cols 0, if all
//         entries are seen

// Keys a tile. A lane scores one key for four heads, so a workgroup has KEYS * HEAD_GROUPS lanes;
// 64 suit the narrowest and the widest subgroups.
override KEYS: u32 = 32u;
// Heads a workgroup, in fours: eight read each key once and still leave registers for the sums.
override HEAD_GROUPS: u32 = 2u;
// Dims of keys and queries in workgroup memory at a time; with the tile's keys, 4 KiB.
override CHUNK: u32 = 32u;
// Output dims a lane sums: dim / WG rounded up.
override DIMS_PER_LANE: u32 = 8u;
const WG = KEYS * HEAD_GROUPS;
//#include step

struct Params {
    heads: u32,
    dim: u32,
    cap: u32,
    entries: u32,
    ratio: u32,
    select_cols: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<f32>;
@group(0) @binding(4) var<storage, read> ring: array<f32>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read_write> o: array<f32>;
@group(0) @binding(7) var<storage, read> cache: array<f32>;
@group(0) @binding(8) var<storage, read> picked: array<u32>;

// Row of each key of the tile; IN_CACHE is set where it is a row of the cache.
var<workgroup> key_row: array<u32, KEYS>;
const IN_CACHE = 0x80000000u;
// [KEYS][CHUNK + 1]: the odd pitch spreads a column over the memory banks.
var<workgroup> key_tile: array<f32, KEYS * (CHUNK + 1u)>;
// [CHUNK][HEAD_GROUPS], four heads each.
var<workgroup> query_tile: array<vec4<f32>, CHUNK * HEAD_GROUPS>;
// [KEYS][HEAD_GROUPS], four heads each: scores, then their weights.
var<workgroup> scores: array<vec4<f32>, KEYS * HEAD_GROUPS>;
var<workgroup> weights: array<vec4<f32>, KEYS * HEAD_GROUPS>;

fn key_at(row: u32, c: u32) -> f32 {
    if (row & IN_CACHE) != 0u {
        return cache[(row & ~IN_CACHE) * params.dim + c];
    }
    return ring[row * params.dim + c];
}

// Four values that start at head `head` of a [heads, pitch] matrix, zero beyond the last head.
fn query_at(base: u32, head: u32, c: u32) -> vec4<f32> {
    var v = vec4<f32>();
    if c < params.dim {
        for (var i = 0u; i < 4u; i++) {
            if head + i < params.heads {
                v[i] = q[base + (head + i) * params.dim + c];
            }
        }
    }
    return v;
}

fn sink_at(head: u32) -> vec4<f32> {
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if head + i < params.heads {
            v[i] = sinks[head + i];
        }
    }
    return v;
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (params.heads + 4u * HEAD_GROUPS - 1u) / (4u * HEAD_GROUPS);
    let group = group_index(ids);
    let at = group / blocks;
    if at >= step.rows {
        return;
    }
    let head0 = group % blocks * 4u * HEAD_GROUPS;
    let base = at * params.heads * params.dim;
    let first = rows[at].first;
    let in_ring = rows[at].last + 1u - first;
    var count = in_ring;
    let ring_base = rows[at].slot * params.cap;
    let cache_base = rows[at].slot * params.entries;
    // Asked at run time: each further variant of this kernel costs software adapters seconds.
    let selects = params.select_cols > 0u;
    if selects {
        count += min(picked[at * params.select_cols], params.select_cols - 1u);
    } else {
        count += min((rows[at].position + 1u) / params.ratio, params.entries);
    }

    // Which key and heads this lane scores.
    let my_key = ids.lane % KEYS;
    let my_group = ids.lane / KEYS;

    // Softmax so far, the same in every lane: largest score, sum of weights (both start with the
    // sink), and this lane's dims of the weighted sum of keys.
    var top: array<vec4<f32>, HEAD_GROUPS>;
    var total: array<vec4<f32>, HEAD_GROUPS>;
    var sum: array<vec4<f32>, DIMS_PER_LANE * HEAD_GROUPS>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        top[g] = sink_at(head0 + 4u * g);
        total[g] = vec4<f32>(1.0);
    }
    for (var i = 0u; i < DIMS_PER_LANE * HEAD_GROUPS; i++) {
        sum[i] = vec4<f32>();
    }

    for (var tile = 0u; tile < count; tile += KEYS) {
        let here = min(KEYS, count - tile);
        workgroupBarrier();
        if ids.lane < KEYS {
            let j = min(tile + ids.lane, count - 1u);
            var row = ring_base + (first + j) % params.cap;
            if j >= in_ring {
                var entry = j - in_ring;
                if selects {
                    entry = picked[at * params.select_cols + 1u + entry];
                }
                row = IN_CACHE | (cache_base + entry);
            }
            key_row[ids.lane] = row;
        }

        var score = vec4<f32>();
        for (var chunk = 0u; chunk < params.dim; chunk += CHUNK) {
            workgroupBarrier();
            for (var i = ids.lane; i < KEYS * CHUNK; i += WG * step.one) {
                let c = chunk + i % CHUNK;
                var v = 0.0;
                if c < params.dim {
                    v = key_at(key_row[i / CHUNK], c);
                }
                key_tile[i / CHUNK * (CHUNK + 1u) + i % CHUNK] = v;
            }
            for (var i = ids.lane; i < CHUNK * HEAD_GROUPS; i += WG * step.one) {
                let g = i / CHUNK;
                let c = i % CHUNK;
                query_tile[c * HEAD_GROUPS + g] = query_at(base, head0 + 4u * g, chunk + c);
            }
            workgroupBarrier();
            for (var c = 0u; c < CHUNK; c += step.one) {
                let k = key_tile[my_key * (CHUNK + 1u) + c];
                score = fma(vec4<f32>(k), query_tile[c * HEAD_GROUPS + my_group], score);
            }
        }
        score *= params.scale;
        scores[my_key * HEAD_GROUPS + my_group] = score;
        workgroupBarrier();

        // Every lane finds the new maxima; cheaper than to hand them round.
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            var next = top[g];
            for (var j = 0u; j < here; j++) {
                next = max(next, scores[j * HEAD_GROUPS + g]);
            }
            let shrink = exp(top[g] - next);
            total[g] *= shrink;
            for (var i = 0u; i < DIMS_PER_LANE; i++) {
                sum[i * HEAD_GROUPS + g] *= shrink;
            }
            top[g] = next;
        }
        // Lanes beyond the last key hold a copy of its score; their weights are not read.
        weights[my_key * HEAD_GROUPS + my_group] = exp(score - top[my_group]);
        workgroupBarrier();

        for (var j = 0u; j < here; j++) {
            let row = key_row[j];
            for (var g = 0u; g < HEAD_GROUPS; g++) {
                total[g] += weights[j * HEAD_GROUPS + g];
            }
            for (var i = 0u; i < DIMS_PER_LANE; i++) {
                let c = ids.lane + i * WG;
                if c < params.dim {
                    let k = vec4<f32>(key_at(row, c));
                    for (var g = 0u; g < HEAD_GROUPS; g++) {
                        let w = weights[j * HEAD_GROUPS + g];
                        sum[i * HEAD_GROUPS + g] = fma(k, w, sum[i * HEAD_GROUPS + g]);
                    }
                }
            }
        }
    }

    for (var i = 0u; i < DIMS_PER_LANE; i++) {
        let c = ids.lane + i * WG;
        if c < params.dim {
            for (var g = 0u; g < HEAD_GROUPS; g++) {
                let out = sum[i * HEAD_GROUPS + g] / total[g];
                for (var h = 0u; h < 4u; h++) {
                    let head = head0 + 4u * g + h;
                    if head < params.heads {
                        o[base + head * params.dim + c] = out[h];
                    }
                }
            }
        }
    }
}
