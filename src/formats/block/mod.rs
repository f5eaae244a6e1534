//! Block formats: numbers stored in groups that share a scale. What GGUF files call quantised types,
//! and the FP8 and FP4 of DeepSeek's own checkpoints.
//!
//! A *stored* row is a run of blocks as the file has them; [`BlockFormat::block_bytes`] tells their
//! size. A *packed* row is the same bits for the GPU: parted into planes, each in the order of the
//! elements, so that a kernel loads whole words wherever it begins. A packed row is
//! `[codes][more bits of the codes][scales]`, one plane after the other, each from a whole word on,
//! and is padded with zeros to a multiple of [`ROW_ALIGN`] words. A plane of `b` bits has its item
//! `i` at bits `b i .. b i + b`, counted from the lowest bit of its first word; items never straddle
//! words. The elements beyond the row's end are what the last stored block has there.
//!
//! What an element is, in f32, with `c` its code, `g` its group's number and `d`, `m` those of its
//! block (f16 unless told otherwise, `d` in the low half of the word):
//!
//! | | |
//! |---|---|
//! | Q4_0, Q5_0, Q8_0 | `d (c - 8)`, `d (c - 16)`, `d c` with `c` signed |
//! | Q4_1, Q5_1 | `d c + m` |
//! | Q2_K | `(d (g mod 16)) c - m (g / 16)` |
//! | Q3_K, Q6_K | `(d g) (c - 4)`, `(d g) (c - 32)`, `g` signed |
//! | Q4_K, Q5_K | `(d g0) c - m g1`: `g0` the low byte of the group's 16 bits, `g1` the high |
//! | IQ4_NL, IQ4_XS | `d T[c]`, `(d g) T[c]`, `g` signed, `T` of [`IQ4`] |
//! | MXFP4 | `2^(d - 128) E[c]`, `d` a byte, `E` of [`E2M1`]: twice the number of the standard |
//! | FP8 | `2^(d - 127) e4m3(c)`, `d` a byte, 255 for NaN |
//! | FP8_F32 | `d e4m3(c)`, `d` in f32 |
//!
//! All products of the first eight lines are exact in f32 and each sum rounds once, so that it does
//! not matter whether a kernel fuses them. The powers of two of small `d` are subnormal numbers.

mod deepseek;
mod layout;
mod quantize;
mod scales;
mod values;

use std::fmt;

pub use deepseek::{fp4_row, fp8_f32_row, fp8_row};
use layout::{Bits, Parts};
pub use values::{E2M1, IQ4};

/// Packed rows begin at multiples of so many 32-bit words.
pub const ROW_ALIGN: usize = 8;

/// How a group of numbers is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockFormat {
    /// 4-bit integers about 8, an f16 scale for 32.
    Q4_0,
    /// 4-bit integers, an f16 scale and minimum for 32.
    Q4_1,
    /// 5-bit integers about 16, an f16 scale for 32.
    Q5_0,
    /// 5-bit integers, an f16 scale and minimum for 32.
    Q5_1,
    /// 8-bit integers, an f16 scale for 32.
    Q8_0,
    /// 2-bit integers, 4-bit scale and minimum for 16, f16 scales of these for 256.
    Q2K,
    /// 3-bit integers about 4, a 6-bit scale for 16, an f16 scale of these for 256.
    Q3K,
    /// 4-bit integers, 6-bit scale and minimum for 32, f16 scales of these for 256.
    Q4K,
    /// 5-bit integers, scales as [`BlockFormat::Q4K`].
    Q5K,
    /// 6-bit integers about 32, an 8-bit scale for 16, an f16 scale of these for 256.
    Q6K,
    /// 4-bit indices into a table of 16 values, an f16 scale for 32.
    IQ4NL,
    /// The same table, a 6-bit scale for 32, an f16 scale of these for 256.
    IQ4XS,
    /// FP4 e2m1, a power-of-two scale (ue8m0) for 32: OCP MXFP4, and DeepSeek's FP4.
    MXFP4,
    /// FP8 e4m3, a power-of-two scale (ue8m0) for 32: DeepSeek V4's FP8, whose blocks of 128 or 32
    /// columns repeat theirs. Stored blocks are made when a checkpoint is read: scale, then codes.
    FP8,
    /// FP8 e4m3, an f32 scale for 128: DeepSeek V3's FP8. Stored blocks likewise.
    FP8F32,
}

/// What a format is made of.
struct Row {
    format: BlockFormat,
    name: &'static str,
    /// The number GGUF files give the type; `None` for those no GGUF file has.
    ggml: Option<u32>,
    /// Elements a stored block.
    block: usize,
    /// Bytes a stored block.
    bytes: usize,
    /// Where a stored block has the numbers that all of it shares; their size is the last plane's.
    top: usize,
    /// Where a stored block has the codes.
    codes: &'static [Bits],
    /// Planes of a packed row: (bits, for so many elements), in order.
    planes: &'static [(usize, usize)],
}

#[rustfmt::skip]
const TABLE: [Row; 15] = {
    use BlockFormat::*;
    const fn row(
        format: BlockFormat,
        name: &'static str,
        ggml: Option<u32>,
        [block, bytes, top]: [usize; 3],
        codes: &'static [Bits],
        planes: &'static [(usize, usize)],
    ) -> Row {
        Row { format, name, ggml, block, bytes, top, codes, planes }
    }
    const fn at(at: usize, run: usize, bits: usize, shift: usize) -> Bits {
        Bits { at, run, bits, shift }
    }
    [
        // Codes, then the scale (and the minimum above it in the same word).
        row(Q4_0, "Q4_0", Some(2), [32, 18, 0], &[at(2, 16, 4, 0)],
            &[(4, 1), (16, 32)]),
        row(Q4_1, "Q4_1", Some(3), [32, 20, 0], &[at(4, 16, 4, 0)],
            &[(4, 1), (32, 32)]),
        // Low four bits, high bit, scale (and minimum).
        row(Q5_0, "Q5_0", Some(6), [32, 22, 0], &[at(6, 16, 4, 0), at(2, 1, 1, 4)],
            &[(4, 1), (1, 1), (16, 32)]),
        row(Q5_1, "Q5_1", Some(7), [32, 24, 0], &[at(8, 16, 4, 0), at(4, 1, 1, 4)],
            &[(4, 1), (1, 1), (32, 32)]),
        row(Q8_0, "Q8_0", Some(8), [32, 34, 0], &[at(2, 1, 8, 0)],
            &[(8, 1), (16, 32)]),
        // Codes, a byte for 16 (scale in its low half, minimum in its high), scale and minimum.
        row(Q2K, "Q2_K", Some(10), [256, 84, 80], &[at(16, 32, 2, 0)],
            &[(2, 1), (8, 16), (32, 256)]),
        // Low two bits, high bit, a signed byte for 16 (32 taken off), scale.
        row(Q3K, "Q3_K", Some(11), [256, 110, 108], &[at(32, 32, 2, 0), at(0, 32, 1, 2)],
            &[(2, 1), (1, 1), (8, 16), (16, 256)]),
        // Codes, for each 32 the scale in one byte and the minimum in the next, scale and minimum.
        row(Q4K, "Q4_K", Some(12), [256, 144, 0], &[at(16, 32, 4, 0)],
            &[(4, 1), (16, 32), (32, 256)]),
        // Low four bits, high bit, then as Q4_K.
        row(Q5K, "Q5_K", Some(13), [256, 176, 0], &[at(48, 32, 4, 0), at(16, 32, 1, 4)],
            &[(4, 1), (1, 1), (16, 32), (32, 256)]),
        // Low four bits, high two, a signed byte for 16, scale.
        row(Q6K, "Q6_K", Some(14), [256, 210, 208], &[at(0, 64, 4, 0), at(128, 32, 2, 4)],
            &[(4, 1), (2, 1), (8, 16), (16, 256)]),
        row(IQ4NL, "IQ4_NL", Some(20), [32, 18, 0], &[at(2, 16, 4, 0)],
            &[(4, 1), (16, 32)]),
        // Codes, a signed byte for 32 (32 taken off), scale.
        row(IQ4XS, "IQ4_XS", Some(23), [256, 136, 0], &[at(8, 16, 4, 0)],
            &[(4, 1), (8, 32), (16, 256)]),
        // Codes, then the scale's byte or bytes.
        row(MXFP4, "MXFP4", Some(39), [32, 17, 0], &[at(1, 16, 4, 0)],
            &[(4, 1), (8, 32)]),
        row(FP8, "FP8", None, [32, 33, 0], &[at(1, 1, 8, 0)],
            &[(8, 1), (8, 32)]),
        row(FP8F32, "FP8_F32", None, [128, 132, 0], &[at(4, 1, 8, 0)],
            &[(8, 1), (32, 128)]),
    ]
};

impl BlockFormat {
    /// Every format.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.format)
    }

    fn row(self) -> &'static Row {
        // In the order of declaration; a test holds the table to that.
        &TABLE[self as usize]
    }

    /// Bytes that all of a block shares.
    fn top_bytes(self) -> usize {
        self.row().planes.last().map_or(0, |(bits, _)| bits / 8)
    }

    /// Bytes that a packed row has for the groups inside a block.
    fn group_bytes(self) -> usize {
        let inner = |&&(_, each): &&(usize, usize)| each > 1 && each < self.block();
        self.row()
            .planes
            .iter()
            .find(inner)
            .map_or(0, |(bits, each)| self.block() / each * bits / 8)
    }

    /// Its usual name, e.g. `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The format of that name, whatever its case: `q4_k`, `Q4_K`.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|f| f.name().eq_ignore_ascii_case(name))
    }

    /// The number a GGUF file gives it.
    pub fn ggml(self) -> Option<u32> {
        self.row().ggml
    }

    /// The format of that number in a GGUF file.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::all().find(|f| f.ggml() == Some(number))
    }

    /// Elements of a stored block.
    pub fn block(self) -> usize {
        self.row().block
    }

    /// Bytes of a stored block.
    pub fn block_bytes(self) -> usize {
        self.row().bytes
    }

    /// Bytes of a stored row of `cols` elements; the last block may be part empty.
    pub fn stored_bytes(self, cols: usize) -> usize {
        cols.div_ceil(self.block()) * self.block_bytes()
    }

    /// The words at which each plane of a packed row of `cols` elements begins, and where the last
    /// ends.
    pub fn planes(self, cols: usize) -> Vec<usize> {
        let cols = cols.next_multiple_of(self.block());
        let mut at = 0;
        let mut starts = vec![0];
        for &(bits, elements) in self.row().planes {
            at += (cols / elements * bits).div_ceil(32);
            starts.push(at);
        }
        starts
    }

    /// Words of a packed row of `cols` elements.
    pub fn packed_words(self, cols: usize) -> usize {
        self.planes(cols).last().map_or(0, |end| end.next_multiple_of(ROW_ALIGN))
    }

    /// The numbers of a stored row, as many as `out` takes.
    ///
    /// # Panics
    /// If `stored` has fewer than [`BlockFormat::stored_bytes`] of these.
    pub fn dequantize(self, stored: &[u8], out: &mut [f32]) {
        assert!(stored.len() >= self.stored_bytes(out.len()), "{self}: too few bytes in a row");
        let blocks = stored.chunks_exact(self.block_bytes());
        let mut parts = Parts::default();
        for (block, out) in blocks.zip(out.chunks_mut(self.block())) {
            parts.take_apart(self, block);
            values::write(self, &parts, out);
        }
    }

    /// Appends the packed row of a stored row of `cols` elements.
    ///
    /// # Panics
    /// If `stored` has fewer than [`BlockFormat::stored_bytes`] of these.
    pub fn pack_row(self, stored: &[u8], cols: usize, out: &mut Vec<u8>) {
        let stored = &stored[..self.stored_bytes(cols)];
        let first = out.len();
        out.resize(first + 4 * self.packed_words(cols), 0);
        let packed = &mut out[first..];
        let starts = self.planes(cols);
        let mut parts = Parts::default();
        for (i, block) in stored.chunks_exact(self.block_bytes()).enumerate() {
            parts.take_apart(self, block);
            let mut shift = 0;
            for (&(bits, each), start) in self.row().planes.iter().zip(&starts) {
                let bytes = self.block() / each * bits / 8;
                let plane = &mut packed[4 * start + i * bytes..][..bytes];
                if each == 1 {
                    Bits { at: 0, run: 1, bits, shift }.put(&parts.codes[..self.block()], plane);
                    shift += bits;
                } else {
                    plane.copy_from_slice(parts.scales(self, each));
                }
            }
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_declaration_order() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.format as usize, i);
            assert_eq!(BlockFormat::named(&row.name.to_lowercase()), Some(row.format));
        }
        assert_eq!(BlockFormat::from_ggml(14), Some(BlockFormat::Q6K));
        assert_eq!(BlockFormat::from_ggml(4), None);
    }

    #[test]
    fn packed_rows_take_little_more_than_stored_ones() {
        for f in BlockFormat::all() {
            let (stored, packed) = (f.stored_bytes(4096), 4 * f.packed_words(4096));
            assert!(packed >= stored && packed <= stored + stored / 20 + 4 * ROW_ALIGN, "{f}");
        }
        assert_eq!(BlockFormat::Q4_0.planes(576), [0, 72, 81]);
        assert_eq!(BlockFormat::Q4_0.packed_words(576), 88);
    }
}
