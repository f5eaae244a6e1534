//! Attention over all positions up to the row's own, with keys that groups of heads share: one group
//! for all is multi-query attention and what MLA comes to on its latents, as many groups as heads
//! the usual kind, and what lies between grouped-query attention (Ainslie et al. 2023,
//! arXiv:2305.13245).
//!
//! For head `h` of a row at position `p`, whose group is `h / (H / G)`, with `s_j = scale * q_h . k_j`
//! and `m` the largest of the `s_j`:
//!
//! `o_h = sum_j e^(s_j - m) v_j / sum_j e^(s_j - m)`
//!
//! over all positions `j <= p`, or over those of them that are selected.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::FEW_ROWS;
use super::flash::{Parts, Tiles, fours};
use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// What [`causal_attention`] works on.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// Queries: the first `H * dk` columns of `[T, ...]`.
    pub q: TensorId,
    /// State `[slots * context, G * dk]`: position `p` of a slot is row `slot * context + p`.
    pub keys: TensorId,
    /// State `[slots * context, G * dv]`; without it a value is the first `dv` numbers of its key.
    pub values: Option<TensorId>,
    /// dv.
    pub value_dim: usize,
    /// H, a multiple of G.
    pub heads: usize,
    /// G.
    pub groups: usize,
    /// Places a sequence.
    pub context: usize,
    /// Of the scores.
    pub scale: f32,
    /// Integers `[T, 1 + k]`: how many positions a row attends to (one at least), then which, none
    /// after its own. Without it: all up to its own.
    pub select: Option<TensorId>,
}

/// Attends from every row; returns `[T, H * dv]`. The state must already hold the step's own rows.
pub fn causal_attention(g: &mut Graph, a: CausalAttention) -> TensorId {
    let (rows, cols) = (g.tensor(a.q).rows, g.tensor(a.q).cols);
    let keys = g.tensor(a.keys).cols;
    assert!(a.heads.is_multiple_of(a.groups), "causal_attention: heads a group");
    assert!(keys * a.heads <= cols * a.groups, "causal_attention: query columns");
    match a.values {
        Some(v) => {
            assert_eq!(g.tensor(v).cols, a.groups * a.value_dim, "causal_attention: value columns")
        }
        None => assert!(a.value_dim <= keys / a.groups, "causal_attention: value columns"),
    }
    let most = a.select.map_or(a.context, |s| g.tensor(s).cols - 1);
    let parts = Parts::new(g, most, a.heads, a.value_dim);
    let out = g.scratch("attention", Elem::F32, rows, a.heads * a.value_dim);
    g.push("attention", Node { a, parts, out });
    out
}

#[derive(Debug)]
struct Node {
    a: CausalAttention,
    parts: Option<Parts>,
    out: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    share: u32,
    context: u32,
    select_cols: u32,
    one_by_one: u32,
    splits: u32,
    key_dim: u32,
    key_fours: u32,
    value_dim: u32,
    value_fours: u32,
    q_pitch: u32,
    key_pitch: u32,
    key_step: u32,
    value_pitch: u32,
    value_step: u32,
    scale: f32,
}

impl Node {
    /// Columns of a row of values, and from one group's value to the next one's.
    fn value_layout(&self, graph: &Graph) -> (usize, usize) {
        let cols = graph.tensor(self.a.values.unwrap_or(self.a.keys)).cols;
        (cols, cols / self.a.groups)
    }
}

/// Heads a group from which kernels for queries that see the same keys are better than those for several
/// rows, where there are both.
const ENOUGH_HEADS: usize = 8;

impl Op for Node {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn uses(&self) -> Vec<Use> {
        let a = &self.a;
        let mut uses = vec![a.rows.read(), a.q.read(), a.keys.read(), self.out.write()];
        uses.extend([a.values, a.select].into_iter().flatten().map(TensorId::read));
        uses.extend(self.parts.iter().flat_map(|p| [p.sums, p.marks]).map(TensorId::temporary));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let a = &self.a;
        let (rows, q, keys) = (host.u32(a.rows), host.f32(a.q), host.f32(a.keys));
        let (values, mut out) = (host.f32(a.values.unwrap_or(a.keys)), host.f32_mut(self.out));
        let select = a.select.map(|s| (host.u32(s), host.cols(s)));
        let (dk, dv) = (host.cols(a.keys) / a.groups, a.value_dim);
        let q_cols = host.cols(a.q);
        let (value_cols, value_step) = self.value_layout(host.graph);
        let (q, keys, values) = (&*q, &*keys, &*values);
        let select = select.as_ref().map(|(s, cols)| (&**s, *cols));
        let of_row = |(t, (row, out)): (usize, (&Row, &mut [f32]))| {
            let seen: Vec<usize> = match select {
                None => (0..=row.position as usize).collect(),
                Some((select, cols)) => {
                    let list = &select[t * cols..(t + 1) * cols];
                    list[1..1 + list[0] as usize].iter().map(|&p| p as usize).collect()
                }
            };
            let place = |p: usize| row.slot as usize * a.context + p;
            for (h, out) in out.chunks_exact_mut(dv).enumerate() {
                let group = h / (a.heads / a.groups);
                let q = &q[t * q_cols + h * dk..][..dk];
                let score = |&p: &usize| {
                    let k = &keys[(place(p) * a.groups + group) * dk..][..dk];
                    // In f64: what this sum is off by, e^s is off by times itself.
                    let products = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k));
                    a.scale * products.sum::<f64>() as f32
                };
                let scores: Vec<f32> = seen.iter().map(score).collect();
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut total = 0.0;
                out.fill(0.0);
                for (s, &p) in scores.iter().zip(&seen) {
                    let e = (s - top).exp();
                    total += e;
                    let v = &values[place(p) * value_cols + group * value_step..][..dv];
                    out.iter_mut().zip(v).for_each(|(o, v)| *o += e * v);
                }
                out.iter_mut().for_each(|o| *o /= total);
            }
        };
        let outs = out.par_chunks_exact_mut(a.heads * dv);
        Row::all(&rows).par_iter().zip(outs).enumerate().for_each(of_row);
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let a = &self.a;
        let key_pitch = graph.tensor(a.keys).cols;
        let (value_pitch, value_step) = self.value_layout(graph);
        let (groups, share) = (a.groups, a.heads / a.groups);
        let (key_dim, value_dim) = (key_pitch / groups, a.value_dim);
        let q_pitch = graph.tensor(a.q).cols;
        let whole = fours(&[key_dim, value_dim, q_pitch, key_pitch, value_pitch, value_step]);
        let cells = |n: usize| (if whole { n / 4 } else { n }) as u32;
        // Rows of few come from several sequences more often than from one.
        let apart = a.select.is_some() || graph.max.rows <= FEW_ROWS;
        let queries = if apart { share } else { graph.max.rows * share };
        let tiles = Tiles::with_keys(queries, key_dim, value_dim, limits);
        let same_keys = tiles.same_keys(share, value_dim, whole, limits);
        let (one_by_one, tiles) = match same_keys {
            Some(tiles) if apart || share >= ENOUGH_HEADS => (true, tiles),
            _ => (apart, tiles),
        };
        let at_once = if one_by_one { 1 } else { graph.max.rows };
        let workgroups = groups * (at_once * share).div_ceil(tiles.queries);
        let keys_a_part = limits.tuning.causal_keys();
        let splits = self.parts.map_or(1, |p| p.splits(keys_a_part, workgroups, limits));
        let parts = self.parts.filter(|_| splits > 1);
        let params = Params {
            heads: a.heads as u32,
            share: share as u32,
            context: a.context as u32,
            select_cols: a.select.map_or(0, |s| graph.tensor(s).cols as u32),
            one_by_one: one_by_one.into(),
            splits: splits as u32,
            key_dim: key_dim as u32,
            key_fours: key_dim.div_ceil(4) as u32,
            value_dim: value_dim as u32,
            value_fours: value_dim.div_ceil(4) as u32,
            q_pitch: cells(q_pitch),
            key_pitch: cells(key_pitch),
            key_step: cells(key_dim),
            value_pitch: cells(value_pitch),
            value_step: cells(value_step),
            scale: a.scale,
        };
        // Without a selection something else stands in its binding and is not read.
        let mut bindings = vec![
            a.rows.read(),
            a.q.read(),
            a.keys.read(),
            a.values.unwrap_or(a.keys).read(),
            a.select.unwrap_or(a.rows).read(),
        ];
        match parts {
            Some(p) => bindings.extend([p.sums, p.marks].map(TensorId::write)),
            None => bindings.push(self.out.write()),
        }
        let workgroups = move |s: StepSize| {
            let (bundles, rows) = if one_by_one { (s.rows, 1) } else { (1, s.rows) };
            grid(bundles * groups * (rows * share).div_ceil(tiles.queries) * splits)
        };
        let kernel = Kernel::new("causal_attention", params, bindings, workgroups)
            .flag_if(whole, "FOURS")
            .flag_if(whole && limits.wide_loads, "WIDE")
            .flag_if(parts.is_some(), "PARTS");
        let merge = parts.map(|p| p.merge(splits, graph, self.out, None, limits));
        [tiles.tell(kernel, limits)].into_iter().chain(merge).collect()
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let a = &self.a;
        let cols = a.heads * graph.tensor(a.keys).cols / a.groups + graph.tensor(self.out).cols;
        Cost { bytes: 4 * (step.rows * cols) as u64, flops: 0 }
    }

    /// A row's own choice of keys is read by it alone, what all see once for all.
    fn context_cost(&self, graph: &Graph, step: StepSize, depth: usize) -> Cost {
        let a = &self.a;
        let key_cols = graph.tensor(a.keys).cols;
        let cols = key_cols + a.values.map_or(0, |v| graph.tensor(v).cols);
        let most = a.select.map_or(usize::MAX, |s| graph.tensor(s).cols - 1);
        let seen: usize = (depth..depth + step.rows).map(|p| most.min(p + 1)).sum();
        let numbers =
            if a.select.is_some() { seen * (cols + 1) } else { (depth + step.rows) * cols };
        let flops = 2 * seen * a.heads * (key_cols / a.groups + a.value_dim);
        Cost { bytes: 4 * numbers as u64, flops: flops as u64 }
    }
}
