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

// 8 signed numbers of 4 bits.
fn signed4(word: u32) -> Oct {
    let bits = vec4(bitcast<i32>(word));
    return Oct(
        vec4<f32>((bits << vec4(28u, 24u, 20u, 16u)) >> vec4(28u)),
        vec4<f32>((bits << vec4(12u, 8u, 4u, 0u)) >> vec4(28u)),
    );
}

// 32 bytes, as signed numbers.
fn signed_numbers(a: vec4<u32>, b: vec4<u32>) -> Numbers {
    return Numbers(array(
        signed_bytes(a.x), signed_bytes(a.y), signed_bytes(a.z), signed_bytes(a.w),
        signed_bytes(b.x), signed_bytes(b.y), signed_bytes(b.z), signed_bytes(b.w),
    ));
}
