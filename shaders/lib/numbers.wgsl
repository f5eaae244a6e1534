// 32 elements together, the first 16 in the first half.
struct Numbers {
    v: array<vec4<f32>, 8>,
}

fn numbers_of(a: Oct, b: Oct, c: Oct, d: Oct) -> Numbers {
    return Numbers(array(a.lo, a.hi, b.lo, b.hi, c.lo, c.hi, d.lo, d.hi));
}

// Codes less `middle`, which is about what they are on average.
fn about(middle: f32, codes: Codes) -> Oct {
    let v = integers(codes);
    return Oct(v.lo - middle, v.hi - middle);
}

// 8 codes of 4 bits where they stand in the word, that is, times powers of 16, but for the last. It takes
// an instruction less for each to mask than to shift, and x, divided by the same powers, is made once.
fn in_place4(word: u32) -> Oct {
    let lo = vec4(word) & vec4(0xfu, 0xf0u, 0xf00u, 0xf000u);
    let hi = vec4(vec3(word) & vec3(0xf0000u, 0xf00000u, 0xf000000u), word >> 28u);
    // As signed numbers, which more processors convert at once.
    return Oct(vec4<f32>(bitcast<vec4<i32>>(lo)), vec4<f32>(bitcast<vec4<i32>>(hi)));
}

// x to be multiplied with codes in place.
fn in_place_of4(x: Numbers) -> Numbers {
    let lo = vec4(1.0, 0x1p-4, 0x1p-8, 0x1p-12);
    let hi = vec4(0x1p-16, 0x1p-20, 0x1p-24, 1.0);
    return Numbers(array(
        x.v[0] * lo, x.v[1] * hi, x.v[2] * lo, x.v[3] * hi,
        x.v[4] * lo, x.v[5] * hi, x.v[6] * lo, x.v[7] * hi,
    ));
}

// 32 bytes, as signed numbers.
fn signed_numbers(a: vec4<u32>, b: vec4<u32>) -> Numbers {
    return Numbers(array(
        signed_bytes(a.x), signed_bytes(a.y), signed_bytes(a.z), signed_bytes(a.w),
        signed_bytes(b.x), signed_bytes(b.y), signed_bytes(b.z), signed_bytes(b.w),
    ));
}
