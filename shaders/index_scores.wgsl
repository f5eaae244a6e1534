// I[s] = sum_h (scale * w_h) * relu(q_h . k_s). One workgroup a token row and block of KEYS entries,
// a lane an entry. See src/ops/index_scores.rs.
//
// rows     [T] Row
// q        [T, heads * dim] f32
// weights  [T, heads] f32
// keys     [slots * entries, dim] f32
// out      [part, entries] f32, for token rows from `first` on

// Entries, and lanes, a workgroup.
override KEYS: u32 = 64u;
// Heads at a time, in fours: eight sums a lane for each key value read from workgroup memory.
override HEAD_GROUPS: u32 = 2u;
// Dims in workgroup memory at a time; with 64 keys, 8 KiB.
override CHUNK: u32 = 32u;
//#include step

struct Params {
    heads: u32,
    dim: u32,
    entries: u32,
    ratio: u32,
    first: u32,
    part: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> q: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> keys: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

// [KEYS][CHUNK + 1]: the odd pitch spreads a column over the memory banks.
var<workgroup> key_tile: array<f32, KEYS * (CHUNK + 1u)>;
// [CHUNK][HEAD_GROUPS], four heads each.
var<workgroup> query_tile: array<vec4<f32>, CHUNK * HEAD_GROUPS>;

// Column c of four heads from `head` on of a row of q, zero beyond the last head or column.
fn query_at(at: u32, head: u32, c: u32) -> vec4<f32> {
    var v = vec4<f32>();
    if c < params.dim {
        for (var i = 0u; i < 4u; i++) {
            if head + i < params.heads {
                v[i] = q[(at * params.heads + head + i) * params.dim + c];
            }
        }
    }
    return v;
}

// The scaled weights of four heads, zero beyond the last.
fn weights_at(at: u32, head: u32) -> vec4<f32> {
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if head + i < params.heads {
            v[i] = params.scale * weights[at * params.heads + head + i];
        }
    }
    return v;
}

@compute @workgroup_size(KEYS)
fn main(ids: Ids) {
    let blocks = (params.entries + KEYS - 1u) / KEYS;
    let group = group_index(ids);
    let line = group / blocks;
    let at = params.first + line;
    if line >= params.part || at >= step.rows {
        return;
    }
    let start = group % blocks * KEYS;
    let count = min((rows[at].position + 1u) / params.ratio, params.entries);
    if start >= count {
        return;
    }
    let base = (rows[at].slot * params.entries + start) * params.dim;
    let here = min(KEYS, count - start);

    var total = 0.0;
    for (var head = 0u; head < params.heads; head += 4u * HEAD_GROUPS) {
        var dots: array<vec4<f32>, HEAD_GROUPS>;
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            dots[g] = vec4<f32>();
        }
        for (var chunk = 0u; chunk < params.dim; chunk += CHUNK) {
            workgroupBarrier();
            for (var i = ids.lane; i < KEYS * CHUNK; i += KEYS) {
                let key = i / CHUNK;
                let c = chunk + i % CHUNK;
                var v = 0.0;
                if key < here && c < params.dim {
                    v = keys[base + key * params.dim + c];
                }
                key_tile[key * (CHUNK + 1u) + i % CHUNK] = v;
            }
            for (var i = ids.lane; i < CHUNK * HEAD_GROUPS; i += KEYS) {
                let g = i / CHUNK;
                let c = i % CHUNK;
                query_tile[c * HEAD_GROUPS + g] = query_at(at, head + 4u * g, chunk + c);
            }
            workgroupBarrier();
            for (var c = 0u; c < CHUNK; c++) {
                let k = vec4<f32>(key_tile[ids.lane * (CHUNK + 1u) + c]);
                for (var g = 0u; g < HEAD_GROUPS; g++) {
                    dots[g] = fma(k, query_tile[c * HEAD_GROUPS + g], dots[g]);
                }
            }
        }
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            total += dot(weights_at(at, head + 4u * g), max(dots[g], vec4<f32>()));
        }
    }
    if ids.lane < here {
        out[line * params.entries + start + ids.lane] = total;
    }
}
