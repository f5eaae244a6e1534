// `sum` and the product of four numbers with four: in fours, so that long sums are as exact as sums of a
// quarter of their length.
fn add_dot(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return sum + fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, a.x * b.x)));
}
