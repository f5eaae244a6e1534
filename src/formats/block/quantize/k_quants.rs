//! Q4_K and Q6_K: scales of groups found by least squares, then rounded to multiples of the block's,
//! each to the multiple that serves its group best.

use half::f16;

use super::legacy::largest;
use crate::formats::block::layout::Parts;

/// Elements that share a scale and a minimum in Q4_K.
const LINE: usize = 32;
/// Elements that share a scale in Q6_K.
const RAY: usize = 16;
/// Ranges tried as a start, as fractions of what holds every value: leaving out the outermost values
/// can be better for the others.
const STARTS: [f32; 9] = [0.70, 0.75, 0.80, 0.84, 0.88, 0.92, 0.96, 1.0, 1.04];
/// Turns of fitting the codes to the line and the line to the codes.
const TURNS: usize = 3;

/// Q4_K: `scale code - minimum` for 32, codes of 0 to 15, both numbers multiples of 0 to 63.
pub(super) fn q4_k(values: &[f32], parts: &mut Parts) {
    let (groups, _) = values.as_chunks::<LINE>();
    let mut lines = [Line::default(); 8];
    for (line, group) in lines.iter_mut().zip(groups) {
        *line = Line::fit(group);
    }
    let most = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0, f32::max);
    let scale_unit = unit(most(|l| l.scale) / 63.0);
    let minimum_unit = unit(most(|l| l.minimum) / 63.0);
    for (i, (line, group)) in lines.iter().zip(groups).enumerate() {
        let (mut best, mut least) = ((0, 0), f32::INFINITY);
        for scale in near(line.scale, scale_unit, 0.0, 63.0) {
            for minimum in near(line.minimum, minimum_unit, 0.0, 63.0) {
                let line = Line::of(scale_unit, scale, minimum_unit, minimum);
                let error = line.error(group);
                if error < least {
                    (best, least) = ((scale as u8, minimum as u8), error);
                }
            }
        }
        let (scale, minimum) = best;
        [parts.groups[2 * i], parts.groups[2 * i + 1]] = [scale, minimum];
        let line = Line::of(scale_unit, scale.into(), minimum_unit, minimum.into());
        write(&mut parts.codes[LINE * i..], line.codes(group));
    }
    let ([a, b], [c, d]) = (scale_unit.to_le_bytes(), minimum_unit.to_le_bytes());
    parts.top = [a, b, c, d];
}

/// `scale code - minimum`, both at least 0.
#[derive(Clone, Copy, Default)]
struct Line {
    scale: f32,
    minimum: f32,
}

impl Line {
    fn of(scale_unit: f16, scale: f32, minimum_unit: f16, minimum: f32) -> Self {
        Self { scale: scale_unit.to_f32() * scale, minimum: minimum_unit.to_f32() * minimum }
    }

    /// The best codes of values, as whole numbers.
    fn codes<const N: usize>(self, values: &[f32; N]) -> [f32; N] {
        let inverse = inverse(self.scale);
        values.map(|v| whole((v + self.minimum) * inverse, 0.0, 15.0))
    }

    /// The sum of squared errors with the best codes.
    fn error(self, values: &[f32; LINE]) -> f32 {
        let codes = self.codes(values);
        sum::<LINE>(|i| square(self.scale * codes[i] - self.minimum - values[i]))
    }

    /// The line through `values` that has nearly the least error.
    fn fit(values: &[f32; LINE]) -> Self {
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut best = Self { scale: (high - low) / 15.0, minimum: -low };
        let mut least = best.error(values);
        for part in STARTS {
            // What is left out is left out in proportion at both ends, so that zero stays.
            let mut line = Self { scale: (high - low) * part / 15.0, minimum: -low * part };
            for _ in 0..TURNS {
                line = line.refit(values);
                let error = line.error(values);
                if error < least {
                    (best, least) = (line, error);
                }
            }
        }
        best
    }

    /// The line of least error for the codes that this one gives.
    fn refit(self, values: &[f32; LINE]) -> Self {
        let codes = self.codes(values);
        let (c, v) = (sum::<LINE>(|i| codes[i]), sum::<LINE>(|i| values[i]));
        let cc = sum::<LINE>(|i| square(codes[i]));
        let cv = sum::<LINE>(|i| codes[i] * values[i]);
        let n = LINE as f32;
        let spread = n * cc - c * c;
        // All codes alike: no line goes through them.
        if spread <= 0.0 {
            return self;
        }
        let scale = ((n * cv - c * v) / spread).max(0.0);
        let minimum = (scale * c - v) / n;
        if minimum >= 0.0 {
            return Self { scale, minimum };
        }
        // `cc` is above 0, as the codes differ.
        Self { scale: (cv / cc).max(0.0), minimum: 0.0 }
    }
}

/// Q6_K: `scale code` for 16, codes of -32 to 31 about 32, the scale a multiple of -128 to 127.
pub(super) fn q6_k(values: &[f32], parts: &mut Parts) {
    let (groups, _) = values.as_chunks::<RAY>();
    let mut scales = [0.0; 16];
    for (scale, group) in scales.iter_mut().zip(groups) {
        *scale = ray(group);
    }
    // The largest scale becomes -128.
    let most = largest(&scales);
    let unit = unit(most.abs() / 128.0);
    let unit = if most > 0.0 { -unit } else { unit };
    for (i, (&scale, group)) in scales.iter().zip(groups).enumerate() {
        let (mut best, mut least) = (0.0, f32::INFINITY);
        for multiple in near(scale, unit, -128.0, 127.0) {
            let error = ray_error(multiple * unit.to_f32(), group);
            if error < least {
                (best, least) = (multiple, error);
            }
        }
        parts.groups[i] = (best as i8).cast_unsigned();
        let codes = ray_codes(best * unit.to_f32(), group);
        write(&mut parts.codes[RAY * i..], codes.map(|c| c + 32.0));
    }
    let [a, b] = unit.to_le_bytes();
    parts.top = [a, b, 0, 0];
}

/// The scale of nearly the least error.
fn ray(values: &[f32; RAY]) -> f32 {
    // Codes reach one further down than up: with this sign the largest value gets that one.
    let widest = largest(values) / -32.0;
    let (mut best, mut least) = (widest, ray_error(widest, values));
    for part in STARTS {
        for sign in [1.0, -1.0] {
            let scale = sign * part * widest;
            let codes = ray_codes(scale, values);
            let cc = sum::<RAY>(|i| square(codes[i]));
            let cv = sum::<RAY>(|i| codes[i] * values[i]);
            let scale = if cc > 0.0 { cv / cc } else { 0.0 };
            let error = ray_error(scale, values);
            if error < least {
                (best, least) = (scale, error);
            }
        }
    }
    best
}

fn ray_codes(scale: f32, values: &[f32; RAY]) -> [f32; RAY] {
    let inverse = inverse(scale);
    values.map(|v| whole(v * inverse, -32.0, 31.0))
}

fn ray_error(scale: f32, values: &[f32; RAY]) -> f32 {
    let codes = ray_codes(scale, values);
    sum::<RAY>(|i| square(scale * codes[i] - values[i]))
}

/// What to multiply by to divide by `scale`; one so small that the block's f16 becomes zero counts
/// as zero, and all codes are zero then.
fn inverse(scale: f32) -> f32 {
    if scale.abs() < 1e-30 { 0.0 } else { 1.0 / scale }
}

/// The nearest whole number within limits that are far below 2^22.
fn whole(value: f32, low: f32, high: f32) -> f32 {
    // Where f32 has no fractions; `round` would be a call for each number on plain x86-64.
    const WHOLE: f32 = (3 << 22) as f32;
    (value.max(low).min(high) + WHOLE) - WHOLE
}

fn square(v: f32) -> f32 {
    v * v
}

/// The sum over `N`, a multiple of 8, in an order that lets eight additions go on at once.
fn sum<const N: usize>(of: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0; 8];
    for first in (0..N).step_by(8) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += of(first + i);
        }
    }
    sums.iter().sum()
}

fn write<const N: usize>(to: &mut [u8], codes: [f32; N]) {
    to[..N].copy_from_slice(&codes.map(|c| c as u8));
}

/// The nearest f16; where these are sparse, the next above rather than one far below, since a scale
/// that is too small cuts the largest values off.
fn unit(value: f32) -> f16 {
    let near = f16::from_f32(value);
    if near.to_f32() < 0.999 * value { f16::from_bits(near.to_bits() + 1) } else { near }
}

/// Whole multiples of `unit` about `value`, within limits.
fn near(value: f32, unit: f16, low: f32, high: f32) -> impl Iterator<Item = f32> {
    let unit = unit.to_f32();
    let middle = if unit == 0.0 { 0.0 } else { (value / unit).round() };
    [0.0, -1.0, 1.0].into_iter().map(move |step| (middle + step).clamp(low, high))
}
