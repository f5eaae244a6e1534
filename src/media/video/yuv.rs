//! Decoded 4:2:0 planes to RGB.

use image::RgbImage;
use openh264::formats::YUVSource;

use super::sps::{Colour, Matrix};

/// Fraction bits of the conversion's fixed-point factors.
const BITS: u32 = 16;

/// Factors from centred luma and chroma to RGB, in fixed point.
struct Factors {
    black: i32,
    luma: i32,
    red_cr: i32,
    green_cb: i32,
    green_cr: i32,
    blue_cb: i32,
}

impl Factors {
    fn new(colour: Colour) -> Self {
        let (red, blue) = match colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let green = 1.0 - red - blue;
        let (luma, chroma) =
            if colour.full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |factor: f64| (factor * f64::from(1 << BITS)).round() as i32;
        Self {
            black: if colour.full_range { 0 } else { 16 },
            luma: fixed(luma),
            red_cr: fixed(2.0 * (1.0 - red) * chroma),
            green_cb: fixed(-2.0 * blue * (1.0 - blue) / green * chroma),
            green_cr: fixed(-2.0 * red * (1.0 - red) / green * chroma),
            blue_cb: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let luma = (i32::from(y) - self.black) * self.luma + (1 << (BITS - 1));
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let byte = |sum: i32| (sum >> BITS).clamp(0, 255) as u8;
        [
            byte(luma + cr * self.red_cr),
            byte(luma + cb * self.green_cb + cr * self.green_cr),
            byte(luma + cb * self.blue_cb),
        ]
    }
}

/// Converts a decoded picture; each chroma sample covers its two by two pixels. `None` if the
/// planes are smaller than the picture's size says.
pub(super) fn to_rgb(picture: &impl YUVSource, colour: Colour) -> Option<RgbImage> {
    let (width, height) = picture.dimensions();
    let (y_stride, u_stride, v_stride) = picture.strides();
    let factors = Factors::new(colour);
    let mut out = RgbImage::new(width.try_into().ok()?, height.try_into().ok()?);
    if width == 0 {
        return Some(out);
    }
    for (row, line) in out.chunks_exact_mut(width * 3).enumerate() {
        let half = width.div_ceil(2);
        let y = picture.y().get(row * y_stride..)?.get(..width)?;
        let u = picture.u().get(row / 2 * u_stride..)?.get(..half)?;
        let v = picture.v().get(row / 2 * v_stride..)?.get(..half)?;
        for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&factors.rgb(y[x], u[x / 2], v[x / 2]));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        let studio = Factors::new(Colour { matrix: Matrix::Bt601, full_range: false });
        assert_eq!(studio.rgb(16, 128, 128), [0, 0, 0]);
        assert_eq!(studio.rgb(235, 128, 128), [255, 255, 255]);
        assert_eq!(studio.rgb(81, 90, 240), [254, 0, 0]);
        let full = Factors::new(Colour { matrix: Matrix::Bt709, full_range: true });
        assert_eq!(full.rgb(0, 128, 128), [0, 0, 0]);
        assert_eq!(full.rgb(255, 128, 128), [255, 255, 255]);
        assert_eq!(full.rgb(18, 255, 116), [0, 0, 254]);
    }
}
