// What the matmul kernels share: parameters, bindings and the epilogue.
//
// Dense: y[r, y_at(g) + n] = sum_k x[r, x_at(g) + k] * w[w_at(g) + n, k] (+ bias) (+ residual), with
// G groups g of N outputs, each with its own columns of x and y and rows of w, `step` apart.
// Flag EXPERTS: a row of y is a slot (token, choice) and w is a bank of N rows an expert. Flag GATED:
// two banks, y = silu(min(w x, limit)) * clamp(w3 x) * weight of the slot.
//#include matmul_params

//#if X8
@group(0) @binding(2) var<storage, read> x: array<Oct>;
//#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
//#endif
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;  // [G*N or pages*N, K]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
//#include weight W=w

//#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;  // one a column of y
//#endif
//#if RESIDUAL
//#if BIAS
@group(0) @binding(6) var<storage, read> residual: array<f32>;  // as y
//#else
@group(0) @binding(5) var<storage, read> residual: array<f32>;  // as y
//#endif
//#endif

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
