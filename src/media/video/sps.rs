//! The few fields of an H.264 sequence parameter set that decide how a stream is read.

/// How a stream's colours are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour {
    pub matrix: Matrix,
    /// Whether luma spans 0..=255 instead of 16..=235.
    pub full_range: bool,
}

/// The matrix between YCbCr and RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
}

impl Colour {
    /// From a `matrix_coefficients` code; `None` for one that says nothing.
    pub fn from_code(code: u32, full_range: bool) -> Option<Self> {
        let matrix = match code {
            1 => Matrix::Bt709,
            5 | 6 => Matrix::Bt601,
            9 => Matrix::Bt2020,
            _ => return None,
        };
        Some(Self { matrix, full_range })
    }

    /// What players assume of a stream that does not say: BT.709 from 720 lines on, BT.601 below.
    pub fn assumed(height: u32, full_range: bool) -> Self {
        let matrix = if height >= 720 { Matrix::Bt709 } else { Matrix::Bt601 };
        Self { matrix, full_range }
    }
}

/// A sequence parameter set, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sps {
    pub profile: u8,
    /// Chroma format: 1 is 4:2:0.
    pub chroma: u32,
    /// The larger bit depth of luma and chroma.
    pub depth: u32,
    /// Whether pictures may be coded as fields.
    pub interlaced: bool,
    /// Coded width and height in pixels, before cropping.
    pub coded: (u64, u64),
    pub colour: Option<Colour>,
    pub full_range: bool,
}

impl Sps {
    /// Parses a NAL unit of type 7, its header byte included; `None` if it is damaged.
    pub fn parse(nal: &[u8]) -> Option<Self> {
        let bytes = without_escapes(nal.get(1..)?);
        let mut bits = Bits { bytes: &bytes, at: 0 };
        let profile = bits.read(8)? as u8;
        bits.read(16)?;
        bits.golomb()?;
        let (mut chroma, mut depth) = (1, 8);
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134) {
            chroma = bits.golomb()?;
            if chroma == 3 {
                bits.read(1)?;
            }
            depth = 8 + bits.golomb()?.min(64).max(bits.golomb()?.min(64));
            bits.read(1)?;
            if bits.read(1)? == 1 {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.read(1)? == 1 {
                        bits.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.golomb()?;
        match bits.golomb()? {
            0 => {
                bits.golomb()?;
            }
            1 => {
                bits.read(1)?;
                bits.signed()?;
                bits.signed()?;
                for _ in 0..bits.golomb()?.min(255) {
                    bits.signed()?;
                }
            }
            _ => {}
        }
        bits.golomb()?;
        bits.read(1)?;
        let (width, rows) = (bits.golomb()?, bits.golomb()?);
        let interlaced = bits.read(1)? == 0;
        if interlaced {
            bits.read(1)?;
        }
        let lines = (u64::from(rows) + 1) * if interlaced { 32 } else { 16 };
        bits.read(1)?;
        if bits.read(1)? == 1 {
            for _ in 0..4 {
                bits.golomb()?;
            }
        }
        // A stream without usability information, or with damaged one, is decodable all the same.
        let (colour, full_range) = bits.colour().unwrap_or((None, false));
        let coded = ((u64::from(width) + 1) * 16, lines);
        Some(Self { profile, chroma, depth, interlaced, coded, colour, full_range })
    }
}

/// The payload of a NAL unit without its emulation prevention bytes (the 3 of 0 0 3).
fn without_escapes(nal: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    nal.iter()
        .copied()
        .filter(|&byte| {
            let escape = zeros >= 2 && byte == 3;
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            !escape
        })
        .collect()
}

/// Reads bits from the most significant on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `count` bits (at most 32) as a number.
    fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// An unsigned Exp-Golomb number.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
        }
        if zeros > 31 {
            return None;
        }
        Some((1u32 << zeros) - 1 + self.read(zeros)?)
    }

    /// A signed Exp-Golomb number.
    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 })
    }

    fn skip_scaling_list(&mut self, size: usize) -> Option<()> {
        let (mut last, mut next) = (8, 8);
        for _ in 0..size {
            if next != 0 {
                next = (last + self.signed()?).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
        Some(())
    }

    /// The colour fields of the video usability information that follows: the matrix if it is
    /// given, and whether the range is full.
    fn colour(&mut self) -> Option<(Option<Colour>, bool)> {
        if self.read(1)? == 0 {
            return None;
        }
        if self.read(1)? == 1 && self.read(8)? == 255 {
            self.read(32)?;
        }
        if self.read(1)? == 1 {
            self.read(1)?;
        }
        if self.read(1)? == 0 {
            return None;
        }
        self.read(3)?;
        let full_range = self.read(1)? == 1;
        let mut colour = None;
        if self.read(1)? == 1 {
            self.read(16)?;
            colour = Colour::from_code(self.read(8)?, full_range);
        }
        Some((colour, full_range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golomb_codes() {
        // 1, 010, 011, 00100: 0, 1, 2, 3.
        let mut bits = Bits { bytes: &[0b1010_0110, 0b0100_0000], at: 0 };
        assert_eq!([(); 4].map(|()| bits.golomb()), [Some(0), Some(1), Some(2), Some(3)]);
        let mut bits = Bits { bytes: &[0; 8], at: 0 };
        assert_eq!(bits.golomb(), None);
    }

    #[test]
    fn escapes_are_removed() {
        assert_eq!(without_escapes(&[1, 0, 0, 3, 1, 0, 0, 3]), [1, 0, 0, 1, 0, 0]);
        assert_eq!(without_escapes(&[0, 3, 0, 0, 4]), [0, 3, 0, 0, 4]);
    }

    #[test]
    fn noise_does_not_panic() {
        let mut state = 1u32;
        for length in 0..200 {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let _ = Sps::parse(&noise);
        }
    }
}
