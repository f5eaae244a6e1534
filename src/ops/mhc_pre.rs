//! Manifold-constrained hyper-connections, before a sub-layer (Xie et al. 2025, arXiv:2512.24880).
//! With `X` the N residual streams of a row, `m = mix * rsqrt(mean(X^2) + eps)` and `b` = `base`:
//!
//! ```text
//! pre_i  = sigmoid(m[i] scale_0 + b[i]) + hc_eps
//! post_i = 2 sigmoid(m[N+i] scale_1 + b[N+i])
//! C_ij   = m[2N+Ni+j] scale_2 + b[2N+Ni+j], made doubly stochastic:
//!          C = softmax_j(C) + hc_eps;  C /= sum_i C + hc_eps
//!          then iters - 1 times:  C /= sum_j C + hc_eps;  C /= sum_i C + hc_eps
//! input  = RMSNorm(sum_i pre_i X_i, norm)
//! ```
//!
//! `post` and `C` are for [`super::mhc_post`].

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// The most residual streams: shaders keep a value a stream in registers.
pub const MOST_STREAMS: usize = 8;

/// What [`mhc_pre`] reads.
#[derive(Clone, Copy, Debug)]
pub struct MhcPre {
    /// `[T, N * D]`: the residual streams, one after another in each row.
    pub streams: TensorId,
    /// `[T, (2 + N) * N]`: the streams times the mixing matrix, before any norm. Or what
    /// [`super::mhc_post_mix`] made of parts of them: these products of each, and the sum of its squares.
    pub mix: TensorId,
    /// `[1, (2 + N) * N]`, a weight.
    pub base: TensorId,
    /// `[1, 3]`, a weight.
    pub scale: TensorId,
    /// `[1, D]`, the weight of the sub-layer's input norm.
    pub norm: TensorId,
    /// Streams, 1 to [`MOST_STREAMS`].
    pub n: usize,
    /// Sinkhorn iterations in all, at least 1.
    pub iters: usize,
    /// Added to `pre` and to Sinkhorn's sums.
    pub hc_eps: f32,
    /// Of both norms.
    pub eps: f32,
}

/// The normed input of a sub-layer `[T, D]`, and the coefficients `[T, N + N * N]` (`post`, then `C`
/// row by row) that write its output back.
pub fn mhc_pre(g: &mut Graph, p: MhcPre) -> (TensorId, TensorId) {
    let (rows, cols) = (g.tensor(p.streams).rows, g.tensor(p.streams).cols / p.n);
    assert!((1..=MOST_STREAMS).contains(&p.n) && p.iters > 0, "mhc_pre: {p:?}");
    let (mix, mixes) = (g.tensor(p.mix).cols, (2 + p.n) * p.n);
    assert!(mix == mixes || mix.is_multiple_of(mixes + 1), "mhc_pre: mix");
    let y = g.scratch("mhc_input", Elem::F32, rows, cols);
    let coef = g.scratch("mhc_coef", Elem::F32, rows, p.n + p.n * p.n);
    g.push("mhc_pre", Pre { p, y, coef });
    (y, coef)
}

#[derive(Debug)]
struct Pre {
    p: MhcPre,
    y: TensorId,
    coef: TensorId,
}

/// As in `shaders/lib/mhc.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub cols: u32,
    pub rows_per_row: u32,
    pub rows_per_out: u32,
    pub iters: u32,
    pub hc_eps: f32,
    pub eps: f32,
    pub parts: u32,
    pub pad: u32,
}

impl Pre {
    /// The parts in which there is a mix; 0 if it is whole.
    fn parts(&self, graph: &Graph) -> usize {
        graph.tensor(self.p.mix).cols / ((2 + self.p.n) * self.p.n + 1)
    }
}

impl Op for Pre {
    fn name(&self) -> &'static str {
        "mhc_pre"
    }

    fn uses(&self) -> Vec<Use> {
        let MhcPre { streams, mix, base, scale, norm, .. } = self.p;
        let mut uses = [streams, mix, base, scale, norm].map(TensorId::read).to_vec();
        uses.extend([self.y.write(), self.coef.write()]);
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let p = &self.p;
        let (n, eps) = (p.n, p.eps);
        let (streams, mix) = (host.f32(p.streams), host.f32(p.mix));
        let (base, scale, norm) = (host.f32(p.base), host.f32(p.scale), host.f32(p.norm));
        let (mut y, mut coef) = (host.f32_mut(self.y), host.f32_mut(self.coef));
        let cols = host.cols(self.y);
        let inputs = streams.chunks_exact(n * cols).zip(mix.chunks_exact(host.cols(p.mix)));
        let parts = self.parts(host.graph);
        let outputs = y.chunks_exact_mut(cols).zip(coef.chunks_exact_mut(n + n * n));
        for ((x, mix), (y, coef)) in inputs.zip(outputs) {
            let (mix, unit) = match parts {
                0 => (mix.to_vec(), rms_scale(x, eps)),
                _ => {
                    let mut sums = vec![0.0; (2 + n) * n + 1];
                    for part in mix.chunks_exact(sums.len()) {
                        sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
                    }
                    let square = sums.pop().unwrap_or_default();
                    (sums, (square / x.len() as f32 + eps).sqrt().recip())
                }
            };
            let m = |k: usize, s: usize| mix[k] * unit * scale[s] + base[k];
            let pre: Vec<f32> = (0..n).map(|i| sigmoid(m(i, 0)) + p.hc_eps).collect();
            let (post, square) = coef.split_at_mut(n);
            for (i, post) in post.iter_mut().enumerate() {
                *post = 2.0 * sigmoid(m(n + i, 1));
            }
            for (k, c) in square.iter_mut().enumerate() {
                *c = m(2 * n + k, 2);
            }
            sinkhorn(square, n, p.iters, p.hc_eps);
            mix_and_norm(x, &pre, &norm, eps, y);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.y);
        let rows = t.rows;
        let params = Params {
            cols: t.cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            iters: self.p.iters as u32,
            hc_eps: self.p.hc_eps,
            eps: self.p.eps,
            parts: self.parts(graph) as u32,
            pad: 0,
        };
        vec![
            Kernel::new("mhc_pre", params, self.uses(), move |s| grid(rows.at(s)))
                .reduces(limits, 256)
                .alone(false)
                .constant("N", self.p.n as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (y, n) = (graph.tensor(self.y), self.p.n as u64);
        let (rows, cols) = (y.rows.at(step) as u64, y.cols as u64);
        let small = graph.tensor(self.p.mix).cols as u64 + n + n * n;
        let sinkhorn = 4 * n * n * self.p.iters as u64;
        Cost {
            bytes: 4 * rows * ((n + 1) * cols + small) + 4 * cols,
            flops: rows * ((4 * n + 4) * cols + sinkhorn),
        }
    }
}

pub(super) fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// `rsqrt(mean(x^2) + eps)`.
pub(super) fn rms_scale(x: &[f32], eps: f32) -> f32 {
    (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32 + eps).sqrt().recip()
}

/// `y = RMSNorm(sum_i pre_i x_i, norm)` of the streams `x` of one row.
pub(super) fn mix_and_norm(x: &[f32], pre: &[f32], norm: &[f32], eps: f32, y: &mut [f32]) {
    let cols = y.len();
    for (c, y) in y.iter_mut().enumerate() {
        *y = pre.iter().enumerate().map(|(i, p)| p * x[i * cols + c]).sum();
    }
    let scale = rms_scale(y, eps);
    y.iter_mut().zip(norm).for_each(|(y, w)| *y *= scale * w);
}

fn sinkhorn(c: &mut [f32], n: usize, iters: usize, eps: f32) {
    for row in c.chunks_exact_mut(n) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|v| *v = (*v - top).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v = *v / sum + eps);
    }
    for k in 0..iters {
        if k > 0 {
            for row in c.chunks_exact_mut(n) {
                let sum = row.iter().sum::<f32>() + eps;
                row.iter_mut().for_each(|v| *v /= sum);
            }
        }
        for j in 0..n {
            let sum = (0..n).map(|i| c[i * n + j]).sum::<f32>() + eps;
            (0..n).for_each(|i| c[i * n + j] /= sum);
        }
    }
}
