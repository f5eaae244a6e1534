//! Hyper-connections, at the end of the model: the N residual streams `X` of a row become one,
//! normed. `pre_i = sigmoid(mix_i * rsqrt(mean(X^2) + eps) * scale + base_i) + hc_eps`, and
//! `y = RMSNorm(sum_i pre_i X_i, norm)`.

use super::mhc_pre::{MOST_STREAMS, Params, mix_and_norm, rms_scale, sigmoid};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// What [`mhc_head`] reads.
#[derive(Clone, Copy, Debug)]
pub struct MhcHead {
    /// `[O, N * D]`: the residual streams, one after another in each row.
    pub streams: TensorId,
    /// `[O, N]`: the streams times the mixing matrix, before any norm.
    pub mix: TensorId,
    /// `[1, N]`, a weight.
    pub base: TensorId,
    /// `[1, 1]`, a weight.
    pub scale: TensorId,
    /// `[1, D]`, the weight of the model's last norm.
    pub norm: TensorId,
    /// Streams, 1 to [`MOST_STREAMS`](super::MOST_STREAMS).
    pub n: usize,
    /// Added to `pre`.
    pub hc_eps: f32,
    /// Of both norms.
    pub eps: f32,
}

/// The normed rows `[O, D]` that the output matrix multiplies.
pub fn mhc_head(g: &mut Graph, p: MhcHead) -> TensorId {
    let (rows, cols) = (g.tensor(p.streams).rows, g.tensor(p.streams).cols / p.n);
    assert!((1..=MOST_STREAMS).contains(&p.n) && g.tensor(p.mix).cols == p.n, "mhc_head shapes");
    let y = g.scratch("mhc_head", Elem::F32, rows, cols);
    g.push("mhc_head", Head { p, y });
    y
}

#[derive(Debug)]
struct Head {
    p: MhcHead,
    y: TensorId,
}

impl Op for Head {
    fn name(&self) -> &'static str {
        "mhc_head"
    }

    fn uses(&self) -> Vec<Use> {
        let MhcHead { streams, mix, base, scale, norm, .. } = self.p;
        let mut uses = [streams, mix, base, scale, norm].map(TensorId::read).to_vec();
        uses.push(self.y.write());
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let p = &self.p;
        let (streams, mix, norm) = (host.f32(p.streams), host.f32(p.mix), host.f32(p.norm));
        let (base, scale, mut y) = (host.f32(p.base), host.f32(p.scale)[0], host.f32_mut(self.y));
        let cols = host.cols(self.y);
        let inputs = streams.chunks_exact(p.n * cols).zip(mix.chunks_exact(p.n));
        for ((x, mix), y) in inputs.zip(y.chunks_exact_mut(cols)) {
            let unit = rms_scale(x, p.eps);
            let pre = |(m, b): (&f32, &f32)| sigmoid(m * unit * scale + b) + p.hc_eps;
            let pre: Vec<f32> = mix.iter().zip(base.iter()).map(pre).collect();
            mix_and_norm(x, &pre, &norm, p.eps, y);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.y);
        let rows = t.rows;
        let params = Params {
            cols: t.cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            iters: 0,
            hc_eps: self.p.hc_eps,
            eps: self.p.eps,
            parts: 0,
            pad: 0,
        };
        vec![
            Kernel::new("mhc_head", params, self.uses(), move |s| grid(rows.at(s)))
                .reduces(limits, 256)
                .constant("N", self.p.n as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (t, n) = (graph.tensor(self.y), self.p.n as u64);
        let (rows, cols) = (t.rows.at(step) as u64, t.cols as u64);
        Cost { bytes: 4 * rows * ((n + 1) * cols + n) + 4 * cols, flops: rows * (4 * n + 4) * cols }
    }
}
