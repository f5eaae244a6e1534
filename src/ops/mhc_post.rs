//! Manifold-constrained hyper-connections, after a sub-layer with output `b` (Xie et al. 2025,
//! arXiv:2512.24880): `X_j = post_j b + sum_i C_ij X_i` for each of the N residual streams. The sum
//! runs over the first index of `C`, which is not symmetric.

use bytemuck::{Pod, Zeroable};

use super::MOST_STREAMS;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Writes `block` `[T, D]` into the `n` `streams` `[T, n * D]` in place, by the coefficients `coef`
/// `[T, n + n * n]` that [`super::mhc_pre`] made.
pub fn mhc_post(g: &mut Graph, streams: TensorId, coef: TensorId, block: TensorId, n: usize) {
    let cols = g.tensor(block).cols;
    assert!(
        (1..=MOST_STREAMS).contains(&n) && g.tensor(streams).cols == n * cols,
        "mhc_post: {n} streams of {cols}"
    );
    g.push("mhc_post", MhcPost { streams, coef, block, n });
}

#[derive(Debug)]
struct MhcPost {
    streams: TensorId,
    coef: TensorId,
    block: TensorId,
    n: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    rows_per_row: u32,
    rows_per_out: u32,
}

/// Columns a workgroup: `WG * PER` of the shader.
const COLS: usize = 256;

impl Op for MhcPost {
    fn name(&self) -> &'static str {
        "mhc_post"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.streams.update(), self.coef.read(), self.block.read()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (mut streams, n) = (host.f32_mut(self.streams), self.n);
        let (coef, block) = (host.f32(self.coef), host.f32(self.block));
        let cols = host.cols(self.block);
        let inputs = coef.chunks_exact(n + n * n).zip(block.chunks_exact(cols));
        for (x, (coef, block)) in streams.chunks_exact_mut(n * cols).zip(inputs) {
            let (post, square) = coef.split_at(n);
            let old = x.to_vec();
            for j in 0..n {
                for c in 0..cols {
                    let sum: f32 = (0..n).map(|i| square[n * i + j] * old[i * cols + c]).sum();
                    x[j * cols + c] = post[j] * block[c] + sum;
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let (rows, cols) = (graph.tensor(self.streams).rows, graph.tensor(self.block).cols);
        let params = Params {
            cols: cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
        };
        let groups = move |s| grid(rows.at(s) * cols.div_ceil(COLS));
        vec![Kernel::new("mhc_post", params, self.uses(), groups).constant("N", self.n as u32)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.block);
        let (rows, cols, n) = (t.rows.at(step) as u64, t.cols as u64, self.n as u64);
        Cost {
            bytes: 4 * rows * ((2 * n + 1) * cols + n + n * n),
            flops: 2 * rows * cols * (n + n * n),
        }
    }
}
