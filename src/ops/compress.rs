//! Closes compression windows: a learned, per-channel pooling of the last tokens into one entry.
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

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// What [`compress`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Compress {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// State `[slots * cap, coff * dh]`: a ring of what is pooled; `coff` is 2 with `overlap`.
    pub kv: TensorId,
    /// State of the same shape: the ring of scores, position bias already added.
    pub score: TensorId,
    /// `[1, dh]`.
    pub norm: TensorId,
    /// `[T, rd]`: cosines, then sines, for the first position of the window a row closes.
    pub table: TensorId,
    /// State `[slots * entries, dh]`: where the entries go.
    pub cache: TensorId,
    /// Ring places a sequence.
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

/// Writes `cache[slot * entries + w]` for every row that closes a window. The rings must already
/// hold the step's rows and still hold every position that a window needs.
pub fn compress(g: &mut Graph, c: Compress) {
    let dh = g.tensor(c.norm).cols;
    let width = if c.overlap { 2 * dh } else { dh };
    assert_eq!(g.tensor(c.kv).cols, width, "compress: kv columns");
    assert_eq!(g.tensor(c.score).cols, width, "compress: score columns");
    assert_eq!(g.tensor(c.cache).cols, dh, "compress: cache columns");
    assert!(g.tensor(c.table).cols <= dh, "compress: rotates more than there is");
    g.push("compress", c);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cap: u32,
    entries: u32,
    ratio: u32,
    rotated: u32,
    dim: u32,
    overlap: u32,
    eps: f32,
    pad: u32,
}

/// Channels of the largest entry of DeepSeek's models.
const USUAL_DIM: usize = 512;

impl Op for Compress {
    fn name(&self) -> &'static str {
        "compress"
    }

    fn uses(&self) -> Vec<Use> {
        vec![
            self.rows.read(),
            self.kv.read(),
            self.score.read(),
            self.norm.read(),
            self.table.read(),
            self.cache.update(),
        ]
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, kv, score) = (host.u32(self.rows), host.f32(self.kv), host.f32(self.score));
        let (norm, table) = (host.f32(self.norm), host.f32(self.table));
        let mut cache = host.f32_mut(self.cache);
        let (dh, width, rd) = (norm.len(), host.cols(self.kv), host.cols(self.table));
        for (row, table) in Row::all(&rows).iter().zip(table.chunks(rd.max(1))) {
            let (slot, end) = (row.slot as usize, row.position as usize + 1);
            if !end.is_multiple_of(self.ratio) {
                continue;
            }
            let start = end - self.ratio;
            // Each pooled position, and where its series begins.
            let mut pool: Vec<(usize, usize)> = vec![];
            if self.overlap {
                pool.extend((start.saturating_sub(self.ratio)..start).map(|t| (t, 0)));
                pool.extend((start..end).map(|t| (t, dh)));
            } else {
                pool.extend((start..end).map(|t| (t, 0)));
            }
            let mut pooled = vec![0.0; dh];
            for (c, out) in pooled.iter_mut().enumerate() {
                let place = |&(t, series): &(usize, usize)| {
                    (slot * self.cap + t % self.cap) * width + series + c
                };
                let top = pool.iter().map(|s| score[place(s)]).fold(f32::NEG_INFINITY, f32::max);
                let (mut sum, mut total) = (0.0, 0.0);
                for s in &pool {
                    let e = (score[place(s)] - top).exp();
                    sum += e * kv[place(s)];
                    total += e;
                }
                *out = sum / total;
            }
            let mean = pooled.iter().map(|v| v * v).sum::<f32>() / dh as f32;
            let scale = (mean + self.eps).sqrt().recip();
            for (v, w) in pooled.iter_mut().zip(norm.iter()) {
                *v *= scale * w;
            }
            for (i, pair) in pooled[dh - rd..].chunks_exact_mut(2).enumerate() {
                let (a, b, cos, sin) = (pair[0], pair[1], table[i], table[rd / 2 + i]);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
            let at = (slot * self.entries + start / self.ratio) * dh;
            cache[at..at + dh].copy_from_slice(&pooled);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let dim = graph.tensor(self.norm).cols;
        let params = Params {
            cap: self.cap as u32,
            entries: self.entries as u32,
            ratio: self.ratio as u32,
            rotated: graph.tensor(self.table).cols as u32,
            dim: dim as u32,
            overlap: self.overlap.into(),
            eps: self.eps,
            pad: 0,
        };
        // The same for all sizes that models have, so that they share one kernel.
        let most = dim.next_multiple_of(USUAL_DIM);
        vec![
            Kernel::new("compress", params, self.uses(), |s| grid(s.rows))
                .reduces(limits, 128)
                .constant("MOST", most as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        // As if the step began and ended at a window's edge: every row is pooled once a series.
        let width = graph.tensor(self.kv).cols as u64;
        let n = step.rows as u64 * width;
        let out = (step.rows / self.ratio * graph.tensor(self.norm).cols) as u64;
        Cost { bytes: 8 * n + 4 * out, flops: 5 * n + 7 * out }
    }
}
