//! What stands between the projections of DeepSeek-V4's attention and attention itself, in one
//! dispatch: queries are normed and rotated, and the latent, which is key and value of all heads, goes
//! to its place in the ring.
//!
//! With `n(x) = x * rsqrt(mean(x^2) + eps)` and `turn` the rotation of [`super::head_rope`], of a
//! head's last `rd` dimensions in neighbouring pairs: a query `q` becomes `turn(n(q))`, a query of the
//! indexer `turn(q)`, and row `slot * cap + p % cap` of the ring `turn(n(latent) * norm)`.

use bytemuck::{Pod, Zeroable};

use super::head_rope::turn;
use super::mhc_pre::rms_scale;
use super::row::Row;
use super::{Columns, Pairs};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// What [`latent_keep`] works on.
#[derive(Clone, Copy, Debug)]
pub struct LatentKeep {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// `[T, H * d + Hi * di]`: attention's queries, then the indexer's. Changed in place.
    pub q: TensorId,
    /// H.
    pub heads: usize,
    /// Hi; 0 if there is no indexer, or its queries are elsewhere.
    pub index_heads: usize,
    /// `d` columns a row.
    pub latent: Columns,
    /// `[1, d]`.
    pub norm: TensorId,
    /// `[T, rd]`: each row's cosines (rd / 2), then its sines.
    pub table: TensorId,
    /// State `[slots * cap, d]`.
    pub ring: TensorId,
    /// Ring places a sequence. No more rows of one are in a step.
    pub cap: usize,
    /// Of the norms.
    pub eps: f32,
}

/// Appends it.
pub fn latent_keep(g: &mut Graph, l: LatentKeep) {
    let (q, d, rope) = (g.tensor(l.q).cols, g.tensor(l.ring).cols, g.tensor(l.table).cols);
    assert_eq!(g.tensor(l.norm).cols, d, "latent_keep: norm");
    assert!(l.latent.at + d <= g.tensor(l.latent.of).cols, "latent_keep: latent");
    let (index, heads) = (q.saturating_sub(l.heads * d), l.index_heads.max(1));
    assert!(
        q >= l.heads * d && index.is_multiple_of(heads) && (l.index_heads > 0 || index == 0),
        "latent_keep: query columns"
    );
    let dims = if l.index_heads > 0 { d.min(index / heads) } else { d };
    assert!(rope.is_multiple_of(2) && rope <= dims, "latent_keep: dimensions");
    g.push("latent", l);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
    index_heads: u32,
    index_dims: u32,
    rope: u32,
    latent_cols: u32,
    latent_at: u32,
    cap: u32,
    eps: f32,
    pad: [u32; 3],
}

impl LatentKeep {
    /// Width of a query of the indexer.
    fn index_dims(&self, graph: &Graph) -> usize {
        let index = graph.tensor(self.q).cols - self.heads * graph.tensor(self.ring).cols;
        index / self.index_heads.max(1)
    }
}

impl Op for LatentKeep {
    fn name(&self) -> &'static str {
        "latent_keep"
    }

    fn uses(&self) -> Vec<Use> {
        let read = [self.rows, self.latent.of, self.norm, self.table].map(TensorId::read);
        let mut uses = vec![self.q.update(), self.ring.update()];
        uses.extend(read);
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, mut q, latent) =
            (host.u32(self.rows), host.f32_mut(self.q), host.f32(self.latent.of));
        let (norm, table) = (host.f32(self.norm), host.f32(self.table));
        let mut ring = host.f32_mut(self.ring);
        let (d, di, rope) = (norm.len(), self.index_dims(host.graph), host.cols(self.table));
        let inputs = table
            .chunks_exact(rope)
            .zip(latent.chunks_exact(host.cols(self.latent.of)))
            .zip(q.chunks_exact_mut(host.cols(self.q)));
        let steps = Pairs::Interleaved.steps(rope);
        for (row, ((table, latent), q)) in Row::all(&rows).iter().zip(inputs) {
            let (q, index) = q.split_at_mut(self.heads * d);
            for head in q.chunks_exact_mut(d) {
                let scale = rms_scale(head, self.eps);
                head.iter_mut().for_each(|v| *v *= scale);
                turn(head, table, d - rope, steps);
            }
            if self.index_heads > 0 {
                index.chunks_exact_mut(di).for_each(|head| turn(head, table, di - rope, steps));
            }
            let latent = &latent[self.latent.at..][..d];
            let scale = rms_scale(latent, self.eps);
            let at = (row.slot as usize * self.cap + row.position as usize % self.cap) * d;
            let kept = &mut ring[at..at + d];
            for (to, (v, w)) in kept.iter_mut().zip(latent.iter().zip(norm.iter())) {
                *to = v * scale * w;
            }
            turn(kept, table, d - rope, steps);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let params = Params {
            heads: self.heads as u32,
            dims: graph.tensor(self.ring).cols as u32,
            index_heads: self.index_heads as u32,
            index_dims: self.index_dims(graph) as u32,
            rope: graph.tensor(self.table).cols as u32,
            latent_cols: graph.tensor(self.latent.of).cols as u32,
            latent_at: self.latent.at as u32,
            cap: self.cap as u32,
            eps: self.eps,
            pad: [0; 3],
        };
        let each = self.heads + 1 + self.index_heads;
        let kernel = Kernel::new("latent_keep", params, self.uses(), move |s| grid(s.rows * each));
        vec![kernel.reduces(limits, 64)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (d, rope) = (graph.tensor(self.ring).cols, graph.tensor(self.table).cols);
        let normed = (self.heads + 1) * d;
        let row = 2 * (normed + self.index_heads * rope) + rope;
        let flops = 3 * normed + 3 * (self.heads + 1 + self.index_heads) * rope;
        Cost { bytes: (4 * (step.rows * row + d)) as u64, flops: (step.rows * flops) as u64 }
    }
}
