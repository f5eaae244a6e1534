// 32 elements together, the first 16 in the first half.
struct Numbers {
    v: array<vec4<f32>, 8>,
}

// The sums of products of either half. Without a loop, which not all compilers unroll.
fn halves(a: Numbers, b: Numbers) -> vec2<f32> {
    let first = a.v[0] * b.v[0] + a.v[1] * b.v[1] + a.v[2] * b.v[2] + a.v[3] * b.v[3];
    let last = a.v[4] * b.v[4] + a.v[5] * b.v[5] + a.v[6] * b.v[6] + a.v[7] * b.v[7];
    return vec2(dot(first, vec4(1.0)), dot(last, vec4(1.0)));
}

fn numbers_of(a: Oct, b: Oct, c: Oct, d: Oct) -> Numbers {
    return Numbers(array(a.lo, a.hi, b.lo, b.hi, c.lo, c.hi, d.lo, d.hi));
}

fn scaled(a: Numbers, first: Scale, last: Scale) -> Numbers {
    return Numbers(array(
        a.v[0] * first.scale + first.shift, a.v[1] * first.scale + first.shift,
        a.v[2] * first.scale + first.shift, a.v[3] * first.scale + first.shift,
        a.v[4] * last.scale + last.shift, a.v[5] * last.scale + last.shift,
        a.v[6] * last.scale + last.shift, a.v[7] * last.scale + last.shift,
    ));
}
