//! A model's weights as its graphs ask for them: by official name, checked for shape, expert
//! matrices stacked into banks.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::Activations;
use super::matrix::{Matrix, Scratch};
use crate::formats::{BlockFormat, Weights};
use crate::gpu::WeightSource;
use crate::graph::reference::{Data, Store};
use crate::graph::{Elem, Graph, Home, Tensor, TensorId};
use crate::ops::CodeOrder;
use crate::{Error, Result};

/// Where the rows of one graph weight come from.
#[derive(Debug)]
enum Source {
    /// Checkpoint tensors, one below the other.
    Tensors(Vec<Part>),
    /// Checkpoint vectors, end to end in one row.
    Vectors(Vec<Part>),
    /// A checkpoint tensor of integers below a limit.
    Integers(usize),
    /// Numbers known without a checkpoint.
    Known(Vec<u32>),
}

/// A tensor of the checkpoint and how many rows of a weight, or numbers of a row, it makes.
pub type Part = (String, usize);

/// Declares weights to graphs and reads them for whoever runs these.
#[derive(Debug)]
pub struct ModelWeights<'a> {
    files: Weights<'a>,
    sources: HashMap<String, Source>,
    quantize: Option<BlockFormat>,
    activations: Activations,
}

impl<'a> ModelWeights<'a> {
    /// The weights in `files`.
    pub fn new(files: Weights<'a>) -> Self {
        Self { files, sources: HashMap::new(), quantize: None, activations: Activations::F32 }
    }

    /// Has matrices quantised to `format`, if one is given, while they are loaded. Tables, vectors, routers and matrices
    /// whose rows are no whole blocks stay as they are stored.
    pub fn quantize_to(&mut self, format: Option<BlockFormat>) {
        self.quantize = format;
    }

    /// Has the inputs of matrices rounded as told; they are not otherwise.
    pub fn multiply_with(&mut self, activations: Activations) {
        self.activations = activations;
    }

    /// What [`Self::multiply_with`] was told.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// How the input of a matrix of this type is rounded to 8 bits, if it is. FP4 that was released as
    /// such has inputs that are rounded in its own way, or not at all.
    pub fn order(&self, elem: Elem) -> Option<CodeOrder> {
        let released = self.quantize.is_none() && self.files.checkpoint().gguf().is_none();
        match elem {
            _ if self.activations != Activations::Q8 => None,
            Elem::Block(BlockFormat::MXFP4) if released => None,
            _ => CodeOrder::of(elem),
        }
    }

    /// Whether the checkpoint has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    fn open(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix<'a>> {
        Matrix::open(self.files, name, rows, cols)
    }

    /// What the matrix `name` is kept in.
    fn kept(&self, name: &str, matrix: &Matrix<'_>, cols: usize) -> Elem {
        let projection = name.ends_with(".weight") && !name.ends_with(".gate.weight");
        match self.quantize {
            Some(format) if projection && cols.is_multiple_of(format.block()) => {
                Elem::Block(format)
            }
            _ => matrix.elem(),
        }
    }

    /// A matrix kept as it is stored, unless [`ModelWeights::quantize_to`] says otherwise.
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
        let elem = self.elem(name, rows, cols)?;
        self.sources.insert(name.into(), Source::Tensors(vec![(name.into(), rows)]));
        Ok(g.weight(name, elem, rows, cols))
    }

    /// What [`ModelWeights::matrix`] would keep this matrix in.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn elem(&self, name: &str, rows: usize, cols: usize) -> Result<Elem> {
        Ok(self.kept(name, &self.open(name, rows, cols)?, cols))
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
        self.open(name, rows, cols)?;
        self.sources.insert(name.into(), Source::Tensors(vec![(name.into(), rows)]));
        Ok(g.weight(name, Elem::F32, rows, cols))
    }

    /// A vector in f32.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn vector(&mut self, g: &mut Graph, name: &str, len: usize) -> Result<TensorId> {
        self.table(g, name, 1, len)
    }

    /// A table of integers, each below `limit`: one that is not is found when the table is read.
    ///
    /// # Errors
    /// If it is missing, of another shape, or not of integers.
    pub fn integers(
        &mut self,
        g: &mut Graph,
        name: &str,
        [rows, cols]: [usize; 2],
        limit: usize,
    ) -> Result<TensorId> {
        let view = self.files.get(name)?.expect_shape(&[rows, cols])?;
        if !view.dtype.is_integer() {
            return Err(view.error(format!("is {}, expected integers", view.dtype)));
        }
        self.sources.insert(name.into(), Source::Integers(limit));
        Ok(g.weight(name, Elem::U32, rows, cols))
    }

    /// Rows of the table of integers `name`, each below `limit`.
    fn read_integers(&self, name: &str, rows: Range<usize>, limit: usize) -> Result<Vec<u32>> {
        let view = self.files.get(name)?;
        let mut read = vec![];
        for row in rows {
            for v in view.row(row)?.to_i64()? {
                let small = u32::try_from(v).ok().filter(|&v| (v as usize) < limit);
                let wrong = || view.error(format!("holds {v}, which is not below {limit}"));
                read.push(small.ok_or_else(wrong)?);
            }
        }
        Ok(read)
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
        let parts: Vec<Part> = parts.into_iter().map(|part| (part, rows)).collect();
        let (elem, all) = self.one_format(&parts, cols)?;
        self.sources.insert(name.into(), Source::Tensors(parts));
        Ok(g.bank(name, elem, all, cols, rows))
    }

    /// Matrices of as many columns, one below the other, as one weight.
    ///
    /// # Errors
    /// As [`ModelWeights::bank`].
    pub fn stack(&mut self, g: &mut Graph, parts: Vec<Part>, cols: usize) -> Result<TensorId> {
        let (elem, rows) = self.one_format(&parts, cols)?;
        let name = together(&parts);
        self.sources.insert(name.clone(), Source::Tensors(parts));
        Ok(g.weight(name, elem, rows, cols))
    }

    /// What all these matrices are kept in, and their rows together.
    fn one_format(&self, parts: &[Part], cols: usize) -> Result<(Elem, usize)> {
        let (mut elem, mut all) = (None, 0);
        for (part, rows) in parts {
            let matrix = self.open(part, *rows, cols)?;
            let this = self.kept(part, &matrix, cols);
            if *elem.get_or_insert(this) != this {
                let what = format!("is {}, unlike the others of its bank", this.name());
                return Err(matrix.error(what));
            }
            all += rows;
        }
        Ok((elem.unwrap_or(Elem::F32), all))
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
            self.open(part, 1, cols)?;
        }
        let parts: Vec<Part> = parts.iter().map(|&p| (p.to_owned(), 1)).collect();
        let count = parts.len();
        self.sources.insert(name.into(), Source::Tensors(parts));
        Ok(g.weight(name, Elem::F32, count, cols))
    }

    /// Vectors end to end, in f32.
    ///
    /// # Errors
    /// As [`ModelWeights::matrix`].
    pub fn joined(&mut self, g: &mut Graph, parts: Vec<Part>) -> Result<TensorId> {
        for (part, len) in &parts {
            self.open(part, 1, *len)?;
        }
        let (name, len) = (together(&parts), parts.iter().map(|p| p.1).sum());
        self.sources.insert(name.clone(), Source::Vectors(parts));
        Ok(g.weight(name, Elem::F32, 1, len))
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
            store.set_weight(&t.name, self.expand(t)?);
            done += t.bytes(t.rows.fixed) as u64;
            progress(done);
        }
        Ok(())
    }

    fn source(&self, t: &Tensor) -> Result<&Source> {
        let undeclared = || Error::tensor(&t.name, "was not declared by the model");
        self.sources.get(&t.name).ok_or_else(undeclared)
    }

    /// All of a weight in dense f32, or integers.
    fn expand(&self, t: &Tensor) -> Result<Data> {
        let parts = match self.source(t)? {
            Source::Known(values) => return Ok(Data::U32(values.clone())),
            Source::Integers(limit) => {
                let rows = 0..t.rows.fixed;
                return self.read_integers(&t.name, rows, *limit).map(Data::U32);
            }
            Source::Vectors(parts) => return self.end_to_end(parts).map(Data::F32),
            Source::Tensors(parts) => parts,
        };
        let mut numbers = vec![0.0; t.rows.fixed * t.cols];
        let mut rest = &mut numbers[..];
        for (part, rows) in parts {
            let out;
            (out, rest) = rest.split_at_mut(rows * t.cols);
            let matrix = self.open(part, *rows, t.cols)?;
            let rows = out.par_chunks_exact_mut(t.cols).enumerate();
            rows.try_for_each_init(Scratch::default, |s, (row, out)| {
                matrix.expand(row, t.elem, s, out)
            })?;
        }
        Ok(Data::F32(numbers))
    }

    /// The numbers of vectors, one after the other.
    fn end_to_end(&self, parts: &[Part]) -> Result<Vec<f32>> {
        let (mut numbers, mut scratch) = (vec![], Scratch::default());
        for (part, len) in parts {
            let from = numbers.len();
            numbers.resize(from + len, 0.0);
            let vector = self.open(part, 1, *len)?;
            vector.expand(0, Elem::F32, &mut scratch, &mut numbers[from..])?;
        }
        Ok(numbers)
    }
}

/// A name for what these tensors make together: theirs, after what all begin with.
/// `l.q.weight`, `l.k.weight` -> `l.q+k.weight`.
fn together(parts: &[Part]) -> String {
    let stem = |part: &Part| part.0.trim_end_matches(".weight").to_owned();
    let first = parts.first().map(stem).unwrap_or_default();
    let shared = |to: usize| parts.iter().all(|p| p.0.starts_with(&first[..to]));
    let ends = first.match_indices('.').map(|(at, _)| at + 1);
    let start = ends.rev().find(|&end| shared(end)).unwrap_or(0);
    // A dot would hide the others from labels, which are what follows the last one.
    let names = parts.iter().map(|p| stem(p)[start..].replace('.', "_"));
    let kind = if parts.iter().all(|p| p.0.ends_with(".weight")) { ".weight" } else { "" };
    format!("{}{}{kind}", &first[..start], names.collect::<Vec<_>>().join("+"))
}

/// Appends rows of numbers as `t` has them, each padded.
fn append(values: &[u32], t: &Tensor, out: &mut Vec<u8>) {
    for row in values.chunks_exact(t.cols) {
        let end = out.len() + t.row_bytes();
        out.extend_from_slice(bytemuck::cast_slice(row));
        out.resize(end, 0);
    }
}

impl WeightSource for ModelWeights<'_> {
    fn read(&self, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let row_bytes = t.row_bytes();
        match self.source(t)? {
            Source::Known(values) => {
                append(&values[rows.start * t.cols..rows.end * t.cols], t, out)
            }
            Source::Integers(limit) => append(&self.read_integers(&t.name, rows, *limit)?, t, out),
            Source::Vectors(parts) => {
                let numbers = self.end_to_end(parts)?;
                append(bytemuck::cast_slice(&numbers), t, out);
            }
            Source::Tensors(parts) => {
                let mut start = 0;
                for (part, each) in parts {
                    let (first, last) = (rows.start.max(start), rows.end.min(start + each));
                    if first < last {
                        let matrix = self.open(part, *each, t.cols)?;
                        let from = out.len();
                        out.resize(from + (last - first) * row_bytes, 0);
                        let rows = out[from..].par_chunks_exact_mut(row_bytes).enumerate();
                        rows.try_for_each_init(Scratch::default, |s, (row, out)| {
                            matrix.write(first - start + row, t.elem, s, out)
                        })?;
                    }
                    start += each;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_put_together() {
        let of = |names: &[&str]| {
            together(&names.iter().map(|&n| (n.to_owned(), 1)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["l.0.q.weight", "l.0.k.weight"]), "l.0.q+k.weight");
        assert_eq!(of(&["l.0.q.bias", "l.0.k.bias"]), "l.0.q_bias+k_bias");
        assert_eq!(of(&["l.0.q.weight", "l.0.c.k.weight"]), "l.0.q+c_k.weight");
        assert_eq!(of(&["l.0.q.weight"]), "l.0.q.weight");
    }
}
