// ring[slot * cap + p % cap] = src, one workgroup a token row.
//
// rows  [T] Row
// src   [T, cols] f32
// ring  [slots * cap, cols] f32

override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    cap: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> src: array<f32>;
@group(0) @binding(4) var<storage, read_write> ring: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids);
    if at >= step.rows {
        return;
    }
    let src_base = at * params.cols;
    let ring_base = (rows[at].slot * params.cap + rows[at].position % params.cap) * params.cols;
    for (var c = ids.lane; c < params.cols; c += WG) {
        ring[ring_base + c] = src[src_base + c];
    }
}
