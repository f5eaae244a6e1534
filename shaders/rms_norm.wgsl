// y = x * rsqrt(mean(x^2) + eps) * weight, one workgroup a row.
//
// x, y    [rows, stride] f32, of which the first `cols` columns count; with IN_PLACE x is also y
// weight  [cols] f32

override WG: u32 = 64u;
//#include reduce

struct Params {
    cols: u32,
    stride: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
//#if IN_PLACE
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
//#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
//#endif
@group(0) @binding(3) var<storage, read> weight: array<f32>;
//#if IN_PLACE
//#else
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let base = row * params.stride;
    var sum = 0.0;
    for (var c = ids.lane; c < params.cols; c += WG) {
        let v = x[base + c];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.cols) + params.eps);
    for (var c = ids.lane; c < params.cols; c += WG) {
        let v = x[base + c] * scale * weight[c];
//#if IN_PLACE
        x[base + c] = v;
//#else
        y[base + c] = v;
//#endif
    }
}
