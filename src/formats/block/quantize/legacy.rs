//! The formats with one scale a block, bit for bit as ggml's reference quantises them.

use half::f16;

use crate::formats::block::E2M1;
use crate::formats::block::layout::Parts;
use crate::formats::block::values::half_ue8m0;

/// Q4_0: the largest value, whichever its sign, becomes code 0.
pub(super) fn q4_0(values: &[f32], parts: &mut Parts) {
    about_zero(values, 8.0, parts);
}

/// Q5_0: likewise.
pub(super) fn q5_0(values: &[f32], parts: &mut Parts) {
    about_zero(values, 16.0, parts);
}

/// Q4_1: from the least value to the greatest.
pub(super) fn q4_1(values: &[f32], parts: &mut Parts) {
    from_minimum(values, 15.0, parts);
}

/// Q5_1: likewise.
pub(super) fn q5_1(values: &[f32], parts: &mut Parts) {
    from_minimum(values, 31.0, parts);
}

/// Q8_0: the largest value becomes 127 or -127.
pub(super) fn q8_0(values: &[f32], parts: &mut Parts) {
    let scale = largest(values).abs() / 127.0;
    let inverse = inverse(scale);
    for (code, v) in parts.codes.iter_mut().zip(values) {
        *code = ((v * inverse).round() as i8).cast_unsigned();
    }
    set_top(parts, scale, 0.0);
}

/// MXFP4: the largest value's power of two, and the nearest code for each value.
pub(super) fn mxfp4(values: &[f32], parts: &mut Parts) {
    let most = largest(values).abs();
    let exponent = most.log2().floor() - 2.0 + 127.0;
    // The logarithm of zero is -inf, which becomes 0 here.
    let byte = exponent as u8;
    let scale = half_ue8m0(byte);
    for (code, v) in parts.codes.iter_mut().zip(values) {
        let (mut best, mut least) = (0, f32::INFINITY);
        for (i, &value) in E2M1.iter().enumerate() {
            let error = (scale * f32::from(value) - v).abs();
            if error < least {
                (best, least) = (i as u8, error);
            }
        }
        *code = best;
    }
    parts.top[0] = byte;
}

fn about_zero(values: &[f32], middle: f32, parts: &mut Parts) {
    let scale = largest(values) / -middle;
    let inverse = inverse(scale);
    let most = 2.0 * middle - 1.0;
    for (code, v) in parts.codes.iter_mut().zip(values) {
        *code = (v * inverse + (middle + 0.5)).min(most) as u8;
    }
    set_top(parts, scale, 0.0);
}

fn from_minimum(values: &[f32], most: f32, parts: &mut Parts) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = (greatest - least) / most;
    let inverse = inverse(scale);
    for (code, v) in parts.codes.iter_mut().zip(values) {
        *code = ((v - least) * inverse + 0.5).min(most) as u8;
    }
    set_top(parts, scale, least);
}

/// The first value of the largest magnitude.
pub(super) fn largest(values: &[f32]) -> f32 {
    let larger = |most: f32, v: f32| if v.abs() > most.abs() { v } else { most };
    values.iter().copied().reduce(larger).unwrap_or(0.0)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn set_top(parts: &mut Parts, scale: f32, minimum: f32) {
    let [a, b] = f16::from_f32(scale).to_le_bytes();
    let [c, d] = f16::from_f32(minimum).to_le_bytes();
    parts.top = [a, b, c, d];
}
