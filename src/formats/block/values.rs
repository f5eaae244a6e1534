//! From a block's codes and scales to the numbers they mean.

use half::f16;

use super::BlockFormat;
use super::layout::Parts;

/// The values of IQ4_NL's and IQ4_XS's codes.
pub const IQ4: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of FP4 e2m1's codes. Code 8 is a plain zero, as in ggml.
pub const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The values of FP8 e4m3's codes (the kind without infinities).
const E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = e4m3(code as u32);
        code += 1;
    }
    values
};

const fn e4m3(code: u32) -> f32 {
    let (sign, exponent, fraction) = (code >> 7 << 31, code >> 3 & 15, code & 7);
    match (exponent, fraction) {
        (15, 7) => f32::NAN,
        (0, _) => f32::from_bits(sign | (fraction as f32 / 512.0).to_bits()),
        _ => f32::from_bits(sign | (exponent + 120) << 23 | fraction << 20),
    }
}

/// `2^(byte - 128)`: half of what a ue8m0 byte means, as ggml has it.
pub(super) fn half_ue8m0(byte: u8) -> f32 {
    match byte {
        0 | 1 => f32::from_bits(1 << (21 + u32::from(byte))),
        _ => f32::from_bits((u32::from(byte) - 1) << 23),
    }
}

/// `2^(byte - 127)`, and NaN for 255.
pub(super) fn ue8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// Writes the numbers of a block, as many as `out` takes.
pub(super) fn write(format: BlockFormat, parts: &Parts, out: &mut [f32]) {
    use BlockFormat::*;
    let Parts { codes, groups, top } = parts;
    let d = f16::from_le_bytes([top[0], top[1]]).to_f32();
    let m = f16::from_le_bytes([top[2], top[3]]).to_f32();
    let signed = |i: usize| f32::from(groups[i].cast_signed());
    let number = |c: u8| f32::from(c);
    let of = |table: &[i8; 16], c: u8| f32::from(table[usize::from(c)]);
    match format {
        Q4_0 => each(codes, out, |_, c| d * (number(c) - 8.0)),
        Q5_0 => each(codes, out, |_, c| d * (number(c) - 16.0)),
        Q8_0 => each(codes, out, |_, c| d * f32::from(c.cast_signed())),
        Q4_1 | Q5_1 => each(codes, out, |_, c| d * number(c) + m),
        Q2K => each(codes, out, |i, c| {
            let group = groups[i / 16];
            d * number(group & 15) * number(c) - m * number(group >> 4)
        }),
        Q3K => each(codes, out, |i, c| d * signed(i / 16) * (number(c) - 4.0)),
        Q6K => each(codes, out, |i, c| d * signed(i / 16) * (number(c) - 32.0)),
        Q4K | Q5K => each(codes, out, |i, c| {
            let (scale, min) = (groups[i / 32 * 2], groups[i / 32 * 2 + 1]);
            d * number(scale) * number(c) - m * number(min)
        }),
        IQ4NL => each(codes, out, |_, c| d * of(&IQ4, c)),
        IQ4XS => each(codes, out, |i, c| d * signed(i / 32) * of(&IQ4, c)),
        MXFP4 => {
            let d = half_ue8m0(top[0]);
            each(codes, out, |_, c| d * of(&E2M1, c));
        }
        FP8 => {
            let d = ue8m0(top[0]);
            each(codes, out, |_, c| d * E4M3[usize::from(c)]);
        }
        FP8F32 => {
            let d = f32::from_le_bytes(*top);
            each(codes, out, |_, c| d * E4M3[usize::from(c)]);
        }
    }
}

fn each(codes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    for (i, (out, &code)) in out.iter_mut().zip(codes).enumerate() {
        *out = value(i, code);
    }
}
