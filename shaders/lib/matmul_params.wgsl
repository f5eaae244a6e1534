// Parameters of the matmul kernels, laid out by Params in src/ops/matmul.rs.
//#include step

struct Params {
    k: u32,        // inner length of one group
    n: u32,        // outputs of one group, or of one expert
    oct: u32,      // Octs a weight row
    pitch: u32,    // vec4s from one weight row to the next
    plane1: u32,   // see lib/weight.wgsl
    plane2: u32,
    plane3: u32,
    x_cols: u32,   // floats a row of x
    y_cols: u32,   // floats a row of y
    x_step: u32,   // columns of x, columns of y and rows of w from one group to the next; and where
    x_at: u32,     // those of group 0 begin
    y_step: u32,
    y_at: u32,
    w_step: u32,
    w_at: u32,     // within this part of the weight
    group: u32,    // the first group in this part
    first: u32,    // first output (or, with EXPERTS, page) held in this part of the weight
    count: u32,    // how many outputs of a group (pages) this part holds
    per_row: u32,  // rows of y a token row
    per_out: u32,  // rows of y an output row
    fixed: u32,    // rows of y in any case
    share: u32,    // with EXPERTS, rows of y that read the same row of x
    limit: f32,    // SwiGLU's clamp
    up: u32,       // vec4s from a row of w to the row of w3 that goes with it
    eps: f32,      // of the norm
    outs: u32,     // outputs of an invocation of matmul_lanes_rows
}
@group(0) @binding(0) var<uniform> params: Params;

fn y_rows() -> u32 {
    return params.per_row * step.rows + params.per_out * step.outs + params.fixed;
}
