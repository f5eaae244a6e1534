//! Rotary position embedding of some dimensions of each head, in pairs:
//! `(a, b) -> (a c - b s, a s + b c)` (Su et al. 2021, arXiv:2104.09864), optionally after scaling
//! the whole head by `rsqrt(mean(x^2) + eps)`.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Which dimensions turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours: `2 i` and `2 i + 1` of those that turn.
    Interleaved,
    /// `i` and `i + rd / 2`.
    Halves,
}

impl Pairs {
    /// Dimensions between those of a pair, and between the first ones of two pairs, where `rope` turn.
    pub(super) fn steps(self, rope: usize) -> (usize, usize) {
        match self {
            Self::Interleaved => (1, 2),
            Self::Halves => (rope / 2, 1),
        }
    }
}

/// What [`head_rope`] does.
#[derive(Clone, Copy, Debug)]
pub struct HeadRope {
    /// `[n, heads * d]`, changed in place.
    pub x: TensorId,
    /// `[n, rd]`: each row's cosines (rd / 2), then its sines.
    pub table: TensorId,
    /// Heads a row.
    pub heads: usize,
    /// The first dimension of a head that turns; without it the last `rd` do.
    pub start: Option<usize>,
    /// Which of them turn together.
    pub pairs: Pairs,
    /// The eps of a norm of the whole head before, if there is one.
    pub norm: Option<f32>,
    /// Whether to turn backwards.
    pub inverse: bool,
}

impl HeadRope {
    /// Turns the last `rd` dimensions of each head, neighbours together.
    pub fn new(x: TensorId, table: TensorId, heads: usize) -> Self {
        let pairs = Pairs::Interleaved;
        Self { x, table, heads, start: None, pairs, norm: None, inverse: false }
    }

    /// Turns the dimensions from `start` on.
    #[must_use]
    pub fn at(self, start: usize) -> Self {
        Self { start: Some(start), ..self }
    }

    /// Turns the first half of the dimensions with the second.
    #[must_use]
    pub fn halves(self) -> Self {
        Self { pairs: Pairs::Halves, ..self }
    }

    /// Scales each head by `rsqrt(mean(x^2) + eps)` before.
    #[must_use]
    pub fn normed(self, eps: f32) -> Self {
        Self { norm: Some(eps), ..self }
    }

    /// Turns backwards.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { inverse: true, ..self }
    }

    fn sign(&self) -> f32 {
        if self.inverse { -1.0 } else { 1.0 }
    }
}

/// Norms, if asked to, and rotates each head in place.
pub fn head_rope(g: &mut Graph, r: HeadRope) {
    let (cols, rope) = (g.tensor(r.x).cols, g.tensor(r.table).cols);
    let dims = cols / r.heads;
    assert!(
        cols == r.heads * dims && rope.is_multiple_of(2) && r.start.unwrap_or(0) + rope <= dims,
        "head_rope shapes"
    );
    g.push("rope", r);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
    rope: u32,
    start: u32,
    gap: u32,
    next: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    sign: f32,
    eps: f32,
}

impl Op for HeadRope {
    fn name(&self) -> &'static str {
        "head_rope"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.update(), self.table.read()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (mut x, table) = (host.f32_mut(self.x), host.f32(self.table));
        let (cols, rope) = (host.cols(self.x), host.cols(self.table));
        let dims = cols / self.heads;
        let (start, (gap, next)) = (self.start.unwrap_or(dims - rope), self.pairs.steps(rope));
        for (x, table) in x.chunks_exact_mut(cols).zip(table.chunks_exact(rope)) {
            let (cos, sin) = table.split_at(rope / 2);
            for head in x.chunks_exact_mut(dims) {
                if let Some(eps) = self.norm {
                    let mean = head.iter().map(|v| v * v).sum::<f32>() / dims as f32;
                    let scale = (mean + eps).sqrt().recip();
                    head.iter_mut().for_each(|v| *v *= scale);
                }
                for (i, (&c, &s)) in cos.iter().zip(sin).enumerate() {
                    let (at, s) = (start + i * next, s * self.sign());
                    let (a, b) = (head[at], head[at + gap]);
                    (head[at], head[at + gap]) = (a * c - b * s, a * s + b * c);
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (t, rope) = (graph.tensor(self.x), graph.tensor(self.table).cols);
        let (rows, heads) = (t.rows, self.heads);
        let (dims, (gap, next)) = (t.cols / heads, self.pairs.steps(rope));
        let params = Params {
            heads: heads as u32,
            dims: dims as u32,
            rope: rope as u32,
            start: self.start.unwrap_or(dims - rope) as u32,
            gap: gap as u32,
            next: next as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            sign: self.sign(),
            eps: self.norm.unwrap_or_default(),
        };
        let kernel =
            Kernel::new("head_rope", params, self.uses(), move |s| grid(rows.at(s) * heads));
        vec![match self.norm {
            Some(_) => kernel.flag("NORM").reduces(limits, 64),
            // A lane a pair of the usual 64 rotated dimensions; there is nothing else to do.
            None => kernel.constant("WG", 32),
        }]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (t, rope) = (graph.tensor(self.x), graph.tensor(self.table).cols);
        let heads = (t.rows.at(step) * self.heads) as u64;
        let (dims, rope) = ((t.cols / self.heads) as u64, rope as u64);
        let touched = if self.norm.is_some() { dims } else { rope };
        let norm = if self.norm.is_some() { 3 * dims } else { 0 };
        let table = t.rows.at(step) as u64 * rope;
        Cost { bytes: 4 * (2 * heads * touched + table), flops: heads * (norm + 3 * rope) }
    }
}
