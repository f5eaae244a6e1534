// y = x * rsqrt(mean(x^2) + eps) * weight, one workgroup a row.
//
// x       [rows, x_cols] f32, of which `cols` columns from x_at on; with IN_PLACE it is also y
// y       [rows, cols] f32
// weight  [cols] f32
// With EIGHT_BITS y is in 8 bits, [rows, cols / 32] Activations; with KEEP there is, beside it, the f32
// as well.
// With FOURS cols, x_cols and x_at are multiples of 4. See lib/fours.wgsl.

override WG: u32 = 64u;
//#include reduce
//#include fours

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
@group(0) @binding(2) var<storage, read_write> x: array<Cell>;
//#include write_four B=x
//#else
@group(0) @binding(2) var<storage, read> x: array<ReadCell>;
//#endif
//#include read_four B=x
@group(0) @binding(3) var<storage, read> weight: array<ReadCell>;
//#include read_four B=weight
//#if IN_PLACE
//#else
//#if EIGHT_BITS
//#include eight_bits
@group(0) @binding(4) var<storage, read_write> y: array<Activations>;
//#if KEEP
@group(0) @binding(5) var<storage, read_write> kept: array<Cell>;
//#include write_four B=kept
//#endif
//#else
@group(0) @binding(4) var<storage, read_write> y: array<Cell>;
//#include write_four B=y
//#endif
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
    let base = row * (params.x_cols * FOUR / 4u) + params.x_at * FOUR / 4u;
    let to = row * (params.cols * FOUR / 4u);
    let fours = (params.cols + 3u) / 4u;
    var sum = 0.0;
    for (var c = ids.lane; c < fours; c += WG) {
        let v = read_x(base + c * FOUR, params.cols - 4u * c);
        sum += dot(v, v);
    }
    let scale = inverseSqrt(reduce_sum(ids, sum) / f32(params.cols) + params.eps);
//#if EIGHT_BITS
    let groups = params.cols / 32u;
    for (var g = ids.lane; g < groups; g += WG) {
        let c = 8u * g;
        let v = array(
            four(base, c, scale), four(base, c + 1u, scale),
            four(base, c + 2u, scale), four(base, c + 3u, scale),
            four(base, c + 4u, scale), four(base, c + 5u, scale),
            four(base, c + 6u, scale), four(base, c + 7u, scale),
        );
//#if KEEP
        for (var i = 0u; i < 8u; i++) {
            write_kept(to + (c + i) * FOUR, 4u, v[i]);
        }
//#endif
        y[row * groups + g] = eight_bits(v);
    }
//#else
    for (var c = ids.lane; c < fours; c += WG) {
        let v = four(base, c, scale);
//#if IN_PLACE
        write_x(base + c * FOUR, params.cols - 4u * c, v);
//#else
        write_y(to + c * FOUR, params.cols - 4u * c, v);
//#endif
    }
//#endif
}

// The `c`th four columns of the row at `base`, normalised.
fn four(base: u32, c: u32, scale: f32) -> vec4<f32> {
    let left = params.cols - 4u * c;
    return read_x(base + c * FOUR, left) * scale * read_weight(c * FOUR, left);
}
