// x in 8 bits for matmul_lanes_pairs, 32 elements at a time; see lib/x_numbers.wgsl.
//#if WIDE
@group(0) @binding(2) var<storage, read> x: array<vec2<u64>>;
//#else
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
//#endif
//#include quads W=x

// See lib/x_numbers.wgsl.
const PAIRED = true;

// 32 integers.
struct Integers {
    v: array<vec4<i32>, 8>,
}

struct Xs {
    v: Integers,
    // What a code of 1 means.
    scale: f32,
    // Of the first 16 and of the last, scaled.
    sums: vec2<f32>,
}

// Group `g` of the row of x at `begin`. Of 8 elements, a word of the first quad has the even ones, one of
// the second the odd ones.
fn x_load(begin: u32, g: u32) -> Xs {
    let i = 3u * (begin + g);
    let even = bitcast<vec4<i32>>(x_quad(i));
    let odd = bitcast<vec4<i32>>(x_quad(i + 1u));
    let rest = bitcast<vec4<f32>>(x_quad(i + 2u));
    return Xs(Integers(array(
        first_half(even.x, odd.x), last_half(even.x, odd.x),
        first_half(even.y, odd.y), last_half(even.y, odd.y),
        first_half(even.z, odd.z), last_half(even.z, odd.z),
        first_half(even.w, odd.w), last_half(even.w, odd.w),
    )), rest.x, rest.yz);
}

fn first_half(even: i32, odd: i32) -> vec4<i32> {
    return (vec4(even, odd, even, odd) << vec4(24u, 24u, 16u, 16u)) >> vec4(24u);
}

fn last_half(even: i32, odd: i32) -> vec4<i32> {
    return (vec4(even, odd, even, odd) << vec4(8u, 8u, 0u, 0u)) >> vec4(24u);
}
