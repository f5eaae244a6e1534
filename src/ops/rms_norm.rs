//! Root-mean-square norm: `y = x * rsqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019,
//! arXiv:1910.07467).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// Normalises each row of `x` `[n, cols]` and scales it by `weight` `[1, cols]`.
pub fn rms_norm(g: &mut Graph, x: TensorId, weight: TensorId, eps: f32) -> TensorId {
    let (rows, cols) = (g.tensor(x).rows, g.tensor(x).cols);
    let y = g.scratch("norm", Elem::F32, rows, cols);
    g.push("norm", RmsNorm { x, weight, y, eps });
    y
}

#[derive(Debug)]
struct RmsNorm {
    x: TensorId,
    weight: TensorId,
    y: TensorId,
    eps: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    eps: f32,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.read(), self.weight.read(), self.y.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (x, weight, mut y) = (host.f32(self.x), host.f32(self.weight), host.f32_mut(self.y));
        let cols = host.cols(self.x);
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            let mean = x.iter().map(|v| v * v).sum::<f32>() / cols as f32;
            let scale = (mean + self.eps).sqrt().recip();
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight.iter()) {
                *y = x * scale * w;
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.x);
        let rows = t.rows;
        let params = Params {
            cols: t.cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            eps: self.eps,
        };
        vec![
            Kernel::new("rms_norm", params, self.uses(), move |s| grid(rows.at(s)))
                .flag_if(limits.subgroups, "SUBGROUPS"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.x);
        let n = (t.rows.at(step) * t.cols) as u64;
        Cost { bytes: 8 * n + 4 * t.cols as u64, flops: 4 * n }
    }
}
