//! Bicubic resizing whose bytes equal Pillow's.
//!
//! The reference pipelines resize with Pillow, so its arithmetic is part of the model's input:
//! filter weights in `f64`, rounded to 22-bit fixed point; a horizontal and a vertical pass, each
//! rounded and clamped to bytes. A pass that would not change a side is skipped.
//!
//! Which pass comes first changes a byte by a level here and there. It is as in Pillow 13: the
//! vertical one where the height loses more than twice the pixels that the width loses, else the
//! horizontal one. (Version 11 always began with the horizontal one, version 12 nearly always.)

use image::RgbImage;
use rayon::prelude::*;

/// Fraction bits of a filter weight: 32 less 8 for the byte and 2 for sums that pass one.
const FRACTION_BITS: u32 = 22;
/// Half the width of the bicubic kernel, in source pixels at scale one.
const SUPPORT: f64 = 2.0;

/// The Keys cubic kernel with a = -0.5, in the order of operations that Pillow uses.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The fixed-point weights of one output position and the first source position they apply to.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Weights for resizing a side of `from` pixels to `to` pixels, one entry per output pixel.
fn taps(from: u32, to: u32) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    // When shrinking, the kernel widens so that every source pixel counts (antialiasing).
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let inverse = 1.0 / stretch;
    let mut weights = Vec::new();
    (0..to)
        .map(|out| {
            let center = (f64::from(out) + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let last = ((center + support + 0.5) as usize).min(from as usize);
            weights.clear();
            weights.extend((first..last).map(|x| cubic((x as f64 - center + 0.5) * inverse)));
            let sum: f64 = weights.iter().sum();
            let fixed = |&w: &f64| {
                let w = if sum == 0.0 { w } else { w / sum };
                let scaled = w * f64::from(1 << FRACTION_BITS);
                // Rounds half away from zero by a cast that truncates.
                (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            };
            Taps { first, weights: weights.iter().map(fixed).collect() }
        })
        .collect()
}

/// Half a unit, the start of every sum, so that the shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes `src` to `width` x `height` pixels. An empty source or target gives an empty picture of
/// the target's size filled with black.
pub fn resize(src: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (src_w, src_h) = src.dimensions();
    if src_w == 0 || src_h == 0 || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    let across = |src: &RgbImage| {
        if src.width() == width { src.clone() } else { horizontal(src, width) }
    };
    let down = |src: &RgbImage| {
        if src.height() == height { src.clone() } else { vertical(src, height) }
    };
    if src_h.saturating_sub(height) > 2 * src_w.saturating_sub(width) {
        across(&down(src))
    } else {
        down(&across(src))
    }
}

fn horizontal(src: &RgbImage, width: u32) -> RgbImage {
    let taps = taps(src.width(), width);
    let mut out = RgbImage::new(width, src.height());
    let rows = src.as_raw().par_chunks_exact(src.width() as usize * 3);
    rows.zip(out.par_chunks_exact_mut(width as usize * 3)).for_each(|(from, to)| {
        for (pixel, taps) in to.chunks_exact_mut(3).zip(&taps) {
            let mut sums = [HALF; 3];
            for (rgb, &weight) in from[taps.first * 3..].chunks_exact(3).zip(&taps.weights) {
                for c in 0..3 {
                    sums[c] += i32::from(rgb[c]) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(to_byte));
        }
    });
    out
}

fn vertical(src: &RgbImage, height: u32) -> RgbImage {
    let taps = taps(src.height(), height);
    let mut out = RgbImage::new(src.width(), height);
    let row = src.width() as usize * 3;
    out.par_chunks_exact_mut(row).zip(&taps).for_each_init(
        || vec![0; row],
        |sums, (to, taps)| {
            sums.fill(HALF);
            let rows = src.as_raw()[taps.first * row..].chunks_exact(row);
            for (from, &weight) in rows.zip(&taps.weights) {
                for (sum, &byte) in sums.iter_mut().zip(from) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for (byte, &sum) in to.iter_mut().zip(sums.iter()) {
                *byte = to_byte(sum);
            }
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn flat_colour_stays() {
        let src = RgbImage::from_pixel(37, 11, Rgb([200, 3, 255]));
        for (w, h) in [(1, 1), (5, 40), (37, 11), (100, 3)] {
            let out = resize(&src, w, h);
            assert_eq!(out.dimensions(), (w, h));
            assert!(out.pixels().all(|p| p.0 == [200, 3, 255]));
        }
    }

    #[test]
    fn empty_sides() {
        assert_eq!(resize(&RgbImage::new(0, 4), 3, 2).dimensions(), (3, 2));
        assert_eq!(resize(&RgbImage::new(4, 4), 0, 2).dimensions(), (0, 2));
    }

    #[test]
    fn overshoot_is_clamped() {
        // A hard edge enlarged with a cubic overshoots on both sides.
        let src = RgbImage::from_fn(8, 1, |x, _| Rgb([if x < 4 { 0 } else { 255 }; 3]));
        let out = resize(&src, 64, 1);
        assert_eq!(out.get_pixel(26, 0).0[0], 0);
        assert_eq!(out.get_pixel(37, 0).0[0], 255);
    }
}
