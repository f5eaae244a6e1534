//! Number formats a checkpoint stores tensors in.

use std::fmt;

use safetensors::Dtype;

use super::BlockFormat;

/// The number format of a stored tensor. Everything here can be opened and listed; which of them a
/// model can run is the model's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float (the upper half of an `F32`).
    BF16,
    /// 64-bit IEEE float.
    F64,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit signed integer; official checkpoints label packed pairs of FP4 numbers so.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 8-bit unsigned integer.
    U8,
    /// One byte a truth value.
    Bool,
    /// 8-bit float with 4 exponent and 3 fraction bits, no infinities.
    F8E4M3,
    /// 8-bit power of two, `2^(byte - 127)`: block scales.
    F8E8M0,
    /// 4-bit float with 2 exponent bits and 1 fraction bit, two to a byte.
    F4E2M1,
    /// A block format of a GGUF file.
    Block(BlockFormat),
}

impl DType {
    /// Every format a safetensors file may have, with the name a safetensors header gives it and its width in bits.
    const TABLE: [(Self, Dtype, &'static str, usize); 14] = [
        (Self::F32, Dtype::F32, "F32", 32),
        (Self::F16, Dtype::F16, "F16", 16),
        (Self::BF16, Dtype::BF16, "BF16", 16),
        (Self::F64, Dtype::F64, "F64", 64),
        (Self::I64, Dtype::I64, "I64", 64),
        (Self::I32, Dtype::I32, "I32", 32),
        (Self::I8, Dtype::I8, "I8", 8),
        (Self::U64, Dtype::U64, "U64", 64),
        (Self::U32, Dtype::U32, "U32", 32),
        (Self::U8, Dtype::U8, "U8", 8),
        (Self::Bool, Dtype::BOOL, "BOOL", 8),
        (Self::F8E4M3, Dtype::F8_E4M3, "F8_E4M3", 8),
        (Self::F8E8M0, Dtype::F8_E8M0, "F8_E8M0", 8),
        (Self::F4E2M1, Dtype::F4, "F4", 4),
    ];

    /// The name a safetensors header or a GGUF file gives this format, e.g. `BF16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block(format) => format.name(),
            _ => self.row().map_or("", |row| row.2),
        }
    }

    /// Bytes `elements` elements take, or `None` if that overflows or ends inside a byte or block.
    pub fn byte_len(self, elements: usize) -> Option<usize> {
        let (unit, bits) = match self {
            Self::Block(format) => (format.block(), 8 * format.block_bytes()),
            _ => (1, self.row()?.3),
        };
        let bits = elements.is_multiple_of(unit).then_some(elements / unit)?.checked_mul(bits)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Every format but the blocks that a GGUF file may have, with the number it gives it.
    const GGML: [(Self, u32); 7] = [
        (Self::F32, 0),
        (Self::F16, 1),
        (Self::I8, 24),
        (Self::I32, 26),
        (Self::I64, 27),
        (Self::F64, 28),
        (Self::BF16, 30),
    ];

    /// The number a GGUF file gives this format; `None` for those no GGUF file has.
    pub fn ggml(self) -> Option<u32> {
        match self {
            Self::Block(format) => format.ggml(),
            _ => Self::GGML.iter().find(|row| row.0 == self).map(|row| row.1),
        }
    }

    /// The format of that number in a GGUF file, if Fathom knows it.
    pub(super) fn from_ggml(number: u32) -> Option<Self> {
        let plain = Self::GGML.iter().find(|row| row.1 == number).map(|row| row.0);
        plain.or_else(|| BlockFormat::from_ggml(number).map(Self::Block))
    }

    /// Whether it stores whole numbers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I64 | Self::I32 | Self::I8 | Self::U64 | Self::U32 | Self::U8)
    }

    /// The format a safetensors header means, or `None` for the exotic ones not in this list.
    pub(super) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == dtype).map(|row| row.0)
    }

    fn row(self) -> Option<&'static (Self, Dtype, &'static str, usize)> {
        Self::TABLE.iter().find(|row| row.0 == self)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_safetensors() {
        for (dtype, other, name, bits) in DType::TABLE {
            assert_eq!(bits, other.bitsize(), "{name}");
            assert_eq!(serde_json::to_string(&other).unwrap(), format!("\"{name}\""));
            assert_eq!(DType::from_safetensors(other), Some(dtype));
        }
    }

    #[test]
    fn byte_len_refuses_half_bytes_and_overflow() {
        assert_eq!(DType::F4E2M1.byte_len(6), Some(3));
        assert_eq!(DType::F4E2M1.byte_len(3), None);
        assert_eq!(DType::BF16.byte_len(3), Some(6));
        assert_eq!(DType::F32.byte_len(usize::MAX / 2), None);
        assert_eq!(DType::Block(BlockFormat::Q4_0).byte_len(64), Some(36));
        assert_eq!(DType::Block(BlockFormat::Q4_0).byte_len(63), None);
    }
}
