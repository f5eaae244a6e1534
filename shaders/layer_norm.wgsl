// y = (x - mean(x)) * rsqrt(var(x) + eps) * weight + bias, one workgroup a row.
//
// x, y          [rows, cols] f32
// weight, bias  [cols] f32

override WG: u32 = 64u;
//#include reduce

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let base = row * params.cols;
    var sum = 0.0;
    for (var c = ids.lane; c < params.cols; c += WG) {
        sum += x[base + c];
    }
    let mean = reduce_sum(ids, sum) / f32(params.cols);
    // Of the differences: the mean of squares less the square of the mean would lose digits.
    var square = 0.0;
    for (var c = ids.lane; c < params.cols; c += WG) {
        let v = x[base + c] - mean;
        square += v * v;
    }
    let scale = inverseSqrt(reduce_sum(ids, square) / f32(params.cols) + params.eps);
    for (var c = ids.lane; c < params.cols; c += WG) {
        y[base + c] = (x[base + c] - mean) * scale * weight[c] + bias[c];
    }
}
