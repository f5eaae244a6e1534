// 8 of the `params.k` floats of $B that begin at `base`, from the `at`th on; zeros beyond the last. With
// X8 `base` and `params.k` are multiples of 8.
fn $B_oct(base: u32, at: u32) -> Oct {
//#if X8
    let i = (base + at) / 4u;
    return Oct(bitcast<vec4<f32>>($B_quad(i)), bitcast<vec4<f32>>($B_quad(i + 1u)));
//#else
    var v: array<f32, 8>;
    for (var i = 0u; i < 8u; i++) {
        v[i] = 0.0;
        if at + i < params.k {
            v[i] = $B[base + at + i];
        }
    }
    return Oct(vec4(v[0], v[1], v[2], v[3]), vec4(v[4], v[5], v[6], v[7]));
//#endif
}
