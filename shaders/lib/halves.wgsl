// Codes of small floats as f16 has them, with an exponent that counts from elsewhere: two at a time, which
// a processor converts in one instruction, be they subnormal or not. GPUs may take subnormal f16 for 0, so
// this is for software adapters.

// Four FP8 e4m3 codes, times 2^-8. NaN reads as 480.
fn e4m3_halves(word: u32) -> vec4<f32> {
    let even = ((word & 0x007f007fu) << 7u) | ((word & 0x00800080u) << 8u);
    let odd = ((word & 0x7f007f00u) >> 1u) | (word & 0x80008000u);
    let a = unpack2x16float(even);
    let b = unpack2x16float(odd);
    return vec4(a.x, b.x, a.y, b.y);
}

// Eight FP4 e2m1 codes, times 2^-14.
fn e2m1_halves(word: u32) -> Oct {
    let a = unpack2x16float(((word & 0x00070007u) << 9u) | ((word & 0x00080008u) << 12u));
    let b = unpack2x16float(((word & 0x00700070u) << 5u) | ((word & 0x00800080u) << 8u));
    let c = unpack2x16float(((word & 0x07000700u) << 1u) | ((word & 0x08000800u) << 4u));
    let d = unpack2x16float(((word & 0x70007000u) >> 3u) | (word & 0x80008000u));
    return Oct(vec4(a.x, b.x, c.x, d.x), vec4(a.y, b.y, c.y, d.y));
}
