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

/// What [`compress`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Compress {
    /// The token rows `[T, 8]`, those of a sequence one after the other.
    pub rows: TensorId,
    /// What is pooled: `coff * dh` columns a row; `coff` is 2 with `overlap`.
    pub kv: Columns,
    /// As many: by what.
    pub score: Columns,
    /// `[ratio, coff * dh]`, a weight: added to the scores.
    pub ape: TensorId,
    /// `[1, dh]`.
    pub norm: TensorId,
    /// `[T, rd]`: cosines, then sines, for the first position of the window a row closes.
    pub table: TensorId,
    /// State `[slots * cap, 2 * coff * dh]`.
    pub ring: TensorId,
    /// State `[slots * entries, dh]`: where the entries go.
    pub cache: TensorId,
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

/// Writes every row into its place of the ring, and `cache[slot * entries + w]` for every row that closes
/// a window.
pub fn compress(g: &mut Graph, c: Compress) {
    let dh = g.tensor(c.norm).cols;
    let width = if c.overlap { 2 * dh } else { dh };
    for x in [c.kv, c.score] {
        assert!(x.at + width <= g.tensor(x.of).cols, "compress: columns");
    }
    let ape = g.tensor(c.ape);
    assert!(ape.cols == width && ape.rows.fixed == c.ratio, "compress: positions");
    assert_eq!(g.tensor(c.ring).cols, 2 * width, "compress: ring columns");
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
    ape_stride: u32,
    kv: [u32; 2],
    score: [u32; 2],
}

/// Channels of the largest entry of DeepSeek's models.
const USUAL_DIM: usize = 512;

impl Op for Compress {
    fn name(&self) -> &'static str {
        "compress"
    }

    fn uses(&self) -> Vec<Use> {
        let read = [self.rows, self.kv.of, self.score.of, self.ape, self.norm, self.table];
        let states = [self.ring, self.cache].map(TensorId::update);
        read.map(TensorId::read).into_iter().chain(states).collect()
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, kv, score) =
            (host.u32(self.rows), host.f32(self.kv.of), host.f32(self.score.of));
        let (ape, norm, table) = (host.f32(self.ape), host.f32(self.norm), host.f32(self.table));
        let (mut ring, mut cache) = (host.f32_mut(self.ring), host.f32_mut(self.cache));
        let (dh, width, rd) = (norm.len(), host.cols(self.ape), host.cols(self.table));
        let place = |slot: usize, p: usize| (slot * self.cap + p % self.cap) * 2 * width;
        for (t, row) in Row::all(&rows).iter().enumerate() {
            let (slot, p) = (row.slot as usize, row.position as usize);
            let of = |x: &[f32], from: Columns| {
                let begin = t * host.cols(from.of) + from.at;
                x[begin..begin + width].to_vec()
            };
            let (to_kv, to_score) = ring[place(slot, p)..][..2 * width].split_at_mut(width);
            to_kv.copy_from_slice(&of(&kv, self.kv));
            let bias = &ape[p % self.ratio * width..][..width];
            for ((to, s), b) in to_score.iter_mut().zip(of(&score, self.score)).zip(bias) {
                *to = s + b;
            }
        }
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
            let at = (slot * self.entries + start / self.ratio) * dh;
            let pooled = &mut cache[at..at + dh];
            for (c, out) in pooled.iter_mut().enumerate() {
                let kv = |&(t, series): &(usize, usize)| ring[place(slot, t) + series + c];
                let score =
                    |&(t, series): &(usize, usize)| ring[place(slot, t) + width + series + c];
                let top = pool.iter().map(score).fold(f32::NEG_INFINITY, f32::max);
                let (mut sum, mut total) = (0.0, 0.0);
                for s in &pool {
                    let e = (score(s) - top).exp();
                    sum += e * kv(s);
                    total += e;
                }
                *out = sum / total;
            }
            normalise(pooled, &norm, self.eps);
            turn(pooled, table, dh - rd, Pairs::Interleaved.steps(rd));
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let dim = graph.tensor(self.norm).cols;
        let from = |x: Columns| [graph.tensor(x.of).cols, x.at].map(|n| n as u32);
        let params = Params {
            cap: self.cap as u32,
            entries: self.entries as u32,
            ratio: self.ratio as u32,
            rotated: graph.tensor(self.table).cols as u32,
            dim: dim as u32,
            overlap: self.overlap.into(),
            eps: self.eps,
            ape_stride: graph.tensor(self.ape).stride() as u32,
            kv: from(self.kv),
            score: from(self.score),
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
        let width = graph.tensor(self.ape).cols as u64;
        let n = step.rows as u64 * width;
        let out = (step.rows / self.ratio * graph.tensor(self.norm).cols) as u64;
        Cost { bytes: 16 * n + 4 * out, flops: 6 * n + 7 * out }
    }
}
