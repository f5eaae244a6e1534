// Multi-query attention with sinks over a ring and compressed entries, a workgroup a block of heads of
// a row. With PARTS it goes through one of `splits` parts of the row's keys, for attention_merge to put
// together. See src/ops/attention.rs.
//
// rows    [T] Row
// q       [T, q_cols] f32, of which the first heads * dim
// ring    [slots * cap, dim] f32
// sinks   [heads] f32
// o       [T, heads * dim] f32; with PARTS [T * splits, heads * dim], not yet divided
// cache   [slots * entries, dim] f32; without compressed entries any buffer, and entries is 0
// picked  [T, select_cols] u32, a count and then entries; any buffer, and select_cols 0, if all
//         entries are seen
// marks   [T * splits, 2 * heads] f32 (with PARTS): largest scores of the heads, then sums of weights
// table   [T, rope] f32 (without PARTS): cosines, then sines, of the rotation that is taken out of o
//
// dim is even. With FOURS dim and q_cols are multiples of 4.

//#if FEW_QUERIES
//#include flash_few
//#else
//#if SAME_KEYS
//#include flash_same
//#else
//#include flash
//#endif
//#endif
//#include fours

struct Params {
    heads: u32,
    dim: u32,
    pitch: u32,        // dim, in cells of lib/fours.wgsl
    key_fours: u32,
    value_fours: u32,
    splits: u32,
    cap: u32,
    entries: u32,
    ratio: u32,
    select_cols: u32,
    scale: f32,
    q_cols: u32,       // in cells too
    rope: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<ReadCell>;
@group(0) @binding(4) var<storage, read> ring: array<ReadCell>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read> cache: array<ReadCell>;
@group(0) @binding(7) var<storage, read> picked: array<u32>;
@group(0) @binding(8) var<storage, read_write> o: array<Cell>;
//#if PARTS
@group(0) @binding(9) var<storage, read_write> marks: array<f32>;
//#else
@group(0) @binding(9) var<storage, read> table: array<f32>;
//#include turn_back
//#endif
//#include read_four B=q
//#include read_four B=ring
//#include read_four B=cache
//#include write_four B=o

// A row's keys: those of the window, then entries.
struct Keys {
    ring: u32,     // the sequence's first place in the ring
    first: u32,    // the first position in the window
    in_ring: u32,  // how many are in the window
    cache: u32,    // the sequence's first place in the cache
    picks: u32,    // where in `picked` the row's entries begin
}

// All heads see all keys.
struct Seen {
    count: u32,
}

// Set where a place is one of the cache.
const IN_CACHE = 0x80000000u;

fn place_of(k: Keys, j: u32) -> u32 {
    if j < k.in_ring {
        return k.ring + (k.first + j) % params.cap;
    }
    var entry = j - k.in_ring;
    if params.select_cols > 0u {
        entry = picked[k.picks + entry];
    }
    return IN_CACHE | (k.cache + entry);
}

fn seen(s: Seen, j: u32) -> vec4<bool> {
    return vec4<bool>(j < s.count);
}

fn query4(at: u32, c: u32) -> vec4<f32> {
    return read_q(at + c * FOUR, params.dim - 4u * c);
}

fn key4(place: u32, c: u32) -> vec4<f32> {
    let left = params.dim - 4u * c;
    if (place & IN_CACHE) != 0u {
        return read_cache((place & ~IN_CACHE) * params.pitch + c * FOUR, left);
    }
    return read_ring(place * params.pitch + c * FOUR, left);
}

fn value4(place: u32, c: u32) -> vec4<f32> {
    return key4(place, c);
}

// Puts four dims of a head's weighted sum where they belong: of a part, or, divided by the sum of weights and
// turned back, of the row.
fn write_head(row: u32, to: u32, head: u32, c: u32, sum: vec4<f32>, total: f32) {
//#if PARTS
    let v = sum;
//#else
    let mean = sum / total;
    let back = turned_back(row, 4u * c, mean.xy);
    let v = vec4(back, turned_back(row, 4u * c + 2u, mean.zw));
//#endif
    let at = (to * params.heads + head) * params.pitch;
    write_o(at + c * FOUR, params.dim - 4u * c, v);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let lane = lane_of(ids);
    let blocks = (params.heads + QUERIES - 1u) / QUERIES;
    let part = group_index(ids) % params.splits;
    let block = group_index(ids) / params.splits;
    let head0 = block % blocks * QUERIES;
    let row = block / blocks;
    if row >= step.rows {
        return;
    }
    let first = rows[row].first;
    let in_ring = rows[row].last + 1u - first;
    var count = in_ring;
    // Asked at run time: each further variant of this kernel costs software adapters seconds.
    if params.select_cols > 0u {
        count += min(picked[row * params.select_cols], params.select_cols - 1u);
    } else {
        count += min((rows[row].position + 1u) / params.ratio, params.entries);
    }
    let tiles = (count + KEYS - 1u) / KEYS;
    let each = (tiles + params.splits - 1u) / params.splits * KEYS;
    let to = row * params.splits + part;
//#if PARTS
    if part * each >= count {
        // A sum of no weights tells the merge to leave the rest of this part alone.
        for (var h = head0 + lane; h < min(head0 + QUERIES, params.heads); h += WG) {
            marks[2u * to * params.heads + h] = LOWEST;
            marks[(2u * to + 1u) * params.heads + h] = 0.0;
        }
        return;
    }
//#endif

    let rings = rows[row].slot * params.cap;
    let entries = rows[row].slot * params.entries;
    let keys = Keys(rings, first, in_ring, entries, row * params.select_cols + 1u);
    let end = min((part + 1u) * each, count);

//#if SAME_KEYS
    // The heads whose queries this lane loads; beyond the last one it is repeated.
    var q_at: array<u32, QUERY_LOADS>;
    for (var i = 0u; i < QUERY_LOADS; i++) {
        let head = min(head0 + i * WG + lane, params.heads - 1u);
        q_at[i] = row * params.q_cols + head * params.pitch;
    }
    // The sink is a key without a value, which one lane counts, in the first part.
    var s: Softmax;
    for (var h = 0u; h < QUERIES; h += step.one) {
        s.top[h] = sinks[min(head0 + h, params.heads - 1u)];
        s.total[h] = select(0.0, 1.0, part == 0u && lane == 0u);
    }
    softmax_over(ids, q_at, keys, part * each, end, &s);
    softmax_end(&s);
    let heads = min(QUERIES, params.heads - head0);
    softmax_write(row, to, head0, heads, lane, &s);
//#else
    // This lane's heads; beyond the last one it is repeated.
    let mine = head0 + lane_queries(lane) + vec4<u32>(0u, 1u, 2u, 3u);
    let head = min(mine, vec4<u32>(params.heads - 1u));
    let q_at = kept(lane, row * params.q_cols + head * params.pitch);

    var s: Softmax;
    softmax_start(&s);
    // The sink is a key without a value, which one lane of each head counts, in the first part.
    s.top = vec4<f32>(sinks[head.x], sinks[head.y], sinks[head.z], sinks[head.w]);
    s.total = vec4<f32>(select(0.0, 1.0, part == 0u && lane < Q4));
    softmax_over(ids, q_at, keys, Seen(count), part * each, end, &s);
    softmax_end(lane, &s);

    for (var t = 0u; t < VALUE_FOURS; t++) {
        softmax_share(lane, t, &s);
        let c = value_four(lane, t);
        if writes_values(lane) && c < params.value_fours {
            for (var i = 0u; i < 4u; i += step.one) {
                if mine[i] < params.heads {
                    write_head(row, to, head[i], c, softmax_sum(lane, i), s.total[i]);
                }
            }
        }
    }
//#if PARTS
    if lane < Q4 {
        for (var i = 0u; i < 4u; i += step.one) {
            if mine[i] < params.heads {
                marks[2u * to * params.heads + head[i]] = s.top[i];
                marks[(2u * to + 1u) * params.heads + head[i]] = s.total[i];
            }
        }
    }
//#endif
//#endif
}
