//! Where the rows of a tensor of the new file come from.

use std::ops::Range;

use super::rows::Matrix;
use crate::Result;
use crate::formats::{Checkpoint, DType};

/// A tensor of the new file and the tensors of the model it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// Its name in the new file.
    pub name: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The names of the model's tensors whose rows it has, one below the other.
    pub parts: Vec<String>,
    /// How these rows lie in the parts.
    pub order: Order,
    /// The numbers themselves, where no tensor of the model has them.
    pub known: Vec<f32>,
}

impl Planned {
    /// A tensor whose rows are those of `parts` as they are.
    pub fn plain(name: String, shape: Vec<usize>, parts: Vec<String>) -> Self {
        Self { name, shape, parts, order: Order::Plain, known: vec![] }
    }
}

/// An order of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// As they are.
    Plain,
    /// Heads whose last rows are rotated, the two halves of these interleaved: where Hugging Face
    /// rotates row i with row i + half, llama.cpp rotates neighbours.
    Interleaved(Rotated),
    /// The part of `kv_b` that makes keys, each head's transposed.
    KeyHalf(Heads),
    /// The part of `kv_b` that makes values.
    ValueHalf(Heads),
}

/// Rows of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rotated {
    /// All of them.
    pub head: usize,
    /// The last so many are rotated; even.
    pub rotated: usize,
}

/// What `kv_b` has of each head: rows of its key, then rows of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Heads {
    pub key: usize,
    pub value: usize,
}

/// An opened [`Planned`].
pub(super) struct Source<'a> {
    parts: Vec<Matrix<'a>>,
    order: Order,
    known: &'a [f32],
    /// Rows of the tensor to be made.
    pub rows: usize,
    /// Numbers of a row.
    pub cols: usize,
}

impl<'a> Source<'a> {
    /// Opens the parts and holds their shapes against the plan's.
    pub fn open(checkpoint: &'a Checkpoint, plan: &'a Planned) -> Result<Self> {
        let parts = plan.parts.iter().map(|name| Matrix::open(checkpoint, name));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let (rows, cols) = match plan.shape.split_last() {
            Some((&cols, outer)) => (outer.iter().product(), cols),
            None => (1, 1),
        };
        // What one part has to be.
        let each = rows / parts.len().max(1);
        let (part_rows, part_cols) = match plan.order {
            Order::Plain | Order::Interleaved(_) => (each, cols),
            Order::KeyHalf(h) => (rows / plan.shape[1] * (h.key + h.value), plan.shape[1]),
            Order::ValueHalf(h) => (rows / h.value * (h.key + h.value), cols),
        };
        if let Order::Interleaved(rotated) = plan.order {
            // The numbers of a bias are what the rows of a matrix are.
            let lines = if rows == 1 { cols } else { rows };
            if !lines.is_multiple_of(rotated.head) {
                let what = format!("has {lines} rows, which are no heads of {}", rotated.head);
                return Err(parts[0].view.error(what));
            }
        }
        for part in &parts {
            if (part.rows, part.cols) != (part_rows, part_cols) {
                let what =
                    format!("is {} x {}, expected {part_rows} x {part_cols}", part.rows, part.cols);
                return Err(part.view.error(what));
            }
        }
        Ok(Self { parts, order: plan.order, known: &plan.known, rows, cols })
    }

    /// How the first part is stored.
    pub fn stored(&self) -> DType {
        self.parts.first().map_or(DType::F32, |part| part.view.dtype)
    }

    /// The bytes of all parts, if together they are the tensor in `dtype`.
    pub fn as_stored(&self, dtype: DType) -> Option<impl Iterator<Item = &'a [u8]>> {
        let same = |part: &Matrix<'_>| part.view.dtype == dtype;
        let plain = self.order == Order::Plain && self.known.is_empty();
        let plain = plain && self.parts.iter().all(same);
        plain.then(|| self.parts.iter().map(|part| part.view.bytes))
    }

    /// Appends rows as f32.
    pub fn read(&self, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        if let Order::KeyHalf(heads) = self.order {
            return self.read_keys(heads, rows, out);
        }
        if !self.known.is_empty() {
            out.extend(&self.known[rows.start * self.cols..rows.end * self.cols]);
            return Ok(());
        }
        let each = self.rows / self.parts.len();
        for i in rows {
            let first = out.len();
            out.resize(first + self.cols, 0.0);
            let row = &mut out[first..];
            match self.order {
                Order::Interleaved(head) if self.rows == 1 => {
                    let mut plain = vec![0.0; self.cols];
                    self.parts[0].row(0, &mut plain)?;
                    for (to, number) in row.iter_mut().enumerate() {
                        *number = plain[interleaved(to, head)];
                    }
                }
                Order::Interleaved(head) => self.parts[0].row(interleaved(i, head), row)?,
                Order::ValueHalf(h) => {
                    let from = i / h.value * (h.key + h.value) + h.key + i % h.value;
                    self.parts[0].row(from, row)?;
                }
                Order::Plain | Order::KeyHalf(_) => self.parts[i / each].row(i % each, row)?,
            }
        }
        Ok(())
    }

    /// Rows of whole numbers, little-endian in 32 bits.
    pub fn integers(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let mut out = vec![];
        for (part, row) in
            self.parts.first().into_iter().flat_map(|p| rows.clone().map(move |r| (p, r)))
        {
            for number in part.view.row(row)?.to_i64()? {
                let number = i32::try_from(number);
                let number = number.map_err(|_| part.view.error("holds a number above 2^31"))?;
                out.extend(number.to_le_bytes());
            }
        }
        Ok(out)
    }

    /// Appends rows of the transposed keys: columns of a head's rows.
    fn read_keys(&self, heads: Heads, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let (part, wide) = (&self.parts[0], self.parts[0].cols);
        let (mut keys, mut of) = (vec![0.0; heads.key * wide], None);
        for i in rows {
            let (head, column) = (i / wide, i % wide);
            if of != Some(head) {
                for (n, key) in keys.chunks_exact_mut(wide).enumerate() {
                    part.row(head * (heads.key + heads.value) + n, key)?;
                }
                of = Some(head);
            }
            out.extend(keys.chunks_exact(wide).map(|key| key[column]));
        }
        Ok(())
    }

    /// An error about the first part.
    pub fn error(&self, what: impl std::fmt::Display) -> crate::Error {
        match self.parts.first() {
            Some(part) => part.view.error(what),
            None => crate::Error::Request(what.to_string()),
        }
    }
}

/// Where row `i` of interleaved heads comes from.
fn interleaved(i: usize, Rotated { head, rotated }: Rotated) -> usize {
    let first = head - rotated;
    match (i % head).checked_sub(first) {
        Some(within) => i / head * head + first + within % 2 * (rotated / 2) + within / 2,
        None => i,
    }
}
