// x in f32 for the matmul kernels.
//#if X8
//#if WIDE
@group(0) @binding(2) var<storage, read> x: array<vec2<u64>>;
//#else
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
//#endif
//#include quads W=x
//#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
//#endif
//#include weight W=w
//#include f32_oct B=x
//#if NORM
//#if X8
//#if WIDE
@group(0) @binding(next) var<storage, read> norm: array<vec2<u64>>;  // [K]
//#else
@group(0) @binding(next) var<storage, read> norm: array<vec4<u32>>;  // [K]
//#endif
//#include quads W=norm
//#else
@group(0) @binding(next) var<storage, read> norm: array<f32>;  // [K]
//#endif
//#include f32_oct B=norm

fn square_sum(v: Oct) -> f32 {
    return dot(v.lo, v.lo) + dot(v.hi, v.hi);
}

// `v`, elements of x from the `at`th on, times those of the norm.
fn normed(v: Oct, at: u32) -> Oct {
    let n = norm_oct(0u, at);
    return Oct(v.lo * n.lo, v.hi * n.hi);
}

// What the products are still to be multiplied by.
fn norm_factor(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(params.k) + params.eps);
}
//#endif
