//! Layer norm: `y = (x - mean(x)) * rsqrt(var(x) + eps) * weight + bias` with
//! `var(x) = mean((x - mean(x))^2)` (Ba, Kiros and Hinton 2016, arXiv:1607.06450).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// Normalises each row of `x` `[n, cols]`, scales it by `weight` and shifts it by `bias`, both
/// `[1, cols]`.
pub fn layer_norm(
    g: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: TensorId,
    eps: f32,
) -> TensorId {
    let (rows, cols) = (g.tensor(x).rows, g.tensor(x).cols);
    assert!([weight, bias].iter().all(|&w| g.tensor(w).cols == cols), "layer_norm: columns");
    let y = g.scratch("norm", Elem::F32, rows, cols);
    g.push("norm", LayerNorm { x, weight, bias, y, eps });
    y
}

#[derive(Debug)]
struct LayerNorm {
    x: TensorId,
    weight: TensorId,
    bias: TensorId,
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

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.read(), self.weight.read(), self.bias.read(), self.y.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (x, weight, bias) = (host.f32(self.x), host.f32(self.weight), host.f32(self.bias));
        let (mut y, cols) = (host.f32_mut(self.y), host.cols(self.x));
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            let mean = x.iter().sum::<f32>() / cols as f32;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / cols as f32;
            let scale = (variance + self.eps).sqrt().recip();
            for (i, y) in y.iter_mut().enumerate() {
                *y = (x[i] - mean) * scale * weight[i] + bias[i];
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
            Kernel::new("layer_norm", params, self.uses(), move |s| grid(rows.at(s)))
                .reduces(limits, 64),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.x);
        let n = (t.rows.at(step) * t.cols) as u64;
        Cost { bytes: 8 * (n + t.cols as u64), flops: 8 * n }
    }
}
