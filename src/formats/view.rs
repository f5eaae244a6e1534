//! A borrowed view of one stored tensor, and its conversions.

use std::path::Path;

use half::{bf16, f16};

use super::DType;
use crate::{Error, Result};

/// One tensor of a [`Checkpoint`](super::Checkpoint), or a contiguous part of one.
///
/// The bytes are little-endian, row-major and not necessarily aligned to the element size.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Its name in the file; a part of a fused tensor adds which part, e.g. `….gate_up_proj[3] (up)`.
    pub name: String,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its stored bytes: `dtype.byte_len(product of shape)` of them.
    pub bytes: &'a [u8],
    /// The file it lies in.
    pub file: &'a Path,
}

impl<'a> TensorView<'a> {
    /// Number of elements: the product of the shape.
    pub fn elements(&self) -> usize {
        // Cannot overflow: whoever made the view checked that shape and bytes agree.
        self.shape.iter().product()
    }

    /// An error about this tensor that names it and its file.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::file(self.file, format!("tensor `{}`: {what}", self.name))
    }

    /// The view itself if its shape is `shape`; otherwise an error that gives both shapes.
    pub fn expect_shape(self, shape: &[usize]) -> Result<Self> {
        if self.shape == shape {
            return Ok(self);
        }
        Err(self.error(format_args!("its shape is {:?}, expected {shape:?}", self.shape)))
    }

    /// The elements as `f32`, row-major. Errors for anything but `F32`, `F16` and `BF16`.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            DType::F32 => decode(self.bytes, f32::from_le_bytes),
            DType::F16 => decode(self.bytes, |b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => decode(self.bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => return Err(self.error(format_args!("{other} cannot be read as f32"))),
        })
    }

    /// The elements as `i64`, row-major. Errors for anything but `I64`, `I32` and `U8`.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        Ok(match self.dtype {
            DType::I64 => decode(self.bytes, i64::from_le_bytes),
            DType::I32 => decode(self.bytes, |b| i32::from_le_bytes(b).into()),
            DType::U8 => self.bytes.iter().map(|&b| b.into()).collect(),
            other => return Err(self.error(format_args!("{other} cannot be read as integers"))),
        })
    }

    /// Row `i` along the first dimension as `f32`. Errors as [`Self::to_f32`] and [`Self::row`].
    pub fn row_f32(&self, i: usize) -> Result<Vec<f32>> {
        self.row(i)?.to_f32()
    }

    /// Row `i` along the first dimension, with that dimension dropped. Errors if there is no such
    /// row or it begins inside a byte.
    pub fn row(&self, i: usize) -> Result<Self> {
        let [rows, inner @ ..] = self.shape.as_slice() else {
            return Err(self.error("a single number has no rows"));
        };
        if i >= *rows {
            return Err(self.error(format_args!("row {i} asked for, it has {rows}")));
        }
        let mut row = self.rows(i, 1, format!("{}[{i}]", self.name))?;
        row.shape = inner.to_vec();
        Ok(row)
    }

    /// Rows `start .. start + count` along the first dimension, to be called `name`. Errors if they
    /// reach past the end or begin inside a byte.
    pub(super) fn rows(&self, start: usize, count: usize, name: String) -> Result<Self> {
        let [rows, inner @ ..] = self.shape.as_slice() else {
            return Err(self.error("a single number has no rows"));
        };
        if start.checked_add(count).is_none_or(|end| end > *rows) {
            let what = format!("rows {start}..{start}+{count} asked for, it has {rows}");
            return Err(self.error(what));
        }
        // Checked although the whole shape fits, because a first dimension of 0 hides the others.
        let row_elements = inner.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let Some(row_bytes) = row_elements.and_then(|n| self.dtype.byte_len(n)) else {
            return Err(self.error("a row does not end at a byte"));
        };
        let mut shape = self.shape.clone();
        shape[0] = count;
        let bytes = &self.bytes[start * row_bytes..(start + count) * row_bytes];
        Ok(Self { name, dtype: self.dtype, shape, bytes, file: self.file })
    }
}

/// Reads `bytes` as numbers of `N` bytes each, whatever their alignment.
fn decode<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| read(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dtype: DType, shape: &[usize], bytes: &'static [u8]) -> TensorView<'static> {
        TensorView { name: "t".into(), dtype, shape: shape.into(), bytes, file: Path::new("f") }
    }

    #[test]
    fn reads_each_float_format() {
        let bf = view(DType::BF16, &[2], &[0x80, 0x3f, 0x00, 0xc0]);
        assert_eq!(bf.to_f32().unwrap(), [1.0, -2.0]);
        let half = view(DType::F16, &[2], &[0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(half.to_f32().unwrap(), [1.0, -2.0]);
        let full = view(DType::F32, &[1], &[0, 0, 0x80, 0x3f]);
        assert_eq!(full.to_f32().unwrap(), [1.0]);
        let fp8 = view(DType::F8E4M3, &[1], &[0x38]);
        assert_eq!(
            fp8.to_f32().unwrap_err().to_string(),
            "f: tensor `t`: F8_E4M3 cannot be read as f32"
        );
    }

    #[test]
    fn reads_integers_of_any_width() {
        assert_eq!(view(DType::I64, &[1], &[255; 8]).to_i64().unwrap(), [-1]);
        assert_eq!(view(DType::I32, &[1], &[254, 255, 255, 255]).to_i64().unwrap(), [-2]);
        assert_eq!(view(DType::U8, &[2], &[7, 255]).to_i64().unwrap(), [7, 255]);
        assert!(view(DType::F32, &[1], &[0; 4]).to_i64().is_err());
    }

    #[test]
    fn rows_drop_the_first_dimension() {
        let t = view(DType::U8, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let row = t.row(1).unwrap();
        assert_eq!((row.shape.as_slice(), row.bytes), ([1, 3].as_slice(), [4, 5, 6].as_slice()));
        assert_eq!(row.name, "t[1]");
        assert!(t.row(2).unwrap_err().to_string().contains("row 2 asked for, it has 2"));
        assert!(view(DType::U8, &[], &[1]).row(0).is_err());
        assert!(view(DType::F4E2M1, &[2, 1], &[1]).row(0).is_err());
        assert!(t.rows(1, usize::MAX, String::new()).is_err());
    }

    #[test]
    fn wrong_shape_gives_both() {
        let e = view(DType::U8, &[2], &[0, 0]).expect_shape(&[3, 1]).unwrap_err();
        assert_eq!(e.to_string(), "f: tensor `t`: its shape is [2], expected [3, 1]");
    }
}
