// Puts the first `left` of four numbers into $B, from cell `at` on.
fn write_$B(at: u32, left: u32, v: vec4<f32>) {
//#if FOURS
    $B[at] = v;
//#else
    for (var i = 0u; i < 4u; i++) {
        if i < left {
            $B[at + i] = v[i];
        }
    }
//#endif
}
