//! Rotary position embedding of some dimensions of each head, in pairs:
//! `(a, b) -> (a c - b s, a s + b c)` (Su et al. 2021, arXiv:2104.09864).

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
}

impl HeadRope {
    /// Turns the last `rd` dimensions of each head, neighbours together.
    pub fn new(x: TensorId, table: TensorId, heads: usize) -> Self {
        Self { x, table, heads, start: None, pairs: Pairs::Interleaved }
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
}

/// Rotates a head's dimensions from `start` on by a row of the table, in pairs of these
/// [`steps`](Pairs::steps).
pub(super) fn turn(head: &mut [f32], table: &[f32], start: usize, (gap, next): (usize, usize)) {
    let (cos, sin) = table.split_at(table.len() / 2);
    for (i, (&c, &s)) in cos.iter().zip(sin).enumerate() {
        let at = start + i * next;
        let (a, b) = (head[at], head[at + gap]);
        (head[at], head[at + gap]) = (a * c - b * s, a * s + b * c);
    }
}

/// Rotates each head in place.
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
        let (start, steps) = (self.start.unwrap_or(dims - rope), self.pairs.steps(rope));
        for (x, table) in x.chunks_exact_mut(cols).zip(table.chunks_exact(rope)) {
            x.chunks_exact_mut(dims).for_each(|head| turn(head, table, start, steps));
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
        };
        let kernel =
            Kernel::new("head_rope", params, self.uses(), move |s| grid(rows.at(s) * heads));
        vec![kernel.one_subgroup(limits)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (t, rope) = (graph.tensor(self.x), graph.tensor(self.table).cols);
        let heads = (t.rows.at(step) * self.heads) as u64;
        let rope = rope as u64;
        let table = t.rows.at(step) as u64 * rope;
        Cost { bytes: 4 * (2 * heads * rope + table), flops: 3 * heads * rope }
    }
}
