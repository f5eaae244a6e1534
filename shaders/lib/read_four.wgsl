//#if WIDE
//#include quads W=$B
//#endif
// Four numbers of $B from cell `at` on, of which `left` are there; others are zero.
fn read_$B(at: u32, left: u32) -> vec4<f32> {
//#if FOURS
//#if WIDE
    return bitcast<vec4<f32>>($B_quad(at));
//#else
    return $B[at];
//#endif
//#else
    var v = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if i < left {
            v[i] = $B[at + i];
        }
    }
    return v;
//#endif
}
