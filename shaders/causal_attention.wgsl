// Causal attention with keys that groups of heads share, softmax on line over tiles of keys. One
// workgroup a block of 4 * QUERY_GROUPS queries of one group, a query being a head of a row: several
// rows where a group has few heads. See src/ops/causal_attention.rs.
//
// rows    [T] Row
// q       [T, heads * key_dim] f32
// keys    [slots * context, key_cols] f32
// values  [slots * context, value_cols] f32; that of the next group is value_step further on
// picked  [T, select_cols] u32, a count and then positions; any buffer, and select_cols 0, if all
//         positions up to the row's are seen
// o       [T, heads * value_dim] f32

// Keys a tile. A lane scores one key for four queries, so a workgroup has KEYS * QUERY_GROUPS lanes:
// twice as many for wide values, since those are what its registers fill with.
override KEYS: u32 = 32u;
// Queries a workgroup, in fours: eight read each key once and still leave registers for the sums.
override QUERY_GROUPS: u32 = 2u;
// Dims of keys and queries in workgroup memory at a time; with 64 keys, 8 KiB.
override CHUNK: u32 = 32u;
// Output dims a lane sums: value_dim / WG rounded up.
override DIMS_PER_LANE: u32 = 8u;
const QUERIES = 4u * QUERY_GROUPS;
const WG = KEYS * QUERY_GROUPS;
//#include step

struct Params {
    heads: u32,
    share: u32,  // heads a group
    key_dim: u32,
    key_cols: u32,
    value_dim: u32,
    value_cols: u32,
    value_step: u32,
    context: u32,
    select_cols: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<f32>;
@group(0) @binding(4) var<storage, read> keys: array<f32>;
@group(0) @binding(5) var<storage, read> values: array<f32>;
@group(0) @binding(6) var<storage, read> picked: array<u32>;
@group(0) @binding(7) var<storage, read_write> o: array<f32>;

// Place of each query among all heads of all rows; NONE beyond the last.
var<workgroup> heads: array<u32, QUERIES>;
const NONE = 0xffffffffu;
// Keys each query sees of those now gone through: the first of them, none if it is another row's.
var<workgroup> sees: array<u32, QUERIES>;
// Row of each key of the tile.
var<workgroup> key_row: array<u32, KEYS>;
// [KEYS][CHUNK + 1]: the odd pitch spreads a column over the memory banks.
var<workgroup> key_tile: array<f32, KEYS * (CHUNK + 1u)>;
// [CHUNK][QUERY_GROUPS], four queries each.
var<workgroup> query_tile: array<vec4<f32>, CHUNK * QUERY_GROUPS>;
// [KEYS][QUERY_GROUPS], four queries each: scores, then their weights.
var<workgroup> scores: array<vec4<f32>, KEYS * QUERY_GROUPS>;
var<workgroup> weights: array<vec4<f32>, KEYS * QUERY_GROUPS>;

// Below every score. WGSL has no infinity.
const LOWEST = -3e38;

// Column c of four queries from `query` on, zero beyond the last.
fn queries_at(query: u32, c: u32) -> vec4<f32> {
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let head = heads[query + i];
        if head != NONE && c < params.key_dim {
            v[i] = q[head * params.key_dim + c];
        }
    }
    return v;
}

// How many keys a row has.
fn keys_of(row: u32) -> u32 {
    if params.select_cols > 0u {
        return min(picked[row * params.select_cols], params.select_cols - 1u);
    }
    return min(rows[row].position + 1u, params.context);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (step.rows * params.share + QUERIES - 1u) / QUERIES;
    let group = group_index(ids) / blocks;
    let query0 = group_index(ids) % blocks * QUERIES;
    if group * params.share >= params.heads {
        return;
    }
    if ids.lane < QUERIES {
        let query = query0 + ids.lane;
        let row = query / params.share;
        let head = row * params.heads + group * params.share + query % params.share;
        heads[ids.lane] = select(NONE, head, row < step.rows);
    }
    let key_base = group * params.key_dim;
    let value_base = group * params.value_step;
    // Which key and queries this lane scores.
    let my_key = ids.lane % KEYS;
    let my_group = ids.lane / KEYS;

    // Softmax so far, the same in every lane: largest score, sum of weights, and this lane's dims of
    // the weighted sum of values.
    var top: array<vec4<f32>, QUERY_GROUPS>;
    var total: array<vec4<f32>, QUERY_GROUPS>;
    var sum: array<vec4<f32>, DIMS_PER_LANE * QUERY_GROUPS>;
    for (var g = 0u; g < QUERY_GROUPS; g++) {
        top[g] = vec4<f32>(LOWEST);
        total[g] = vec4<f32>();
    }
    for (var i = 0u; i < DIMS_PER_LANE * QUERY_GROUPS; i++) {
        sum[i] = vec4<f32>();
    }

    // Rows of one sequence go through its keys together; rows with selected keys, each for itself.
    let rows_end = min((query0 + QUERIES - 1u) / params.share + 1u, step.rows);
    var row = query0 / params.share;
    while row < rows_end {
        let slot = rows[row].slot;
        let picks = row * params.select_cols;
        var next_row = row + 1u;
        var count = keys_of(row);
        while params.select_cols == 0u && next_row < rows_end && rows[next_row].slot == slot {
            count = max(count, keys_of(next_row));
            next_row++;
        }
        workgroupBarrier();
        if ids.lane < QUERIES {
            let r = (query0 + ids.lane) / params.share;
            var n = 0u;
            if r >= row && r < next_row {
                n = keys_of(r);
            }
            sees[ids.lane] = n;
        }

        for (var tile = 0u; tile < count; tile += KEYS) {
            let here = min(KEYS, count - tile);
            workgroupBarrier();
            if ids.lane < KEYS {
                var position = min(tile + ids.lane, count - 1u);
                if params.select_cols > 0u {
                    position = picked[picks + 1u + position];
                }
                key_row[ids.lane] = slot * params.context + position;
            }

            var score = vec4<f32>();
            for (var chunk = 0u; chunk < params.key_dim; chunk += CHUNK) {
                workgroupBarrier();
                for (var i = ids.lane; i < KEYS * CHUNK; i += WG * step.one) {
                    let c = chunk + i % CHUNK;
                    var v = 0.0;
                    if c < params.key_dim {
                        v = keys[key_row[i / CHUNK] * params.key_cols + key_base + c];
                    }
                    key_tile[i / CHUNK * (CHUNK + 1u) + i % CHUNK] = v;
                }
                for (var i = ids.lane; i < CHUNK * QUERY_GROUPS; i += WG * step.one) {
                    let g = i / CHUNK;
                    let c = i % CHUNK;
                    query_tile[c * QUERY_GROUPS + g] = queries_at(4u * g, chunk + c);
                }
                workgroupBarrier();
                for (var c = 0u; c < CHUNK; c += step.one) {
                    let k = key_tile[my_key * (CHUNK + 1u) + c];
                    score = fma(vec4<f32>(k), query_tile[c * QUERY_GROUPS + my_group], score);
                }
            }
            var seen: vec4<bool>;
            for (var i = 0u; i < 4u; i++) {
                seen[i] = tile + my_key < sees[4u * my_group + i];
            }
            score = select(vec4<f32>(LOWEST), score * params.scale, seen);
            scores[my_key * QUERY_GROUPS + my_group] = score;
            workgroupBarrier();

            // Every lane finds the new maxima; cheaper than to hand them round.
            for (var g = 0u; g < QUERY_GROUPS; g++) {
                var next = top[g];
                for (var j = 0u; j < here; j += step.one) {
                    next = max(next, scores[j * QUERY_GROUPS + g]);
                }
                let shrink = exp(top[g] - next);
                total[g] *= shrink;
                for (var i = 0u; i < DIMS_PER_LANE; i++) {
                    sum[i * QUERY_GROUPS + g] *= shrink;
                }
                top[g] = next;
            }
            let weight = select(vec4<f32>(), exp(score - top[my_group]), seen);
            weights[my_key * QUERY_GROUPS + my_group] = weight;
            workgroupBarrier();

            for (var j = 0u; j < here; j += step.one) {
                let base = key_row[j] * params.value_cols + value_base;
                for (var g = 0u; g < QUERY_GROUPS; g++) {
                    total[g] += weights[j * QUERY_GROUPS + g];
                }
                for (var i = 0u; i < DIMS_PER_LANE; i++) {
                    let c = ids.lane + i * WG;
                    if c < params.value_dim {
                        let v = vec4<f32>(values[base + c]);
                        for (var g = 0u; g < QUERY_GROUPS; g++) {
                            let w = weights[j * QUERY_GROUPS + g];
                            sum[i * QUERY_GROUPS + g] = fma(v, w, sum[i * QUERY_GROUPS + g]);
                        }
                    }
                }
            }
        }
        row = next_row;
    }

    for (var g = 0u; g < QUERY_GROUPS; g++) {
        for (var n = 0u; n < 4u; n += step.one) {
            let head = heads[4u * g + n];
            if head != NONE {
                for (var i = 0u; i < DIMS_PER_LANE; i++) {
                    let c = ids.lane + i * WG;
                    if c < params.value_dim {
                        let out = sum[i * QUERY_GROUPS + g] / total[g];
                        o[head * params.value_dim + c] = out[n];
                    }
                }
            }
        }
    }
}
