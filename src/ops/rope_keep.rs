//! Rotates queries and keys, and puts keys and values where attention will find them: what stands
//! between the projections of attention and attention itself, in one dispatch.
//!
//! A row holds the heads of its queries, of its keys, of its values. The first two are rotated as in
//! [`super::head_rope`]. Queries stay in their place; keys and values go to row
//! `slot * context + position` of their state.

use bytemuck::{Pod, Zeroable};

use super::Pairs;
use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// What [`rope_keep`] works on.
#[derive(Clone, Copy, Debug)]
pub struct RopeKeep {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// `[T, (H + 2 G) * d]`: queries, keys, values. Its queries are changed in place.
    pub qkv: TensorId,
    /// `[T, rd]`: each row's cosines (rd / 2), then its sines. The last `rd` dimensions turn.
    pub table: TensorId,
    /// State `[slots * context, G * d]`.
    pub keys: TensorId,
    /// State `[slots * context, G * d]`.
    pub values: TensorId,
    /// H.
    pub heads: usize,
    /// G.
    pub groups: usize,
    /// Places a sequence.
    pub context: usize,
    /// Which dimensions turn together.
    pub pairs: Pairs,
}

/// Appends it.
pub fn rope_keep(g: &mut Graph, r: RopeKeep) {
    let (dims, rope) = (g.tensor(r.keys).cols / r.groups, g.tensor(r.table).cols);
    assert_eq!(g.tensor(r.qkv).cols, (r.heads + 2 * r.groups) * dims, "rope_keep: columns");
    assert_eq!(g.tensor(r.values).cols, g.tensor(r.keys).cols, "rope_keep: value columns");
    assert!(dims % 2 == 0 && rope % 2 == 0 && rope <= dims, "rope_keep: dimensions");
    g.push("rope_keep", r);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    groups: u32,
    dims: u32,
    rope: u32,
    gap: u32,
    next: u32,
    context: u32,
    pad: u32,
}

/// Pairs of dimensions a workgroup: `SPAN` of the shader.
const SPAN: usize = 256;

impl RopeKeep {
    fn dims(&self, graph: &Graph) -> usize {
        graph.tensor(self.keys).cols / self.groups
    }
}

impl Op for RopeKeep {
    fn name(&self) -> &'static str {
        "rope_keep"
    }

    fn uses(&self) -> Vec<Use> {
        let states = [self.keys, self.values].map(TensorId::update);
        let mut uses = vec![self.rows.read(), self.qkv.update(), self.table.read()];
        uses.extend(states);
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, table) = (host.u32(self.rows), host.f32(self.table));
        let (mut qkv, mut keys) = (host.f32_mut(self.qkv), host.f32_mut(self.keys));
        let mut values = host.f32_mut(self.values);
        let (cols, rope, kept) = (host.cols(self.qkv), host.cols(self.table), host.cols(self.keys));
        let dims = self.dims(host.graph);
        let (gap, next) = self.pairs.steps(rope);
        for ((row, x), table) in
            Row::all(&rows).iter().zip(qkv.chunks_exact_mut(cols)).zip(table.chunks_exact(rope))
        {
            let (cos, sin) = table.split_at(rope / 2);
            let (x, v) = x.split_at_mut((self.heads + self.groups) * dims);
            let (q, k) = x.split_at_mut(self.heads * dims);
            let at = (row.slot as usize * self.context + row.position as usize) * kept;
            keys[at..at + kept].copy_from_slice(k);
            values[at..at + kept].copy_from_slice(v);
            let kept = &mut keys[at..at + kept];
            for head in q.chunks_exact_mut(dims).chain(kept.chunks_exact_mut(dims)) {
                for (i, (&c, &s)) in cos.iter().zip(sin).enumerate() {
                    let at = dims - rope + i * next;
                    let (a, b) = (head[at], head[at + gap]);
                    (head[at], head[at + gap]) = (a * c - b * s, a * s + b * c);
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (dims, rope) = (self.dims(graph), graph.tensor(self.table).cols);
        let (gap, next) = self.pairs.steps(rope);
        let params = Params {
            heads: self.heads as u32,
            groups: self.groups as u32,
            dims: dims as u32,
            rope: rope as u32,
            gap: gap as u32,
            next: next as u32,
            context: self.context as u32,
            pad: 0,
        };
        let blocks = (graph.tensor(self.qkv).cols / 2).div_ceil(SPAN);
        let kernel = Kernel::new("rope_keep", params, self.uses(), move |s| grid(s.rows * blocks));
        vec![kernel.one_subgroup(limits)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (dims, rope) = (self.dims(graph), graph.tensor(self.table).cols);
        let turned = self.heads * rope + self.groups * dims;
        let row = 2 * (turned + self.groups * dims) + rope;
        let flops = 3 * (self.heads + self.groups) * rope;
        Cost { bytes: (4 * step.rows * row) as u64, flops: (step.rows * flops) as u64 }
    }
}
