// Activations in 8 bits: 32 columns of a row, which share a scale, an invocation. See
// src/ops/quantize_activations.rs.
//
// x  [rows, cols] f32
// y  [rows, cols / 32] Activations; their codes in the order of weights that are whole bytes with BYTES

override WG: u32 = 64u;
//#include step
//#include eight_bits

struct Params {
    groups: u32,        // groups of 32 a row
    rows_per_row: u32,  // matrix rows a token row, an output row, and in any case
    rows_per_out: u32,
    rows_fixed: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<array<vec4<f32>, 8>>;
@group(0) @binding(3) var<storage, read_write> y: array<Activations>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids) * WG + ids.lane;
    let rows = params.rows_per_row * step.rows + params.rows_per_out * step.outs + params.rows_fixed;
    if at < rows * params.groups {
        y[at] = eight_bits(x[at]);
    }
}
