//! Root-mean-square norm: `y = x * rsqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019,
//! arXiv:1910.07467).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// Normalises each row of `x` `[n, cols]` and scales it by `weight` `[1, cols]`.
pub fn rms_norm(g: &mut Graph, x: TensorId, weight: TensorId, eps: f32) -> TensorId {
    let (rows, cols) = (g.tensor(x).rows, g.tensor(x).cols);
    assert_eq!(g.tensor(weight).cols, cols, "rms_norm: weight");
    let y = g.scratch("norm", Elem::F32, rows, cols);
    g.push("norm", RmsNorm { x, weight, y: Some(y), cols, eps });
    y
}

/// The same in place, on the first `cols` columns of `x`.
pub fn rms_norm_part(g: &mut Graph, x: TensorId, weight: TensorId, eps: f32, cols: usize) {
    assert!(g.tensor(weight).cols == cols && cols <= g.tensor(x).cols, "rms_norm_part: weight");
    g.push("norm", RmsNorm { x, weight, y: None, cols, eps });
}

#[derive(Debug)]
struct RmsNorm {
    x: TensorId,
    weight: TensorId,
    /// Without it `x` is changed.
    y: Option<TensorId>,
    cols: usize,
    eps: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    stride: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    eps: f32,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn uses(&self) -> Vec<Use> {
        match self.y {
            Some(y) => vec![self.x.read(), self.weight.read(), y.write()],
            None => vec![self.x.update(), self.weight.read()],
        }
    }

    fn reference(&self, host: &Host<'_>) {
        let weight = host.f32(self.weight);
        if let Some(y) = self.y {
            host.f32_mut(y).copy_from_slice(&host.f32(self.x));
        }
        let mut y = host.f32_mut(self.y.unwrap_or(self.x));
        for y in y.chunks_exact_mut(host.cols(self.x)) {
            let y = &mut y[..self.cols];
            let mean = y.iter().map(|v| v * v).sum::<f32>() / self.cols as f32;
            let scale = (mean + self.eps).sqrt().recip();
            for (y, w) in y.iter_mut().zip(weight.iter()) {
                *y = *y * scale * w;
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.x);
        let rows = t.rows;
        let params = Params {
            cols: self.cols as u32,
            stride: t.cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            eps: self.eps,
        };
        vec![
            Kernel::new("rms_norm", params, self.uses(), move |s| grid(rows.at(s)))
                .flag_if(self.y.is_none(), "IN_PLACE")
                .flag_if(limits.subgroups, "SUBGROUPS"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (graph.tensor(self.x).rows.at(step) * self.cols) as u64;
        Cost { bytes: 8 * n + 4 * self.cols as u64, flops: 4 * n }
    }
}
