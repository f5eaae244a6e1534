//! Rotary position embedding of the last dimensions of each head, in pairs of neighbours:
//! `(a, b) -> (a c - b s, a s + b c)` (Su et al. 2021, arXiv:2104.09864), optionally after scaling
//! the whole head by `rsqrt(mean(x^2) + eps)`.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Norms (if `norm` gives an eps) and rotates `x` `[n, heads * d]` in place. `table` `[n, rd]` holds
/// each row's cosines (rd / 2), then its sines; the last `rd` dimensions of a head turn, backwards
/// if `inverse`.
pub fn head_rope(
    g: &mut Graph,
    x: TensorId,
    table: TensorId,
    heads: usize,
    norm: Option<f32>,
    inverse: bool,
) {
    let (dims, rope) = (g.tensor(x).cols / heads, g.tensor(table).cols);
    assert!(
        g.tensor(x).cols == heads * dims && rope <= dims && rope.is_multiple_of(2),
        "head_rope shapes"
    );
    g.push("rope", HeadRope { x, table, heads, norm, inverse });
}

#[derive(Debug)]
struct HeadRope {
    x: TensorId,
    table: TensorId,
    heads: usize,
    norm: Option<f32>,
    inverse: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
    rope: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    sign: f32,
    eps: f32,
}

impl HeadRope {
    fn sign(&self) -> f32 {
        if self.inverse { -1.0 } else { 1.0 }
    }
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
        for (x, table) in x.chunks_exact_mut(cols).zip(table.chunks_exact(rope)) {
            let (cos, sin) = table.split_at(rope / 2);
            for head in x.chunks_exact_mut(dims) {
                if let Some(eps) = self.norm {
                    let mean = head.iter().map(|v| v * v).sum::<f32>() / dims as f32;
                    let scale = (mean + eps).sqrt().recip();
                    head.iter_mut().for_each(|v| *v *= scale);
                }
                for (i, pair) in head[dims - rope..].chunks_exact_mut(2).enumerate() {
                    let (a, b, c, s) = (pair[0], pair[1], cos[i], sin[i] * self.sign());
                    (pair[0], pair[1]) = (a * c - b * s, a * s + b * c);
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (t, rope) = (graph.tensor(self.x), graph.tensor(self.table).cols);
        let (rows, heads) = (t.rows, self.heads);
        let params = Params {
            heads: heads as u32,
            dims: (t.cols / heads) as u32,
            rope: rope as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            sign: self.sign(),
            eps: self.norm.unwrap_or_default(),
        };
        let kernel =
            Kernel::new("head_rope", params, self.uses(), move |s| grid(rows.at(s) * heads));
        vec![match self.norm {
            Some(_) => kernel.flag("NORM").flag_if(limits.subgroups, "SUBGROUPS"),
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
