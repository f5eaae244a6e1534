// In place on the queries and keys: in each head x1 and x2, its first and second half, become
// x1 c - x2 s and x2 c + x1 s. A workgroup does WG pairs of one row.
//
// qkv    [P, 3 * heads * dims] f32: queries, keys, values, each head by head
// table  [P, dims] f32: the cosines (dims / 2), then the sines

override WG: u32 = 64u;
//#include step

struct Params {
    heads: u32,
    dims: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let half = params.dims / 2u;
    // Heads of queries and keys follow each other, so they count as one list.
    let pairs = 2u * params.heads * half;
    let blocks = (pairs + WG - 1u) / WG;
    let row = group_index(ids) / blocks;
    let pair = group_index(ids) % blocks * WG + ids.lane;
    if row >= step.rows || pair >= pairs {
        return;
    }
    let i = pair % half;
    let at = (row * 3u * params.heads + pair / half) * params.dims + i;
    let c = table[row * params.dims + i];
    let s = table[row * params.dims + half + i];
    let a = qkv[at];
    let b = qkv[at + half];
    qkv[at] = a * c - b * s;
    qkv[at + half] = b * c + a * s;
}
