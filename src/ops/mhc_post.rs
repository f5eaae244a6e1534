//! Manifold-constrained hyper-connections, after a sub-layer with output `b` (Xie et al. 2025,
//! arXiv:2512.24880): `X_j = post_j b + sum_i C_ij X_i` for each of the N residual streams. The sum
//! runs over the first index of `C`, which is not symmetric.
//!
//! `b` may be what experts made, not yet added up: see [`super::combine`]. With a mixing matrix `w`, the
//! next sub-layer's, the new streams are multiplied with it while they are at hand: for each block of 128
//! columns of a row `sum_jc w[m][j][c] X_j[c]` for each `m`, then `sum_jc X_j[c]^2`.

use bytemuck::{Pod, Zeroable};

use super::matmul::dot;
use super::{Extra, FEW_ROWS, MOST_STREAMS, matmul_with};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, Part, StepSize, Sum, TensorId, Use};

/// What [`mhc_post`] works on.
#[derive(Clone, Copy, Debug)]
pub struct MhcPost {
    /// `[T, N * D]`: the residual streams, changed in place.
    pub streams: TensorId,
    /// `[T, N + N * N]`, of [`super::mhc_pre`].
    pub coef: TensorId,
    /// `[T, D]`: the sub-layer's output.
    pub block: TensorId,
    /// N.
    pub n: usize,
}

/// Writes the sub-layer's output into the streams.
pub fn mhc_post(g: &mut Graph, p: MhcPost) {
    push(g, p, None);
}

/// [`mhc_post`], and what becomes of the streams by the next sub-layer's mixing matrix `w`
/// `[(2 + N) * N, N * D]`, in f32: as [`super::mhc_pre`] takes it.
pub fn mhc_post_mix(g: &mut Graph, p: MhcPost, w: TensorId) -> TensorId {
    let (rows, cols, mixes) = (g.tensor(p.block).rows, g.tensor(p.block).cols, (2 + p.n) * p.n);
    assert!(g.tensor(w).rows.fixed == mixes && g.tensor(w).cols == p.n * cols, "mhc_post_mix: w");
    // Many rows are better off with a product that reads the matrix once for several of them.
    let few = rows.at(g.max) <= FEW_ROWS;
    if few && cols.is_multiple_of(4) && g.tensor(w).elem == Elem::F32 {
        let y = g.scratch("mix", Elem::F32, rows, mix_parts(cols) * (mixes + 1));
        push(g, p, Some((w, y)));
        return y;
    }
    push(g, p, None);
    matmul_with(g, p.streams, w, Extra::default())
}

fn push(g: &mut Graph, p: MhcPost, mix: Option<(TensorId, TensorId)>) {
    let cols = g.tensor(p.block).cols;
    assert!(
        (1..=MOST_STREAMS).contains(&p.n) && g.tensor(p.streams).cols == p.n * cols,
        "mhc_post: {p:?}, {cols} columns"
    );
    g.push("mhc_post", Node { p, sum: None, mix });
}

#[derive(Clone, Debug)]
struct Node {
    p: MhcPost,
    /// What `block` would be the sum of, which then is not used.
    sum: Option<Sum>,
    /// A mixing matrix, and what becomes of the streams by it.
    mix: Option<(TensorId, TensorId)>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    k: u32,
    w_pitch: u32,
    pad: [u32; 3],
}

/// Columns that are multiplied with the mixing matrix by a workgroup.
const MIX_COLS: usize = 128;

/// Parts in which a row of `cols` columns a stream is multiplied with the mixing matrix.
fn mix_parts(cols: usize) -> usize {
    cols.div_ceil(MIX_COLS)
}

impl Op for Node {
    fn name(&self) -> &'static str {
        "mhc_post"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.p.streams.update(), self.p.coef.read()];
        match self.sum {
            Some(sum) => {
                uses.push(sum.of.read());
                uses.extend(sum.beside.map(TensorId::read));
            }
            None => uses.push(self.p.block.read()),
        }
        uses.extend(self.mix.into_iter().flat_map(|(w, y)| [w.read(), y.write()]));
        uses
    }

    fn with(&self, part: Part, _: &Graph) -> Option<Box<dyn Op>> {
        match part {
            Part::Sum(sum) if sum.to == self.p.block && self.sum.is_none() => {
                Some(Box::new(Self { sum: Some(sum), ..self.clone() }))
            }
            _ => None,
        }
    }

    fn reference(&self, host: &Host<'_>) {
        let (mut streams, n) = (host.f32_mut(self.p.streams), self.p.n);
        let coef = host.f32(self.p.coef);
        let cols = host.cols(self.p.block);
        let block = match &self.sum {
            Some(sum) => sum.numbers(host),
            None => host.f32(self.p.block).to_vec(),
        };
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
        let Some((w, y)) = self.mix else { return };
        let (w, mut y) = (host.f32(w), host.f32_mut(y));
        let outs = y.chunks_exact_mut(mix_parts(cols) * (w.len() / (n * cols) + 1));
        for (x, y) in streams.chunks_exact(n * cols).zip(outs) {
            let begins = (0..cols).step_by(MIX_COLS);
            for (begin, y) in begins.zip(y.chunks_exact_mut(w.len() / (n * cols) + 1)) {
                // The block's columns of all streams.
                let of = |row: &[f32]| -> Vec<f32> {
                    let streams = row.chunks_exact(cols);
                    let here = begin..cols.min(begin + MIX_COLS);
                    streams.flat_map(|s| s[here.clone()].to_vec()).collect()
                };
                let x = of(x);
                let rows = w.chunks_exact(n * cols);
                y.iter_mut().zip(rows).for_each(|(y, w)| *y = dot(&x, &of(w)));
                y[w.len() / (n * cols)] = dot(&x, &x);
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (rows, cols) = (graph.tensor(self.p.streams).rows, graph.tensor(self.p.block).cols);
        let fours = cols.is_multiple_of(4);
        let cells = if fours { cols / 4 } else { cols };
        let params = Params {
            cols: cells as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            k: self.sum.map_or(0, |s| s.k as u32),
            w_pitch: self.mix.map_or(0, |(w, _)| graph.tensor(w).stride() as u32 / 4),
            pad: [0; 3],
        };
        // Invocations of a workgroup and its cells, of which more a lane where the coefficients count or
        // lanes run one after the other.
        let (wg, each) = match (self.mix, limits.serial_lanes as usize) {
            (None, 0) => (64, 128),
            (Some(_), 0) => (32, MIX_COLS / 4),
            (_, lanes) => (lanes, MIX_COLS / 4),
        };
        let groups = move |s| grid(rows.at(s) * cells.div_ceil(each));
        let kernel = Kernel::new("mhc_post", params, self.uses(), groups)
            .flag_if(fours, "FOURS")
            .flag_if(self.sum.is_some(), "SUM")
            .flag_if(self.sum.is_some_and(|s| s.beside.is_some()), "BESIDE")
            .flag_if(self.mix.is_some(), "MIX")
            .constant("N", self.p.n as u32)
            .constant("WG", wg as u32)
            .constant("PER", each.div_ceil(wg) as u32);
        vec![kernel]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.p.block);
        let (rows, cols, n) = (t.rows.at(step) as u64, t.cols as u64, self.p.n as u64);
        let read = self.sum.map_or(1, |s| s.k as u64 + u64::from(s.beside.is_some()));
        let mut cost = Cost {
            bytes: 4 * rows * ((2 * n + read) * cols + n + n * n),
            flops: rows * cols * (2 * (n + n * n) + read - 1),
        };
        if let Some((w, y)) = self.mix {
            let (w, y) = (graph.tensor(w), graph.tensor(y));
            cost.bytes += (w.bytes(w.rows.fixed) + y.bytes(y.rows.at(step))) as u64;
            cost.flops += 2 * rows * n * cols * (w.rows.fixed as u64 + 1);
        }
        cost
    }
}
