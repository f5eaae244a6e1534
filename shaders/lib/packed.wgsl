// Activations in 8 bits, as src/ops/quantize_activations.rs makes them, and the codes of weights to
// multiply them with: 32 elements together, four to a word.

// Four codes of each of 4 Octs: of the even elements and of the odd ones; where weights are whole
// bytes, of the first 16 elements and of the last.
struct Packed {
    even: vec4<u32>,
    odd: vec4<u32>,
}

// 32 elements of x.
struct Activations {
    codes: Packed,
    // Bits of floats: what a code of 1 means; the sums of the first 16 elements and of the last.
    scale: u32,
    first: u32,
    last: u32,
    spare: u32,
}

// 32 codes of 4 bits.
fn packed4(codes: vec4<u32>) -> Packed {
    return Packed(codes & vec4(0x0f0f0f0fu), (codes >> vec4(4u)) & vec4(0x0f0f0f0fu));
}

// 32 codes of 2 bits, each Oct in the lower half of a word.
fn packed2(codes: vec4<u32>) -> Packed {
    return Packed(spread(codes & vec4(0x3333u)), spread((codes >> vec4(2u)) & vec4(0x3333u)));
}

// Four bits each from the lower half of a word to its bytes.
fn spread(codes: vec4<u32>) -> vec4<u32> {
    let pairs = (codes | (codes << vec4(8u))) & vec4(0x00ff00ffu);
    return (pairs | (pairs << vec4(4u))) & vec4(0x0f0f0f0fu);
}

// 32 codes of 1 bit.
fn packed1(codes: u32) -> Packed {
    let octs = vec4(codes) >> vec4(0u, 8u, 16u, 24u);
    return Packed(bits_to_bytes(octs), bits_to_bytes(octs >> vec4(1u)));
}

// Bits 0, 2, 4 and 6 to a byte each. Their places in the four products share no others than those
// between the bytes.
fn bits_to_bytes(codes: vec4<u32>) -> vec4<u32> {
    return (((codes & vec4(0x55u)) * vec4(0x00410410u)) >> vec4(4u)) & vec4(0x01010101u);
}

// Codes of which `high` are the bits from `shift` on.
fn packed_join(low: Packed, high: Packed, shift: u32) -> Packed {
    return Packed(low.even | (high.even << vec4(shift)), low.odd | (high.odd << vec4(shift)));
}

// Sums of products of codes: over the first two Octs, then over the last two.
fn packed_dots(a: Packed, b: Packed) -> vec2<i32> {
    return vec2(
        dot4I8Packed(a.even.x, b.even.x) + dot4I8Packed(a.odd.x, b.odd.x)
            + dot4I8Packed(a.even.y, b.even.y) + dot4I8Packed(a.odd.y, b.odd.y),
        dot4I8Packed(a.even.z, b.even.z) + dot4I8Packed(a.odd.z, b.odd.z)
            + dot4I8Packed(a.even.w, b.even.w) + dot4I8Packed(a.odd.w, b.odd.w),
    );
}

// Twice the numbers of FP4 e2m1 codes in bytes, and 12 more, so that none is negative. Sizes up to
// 4 are twice their numbers 0 to 2; then come 6, 8 and 12.
fn e2m1_twice(codes: vec4<u32>) -> vec4<u32> {
    let ones = vec4(0x01010101u);
    let large = (codes >> vec4(2u)) & ones;
    let odd = large & codes;
    let top = large & (codes >> vec4(1u));
    let size = (codes & vec4(0x07070707u)) + odd + ((top + (top & odd)) << vec4(1u));
    // No byte borrows from its neighbour, as none is more than 12.
    let negative = size & (((codes >> vec4(3u)) & ones) * vec4(255u));
    return vec4(0x0c0c0c0cu) + size - (negative << vec4(1u));
}
