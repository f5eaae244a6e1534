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

// 8 elements of a row of x, from element `at` of a group of `params.k` that begins at `base`;
// zeros beyond its end.
fn load_x(base: u32, at: u32) -> Oct {
//#if X8
    let i = (base + at) / 4u;
    return Oct(bitcast<vec4<f32>>(x_quad(i)), bitcast<vec4<f32>>(x_quad(i + 1u)));
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
