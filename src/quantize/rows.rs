//! The tensors of a model as rows of f32, whatever they are stored in.

use half::{bf16, f16};

use crate::formats::{
    BlockFormat, Checkpoint, DType, TensorView, Weights, fp4_row, fp8_f32_row, fp8_row,
};
use crate::{Error, Result};

/// Names that follow a weight's stem and call its scales.
pub(super) const SCALES: [&str; 2] = ["weight_scale_inv", "scale"];

/// A stored matrix, and the tensor of its scales where that is another.
pub(super) struct Matrix<'a> {
    pub view: TensorView<'a>,
    scales: Option<TensorView<'a>>,
    /// Its rows: all dimensions but the last.
    pub rows: usize,
    /// Numbers of a row. FP4 in pairs is stored half as wide.
    pub cols: usize,
}

impl<'a> Matrix<'a> {
    /// The tensor called `name`, canonically in safetensors files and as it is in GGUF files.
    pub fn open(checkpoint: &'a Checkpoint, name: &str) -> Result<Self> {
        let weights = Weights::new(checkpoint);
        let find = |name: &str| match checkpoint.gguf() {
            Some(_) => Ok(checkpoint.get(name)),
            None => weights.find(name),
        };
        let missing = || Error::tensor(name, "not in the checkpoint");
        let view = find(name)?.ok_or_else(missing)?;
        let mut scales = None;
        if let Some(stem) = name.strip_suffix("weight") {
            for tail in SCALES {
                scales = scales.or(find(&format!("{stem}{tail}"))?);
            }
        }
        let (rows, stored) = match view.shape.split_last() {
            Some((&cols, outer)) => (outer.iter().product(), cols),
            None => return Err(view.error("a single number is no matrix")),
        };
        let mut cols = stored;
        if scales.is_some() && matches!(view.dtype, DType::I8 | DType::U8) {
            cols *= 2;
        }
        let matrix = Self { view, scales, rows, cols };
        matrix.check()?;
        Ok(matrix)
    }

    /// Whether its numbers are known, and its scales are as many as they should be.
    fn check(&self) -> Result<()> {
        let stored_as_such = matches!(
            self.view.dtype,
            DType::F32 | DType::F16 | DType::BF16 | DType::Block(_) | DType::I32 | DType::I64
        );
        let Some(scales) = &self.scales else {
            let dtype = self.view.dtype;
            return if stored_as_such {
                Ok(())
            } else {
                Err(self.view.error(format!("is stored as {dtype}, and its scales are missing")))
            };
        };
        if stored_as_such {
            return Err(scales.error(format!("scales of a tensor in {}", self.view.dtype)));
        }
        match scales.shape[..] {
            [_, _] => Ok(()),
            _ => Err(scales.error(format!("its shape is {:?}, expected a matrix", scales.shape))),
        }
    }

    /// Writes row `i` to `out`, which is as wide.
    pub fn row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        let width = self.view.bytes.len() / self.rows;
        let bytes = &self.view.bytes[i * width..(i + 1) * width];
        match self.view.dtype {
            DType::F32 => decode(bytes, out, f32::from_le_bytes),
            DType::F16 => decode(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => decode(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::Block(format) => format.dequantize(bytes, out),
            _ => return self.scaled(i, bytes, out),
        }
        Ok(())
    }

    /// [`Matrix::row`] where the scales are in a tensor of their own.
    fn scaled(&self, i: usize, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        let unknown = || self.view.error(format!("{} cannot be quantized", self.view.dtype));
        let scales = self.scales.as_ref().ok_or_else(unknown)?;
        let [scale_rows, scale_cols] = scales.shape[..] else { return Err(unknown()) };
        // Rows of FP4 have scales of their own; blocks of FP8 are as high as they are wide.
        let fp4 = matches!(self.view.dtype, DType::I8 | DType::U8 | DType::F4E2M1);
        let fits = |&side: &usize| {
            let high = if fp4 { 1 } else { side };
            (self.rows.div_ceil(high), self.cols.div_ceil(side)) == (scale_rows, scale_cols)
        };
        let Some(columns) = [128, 32].into_iter().find(fits) else {
            let what = format!("{scale_rows} x {scale_cols} do not fit a matrix of");
            return Err(scales.error(format!("{what} {} x {}", self.rows, self.cols)));
        };
        let row = scales.row(if fp4 { i } else { i / columns })?;
        let mut blocks = vec![];
        let (format, made) = match (fp4, row.dtype) {
            (true, DType::F8E8M0 | DType::U8) => {
                (BlockFormat::MXFP4, fp4_row(bytes, row.bytes, &mut blocks))
            }
            (false, DType::F8E8M0 | DType::U8) => {
                (BlockFormat::FP8, fp8_row(bytes, row.bytes, columns, &mut blocks))
            }
            (false, _) => {
                let made = fp8_f32_row(bytes, &row.to_f32()?, columns, &mut blocks);
                (BlockFormat::FP8F32, made)
            }
            (true, other) => return Err(scales.error(format!("{other} cannot scale FP4"))),
        };
        made.map_err(|what| scales.error(what))?;
        format.dequantize(&blocks, out);
        Ok(())
    }
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = number(bytes);
    }
}
