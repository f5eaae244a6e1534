// In place: x = x * (1 + erf(x / sqrt(2))) / 2. A workgroup does WG columns of one row.
//
// x  [rows, cols] f32

override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

// erf(z) for 0 <= z <= 1: z times a polynomial in z^2, through erf(z) / z at the 7 Chebyshev nodes
// of [0, 1]. Error below 1.2e-7.
fn erf_small(z: f32) -> f32 {
    let s = z * z;
    var p = 7.8758749e-5;
    p = fma(p, s, -8.0168643e-4);
    p = fma(p, s, 5.1890872e-3);
    p = fma(p, s, -2.6854211e-2);
    p = fma(p, s, 0.11283594);
    p = fma(p, s, -0.37612626);
    p = fma(p, s, 1.1283791);
    return z * p;
}

// 1 - erf(z) for z >= 1: exp(-z^2) times a polynomial in t = 1 / (1 + z / 2), through the quotient
// at the 8 Chebyshev nodes of 1 <= z <= 10. Relative error below 3e-7 beside that of exp.
fn erfc_large(z: f32) -> f32 {
    let t = 1.0 / fma(0.5, z, 1.0);
    var p = 8.5370921e-2;
    p = fma(p, t, -0.36030591);
    p = fma(p, t, 0.41048163);
    p = fma(p, t, 1.1530854e-2);
    p = fma(p, t, 0.29655588);
    p = fma(p, t, 0.27315843);
    p = fma(p, t, 0.28297544);
    p = fma(p, t, -3.6536254e-5);
    // From 9 on exp(-z^2) is less than 1e-35, whatever z.
    let bound = min(z, 9.0);
    return p * exp(-bound * bound);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (params.cols + WG - 1u) / WG;
    let row = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    let rows = params.rows_per_row * step.rows + params.rows_per_out * step.outs;
    if row >= rows || c >= params.cols {
        return;
    }
    let at = row * params.cols + c;
    let v = x[at];
    let z = abs(v) * 0.70710678;
    // Twice the share of v that stays: 1 + erf(z), or 1 - erf(z) for negative v.
    var share = 0.0;
    if z < 1.0 {
        share = 1.0 + sign(v) * erf_small(z);
    } else {
        let tail = erfc_large(z);
        share = select(2.0 - tail, tail, v < 0.0);
    }
    x[at] = 0.5 * v * share;
}
