//! How much each compressed entry matters to a row, by a small multi-head product:
//!
//! `I[s] = sum_h (scale * w_h) * relu(q_h . k_s)` for every entry `s < (p + 1) / ratio`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::Columns;
use super::flash::fours;
use super::row::{Part, Row};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// What [`index_scores`] works on.
#[derive(Clone, Copy, Debug)]
pub struct IndexScores {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// `Hi * di` columns a row.
    pub q: Columns,
    /// `Hi` columns a row: the heads' weights, before `scale`.
    pub weights: Columns,
    /// Hi.
    pub heads: usize,
    /// State `[slots * entries, di]`.
    pub keys: TensorId,
    /// Cache places a sequence.
    pub entries: usize,
    /// Positions an entry was made of.
    pub ratio: usize,
    /// Multiplies the weights: `di^-0.5 * Hi^-0.5`.
    pub scale: f32,
}

/// Scores `[T, entries]`. What stands for entries that a row does not see is not written.
pub fn index_scores(g: &mut Graph, i: IndexScores) -> TensorId {
    let out = g.scratch("index_scores", Elem::F32, Extent::ROWS, i.entries);
    score_part(g, i, Part::ALL, out);
    out
}

/// The scores of a part of the rows, in `out` from its first row on.
pub(super) fn score_part(g: &mut Graph, i: IndexScores, part: Part, out: TensorId) {
    let (q, weights) = (g.tensor(i.q.of).cols, g.tensor(i.weights.of).cols);
    assert!(i.q.at + i.heads * g.tensor(i.keys).cols <= q, "index_scores: query columns");
    assert!(i.weights.at + i.heads <= weights, "index_scores: columns of weights");
    g.push("index_scores", Node { i, part, out });
}

#[derive(Debug)]
struct Node {
    i: IndexScores,
    part: Part,
    out: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dim: u32,
    pitch: u32,
    entries: u32,
    ratio: u32,
    part: [u32; 2],
    scale: f32,
    q_cols: u32,
    q_at: u32,
    weights_cols: u32,
    weights_at: u32,
}

/// Lanes of a workgroup and entries of each; on software adapters, where a workgroup is one subgroup, more
/// entries, since what is loaded of a query then meets more of them.
const LANES: usize = 64;
const KEYS: usize = 2;
const SERIAL_KEYS: usize = 8;

impl Op for Node {
    fn name(&self) -> &'static str {
        "index_scores"
    }

    fn uses(&self) -> Vec<Use> {
        let i = &self.i;
        let read = [i.rows, i.q.of, i.weights.of, i.keys].map(TensorId::read);
        read.into_iter().chain([self.part.writes(self.out)]).collect()
    }

    fn reference(&self, host: &Host<'_>) {
        let i = &self.i;
        let (rows, q, weights) = (host.u32(i.rows), host.f32(i.q.of), host.f32(i.weights.of));
        let (keys, mut out) = (host.f32(i.keys), host.f32_mut(self.out));
        let (heads, dim) = (i.heads, host.cols(i.keys));
        let (q_cols, weights_cols) = (host.cols(i.q.of), host.cols(i.weights.of));
        let (q, weights, keys) = (&*q, &*weights, &*keys);
        let part = self.part.rows(host.step);
        let of_row = |(t, (row, out)): (usize, (&Row, &mut [f32]))| {
            let t = part.start + t;
            let q = &q[t * q_cols + i.q.at..][..heads * dim];
            let weights = &weights[t * weights_cols + i.weights.at..][..heads];
            for (s, out) in out[..row.visible(i.ratio)].iter_mut().enumerate() {
                let k = &keys[(row.slot as usize * i.entries + s) * dim..][..dim];
                *out = 0.0;
                for (q, w) in q.chunks_exact(dim).zip(weights) {
                    let dot: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    *out += i.scale * w * dot.max(0.0);
                }
            }
        };
        let outs = out.par_chunks_exact_mut(i.entries);
        Row::all(&rows)[part.clone()].par_iter().zip(outs).enumerate().for_each(of_row);
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let i = &self.i;
        let dim = graph.tensor(i.keys).cols;
        let (q_cols, weights_cols) = (graph.tensor(i.q.of).cols, graph.tensor(i.weights.of).cols);
        let whole = fours(&[dim, q_cols, i.q.at]);
        let cells = |n: usize| (if whole { n / 4 } else { n }) as u32;
        let params = Params {
            heads: i.heads as u32,
            dim: dim as u32,
            pitch: cells(dim),
            entries: i.entries as u32,
            ratio: i.ratio as u32,
            part: self.part.params(),
            scale: i.scale,
            q_cols: cells(q_cols),
            q_at: cells(i.q.at),
            weights_cols: weights_cols as u32,
            weights_at: i.weights.at as u32,
        };
        let serial = limits.serial_lanes as usize;
        let (lanes, keys) = if serial > 0 { (serial, SERIAL_KEYS) } else { (LANES, KEYS) };
        let (part, blocks) = (self.part, i.entries.div_ceil(lanes * keys));
        let heads = i.heads.next_power_of_two().clamp(serial, serial.max(16));
        let kernel = Kernel::new("index_scores", params, self.uses(), move |s| {
            grid(part.rows(s).len() * blocks)
        });
        let kernel = kernel
            .flag_if(whole, "FOURS")
            .flag_if(whole && limits.wide_loads, "WIDE")
            .constant("HEADS", heads as u32)
            .constant("WG", lanes as u32)
            .constant("KEYS", keys as u32);
        match serial {
            0 => vec![kernel],
            _ => vec![kernel.flag("SERIAL").flag("SUBGROUPS").alone(true)],
        }
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let cols = self.i.heads * (graph.tensor(self.i.keys).cols + 1);
        Cost { bytes: 4 * (self.part.rows(step).len() * cols) as u64, flops: 0 }
    }

    fn context_cost(&self, graph: &Graph, step: StepSize, depth: usize) -> Cost {
        let dim = graph.tensor(self.i.keys).cols;
        let rows = self.part.rows(step);
        let keys = if rows.is_empty() { 0 } else { (depth + rows.end) / self.i.ratio };
        let scores = self.part.visible(step, depth, self.i.ratio);
        let flops = scores * self.i.heads * (2 * dim + 2);
        Cost { bytes: 4 * (keys * dim + scores) as u64, flops: flops as u64 }
    }
}
