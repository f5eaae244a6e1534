// y = x * rsqrt(mean(x^2) + eps) * weight, one workgroup a row.
//
// x       [rows, x_cols] f32, of which `cols` columns from x_at on; with IN_PLACE it is also y
// y       [rows, cols] f32
// weight  [cols] f32
// With EIGHT_BITS y is in 8 bits, [rows, cols / 32] Activations; with KEEP there is, beside it, the f32
// as well.

override WG: u32 = 64u;
//#include reduce

struct Params {
    cols: u32,
    x_cols: u32,
    x_at: u32,
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
//#if EIGHT_BITS
//#include eight_bits
@group(0) @binding(4) var<storage, read_write> y: array<Activations>;
//#if KEEP
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;
//#endif
//#else
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
//#endif
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let base = row * params.x_cols + params.x_at;
    var sum = 0.0;
    for (var c = ids.lane; c < params.cols; c += WG) {
        let v = x[base + c];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.cols) + params.eps);
//#if EIGHT_BITS
    let groups = params.cols / 32u;
    for (var g = ids.lane; g < groups; g += WG) {
        let c = 32u * g;
        let v = array(
            four(base, c, scale), four(base, c + 4u, scale),
            four(base, c + 8u, scale), four(base, c + 12u, scale),
            four(base, c + 16u, scale), four(base, c + 20u, scale),
            four(base, c + 24u, scale), four(base, c + 28u, scale),
        );
//#if KEEP
        for (var i = 0u; i < 32u; i++) {
            kept[row * params.cols + c + i] = v[i / 4u][i % 4u];
        }
//#endif
        y[row * groups + g] = eight_bits(v);
    }
//#else
    for (var c = ids.lane; c < params.cols; c += WG) {
        let v = x[base + c] * scale * weight[c];
//#if IN_PLACE
        x[base + c] = v;
//#else
        y[row * params.cols + c] = v;
//#endif
    }
//#endif
}

//#if EIGHT_BITS
// Columns `c` and on of the row at `base`, normalised.
fn four(base: u32, c: u32, scale: f32) -> vec4<f32> {
    let i = base + c;
    let v = vec4(x[i], x[i + 1u], x[i + 2u], x[i + 3u]) * scale;
    return v * vec4(weight[c], weight[c + 1u], weight[c + 2u], weight[c + 3u]);
}
//#endif
