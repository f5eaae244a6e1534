//! A stored matrix, whatever its format, row by row: as kernels want it and in plain numbers.

use half::{bf16, f16};

use crate::Result;
use crate::formats::{BlockFormat, DType, TensorView, Weights, fp4_row, fp8_f32_row, fp8_row};
use crate::graph::Elem;

/// Sides that a block of FP8 numbers with one scale may have: those of V3 and V4, and of V4.1.
const FP8_SIDES: [usize; 2] = [128, 32];
/// Columns of FP4 numbers with one scale.
const FP4_COLS: usize = 32;

/// A matrix of a checkpoint. Rows are read one at a time.
pub(super) struct Matrix<'a> {
    view: TensorView<'a>,
    cols: usize,
    row_bytes: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    /// 16- or 32-bit floats.
    Dense(Elem),
    /// Rows of stored blocks.
    Blocks(BlockFormat),
    /// FP8 e4m3 codes, with a scale for `side[0]` rows and `side[1]` columns.
    Fp8 { side: [usize; 2], per_row: usize, scales: Scales<'a> },
    /// Two FP4 e2m1 codes a byte, with scales in rows of their own.
    Fp4 { per_row: usize, scales: &'a [u8] },
}

enum Scales<'a> {
    /// ue8m0 bytes.
    Powers(&'a [u8]),
    Floats(TensorView<'a>),
}

/// Room for one row in its stages.
#[derive(Default)]
pub(super) struct Scratch {
    stored: Vec<u8>,
    numbers: Vec<f32>,
    packed: Vec<u8>,
}

impl<'a> Matrix<'a> {
    /// The tensor called `name`, which is `rows x cols`.
    ///
    /// # Errors
    /// If it is missing, of another shape, or stored in a format that kernels cannot read, and if it
    /// has no scales that fit where it needs some.
    pub fn open(files: Weights<'a>, name: &str, rows: usize, cols: usize) -> Result<Self> {
        let view = files.get(name)?;
        let packed = matches!(view.dtype, DType::I8 | DType::U8);
        let stored = if packed { cols.div_ceil(2) } else { cols };
        // A convolution's kernel, or a vector, is a matrix of the same elements.
        let fits = rows.checked_mul(stored) == Some(view.elements())
            && (view.shape.first() == Some(&rows) || rows == 1 || view.shape.len() == 1);
        if !fits {
            let note = if packed { " of two numbers a byte" } else { "" };
            return Err(
                view.error(format!("has shape {:?}, not [{rows}, {stored}]{note}", view.shape))
            );
        }
        let Some(row_bytes) = view.dtype.byte_len(stored) else {
            return Err(view.error(format!("rows of {cols} end inside a block of {}", view.dtype)));
        };
        let kind = match view.dtype {
            DType::F32 => Kind::Dense(Elem::F32),
            DType::F16 => Kind::Dense(Elem::F16),
            DType::BF16 => Kind::Dense(Elem::BF16),
            DType::Block(format) => Kind::Blocks(format),
            DType::F8E4M3 => fp8(&scale(files, name, &view)?, rows, cols)?,
            DType::I8 | DType::U8 | DType::F4E2M1 => fp4(&scale(files, name, &view)?, rows, cols)?,
            other => return Err(view.error(format!("is stored as {other}, not as floats"))),
        };
        Ok(Self { view, cols, row_bytes, kind })
    }

    /// The element type that keeps it as it is stored.
    pub fn elem(&self) -> Elem {
        match &self.kind {
            Kind::Dense(elem) => *elem,
            Kind::Blocks(format) => Elem::Block(*format),
            Kind::Fp8 { scales: Scales::Powers(_), .. } => Elem::Block(BlockFormat::FP8),
            Kind::Fp8 { scales: Scales::Floats(_), .. } => Elem::Block(BlockFormat::FP8F32),
            Kind::Fp4 { .. } => Elem::Block(BlockFormat::MXFP4),
        }
    }

    /// An error about it.
    pub fn error(&self, what: impl std::fmt::Display) -> crate::Error {
        self.view.error(what)
    }

    /// Writes a row as a kernel reads it, in `elem`: [`Matrix::elem`], F32 or a block format. What
    /// remains of `out` is left.
    ///
    /// # Errors
    /// If a scale is not a number, or the row cannot be stored in that block format.
    pub fn write(&self, row: usize, elem: Elem, s: &mut Scratch, out: &mut [u8]) -> Result<()> {
        let bytes = match elem {
            _ if matches!(self.kind, Kind::Dense(stored) if stored == elem) => self.row(row),
            Elem::Block(format) => {
                self.blocks(row, format, s)?;
                s.packed.clear();
                format.pack_row(&s.stored, self.cols, &mut s.packed);
                &s.packed
            }
            _ => {
                self.numbers(row, elem, s)?;
                bytemuck::cast_slice(&s.numbers)
            }
        };
        out[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// The numbers that a row has once it is stored in `elem`, into `s.numbers`.
    ///
    /// # Errors
    /// As [`Matrix::write`].
    fn numbers(&self, row: usize, elem: Elem, s: &mut Scratch) -> Result<()> {
        let format = match (self.elem(), elem) {
            (_, Elem::Block(format)) | (Elem::Block(format), _) => format,
            _ => {
                self.dense(row, &mut s.numbers);
                return Ok(());
            }
        };
        self.blocks(row, format, s)?;
        s.numbers.resize(self.cols, 0.0);
        format.dequantize(&s.stored, &mut s.numbers);
        Ok(())
    }

    /// Writes the numbers that a row has once it is stored in `elem`.
    ///
    /// # Errors
    /// As [`Matrix::write`].
    pub fn expand(&self, row: usize, elem: Elem, s: &mut Scratch, out: &mut [f32]) -> Result<()> {
        self.numbers(row, elem, s)?;
        out.copy_from_slice(&s.numbers);
        Ok(())
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.view.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// The numbers of a row of floats.
    fn dense(&self, row: usize, out: &mut Vec<f32>) {
        let bytes = self.row(row);
        let (pairs, fours) = (bytes.as_chunks::<2>().0.iter(), bytes.as_chunks::<4>().0.iter());
        out.clear();
        match self.kind {
            Kind::Dense(Elem::F16) => out.extend(pairs.map(|&b| f16::from_le_bytes(b).to_f32())),
            Kind::Dense(Elem::BF16) => out.extend(pairs.map(|&b| bf16::from_le_bytes(b).to_f32())),
            _ => out.extend(fours.map(|&b| f32::from_le_bytes(b))),
        }
    }

    /// The stored blocks of a row in `format`, which is its own or one to quantise to, in `s.stored`.
    fn blocks(&self, row: usize, format: BlockFormat, s: &mut Scratch) -> Result<()> {
        if self.elem() != Elem::Block(format) {
            self.numbers(row, self.elem(), s)?;
            s.stored.clear();
            return format.quantize(&s.numbers, &mut s.stored).map_err(|e| self.error(e));
        }
        let (codes, out) = (self.row(row), &mut s.stored);
        out.clear();
        let made = match &self.kind {
            Kind::Dense(_) | Kind::Blocks(_) => {
                out.extend_from_slice(codes);
                Ok(())
            }
            Kind::Fp8 { side, per_row, scales } => {
                let block = row / side[0];
                match scales {
                    Scales::Powers(s) => {
                        fp8_row(codes, &s[block * per_row..][..*per_row], side[1], out)
                    }
                    Scales::Floats(s) => fp8_f32_row(codes, &s.row_f32(block)?, side[1], out),
                }
            }
            Kind::Fp4 { per_row, scales } => {
                fp4_row(codes, &scales[row * per_row..][..*per_row], out)
            }
        };
        made.map_err(|e| self.error(format!("row {row}: {e}")))
    }
}

/// The scales that belong to the codes in tensor `name`.
fn scale<'a>(files: Weights<'a>, name: &str, view: &TensorView<'_>) -> Result<TensorView<'a>> {
    let official = name.strip_suffix("weight").map(|stem| format!("{stem}scale"));
    let tried: Vec<_> = official.into_iter().chain([format!("{name}_scale_inv")]).collect();
    for name in &tried {
        if let Some(found) = files.find(name)? {
            return Ok(found);
        }
    }
    let tried = tried.join("`, nor `");
    Err(view.error(format!("is stored as {}, without scales: there is no `{tried}`", view.dtype)))
}

fn fp8<'a>(scale: &TensorView<'a>, rows: usize, cols: usize) -> Result<Kind<'a>> {
    let side = |len: usize, scales: usize| {
        FP8_SIDES.into_iter().find(|side| len.div_ceil(*side) == scales)
    };
    let found = match *scale.shape {
        [down, across] => side(rows, down).zip(side(cols, across)),
        _ => None,
    };
    let Some((down, across)) = found else {
        let what = format!("has shape {:?}, no scale a block of [{rows}, {cols}]", scale.shape);
        return Err(scale.error(what));
    };
    let scales = match scale.dtype {
        DType::F8E8M0 | DType::U8 => Scales::Powers(scale.bytes),
        DType::F32 | DType::F16 | DType::BF16 => Scales::Floats(scale.clone()),
        other => return Err(scale.error(format!("is stored as {other}, which scales are not"))),
    };
    Ok(Kind::Fp8 { side: [down, across], per_row: scale.shape[1], scales })
}

fn fp4<'a>(scale: &TensorView<'a>, rows: usize, cols: usize) -> Result<Kind<'a>> {
    let per_row = cols.div_ceil(FP4_COLS);
    if scale.shape != [rows, per_row] {
        let what = format!("has shape {:?}, not [{rows}, {per_row}]", scale.shape);
        return Err(scale.error(what));
    }
    match scale.dtype {
        DType::F8E8M0 | DType::U8 => Ok(Kind::Fp4 { per_row, scales: scale.bytes }),
        other => Err(scale.error(format!("is stored as {other}, not as powers of two"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Checkpoint;
    use safetensors::tensor::{Dtype, TensorView as Raw, serialize};

    const NAME: &str = "layers.0.attn.wq_a.weight";
    const SCALE: &str = "layers.0.attn.wq_a.scale";
    const INVERSE: &str = "layers.0.attn.wq_a.weight_scale_inv";

    /// A tensor's name, format, shape and bytes.
    type Stored<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

    /// Rows 0 and 129 of a matrix among these tensors, or what is wrong with it.
    fn rows(tensors: &[Stored<'_>], rows: usize, cols: usize) -> Result<[Vec<f32>; 2]> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, Raw::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        let bytes = serialize(views, None).unwrap().leak();
        let checkpoint = Checkpoint::from_static("{}", bytes).unwrap();
        let matrix = Matrix::open(Weights::new(&checkpoint), NAME, rows, cols)?;
        let mut both = [vec![0.0; cols], vec![0.0; cols]];
        for (row, out) in [0, 129].into_iter().zip(&mut both) {
            matrix.expand(row % rows, matrix.elem(), &mut Scratch::default(), out)?;
        }
        Ok(both)
    }

    fn fault(tensors: &[Stored<'_>], shape: [usize; 2]) -> String {
        rows(tensors, shape[0], shape[1]).unwrap_err().to_string()
    }

    #[test]
    fn fp8_blocks_are_square_and_ragged() {
        // 1.0 everywhere, so that what remains is the scale.
        let codes = vec![0x38; 130 * 136];
        let weight = (NAME, Dtype::F8_E4M3, &[130, 136][..], &codes[..]);
        let powers = (SCALE, Dtype::F8_E8M0, &[2, 2][..], &[126, 127, 128, 129][..]);
        let floats: Vec<u8> =
            [0.5f32, 1.0, 2.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let floats = (INVERSE, Dtype::F32, &[2, 2][..], &floats[..]);
        for scale in [powers, floats] {
            let [first, last] = rows(&[weight, scale], 130, 136).unwrap();
            assert_eq!((first[0], first[127], first[128], first[135]), (0.5, 0.5, 1.0, 1.0));
            assert_eq!((last[0], last[127], last[128], last[135]), (2.0, 2.0, 4.0, 4.0));
        }
        let small: Vec<u8> = (0..5 * 5).map(|i| 127 + i).collect();
        let small = (SCALE, Dtype::F8_E8M0, &[5, 5][..], &small[..]);
        let [first, last] = rows(&[weight, small], 130, 136).unwrap();
        assert_eq!((first[31], first[32], last[0]), (1.0, 2.0, (1 << 20) as f32));
    }

    #[test]
    fn fp4_is_known_by_its_scales_whatever_it_is_called() {
        let codes = [0x52; 2 * 24];
        for (dtype, shape) in [(Dtype::I8, [2, 24]), (Dtype::U8, [2, 24]), (Dtype::F4, [2, 48])] {
            let weight = (NAME, dtype, &shape[..], &codes[..]);
            let scale = (SCALE, Dtype::F8_E8M0, &[2, 2][..], &[127, 128, 129, 130][..]);
            let [first, last] = rows(&[weight, scale], 2, 48).unwrap();
            assert_eq!((first[0], first[1], first[47]), (1.0, 3.0, 6.0));
            assert_eq!((last[0], last[32]), (4.0, 8.0));
        }
    }

    #[test]
    fn faults_name_the_tensor() {
        let codes = [0; 64];
        let fp8 = (NAME, Dtype::F8_E4M3, &[2, 32][..], &codes[..]);
        let fp4 = (NAME, Dtype::I8, &[2, 32][..], &codes[..]);
        let scale = |shape: &'static [usize], bytes: &'static [u8]| -> Stored<'static> {
            (SCALE, Dtype::F8_E8M0, shape, bytes)
        };
        assert_eq!(
            fault(&[fp8], [2, 32]),
            format!(
                "embedded model.safetensors: tensor `{NAME}`: is stored as F8_E4M3, without scales: \
                 there is no `{SCALE}`, nor `{NAME}_scale_inv`"
            )
        );
        let e = fault(&[fp8, scale(&[3, 1], &[0; 3])], [2, 32]);
        assert!(e.contains(SCALE) && e.contains("[3, 1], no scale a block of [2, 32]"), "{e}");
        let e = fault(&[fp8, scale(&[1, 1], &[255])], [2, 32]);
        assert!(e.contains(NAME) && e.ends_with("is not a number"), "{e}");
        let nan = f32::NAN.to_le_bytes();
        let e = fault(&[fp8, (INVERSE, Dtype::F32, &[1, 1], &nan)], [2, 32]);
        assert!(e.contains(NAME) && e.ends_with("is not a number"), "{e}");
        let e = fault(&[fp4, scale(&[2, 1], &[0; 2])], [2, 64]);
        assert!(e.contains(SCALE) && e.contains("[2, 1], not [2, 2]"), "{e}");
        let e = fault(&[fp4, scale(&[2, 2], &[0, 0, 255, 0])], [2, 64]);
        assert!(e.contains(NAME) && e.ends_with("is not a number"), "{e}");
        let e = fault(&[fp4, scale(&[2, 2], &[0; 4])], [4, 32]);
        assert!(e.contains("has shape [2, 32], not [4, 16] of two numbers a byte"), "{e}");
        let e = fault(&[(NAME, Dtype::I64, &[2, 4], &codes)], [2, 4]);
        assert!(e.contains("is stored as I64, not as floats"), "{e}");
    }
}
