// ring[slot * cap + p % cap] = src (+ add[p % ratio]), one workgroup a token row.
//
// rows  [T] Row
// src   [T, cols] f32
// ring  [slots * cap, cols] f32
// add   [ratio, cols] f32, rows add_stride apart (with ADD)

override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    cap: u32,
    ratio: u32,
    add_stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> src: array<f32>;
@group(0) @binding(4) var<storage, read_write> ring: array<f32>;
//#if ADD
@group(0) @binding(5) var<storage, read> add: array<f32>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids);
    if at >= step.rows {
        return;
    }
    let position = rows[at].position;
    let src_base = at * params.cols;
    let ring_base = (rows[at].slot * params.cap + position % params.cap) * params.cols;
    let add_base = position % params.ratio * params.add_stride;
    for (var c = ids.lane; c < params.cols; c += WG) {
        var v = src[src_base + c];
//#if ADD
        v += add[add_base + c];
//#endif
        ring[ring_base + c] = v;
    }
}
