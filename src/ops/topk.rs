//! The compressed entries a row attends to: those of the `k` largest scores among the `n` it sees,
//! `n = (p + 1) / ratio`. Ties go to the lower index.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// Of `scores` `[T, entries]`, of which a row's first `n` count: integers `[T, 1 + k]`, how many were
/// taken (`min(n, k)`), then their indices in rising order, then zeros.
pub fn topk(g: &mut Graph, rows: TensorId, scores: TensorId, ratio: usize, k: usize) -> TensorId {
    let extent = g.tensor(scores).rows;
    let out = g.scratch("topk", Elem::U32, extent, 1 + k);
    g.push("topk", Topk { rows, scores, out, ratio });
    out
}

#[derive(Debug)]
struct Topk {
    rows: TensorId,
    scores: TensorId,
    out: TensorId,
    ratio: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    entries: u32,
    ratio: u32,
    k: u32,
    pad: u32,
}

impl Op for Topk {
    fn name(&self) -> &'static str {
        "topk"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.rows.read(), self.scores.read(), self.out.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, scores, mut out) =
            (host.u32(self.rows), host.f32(self.scores), host.u32_mut(self.out));
        let (entries, cols) = (host.cols(self.scores), host.cols(self.out));
        let lists = scores.chunks_exact(entries).zip(out.chunks_exact_mut(cols));
        for (row, (scores, out)) in Row::all(&rows).iter().zip(lists) {
            let mut order: Vec<usize> = (0..row.visible(self.ratio)).collect();
            // Adding zero makes one of the two zeros; the sort is stable.
            order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
            order.truncate(cols - 1);
            order.sort_unstable();
            out.fill(0);
            out[0] = order.len() as u32;
            out[1..].iter_mut().zip(order).for_each(|(o, i)| *o = i as u32);
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let params = Params {
            entries: graph.tensor(self.scores).cols as u32,
            ratio: self.ratio as u32,
            k: graph.tensor(self.out).cols as u32 - 1,
            pad: 0,
        };
        vec![Kernel::new("topk", params, self.uses(), |s| grid(s.rows))]
    }

    /// The lists; how many scores are read depends on the rows' positions.
    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        Cost { bytes: 4 * (step.rows * graph.tensor(self.out).cols) as u64, flops: 0 }
    }
}
