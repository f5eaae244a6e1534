// Causal attention with keys that groups of heads share. A workgroup does a block of queries of one
// group, a query being a head of a row: several rows where a group has few heads, unless rows are
// taken one by one. With PARTS it goes through one of `splits` parts of the keys, for attention_merge
// to put together. See src/ops/causal_attention.rs.
//
// rows    [T] Row
// q       [T, heads * key_dim] f32, rows q_pitch apart
// keys    [slots * context, ...] f32, rows key_pitch and groups key_step apart
// values  [slots * context, ...] f32, rows value_pitch and groups value_step apart
// picked  [T, select_cols] u32, a count and then positions; any buffer, and select_cols 0, if all
//         positions up to the row's are seen
// o       [T, heads * value_dim] f32; with PARTS [T * splits, heads * value_dim], not yet divided
// marks   [T * splits, 2 * heads] f32 (with PARTS): largest scores of the heads, then sums of weights
//
// With FOURS all dims, pitches and steps of f32 are multiples of 4, and counted in fours. Lengths of all of these but the two
// dims are in cells of lib/fours.wgsl.

//#if FEW_QUERIES
//#include flash_few
//#else
//#if QUERIES_A_LANE
//#include flash_lanes
//#else
//#if SAME_KEYS
//#include flash_same
//#else
//#include flash
//#endif
//#endif
//#endif
//#include fours

struct Params {
    heads: u32,
    share: u32,        // heads a group
    context: u32,
    select_cols: u32,
    one_by_one: u32,   // 1 if a workgroup takes heads of one row only
    splits: u32,
    key_dim: u32,
    key_fours: u32,
    value_dim: u32,
    value_fours: u32,
    q_pitch: u32,
    key_pitch: u32,
    key_step: u32,
    value_pitch: u32,
    value_step: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<ReadCell>;
@group(0) @binding(4) var<storage, read> keys: array<ReadCell>;
@group(0) @binding(5) var<storage, read> values: array<ReadCell>;
@group(0) @binding(6) var<storage, read> picked: array<u32>;
@group(0) @binding(7) var<storage, read_write> o: array<Cell>;
//#if PARTS
@group(0) @binding(8) var<storage, read_write> marks: array<f32>;
//#endif
//#include read_four B=q
//#include read_four B=keys
//#include read_four B=values
//#include write_four B=o

// The group of heads, and the first place of the sequence that is attended to.
var<private> group: u32;

// A run of rows of one sequence, or a row whose keys are picked.
struct Keys {
    base: u32,   // the sequence's first place
    picks: u32,  // where in `picked` the row's positions begin
}

// How many keys each of a lane's queries sees: the first of them, none if it is not of the run.
struct Seen {
    count: vec4<u32>,
}

fn place_of(k: Keys, j: u32) -> u32 {
    if params.select_cols > 0u {
        return k.base + picked[k.picks + j];
    }
    return k.base + j;
}

fn seen(s: Seen, j: u32) -> vec4<bool> {
    return vec4<u32>(j) < s.count;
}

fn query4(at: u32, c: u32) -> vec4<f32> {
    return read_q(at + c * FOUR, params.key_dim - 4u * c);
}

fn key4(place: u32, c: u32) -> vec4<f32> {
    let at = place * params.key_pitch + group * params.key_step;
    return read_keys(at + c * FOUR, params.key_dim - 4u * c);
}

fn value4(place: u32, c: u32) -> vec4<f32> {
    let at = place * params.value_pitch + group * params.value_step;
    return read_values(at + c * FOUR, params.value_dim - 4u * c);
}

// How many keys a row has.
fn keys_of(row: u32) -> u32 {
    if params.select_cols > 0u {
        return min(picked[row * params.select_cols], params.select_cols - 1u);
    }
    return min(rows[row].position + 1u, params.context);
}

// Puts four dims of a head's weighted sum where they belong: of a part, or, divided by the sum of weights, of
// a row.
fn write_head(row: u32, to: u32, head: u32, c: u32, sum: vec4<f32>, total: f32) {
//#if PARTS
    let v = sum;
//#else
    let v = sum / total;
//#endif
    let at = (to * params.heads + head) * (params.value_dim * FOUR / 4u);
    write_o(at + c * FOUR, params.value_dim - 4u * c, v);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let lane = lane_of(ids);
    // Queries are counted through the rows that a workgroup may take together.
    let one_by_one = params.one_by_one == 1u;
    let queries = select(step.rows, 1u, one_by_one) * params.share;
    let blocks = (queries + QUERIES - 1u) / QUERIES;
    let part = group_index(ids) % params.splits;
    let block = group_index(ids) / params.splits;
    let query0 = block % blocks * QUERIES;
    let bundle = block / blocks;
    group = bundle % (params.heads / params.share);
    let row0 = bundle / (params.heads / params.share);
    if row0 >= select(1u, step.rows, one_by_one) {
        return;
    }

//#if SAME_KEYS
    // The heads of a row whose queries this lane loads; beyond the last one it is repeated.
    let head0 = group * params.share + query0;
    let heads = min(QUERIES, params.share - query0);
    var q_at: array<u32, QUERY_LOADS>;
    for (var i = 0u; i < QUERY_LOADS; i++) {
        let head = head0 + min(i * WG + lane, heads - 1u);
        q_at[i] = row0 * params.q_pitch + head * (params.key_dim * FOUR / 4u);
    }
    let count = keys_of(row0);
    let tiles = (count + KEYS - 1u) / KEYS;
    let each = (tiles + params.splits - 1u) / params.splits * KEYS;
    let keys = Keys(rows[row0].slot * params.context, row0 * params.select_cols + 1u);
    var s: Softmax;
    for (var h = 0u; h < QUERIES; h++) {
        s.top[h] = LOWEST;
        s.total[h] = 0.0;
    }
    softmax_over(ids, q_at, keys, part * each, min((part + 1u) * each, count), &s);
    softmax_end(&s);
    let to = row0 * params.splits + part;
    softmax_write(row0, to, head0, heads, lane, &s);
//#else
    // This lane's queries; beyond the last one it is repeated and sees nothing.
    let mine = query0 + lane_queries(lane) + vec4<u32>(0u, 1u, 2u, 3u);
    let real = mine < vec4<u32>(queries);
    let query = min(mine, vec4<u32>(queries - 1u));
    let row = row0 + query / params.share;
    let head = group * params.share + query % params.share;
    let q_at = kept(lane, row * params.q_pitch + head * (params.key_dim * FOUR / 4u));
    group = kept(lane, vec4<u32>(group)).x;

    var s: Softmax;
    softmax_start(&s);
    let rows_end = row0 + (min(query0 + QUERIES, queries) - 1u) / params.share + 1u;
    var run = row0 + query0 / params.share;
    while run < rows_end {
        let slot = rows[run].slot;
        var run_end = run + 1u;
        var count = keys_of(run);
        while run_end < rows_end && rows[run_end].slot == slot {
            count = max(count, keys_of(run_end));
            run_end++;
        }
        var see = Seen();
        for (var i = 0u; i < 4u; i++) {
            if real[i] && row[i] >= run && row[i] < run_end {
                see.count[i] = keys_of(row[i]);
            }
        }
        let tiles = (count + KEYS - 1u) / KEYS;
        let each = (tiles + params.splits - 1u) / params.splits * KEYS;
        let keys = Keys(slot * params.context, run * params.select_cols + 1u);
        softmax_over(ids, q_at, keys, see, part * each, min((part + 1u) * each, count), &s);
        run = run_end;
    }
    softmax_end(lane, &s);

    let to = row * params.splits + part;
    for (var t = 0u; t < VALUE_FOURS; t++) {
        softmax_share(lane, t, &s);
        let c = value_four(lane, t);
        if writes_values(lane) && c < params.value_fours {
            for (var i = 0u; i < 4u; i += step.one) {
                if real[i] {
                    write_head(row[i], to[i], head[i], c, softmax_sum(lane, i), s.total[i]);
                }
            }
        }
    }
//#if PARTS
    if lane < Q4 {
        for (var i = 0u; i < 4u; i += step.one) {
            if real[i] {
                marks[2u * to[i] * params.heads + head[i]] = s.top[i];
                marks[(2u * to[i] + 1u) * params.heads + head[i]] = s.total[i];
            }
        }
    }
//#endif
//#endif
}
