// y = softmax(q k / sqrt(dims)) v over the patches of the same image, by online softmax over tiles
// of keys. A workgroup does TILE queries of one head. Its lanes form a square; lane (across, down)
// holds four queries (4 down + ...) against four keys (4 across + ...) of each product q k, and
// against four dimensions of each chunk of the product with v.
//
// qkv      [P, 3 * heads * dims] f32: queries, keys, values, each head by head
// patches  [P, 4] u32: row, column, and the first and the end of the image's patches
// y        [P, heads * dims] f32

// Queries, keys and dimensions a step: a multiple of 4. With 32 there are 64 lanes with 16
// accumulators each, and the two tiles fill 9 KiB of the 16 KiB that every device has.
override TILE: u32 = 32u;
// Tiles that cover a head's dimensions.
override CHUNKS: u32 = 2u;
const QUADS: u32 = TILE / 4u;
const WG: u32 = QUADS * QUADS;
// Of a tile's rows of quads; one more than QUADS keeps lanes off each other's memory banks.
const PITCH: u32 = QUADS + 1u;
// Below every score, yet such that differences from it stay finite.
const LOW: f32 = -1.0e30;
//#include step

struct Params {
    heads: u32,
    dims: u32,
    scale: f32,  // dims^-1/2
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> patches: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// [dimension][4 queries], then [key][4 queries] with the weights of the keys.
var<workgroup> left: array<vec4<f32>, TILE * PITCH>;
// [dimension][4 keys], then [key][4 dimensions].
var<workgroup> right: array<vec4<f32>, TILE * PITCH>;
// [across][down]: the greatest score, later the sum of weights, of each lane's keys.
var<workgroup> part: array<vec4<f32>, WG>;

// Dimension d of one head of patch `row`: of its query, key or value (which = 0, 1, 2). 0 beyond the
// ends.
fn element(row: u32, which: u32, head: u32, d: u32) -> f32 {
    // A load that is always done, since a branch around each would be most of the kernel.
    let inside = row < step.rows && d < params.dims;
    let at = ((row * 3u + which) * params.heads + head) * params.dims + d;
    return select(0.0, qkv[select(0u, at, inside)], inside);
}

// Dimension d of four consecutive patches, from `row` on.
fn across_patches(row: u32, which: u32, head: u32, d: u32) -> vec4<f32> {
    return vec4(
        element(row, which, head, d),
        element(row + 1u, which, head, d),
        element(row + 2u, which, head, d),
        element(row + 3u, which, head, d),
    );
}

// Four consecutive dimensions of the value of patch `row`.
fn value(row: u32, head: u32, d: u32) -> vec4<f32> {
    return vec4(
        element(row, 2u, head, d),
        element(row, 2u, head, d + 1u),
        element(row, 2u, head, d + 2u),
        element(row, 2u, head, d + 3u),
    );
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let tiles = (step.rows + TILE - 1u) / TILE;
    let head = group_index(ids) / tiles;
    if head >= params.heads {
        return;
    }
    let first = group_index(ids) % tiles * TILE;
    let across = ids.lane % QUADS;
    let down = ids.lane / QUADS;

    // Images follow each other, so the first and last query bound the keys of all between.
    let keys_start = patches[first].z;
    let keys_end = patches[min(first + TILE, step.rows) - 1u].w;
    // Of this lane's queries; empty for those beyond the last patch.
    var start = vec4<u32>(0u);
    var end = vec4<u32>(0u);
    for (var i = 0u; i < 4u; i++) {
        let query = first + 4u * down + i;
        if query < step.rows {
            start[i] = patches[query].z;
            end[i] = patches[query].w;
        }
    }

    var top = vec4(LOW);
    // This lane's share of the sum of weights.
    var sum = vec4(0.0);
    // acc[4 chunk + i]: dimension TILE chunk + 4 across + i of the four queries.
    var acc: array<vec4<f32>, 4u * CHUNKS>;
    for (var i = 0u; i < 4u * CHUNKS; i++) {
        acc[i] = vec4(0.0);
    }
    for (var tile = keys_start; tile < keys_end; tile += TILE) {
        var score: array<vec4<f32>, 4>;
        for (var j = 0u; j < 4u; j++) {
            score[j] = vec4(0.0);
        }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = ids.lane; i < TILE * QUADS; i += WG * step.one) {
                // Lanes that are neighbours read dimensions that are.
                let d = i % TILE;
                let quad = i / TILE;
                let from_d = chunk * TILE + d;
                left[d * PITCH + quad] = across_patches(first + 4u * quad, 0u, head, from_d);
                right[d * PITCH + quad] = across_patches(tile + 4u * quad, 1u, head, from_d);
            }
            workgroupBarrier();
            for (var d = 0u; d < TILE; d += step.one) {
                let q = left[d * PITCH + down];
                let k = right[d * PITCH + across];
                for (var j = 0u; j < 4u; j++) {
                    score[j] = fma(q, vec4(k[j]), score[j]);
                }
            }
        }

        var seen: array<vec4<bool>, 4>;
        var mine = vec4(LOW);
        for (var j = 0u; j < 4u; j++) {
            let key = vec4(tile + 4u * across + j);
            seen[j] = (key >= start) & (key < end);
            score[j] = select(vec4(LOW), score[j] * params.scale, seen[j]);
            mine = max(mine, score[j]);
        }
        part[across * QUADS + down] = mine;
        workgroupBarrier();
        let old = top;
        for (var i = 0u; i < QUADS; i += step.one) {
            top = max(top, part[i * QUADS + down]);
        }
        let shrink = exp(old - top);
        sum *= shrink;
        for (var i = 0u; i < 4u * CHUNKS; i++) {
            acc[i] *= shrink;
        }
        for (var j = 0u; j < 4u; j++) {
            // Where nothing has been seen yet, score and top are both LOW.
            let weight = select(vec4(0.0), exp(score[j] - top), seen[j]);
            sum += weight;
            left[(4u * across + j) * PITCH + down] = weight;
        }

        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = ids.lane; i < TILE * QUADS; i += WG * step.one) {
                let quad = i % QUADS;
                let k = i / QUADS;
                right[k * PITCH + quad] = value(tile + k, head, chunk * TILE + 4u * quad);
            }
            workgroupBarrier();
            for (var k = 0u; k < TILE; k += step.one) {
                let weight = left[k * PITCH + down];
                let v = right[k * PITCH + across];
                for (var i = 0u; i < 4u; i++) {
                    acc[4u * chunk + i] = fma(weight, vec4(v[i]), acc[4u * chunk + i]);
                }
            }
        }
    }

    part[across * QUADS + down] = sum;
    workgroupBarrier();
    var total = vec4(0.0);
    for (var i = 0u; i < QUADS; i += step.one) {
        total += part[i * QUADS + down];
    }
    for (var i = 0u; i < 4u; i += step.one) {
        let query = first + 4u * down + i;
        if query >= step.rows {
            break;
        }
        for (var j = 0u; j < 4u * CHUNKS; j++) {
            let d = j / 4u * TILE + 4u * across + j % 4u;
            if d < params.dims {
                y[(query * params.heads + head) * params.dims + d] = acc[j][i] / total[i];
            }
        }
    }
}
