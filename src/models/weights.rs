//! A model's weights as its graphs ask for them: by official name, checked for shape, expert
//! matrices stacked into banks.

use std::collections::HashMap;
use std::ops::Range;

use half::{bf16, f16};

use crate::formats::{DType, TensorView, Weights};
use crate::gpu::WeightSource;
use crate::graph::reference::{Data, Store};
use crate::graph::{Elem, Graph, Home, Tensor, TensorId};
use crate::{Error, Result};

/// Where the rows of one graph weight come from.
#[derive(Debug)]
enum Source {
    /// Checkpoint tensors, one below the other.
    Tensors(Vec<String>),
    /// Numbers known without a checkpoint.
    Known(Vec<u32>),
}

/// Declares weights to graphs and reads them for whoever runs these.
#[derive(Debug)]
pub struct ModelWeights<'a> {
    files: Weights<'a>,
    sources: HashMap<String, Source>,
}

impl<'a> ModelWeights<'a> {
    /// The weights in `files`.
    pub fn new(files: Weights<'a>) -> Self {
        Self { files, sources: HashMap::new() }
    }

    /// Whether the checkpoint has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    fn view(&self, name: &str, rows: usize, cols: usize) -> Result<TensorView<'a>> {
        let view = self.files.get(name)?;
        // A convolution's kernel, or a vector, is a matrix of the same elements.
        let fits = rows.checked_mul(cols) == Some(view.elements())
            && (view.shape.first() == Some(&rows) || rows == 1 || view.shape.len() == 1);
        if !fits {
            return Err(view.error(format!("has shape {:?}, not [{rows}, {cols}]", view.shape)));
        }
        Ok(view)
    }

    /// A matrix kept as it is stored.
    ///
    /// # Errors
    /// If it is missing, of another shape, or stored in a format that kernels cannot read.
    pub fn matrix(
        &mut self,
        g: &mut Graph,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TensorId> {
        let elem = stored(&self.view(name, rows, cols)?)?;
        self.sources.insert(name.into(), Source::Tensors(vec![name.into()]));
        Ok(g.weight(name, elem, rows, cols))
    }

    /// A vector or small table, kept in f32 whatever it is stored in.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn table(
        &mut self,
        g: &mut Graph,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TensorId> {
        stored(&self.view(name, rows, cols)?)?;
        self.sources.insert(name.into(), Source::Tensors(vec![name.into()]));
        Ok(g.weight(name, Elem::F32, rows, cols))
    }

    /// A vector in f32.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn vector(&mut self, g: &mut Graph, name: &str, len: usize) -> Result<TensorId> {
        self.table(g, name, 1, len)
    }

    /// A table of integers, each below `limit`.
    ///
    /// # Errors
    /// If it is missing, of another shape, not of integers, or holds one that is too large.
    pub fn integers(
        &mut self,
        g: &mut Graph,
        name: &str,
        [rows, cols]: [usize; 2],
        limit: usize,
    ) -> Result<TensorId> {
        let view = self.view(name, rows, cols)?;
        let known = view.to_i64()?.into_iter().map(|v| match u32::try_from(v) {
            Ok(v) if (v as usize) < limit => Ok(v),
            _ => Err(view.error(format!("holds {v}, which is not below {limit}"))),
        });
        let known = known.collect::<Result<Vec<_>>>()?;
        self.sources.insert(name.into(), Source::Known(known));
        Ok(g.weight(name, Elem::U32, rows, cols))
    }

    /// Integers known in advance, `[1, len]`.
    pub fn known(&mut self, g: &mut Graph, name: &str, values: Vec<u32>) -> TensorId {
        let id = g.weight(name, Elem::U32, 1, values.len());
        self.sources.insert(name.into(), Source::Known(values));
        id
    }

    /// Matrices of equal shape, one below the other, as one weight whose parts stay whole.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`]; also if they are not all stored in one format.
    pub fn bank(
        &mut self,
        g: &mut Graph,
        name: &str,
        parts: Vec<String>,
        rows: usize,
        cols: usize,
    ) -> Result<TensorId> {
        let mut elem = None;
        for part in &parts {
            let view = self.view(part, rows, cols)?;
            let this = stored(&view)?;
            if *elem.get_or_insert(this) != this {
                return Err(view.error(format!("is {this:?}, unlike the others of its bank")));
            }
        }
        let count = parts.len();
        self.sources.insert(name.into(), Source::Tensors(parts));
        Ok(g.bank(name, elem.unwrap_or(Elem::F32), rows * count, cols, rows))
    }

    /// Vectors one below the other, in f32.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn stacked(
        &mut self,
        g: &mut Graph,
        name: &str,
        parts: &[&str],
        cols: usize,
    ) -> Result<TensorId> {
        for part in parts {
            stored(&self.view(part, 1, cols)?)?;
        }
        let parts: Vec<String> = parts.iter().map(|&p| p.to_owned()).collect();
        let count = parts.len();
        self.sources.insert(name.into(), Source::Tensors(parts));
        Ok(g.weight(name, Elem::F32, count, cols))
    }

    /// Puts every weight of `graph` that `store` lacks there, expanded to f32.
    ///
    /// # Errors
    /// If a file cannot give it.
    pub fn fill(
        &self,
        graph: &Graph,
        store: &mut Store,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut done = 0;
        for t in graph.tensors().iter().filter(|t| t.home == Home::Weight) {
            if store.has_weight(&t.name) {
                continue;
            }
            let mut bytes = vec![];
            self.read(t, 0..t.rows.fixed, &mut bytes)?;
            done += bytes.len() as u64;
            progress(done);
            store.set_weight(&t.name, expand(t, &bytes));
        }
        Ok(())
    }
}

/// The element type a stored tensor keeps.
fn stored(view: &TensorView<'_>) -> Result<Elem> {
    match view.dtype {
        DType::F32 => Ok(Elem::F32),
        DType::F16 => Ok(Elem::F16),
        DType::BF16 => Ok(Elem::BF16),
        other => Err(view.error(format!(
            "is stored as {}, which Fathom cannot compute with yet (F32, F16 and BF16 it can)",
            other.name()
        ))),
    }
}

/// Dense f32 (or integers) from padded rows as [`WeightSource::read`] gives them.
fn expand(t: &Tensor, bytes: &[u8]) -> Data {
    let row = t.stride() * t.elem.bytes();
    let used = t.cols * t.elem.bytes();
    let words = |size: usize| bytes.chunks_exact(row).flat_map(move |r| r[..used].chunks(size));
    let four = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    match t.elem {
        Elem::U32 => Data::U32(words(4).map(|b| u32::from_le_bytes(four(b))).collect()),
        Elem::F32 => Data::F32(words(4).map(|b| f32::from_le_bytes(four(b))).collect()),
        Elem::F16 => {
            Data::F32(words(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
        Elem::BF16 => {
            Data::F32(words(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
    }
}

impl WeightSource for ModelWeights<'_> {
    fn read(&self, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let undeclared = || Error::tensor(&t.name, "was not declared by the model");
        let row_bytes = t.stride() * t.elem.bytes();
        match self.sources.get(&t.name).ok_or_else(undeclared)? {
            Source::Known(values) => {
                for row in values.chunks_exact(t.cols).take(rows.end).skip(rows.start) {
                    let end = out.len() + row_bytes;
                    out.extend_from_slice(bytemuck::cast_slice(row));
                    out.resize(end, 0);
                }
            }
            Source::Tensors(parts) => {
                let each = t.rows.fixed / parts.len();
                for (i, part) in parts.iter().enumerate() {
                    let (first, last) = (rows.start.max(i * each), rows.end.min((i + 1) * each));
                    if first >= last {
                        continue;
                    }
                    let view = self.files.get(part)?;
                    append(&view, t, first - i * each..last - i * each, out)?;
                }
            }
        }
        Ok(())
    }
}

/// Appends rows of a stored tensor, padded, converting to f32 where the graph wants that.
fn append(view: &TensorView<'_>, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
    let from = stored(view)?;
    let used = t.cols * from.bytes();
    let row_bytes = t.stride() * t.elem.bytes();
    for row in rows {
        let end = out.len() + row_bytes;
        let bytes = &view.bytes[row * used..(row + 1) * used];
        if from == t.elem {
            out.extend_from_slice(bytes);
        } else {
            let shaped = Tensor { elem: from, ..t.clone() };
            let mut padded = bytes.to_vec();
            padded.resize(shaped.stride() * from.bytes(), 0);
            out.extend_from_slice(expand(&shaped, &padded).bytes());
        }
        out.resize(end, 0);
    }
    Ok(())
}
