//! Attention in which all heads share one latent vector a position, both as key and as value
//! (multi-query attention), with a learned sink a head and, beside a window of plain positions,
//! optionally compressed ones.
//!
//! For head `h` of a row, over its keys `k_j`, with `s_j = scale * q_h . k_j` and `m` the largest of
//! all `s_j` and `sink_h`:
//!
//! `o_h = sum_j e^(s_j - m) k_j / (sum_j e^(s_j - m) + e^(sink_h - m))`
//!
//! The keys are the ring's rows of positions `row.first..=row.last`, then the compressed entries. Since
//! values were rotated with the keys, the query's own rotation is taken out of `o_h` again: its last `rd`
//! dimensions turn back in neighbouring pairs, `(a, b) -> (a c + b s, b c - a s)`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::Pairs;
use super::flash::{Parts, Tiles, TurnBack, fours};
use super::head_rope::turn;
use super::row::{Row, visible};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// The compressed keys of [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct Compressed {
    /// State `[slots * entries, d]`.
    pub cache: TensorId,
    /// Cache places a sequence.
    pub entries: usize,
    /// Positions an entry was made of: a row at `p` sees entries below `(p + 1) / ratio`.
    pub ratio: usize,
    /// Integers `[T, 1 + k]`: how many entries a row attends to, then which. Without it: all that
    /// the row sees.
    pub select: Option<TensorId>,
}

/// What [`attention`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// Queries: the first `H * d` columns. `d` is even.
    pub q: TensorId,
    /// `[T, rd]`: each row's cosines (rd / 2), then its sines.
    pub table: TensorId,
    /// State `[slots * cap, d]`, in which position `p` stands at `p % cap`.
    pub ring: TensorId,
    /// Ring places a sequence.
    pub cap: usize,
    /// Ring places that a row of text sees at most. Rows of pictures may see more.
    pub window: usize,
    /// More keys, if there are any.
    pub compressed: Option<Compressed>,
    /// `[1, H]`.
    pub sinks: TensorId,
    /// H.
    pub heads: usize,
    /// Of the scores.
    pub scale: f32,
}

/// Attends from every row; returns `[T, H * d]`. The ring must hold all that the rows see, the
/// step's own rows included.
pub fn attention(g: &mut Graph, a: Attention) -> TensorId {
    let (rows, d, rope) = (g.tensor(a.q).rows, g.tensor(a.ring).cols, g.tensor(a.table).cols);
    let cols = a.heads * d;
    assert!(cols <= g.tensor(a.q).cols, "attention: query columns");
    assert!(d.is_multiple_of(2) && rope.is_multiple_of(2) && rope <= d, "attention: dimensions");
    assert_eq!(g.tensor(a.sinks).cols, a.heads, "attention: sinks");
    let beside = a.compressed.map_or(0, |c| c.select.map_or(c.entries, |s| g.tensor(s).cols - 1));
    let parts = Parts::new(g, a.window + beside, a.heads, d);
    let out = g.scratch("attention", Elem::F32, rows, cols);
    g.push("attention", Node { a, parts, out });
    out
}

#[derive(Debug)]
struct Node {
    a: Attention,
    parts: Option<Parts>,
    out: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dim: u32,
    pitch: u32,
    key_fours: u32,
    value_fours: u32,
    splits: u32,
    cap: u32,
    entries: u32,
    ratio: u32,
    select_cols: u32,
    scale: f32,
    q_cols: u32,
    rope: u32,
    pad: [u32; 3],
}

impl Op for Node {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn uses(&self) -> Vec<Use> {
        let a = &self.a;
        let mut uses = [a.rows, a.q, a.ring, a.sinks, a.table].map(TensorId::read).to_vec();
        uses.push(self.out.write());
        if let Some(c) = &a.compressed {
            uses.push(c.cache.read());
            uses.extend(c.select.map(TensorId::read));
        }
        uses.extend(self.parts.iter().flat_map(|p| [p.sums, p.marks]).map(TensorId::temporary));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let a = &self.a;
        let (rows, q, ring) = (host.u32(a.rows), host.f32(a.q), host.f32(a.ring));
        let (sinks, mut out) = (host.f32(a.sinks), host.f32_mut(self.out));
        let (table, rope, q_cols) = (host.f32(a.table), host.cols(a.table), host.cols(a.q));
        let table: &[f32] = &table;
        let cache = a.compressed.map(|c| host.f32(c.cache));
        let select = a.compressed.and_then(|c| c.select).map(|s| (host.u32(s), host.cols(s)));
        let d = host.cols(a.ring);
        let (q, ring, sinks) = (&*q, &*ring, &*sinks);
        let (cache, select) = (cache.as_deref(), select.as_ref().map(|(s, cols)| (&**s, *cols)));
        let of_row = |(t, (row, out)): (usize, (&Row, &mut [f32]))| {
            let slot = row.slot as usize;
            let mut keys: Vec<&[f32]> = (row.first as usize..=row.last as usize)
                .map(|p| &ring[(slot * a.cap + p % a.cap) * d..][..d])
                .collect();
            if let (Some(c), Some(cache)) = (a.compressed, cache) {
                let entry = |i: usize| &cache[(slot * c.entries + i) * d..][..d];
                match select {
                    None => keys.extend((0..row.visible(c.ratio)).map(entry)),
                    Some((select, cols)) => {
                        let list = &select[t * cols..(t + 1) * cols];
                        let chosen = &list[1..1 + list[0] as usize];
                        keys.extend(chosen.iter().map(|&i| entry(i as usize)));
                    }
                }
            }
            let q = &q[t * q_cols..][..a.heads * d];
            let (cos, sin) = table[t * rope..(t + 1) * rope].split_at(rope / 2);
            let back: Vec<f32> = cos.iter().copied().chain(sin.iter().map(|s| -s)).collect();
            for ((q, out), &sink) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(sinks) {
                // In f64: what this sum is off by, e^s is off by times itself.
                let dot = |k: &[f32]| {
                    q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() as f32
                };
                let scores: Vec<f32> = keys.iter().map(|k| a.scale * dot(k)).collect();
                let top = scores.iter().copied().fold(sink, f32::max);
                let mut total = (sink - top).exp();
                out.fill(0.0);
                for (s, k) in scores.iter().zip(&keys) {
                    let e = (s - top).exp();
                    total += e;
                    out.iter_mut().zip(*k).for_each(|(o, k)| *o += e * k);
                }
                out.iter_mut().for_each(|o| *o /= total);
                turn(out, &back, d - rope, Pairs::Interleaved.steps(rope));
            }
        };
        let outs = out.par_chunks_exact_mut(a.heads * d);
        Row::all(&rows).par_iter().zip(outs).enumerate().for_each(of_row);
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let a = &self.a;
        let dim = graph.tensor(a.ring).cols;
        let select = a.compressed.and_then(|c| c.select);
        let (entries, ratio) = a.compressed.map_or((0, 1), |c| (c.entries, c.ratio));
        let (q_cols, rope) = (graph.tensor(a.q).cols, graph.tensor(a.table).cols);
        let whole = fours(&[dim, q_cols]);
        let cells = |n: usize| (if whole { n / 4 } else { n }) as u32;
        let tiles = Tiles::new(a.heads, dim, limits);
        let tiles = tiles.same_keys(a.heads, dim, whole, limits).unwrap_or(tiles);
        let groups = a.heads.div_ceil(tiles.queries);
        let keys_a_part = limits.tuning.attention_keys();
        let splits = self.parts.map_or(1, |p| p.splits(keys_a_part, groups, limits));
        let parts = self.parts.filter(|_| splits > 1);
        let params = Params {
            heads: a.heads as u32,
            dim: dim as u32,
            pitch: cells(dim),
            key_fours: dim.div_ceil(4) as u32,
            value_fours: dim.div_ceil(4) as u32,
            splits: splits as u32,
            cap: a.cap as u32,
            entries: entries as u32,
            ratio: ratio as u32,
            select_cols: select.map_or(0, |s| graph.tensor(s).cols as u32),
            scale: a.scale,
            q_cols: cells(q_cols),
            rope: rope as u32,
            pad: [0; 3],
        };
        // What a layer lacks is bound to something it has, and not read.
        let mut bindings = vec![
            a.rows.read(),
            a.q.read(),
            a.ring.read(),
            a.sinks.read(),
            a.compressed.map_or(a.ring, |c| c.cache).read(),
            select.unwrap_or(a.rows).read(),
        ];
        match parts {
            Some(p) => bindings.extend([p.sums, p.marks].map(TensorId::write)),
            None => bindings.extend([self.out.write(), a.table.read()]),
        }
        let workgroups = move |s: StepSize| grid(s.rows * groups * splits);
        let kernel = Kernel::new("attention", params, bindings, workgroups)
            .flag_if(whole, "FOURS")
            .flag_if(whole && limits.wide_loads, "WIDE")
            .flag_if(parts.is_some(), "PARTS");
        let turn_back = TurnBack { table: a.table, rope };
        let merge = parts.map(|p| p.merge(splits, graph, self.out, Some(turn_back), limits));
        [tiles.tell(kernel, limits)].into_iter().chain(merge).collect()
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        Cost { bytes: (8 * step.rows * graph.tensor(self.out).cols) as u64, flops: 0 }
    }

    /// As if all rows were text. A row's own choice of entries is read by it alone, all else once for all.
    fn context_cost(&self, graph: &Graph, step: StepSize, depth: usize) -> Cost {
        let a = &self.a;
        let dim = graph.tensor(a.ring).cols;
        let rows = depth..depth + step.rows;
        let mut seen: usize = rows.clone().map(|p| a.window.min(p + 1)).sum();
        let mut numbers = dim * rows.end.min(step.rows + a.window - 1);
        if let Some(c) = a.compressed {
            let most = c.select.map_or(c.entries, |s| graph.tensor(s).cols - 1);
            let beside: usize = rows.clone().map(|p| most.min(visible(p, c.ratio))).sum();
            seen += beside;
            let picks = beside * (dim + 1);
            numbers += if c.select.is_some() { picks } else { rows.end / c.ratio * dim };
        }
        let flops = 4 * seen * a.heads * dim;
        Cost { bytes: 4 * numbers as u64, flops: flops as u64 }
    }
}
