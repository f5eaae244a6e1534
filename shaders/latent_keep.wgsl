// Readies queries and the latent of a row for attention, a workgroup a head: attention's queries are
// normed and rotated in place, those of the indexer rotated, and the latent is normed, scaled, rotated
// and put into the ring. See src/ops/latent_keep.rs.
//
// q       [T, heads * dims + index_heads * index_dims] f32
// ring    [slots * cap, dims] f32
// rows    [T] Row
// latent  [T, latent_cols] f32, of which `dims` columns from latent_at on
// norm    [dims] f32
// table   [T, rope] f32: the cosines (rope / 2), then the sines

override WG: u32 = 64u;
//#include reduce

struct Params {
    heads: u32,
    dims: u32,
    index_heads: u32,
    index_dims: u32,
    rope: u32,
    latent_cols: u32,
    latent_at: u32,
    cap: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> ring: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<Row>;
@group(0) @binding(5) var<storage, read> latent: array<f32>;
@group(0) @binding(6) var<storage, read> norm: array<f32>;
@group(0) @binding(7) var<storage, read> table: array<f32>;

// The pair `i` of a row's dimensions that turn.
fn turned(row: u32, i: u32, v: vec2<f32>) -> vec2<f32> {
    let c = table[row * params.rope + i];
    let s = table[row * params.rope + params.rope / 2u + i];
    return vec2(v.x * c - v.y * s, v.x * s + v.y * c);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let units = params.heads + 1u + params.index_heads;
    let row = group_index(ids) / units;
    let unit = group_index(ids) % units;
    if row >= step.rows {
        return;
    }
    let half = params.rope / 2u;
    let still = params.dims - params.rope;
    let row_at = row * (params.heads * params.dims + params.index_heads * params.index_dims);
    if unit < params.heads {
        let base = row_at + unit * params.dims;
        var sum = 0.0;
        for (var d = ids.lane; d < params.dims; d += WG) {
            let v = q[base + d];
            sum += v * v;
        }
        // The barriers within also part these reads from the writes below.
        let scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.dims) + params.eps);
        for (var d = ids.lane; d < still; d += WG) {
            q[base + d] *= scale;
        }
        for (var i = ids.lane; i < half; i += WG) {
            let at = base + still + 2u * i;
            let v = turned(row, i, vec2(q[at], q[at + 1u]) * scale);
            q[at] = v.x;
            q[at + 1u] = v.y;
        }
    } else if unit == params.heads {
        let base = row * params.latent_cols + params.latent_at;
        var sum = 0.0;
        for (var d = ids.lane; d < params.dims; d += WG) {
            let v = latent[base + d];
            sum += v * v;
        }
        let scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.dims) + params.eps);
        let to = (rows[row].slot * params.cap + rows[row].position % params.cap) * params.dims;
        for (var d = ids.lane; d < still; d += WG) {
            ring[to + d] = latent[base + d] * scale * norm[d];
        }
        for (var i = ids.lane; i < half; i += WG) {
            let d = still + 2u * i;
            let pair = vec2(latent[base + d] * norm[d], latent[base + d + 1u] * norm[d + 1u]);
            let v = turned(row, i, pair * scale);
            ring[to + d] = v.x;
            ring[to + d + 1u] = v.y;
        }
    } else {
        let head = unit - params.heads - 1u;
        let end = row_at + params.heads * params.dims + (head + 1u) * params.index_dims;
        for (var i = ids.lane; i < half; i += WG) {
            let at = end - params.rope + 2u * i;
            let v = turned(row, i, vec2(q[at], q[at + 1u]));
            q[at] = v.x;
            q[at + 1u] = v.y;
        }
    }
}
