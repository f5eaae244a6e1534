// 32 elements together, the first 16 in the first half.
struct Numbers {
    v: array<vec4<f32>, 8>,
}

fn numbers_of(a: Oct, b: Oct, c: Oct, d: Oct) -> Numbers {
    return Numbers(array(a.lo, a.hi, b.lo, b.hi, c.lo, c.hi, d.lo, d.hi));
}

// 32 bytes, as signed numbers.
fn signed_numbers(a: vec4<u32>, b: vec4<u32>) -> Numbers {
    return Numbers(array(
        signed_bytes(a.x), signed_bytes(a.y), signed_bytes(a.z), signed_bytes(a.w),
        signed_bytes(b.x), signed_bytes(b.y), signed_bytes(b.z), signed_bytes(b.w),
    ));
}
