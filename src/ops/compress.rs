//! Compression: tokens leave what is to be pooled in a ring, and rows that close a window pool it, by
//! weights learned for every channel, into one entry.
//!
//! Place `p % cap` of a sequence's ring is `kv`, then `score + ape[p % ratio]`, of its row at position `p`.
//!
//! A row at position `p` with `(p + 1) % ratio == 0` closes window `w = (p + 1) / ratio - 1`. For
//! every channel `c` of `dh`, over the positions `t` of the window:
//!
//! `pooled[c] = sum_t softmax_t(score[t][c]) * kv[t][c]`
//!
//! With `overlap` a token carries two series, A in channels `[0, dh)` and B in `[dh, 2 dh)`; entry
//! `w` pools series A of window `w - 1` together with series B of window `w` (for `w = 0` only B).
//!
//! `entry = rotate(pooled * rsqrt(mean(pooled^2) + eps) * norm)`, where `rotate` turns the last `rd`
//! channels in pairs: `(a, b) -> (a cos - b sin, a sin + b cos)`.

use bytemuck::{Pod, Zeroable};

use super::head_rope::turn;
use super::rms_norm::normalise;
use super::row::Row;
use super::{Columns, Pairs};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// What [`compress`] works on: one pool or two, of windows of the same tokens.
#[derive(Clone, Debug)]
pub struct Compress {
    /// The token rows `[T, 8]`, those of a sequence one after the other.
    pub rows: TensorId,
    /// Of each pool `coff * dh` columns of what is pooled, then as many of scores; `coff` is 2 with
    /// `overlap`.
    pub x: Columns,
    /// `[1, n]`: of each pool `ape` `[ratio, coff * dh]`, then `norm` `[dh]`.
    pub weights: TensorId,
    /// `[T, rd]`: cosines, then sines, for the first position of the window a row closes.
    pub table: TensorId,
    /// State `[slots * cap, columns of all pools]`.
    pub ring: TensorId,
    /// Of each pool the state `[slots * entries, dh]` that its entries go to.
    pub caches: Vec<TensorId>,
    /// Ring places a sequence: at least `coff * ratio` and the rows that a step may have, so that what
    /// a window needs of earlier steps is there.
    pub cap: usize,
    /// Cache places a sequence.
    pub entries: usize,
    /// Positions a window.
    pub ratio: usize,
    /// Whether windows overlap.
    pub overlap: bool,
    /// Of the norm.
    pub eps: f32,
}

/// Writes every row into its place of the ring, and `cache[slot * entries + w]` of each pool for every
/// row that closes a window.
pub fn compress(g: &mut Graph, c: Compress) {
    assert!((1..=2).contains(&c.caches.len()), "compress: {} pools", c.caches.len());
    let pools = c.pools(g);
    let columns = pools.iter().map(|p| 2 * p.width).sum::<usize>();
    assert!(c.x.at + columns <= g.tensor(c.x.of).cols, "compress: columns");
    let weights = pools.iter().map(|p| c.ratio * p.width + p.dim).sum::<usize>();
    assert_eq!(g.tensor(c.weights).cols, weights, "compress: weights");
    assert_eq!(g.tensor(c.ring).cols, columns, "compress: ring columns");
    let narrowest = pools.iter().map(|p| p.dim).min().unwrap_or(0);
    assert!(g.tensor(c.table).cols <= narrowest, "compress: rotates more than there is");
    g.push("compress", c);
}

/// Where one pool has its own.
struct Pool {
    cache: TensorId,
    /// Channels of an entry, and those that a token has for them.
    dim: usize,
    width: usize,
    /// The first of its columns and of its weights.
    at: usize,
    weights_at: usize,
}

impl Compress {
    fn pools(&self, graph: &Graph) -> Vec<Pool> {
        let (mut at, mut weights_at) = (0, 0);
        let pools = self.caches.iter().map(|&cache| {
            let dim = graph.tensor(cache).cols;
            let width = if self.overlap { 2 * dim } else { dim };
            let pool = Pool { cache, dim, width, at, weights_at };
            at += 2 * width;
            weights_at += self.ratio * width + dim;
            pool
        });
        pools.collect()
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cap: u32,
    entries: u32,
    ratio: u32,
    rotated: u32,
    dims: [u32; 2],
    overlap: u32,
    eps: f32,
    x_cols: u32,
    x_at: u32,
    ring_cols: u32,
    pad: u32,
}

/// Channels of the largest entry of DeepSeek's models.
const USUAL_DIM: usize = 512;

impl Op for Compress {
    fn name(&self) -> &'static str {
        "compress"
    }

    fn uses(&self) -> Vec<Use> {
        let read = [self.rows, self.x.of, self.weights, self.table].map(TensorId::read);
        let states = [self.ring].into_iter().chain(self.caches.iter().copied());
        read.into_iter().chain(states.map(TensorId::update)).collect()
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, x, table) = (host.u32(self.rows), host.f32(self.x.of), host.f32(self.table));
        let (weights, mut ring) = (host.f32(self.weights), host.f32_mut(self.ring));
        let (x_cols, pitch, rd) =
            (host.cols(self.x.of), host.cols(self.ring), host.cols(self.table));
        let place = |slot: usize, p: usize| (slot * self.cap + p % self.cap) * pitch;
        for Pool { cache, dim, width, at, weights_at } in self.pools(host.graph) {
            let (ape, norm) = weights[weights_at..].split_at(self.ratio * width);
            for (row, x) in Row::all(&rows).iter().zip(x.chunks_exact(x_cols)) {
                let p = row.position as usize;
                let to = &mut ring[place(row.slot as usize, p) + at..][..2 * width];
                to.copy_from_slice(&x[self.x.at + at..][..2 * width]);
                let bias = &ape[p % self.ratio * width..][..width];
                to[width..].iter_mut().zip(bias).for_each(|(s, b)| *s += b);
            }
            let mut cache = host.f32_mut(cache);
            for (row, table) in Row::all(&rows).iter().zip(table.chunks(rd.max(1))) {
                let (slot, end) = (row.slot as usize, row.position as usize + 1);
                if !end.is_multiple_of(self.ratio) {
                    continue;
                }
                let start = end - self.ratio;
                // Where each pooled position has its series.
                let series = |t: usize, series: usize| place(slot, t) + at + series * dim;
                let mut pool: Vec<usize> = vec![];
                if self.overlap {
                    pool.extend((start.saturating_sub(self.ratio)..start).map(|t| series(t, 0)));
                }
                pool.extend((start..end).map(|t| series(t, self.overlap.into())));
                let entry = slot * self.entries + start / self.ratio;
                let pooled = &mut cache[entry * dim..][..dim];
                for (c, out) in pooled.iter_mut().enumerate() {
                    let score = |at: usize| ring[at + width + c];
                    let top = pool.iter().map(|&at| score(at)).fold(f32::NEG_INFINITY, f32::max);
                    let (mut sum, mut total) = (0.0, 0.0);
                    for &at in &pool {
                        let e = (score(at) - top).exp();
                        sum += e * ring[at + c];
                        total += e;
                    }
                    *out = sum / total;
                }
                normalise(pooled, &norm[..dim], self.eps);
                turn(pooled, table, dim - rd, Pairs::Interleaved.steps(rd));
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let dims: Vec<usize> = self.pools(graph).iter().map(|p| p.dim).collect();
        let (pools, second) = (dims.len(), dims.get(1).copied().unwrap_or(0));
        let params = Params {
            cap: self.cap as u32,
            entries: self.entries as u32,
            ratio: self.ratio as u32,
            rotated: graph.tensor(self.table).cols as u32,
            dims: [dims[0], second].map(|d| d as u32),
            overlap: self.overlap.into(),
            eps: self.eps,
            x_cols: graph.tensor(self.x.of).cols as u32,
            x_at: self.x.at as u32,
            ring_cols: graph.tensor(self.ring).cols as u32,
            pad: 0,
        };
        // The same for all sizes that models have, so that they share one kernel.
        let most = dims[0].max(second).next_multiple_of(USUAL_DIM);
        vec![
            Kernel::new("compress", params, self.uses(), move |s| grid(pools * s.rows))
                .reduces(limits, 128)
                .alone(false)
                .flag_if(pools == 2, "TWO")
                .constant("MOST", most as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (mut bytes, mut flops) = (0, 0);
        for pool in self.pools(graph) {
            // As if the step began and ended at a window's edge: every row is pooled once a series.
            let n = step.rows * pool.width;
            let out = step.rows / self.ratio * pool.dim;
            bytes += 16 * n + 4 * out;
            flops += 6 * n + 7 * out;
        }
        Cost { bytes: bytes as u64, flops: flops as u64 }
    }
}
