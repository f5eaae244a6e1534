//! A stored block and its parts: the elements' codes in order, and the scales.

use super::{BlockFormat, scales};

/// The largest block.
const MOST: usize = 256;

/// Where a block has some bits of all its codes.
///
/// Each `run` bytes hold as many elements' bits in their lowest `bits`, then as many of the
/// following elements' in the next `bits`, and so on up to the highest.
pub(super) struct Bits {
    /// The first byte.
    pub at: usize,
    /// Bytes that go together.
    pub run: usize,
    /// Bits of an element: 1, 2, 4 or 8.
    pub bits: usize,
    /// The lowest of these bits' place in the code.
    pub shift: usize,
}

impl Bits {
    /// Adds these bits of the codes of a block.
    fn get(&self, block: &[u8], codes: &mut [u8]) {
        let bytes = &block[self.at..][..codes.len() * self.bits / 8];
        if self.bits == 8 {
            return codes.copy_from_slice(bytes);
        }
        let mask = 0xff >> (8 - self.bits);
        let each = self.run * 8 / self.bits;
        for (bytes, codes) in bytes.chunks_exact(self.run).zip(codes.chunks_exact_mut(each)) {
            for (i, codes) in codes.chunks_exact_mut(self.run).enumerate() {
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code |= (byte >> (i * self.bits) & mask) << self.shift;
                }
            }
        }
    }

    /// Adds these bits of `codes` to a block that has zeros there.
    pub(super) fn put(&self, codes: &[u8], block: &mut [u8]) {
        let bytes = &mut block[self.at..][..codes.len() * self.bits / 8];
        match (self.run, self.bits) {
            (_, 8) => return bytes.copy_from_slice(codes),
            (1, 4) => return put_in_order::<2>(codes, self.shift, bytes),
            (1, 2) => return put_in_order::<4>(codes, self.shift, bytes),
            (1, 1) => return put_in_order::<8>(codes, self.shift, bytes),
            _ => {}
        }
        let mask = 0xff >> (8 - self.bits);
        let each = self.run * 8 / self.bits;
        for (bytes, codes) in bytes.chunks_exact_mut(self.run).zip(codes.chunks_exact(each)) {
            for (i, codes) in codes.chunks_exact(self.run).enumerate() {
                for (byte, code) in bytes.iter_mut().zip(codes) {
                    *byte |= (code >> self.shift & mask) << (i * self.bits);
                }
            }
        }
    }
}

/// [`Bits::put`] for runs of one byte, which holds `EACH` elements: fast, as loading a model packs
/// all its rows.
fn put_in_order<const EACH: usize>(codes: &[u8], shift: usize, bytes: &mut [u8]) {
    let bits = 8 / EACH;
    for (byte, codes) in bytes.iter_mut().zip(codes.as_chunks::<EACH>().0) {
        for (i, code) in codes.iter().enumerate() {
            *byte |= (code >> shift & 0xff >> (8 - bits)) << (i * bits);
        }
    }
}

/// A block taken apart.
pub(super) struct Parts {
    /// The codes in the order of the elements, all their bits together.
    pub codes: [u8; MOST],
    /// What the groups inside the block have, as the packed row has it: a byte each, or two.
    pub groups: [u8; 16],
    /// What the whole block shares, likewise.
    pub top: [u8; 4],
}

impl Default for Parts {
    fn default() -> Self {
        Self { codes: [0; MOST], groups: [0; 16], top: [0; 4] }
    }
}

impl Parts {
    /// Fills in what a stored block holds.
    pub fn take_apart(&mut self, format: BlockFormat, block: &[u8]) {
        let row = format.row();
        let codes = &mut self.codes[..row.block];
        codes.fill(0);
        for bits in row.codes {
            bits.get(block, codes);
        }
        scales::read(format, block, &mut self.groups);
        let top = format.top_bytes();
        self.top[..top].copy_from_slice(&block[row.top..][..top]);
    }

    /// Appends the stored block of these parts.
    pub fn put_together(&self, format: BlockFormat, out: &mut Vec<u8>) {
        let row = format.row();
        let first = out.len();
        out.resize(first + row.bytes, 0);
        let block = &mut out[first..];
        for bits in row.codes {
            bits.put(&self.codes[..row.block], block);
        }
        scales::write(format, &self.groups, block);
        let top = format.top_bytes();
        block[row.top..][..top].copy_from_slice(&self.top[..top]);
    }

    /// The scales of a plane with one for `each` elements.
    pub fn scales(&self, format: BlockFormat, each: usize) -> &[u8] {
        if each == format.block() {
            &self.top[..format.top_bytes()]
        } else {
            &self.groups[..format.group_bytes()]
        }
    }
}
