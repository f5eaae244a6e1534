// y[o, :] = x[outs[o, 0], :]. A workgroup copies WG columns of one row.
//
// x     [T, cols] f32
// outs  [O, 8] u32; column 0 is a row of x
// y     [O, cols] f32

// Small, so that the one row of a decode step still spreads over the device.
override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> outs: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (params.cols + WG - 1u) / WG;
    let o = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    if o >= step.outs || c >= params.cols {
        return;
    }
    y[o * params.cols + c] = x[outs[8u * o] * params.cols + c];
}
