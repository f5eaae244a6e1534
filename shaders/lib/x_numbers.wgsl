// x for matmul_lanes, 32 elements at a time. With flag EIGHT_BITS from
// src/ops/quantize_activations.rs: of Params, `x_cols`, `x_step` and `x_at` count groups of 32.
//#if EIGHT_BITS
//#if WIDE
@group(0) @binding(2) var<storage, read> x: array<vec2<u64>>;
//#else
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
//#endif
//#include quads W=x
//#include weight_numbers W=w
//#else
//#include matmul_f32
//#include weight_numbers W=w
//#endif

// Whether codes of 4 bits are multiplied by two, as integers less 8; or as floats where they stand.
const PAIRED = false;

struct Xs {
    v: Numbers,
    // Of the first 16 and of the last.
    sums: vec2<f32>,
//#if NORM
    // Of all, before the norm.
    squares: f32,
//#endif
}

//#if EIGHT_BITS
// Group `g` of the row of x at `begin`.
fn x_load(begin: u32, g: u32) -> Xs {
    let i = 3u * (begin + g);
    let a = x_quad(i);
    let b = x_quad(i + 1u);
    let rest = bitcast<vec4<f32>>(x_quad(i + 2u));
    var v = signed_numbers(a, b);
//#if BYTES
//#else
    // Of each Oct, the even elements are in `a` and the odd ones in `b`.
    v = numbers_of(
        in_turns(v.v[0], v.v[4]), in_turns(v.v[1], v.v[5]), in_turns(v.v[2], v.v[6]), in_turns(v.v[3], v.v[7]),
    );
//#endif
    let s = rest.x;
    let scaled = Numbers(array(
        v.v[0] * s, v.v[1] * s, v.v[2] * s, v.v[3] * s, v.v[4] * s, v.v[5] * s, v.v[6] * s, v.v[7] * s,
    ));
    return Xs(w_fit(scaled), rest.yz);
}

fn in_turns(even: vec4<f32>, odd: vec4<f32>) -> Oct {
    return Oct(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
//#else
// Elements 32 * g and on of the row of x at `begin`; zeros beyond its end.
fn x_load(begin: u32, g: u32) -> Xs {
    let o = 4u * g;
//#each O 4
    var v_$O = part(begin, o + $Ou);
//#end
//#if NORM
    let squares = square_sum(v_0) + square_sum(v_1) + square_sum(v_2) + square_sum(v_3);
//#each O 4
    v_$O = normed(v_$O, min(o + $Ou, params.oct - 1u) * 8u);
//#end
//#endif
    let v = numbers_of(v_0, v_1, v_2, v_3);
    let first = v.v[0] + v.v[1] + v.v[2] + v.v[3];
    let last = v.v[4] + v.v[5] + v.v[6] + v.v[7];
    let sums = vec2(dot(first, vec4(1.0)), dot(last, vec4(1.0)));
//#if NORM
    return Xs(w_fit(v), sums, squares);
//#else
    return Xs(w_fit(v), sums);
//#endif
}

fn part(begin: u32, o: u32) -> Oct {
    let there = x_oct(begin, min(o, params.oct - 1u) * 8u);
    let zero = vec4<f32>();
    return Oct(select(zero, there.lo, o < params.oct), select(zero, there.hi, o < params.oct));
}
//#endif
