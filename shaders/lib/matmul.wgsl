// What the two matmul kernels share: parameters, bindings, loads and the epilogue.
//
// Dense: y[r, g*N + n] = sum_k x[r, g*K + k] * w[g*N + n, k] (+ bias[n]) (+ residual[r, n]), with G
// groups of N outputs. Flag EXPERTS: a row of y is a slot (token, choice) and w is a bank of N rows
// an expert. Flag GATED: two banks, y = silu(min(w x, limit)) * clamp(w3 x) * weight of the slot.
//#include step
//#include weight

struct Params {
    k: u32,        // inner length of one group
    n: u32,        // outputs of one group, or of one expert
    oct: u32,      // Raws a weight row
    x_cols: u32,   // floats a row of x
    y_cols: u32,   // floats a row of y
    first: u32,    // first output (or, with EXPERTS, page) held in this part of the weight
    count: u32,    // how many outputs (pages) this part holds
    per_row: u32,  // rows of y a token row
    per_out: u32,  // rows of y an output row
    fixed: u32,    // rows of y in any case
    share: u32,    // rows of y that read the same row of x
    limit: f32,    // SwiGLU's clamp
}
@group(0) @binding(0) var<uniform> params: Params;

//#if X8
@group(0) @binding(2) var<storage, read> x: array<Oct>;  // [rows, G*K]
//#else
@group(0) @binding(2) var<storage, read> x: array<f32>;  // [rows, G*K]
//#endif
@group(0) @binding(3) var<storage, read> w: array<Raw>;  // [G*N or pages*N, K]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

//#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;  // [G*N]
//#endif
//#if RESIDUAL
//#if BIAS
@group(0) @binding(6) var<storage, read> residual: array<f32>;  // as y
//#else
@group(0) @binding(5) var<storage, read> residual: array<f32>;  // as y
//#endif
//#endif

fn y_rows() -> u32 {
    return params.per_row * step.rows + params.per_out * step.outs + params.fixed;
}

// 8 elements of a row of x, from element `at` of a group of `params.k` that begins at `base`;
// zeros beyond its end.
fn load_x(base: u32, at: u32) -> Oct {
//#if X8
    return x[(base + at) / 8u];
//#else
    var v: array<f32, 8>;
    for (var i = 0u; i < 8u; i++) {
        v[i] = 0.0;
        if at + i < params.k {
            v[i] = x[base + at + i];
        }
    }
    return Oct(vec4(v[0], v[1], v[2], v[3]), vec4(v[4], v[5], v[6], v[7]));
//#endif
}

//#if GATED
fn gated(gate: f32, up: f32, scale: f32) -> f32 {
    let g = min(gate, params.limit);
    let u = clamp(up, -params.limit, params.limit);
    return g / (1.0 + exp(-g)) * u * scale;
}
//#endif
