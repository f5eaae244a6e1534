// Weights are decoded 8 elements at a time; and how the codes of block formats become numbers.

struct Oct {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// What makes numbers of codes: code * scale + shift.
struct Scale {
    scale: f32,
    shift: f32,
}

struct TwoScales {
    first: Scale,
    last: Scale,
}

// 8 codes as they are stored.
struct Codes {
    lo: vec4<u32>,
    hi: vec4<u32>,
}

fn oct_dot(a: Oct, b: Oct) -> f32 {
    return dot(a.lo, b.lo) + dot(a.hi, b.hi);
}

fn oct_sum(a: Oct) -> f32 {
    return dot(a.lo + a.hi, vec4(1.0));
}

// Codes of 4, 2 or 1 bits from the lowest 32, 16 or 8 bits of a word.
fn bits4(word: u32) -> Codes {
    return Codes(
        (vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u),
        (vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u),
    );
}

fn bits2(word: u32) -> Codes {
    return Codes(
        (vec4(word) >> vec4(0u, 2u, 4u, 6u)) & vec4(3u),
        (vec4(word) >> vec4(8u, 10u, 12u, 14u)) & vec4(3u),
    );
}

fn bits1(word: u32) -> Codes {
    return Codes(
        (vec4(word) >> vec4(0u, 1u, 2u, 3u)) & vec4(1u),
        (vec4(word) >> vec4(4u, 5u, 6u, 7u)) & vec4(1u),
    );
}

// The four bytes of a word.
fn bytes(word: u32) -> vec4<u32> {
    return (vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u);
}

// The same, as signed numbers.
fn signed_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>((vec4(bitcast<i32>(word)) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

// Codes of which `high` are the bits from `shift` on.
fn joined(low: Codes, high: Codes, shift: u32) -> Codes {
    return Codes(low.lo | (high.lo << vec4(shift)), low.hi | (high.hi << vec4(shift)));
}

// Codes that are integers. Through signed ones, which CPUs convert in one instruction.
fn integers(codes: Codes) -> Oct {
    return Oct(vec4<f32>(vec4<i32>(codes.lo)), vec4<f32>(vec4<i32>(codes.hi)));
}

// A byte as a two's complement integer.
fn signed_byte(byte: u32) -> f32 {
    return f32(bitcast<i32>(byte << 24u) >> 24u);
}

// The 16 numbers of IQ4, four to a word. A table in an array would be copied at every call.
fn iq4(code: vec4<u32>) -> vec4<f32> {
    let odd = (code & vec4(4u)) != vec4(0u);
    let low = select(vec4(0xbfad9881u), vec4(0xf6eaddcfu), odd);
    let high = select(vec4(0x26190d01u), vec4(0x71594535u), odd);
    let word = select(low, high, (code & vec4(8u)) != vec4(0u));
    let byte = word << (vec4(24u) - vec4(8u) * (code & vec4(3u)));
    return vec4<f32>(bitcast<vec4<i32>>(byte) >> vec4(24u));
}

// FP4 e2m1. Without its sign the code is the top of a float's exponent and fraction, but for 0.5, whose
// bits are masked by minus 1: GPUs multiply integers slowly.
fn e2m1(code: vec4<u32>) -> vec4<f32> {
    let size = code & vec4(7u);
    let normal = (size << vec4(22u)) + vec4(126u << 23u);
    let bits = select(normal, (vec4(0u) - size) & vec4(126u << 23u), size < vec4(2u));
    return bitcast<vec4<f32>>(bits | ((code & vec4(8u)) << vec4(28u)));
}

// FP8 e4m3, likewise; sizes below 8 are multiples of 2^-9. NaN reads as 480.
fn e4m3(code: vec4<u32>) -> vec4<f32> {
    let size = code & vec4(127u);
    let normal = bitcast<vec4<f32>>((size << vec4(20u)) + vec4(120u << 23u));
    let number = select(normal, vec4<f32>(vec4<i32>(size)) * 0x1p-9, size < vec4(8u));
    return select(number, -number, code >= vec4(128u));
}

// A power of two, 2^(byte - 127); 2^-127, which devices may not know, is taken for 0.
fn ue8m0(byte: u32) -> f32 {
    return bitcast<f32>(byte << 23u);
}
