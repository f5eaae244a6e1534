// y[o, c f f + dy f + dx] = x[first_o + dy width_o + dx, c], or 0 where there is no such patch: each
// output row is one block of f x f patches. A workgroup does WG columns of one row.
//
// x       [P, cols] f32
// blocks  [O, 4] u32: the block's top left patch (a row of x), how many patches there are to the
//         right (1 to f) and down (1 to f), and patches a row of its grid
// y       [O, cols * f * f] f32

override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    factor: u32,  // f
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let f = params.factor;
    let features = params.cols * f * f;
    let groups = (features + WG - 1u) / WG;
    let o = group_index(ids) / groups;
    let i = group_index(ids) % groups * WG + ids.lane;
    if o >= step.outs || i >= features {
        return;
    }
    let block = blocks[o];
    let dx = i % f;
    let dy = i / f % f;
    var v = 0.0;
    if dx < block.y && dy < block.z {
        v = x[(block.x + dy * block.w + dx) * params.cols + i / (f * f)];
    }
    y[o * features + i] = v;
}
