//! Makes a case's graph and fills its inputs.

use std::ops::Range;
use std::sync::Arc;

use fathom::formats::BlockFormat;
use fathom::gpu::{Gpu, GpuGraph, GpuStore, WeightSource};
use fathom::graph::Elem::{self, BF16, Block, F16, F32, U32};
use fathom::graph::reference::Data;
use fathom::graph::{Cost, Extent, Graph, Tensor, TensorId, fuse};
use fathom::ops::{
    self, Attention, CausalAttention, Chosen, CodeOrder, Compress, Compressed, EXPERT_TILES, Extra,
    FEW_ROWS, IndexScores, MhcPost, Slice, Slices,
};
use fathom::runtime::{Out, Row, Sampling};

use crate::cases::Case;

pub const EPS: f32 = 1e-6;

/// A case's graph and the contents of its inputs.
pub struct Build {
    pub graph: Graph,
    inputs: Vec<(TensorId, Data)>,
    /// Positions before the rows.
    depth: usize,
    /// Whether products are made by cooperative matrices in f16.
    half: bool,
}

impl Build {
    pub fn new(case: &Case) -> Self {
        let graph = Graph::new(case.name, case.step);
        let mut b = Self { graph, inputs: vec![], depth: 0, half: false };
        (case.build)(&mut b);
        b
    }

    /// An input of floats in [-1, 1).
    pub fn input(&mut self, name: &str, extent: Extent, cols: usize) -> TensorId {
        let id = self.graph.input(name, F32, extent, cols);
        let n = extent.at(self.graph.max) * cols;
        self.inputs.push((id, Data::F32((0..n).map(float).collect())));
        id
    }

    /// The same, with a row a token.
    pub fn x(&mut self, name: &str, cols: usize) -> TensorId {
        self.input(name, Extent::ROWS, cols)
    }

    pub fn words(
        &mut self,
        name: &str,
        extent: Extent,
        cols: usize,
        row: impl Fn(usize) -> Vec<u32>,
    ) -> TensorId {
        let id = self.graph.input(name, U32, extent, cols);
        let n = extent.at(self.graph.max);
        self.inputs.push((id, Data::U32((0..n).flat_map(row).collect())));
        id
    }

    /// Token rows of one sequence from position `start` on, that see the 128 positions up to theirs.
    pub fn rows(&mut self, start: usize) -> TensorId {
        self.depth = start;
        self.words("rows", Extent::ROWS, 8, |i| {
            let (position, token) = ((start + i) as u32, i as u32);
            let first = (position + 1).saturating_sub(128);
            let row = Row { position, token, first, last: position, ..Row::default() };
            bytemuck::cast_slice(&[row]).to_vec()
        })
    }

    pub fn outs(&mut self, sampling: Sampling) -> TensorId {
        self.words("outs", Extent::OUTS, 8, |i| {
            bytemuck::cast_slice(&[Out::new(i, i as u32, &sampling)]).to_vec()
        })
    }

    /// `k` different experts for each row, evenly spread.
    pub fn ids(&mut self, k: usize, experts: usize) -> TensorId {
        let row = |i| (0..k).map(|j| ((i * 7 + j) % experts) as u32).collect();
        self.words("ids", Extent::ROWS, k, row)
    }

    pub fn weight(&mut self, name: &str, elem: Elem, rows: usize, cols: usize) -> TensorId {
        self.graph.weight(name, elem, rows, cols)
    }

    pub fn dense(&mut self, inputs: usize, outputs: usize, elem: Elem) {
        let (x, w) = (self.x("x", inputs), self.weight("w", elem, outputs, inputs));
        ops::matmul(&mut self.graph, x, w);
    }

    /// By cooperative matrices in f16.
    pub fn dense_f16(&mut self, inputs: usize, outputs: usize, elem: Elem) {
        self.half = true;
        self.dense(inputs, outputs, elem);
    }

    /// The first half of a gated feed-forward with the norm before it, as they are fused.
    pub fn gated(&mut self, inputs: usize, inter: usize, elem: Elem) {
        let (x, norm) = (self.x("x", inputs), self.weight("norm", F32, 1, inputs));
        let w = self.weight("w", elem, 2 * inter, inputs);
        let x = ops::rms_norm(&mut self.graph, x, norm, EPS);
        let both = ops::matmul(&mut self.graph, x, w);
        ops::swiglu(&mut self.graph, both, None, f32::MAX);
        fuse(&mut self.graph);
    }

    /// With activations in 8 bits.
    pub fn dense_q8(&mut self, inputs: usize, outputs: usize, format: BlockFormat) {
        let (x, w) = (self.x("x", inputs), self.weight("w", Block(format), outputs, inputs));
        let x = self.in_eight_bits(x, format);
        ops::matmul(&mut self.graph, x, w);
    }

    /// `x` in 8 bits for products with weights in `format`.
    pub fn in_eight_bits(&mut self, x: TensorId, format: BlockFormat) -> TensorId {
        let order = CodeOrder::of(Block(format)).expect("a format that is multiplied as integers");
        ops::quantize_activations(&mut self.graph, x, order)
    }

    pub fn grouped(&mut self, groups: usize, inputs: usize, outputs: usize) {
        let x = self.x("x", groups * inputs);
        let w = self.weight("w", BF16, groups * outputs, inputs);
        ops::matmul_with(&mut self.graph, x, w, Extra { groups, ..Extra::default() });
    }

    /// Queries of `heads` heads, `dim` wide, into a latent space.
    pub fn transposed(&mut self, heads: usize, dim: usize, latent: usize, elem: Elem) {
        let x = self.x("x", heads * dim);
        let w = self.weight("w", elem, 2 * heads * dim, latent);
        let of = |step| Slice { step, at: 0 };
        let slices = Slices { x: of(dim), w: of(2 * dim), y: of(latent), outputs: latent };
        ops::matmul_transposed(&mut self.graph, x, w, heads, dim, slices, None);
    }

    /// The first, gated half of the experts.
    pub fn experts(&mut self, inputs: usize, outputs: usize, experts: usize, k: usize, elem: Elem) {
        let (ids, x) = (self.ids(k, experts), self.x("x", inputs));
        let (weights, pages) = (self.x("weights", k), self.weight("pages", U32, 1, experts));
        let g = &mut self.graph;
        let w1 = g.bank("w1", elem, experts * outputs, inputs, outputs);
        let w3 = g.bank("w3", elem, experts * outputs, inputs, outputs);
        let tiles =
            (g.max.rows > FEW_ROWS).then(|| ops::expert_tiles(g, ids, experts, EXPERT_TILES));
        ops::expert_gate_up(g, x, w1, w3, Chosen { ids, weights, pages, tiles }, 10.0);
    }

    /// Over `window` keys and, of `more` compressed entries, all or so many as are given.
    pub fn attention(
        &mut self,
        heads: usize,
        dim: usize,
        window: usize,
        more: Option<(usize, Option<usize>)>,
    ) {
        const RATIO: usize = 4;
        let start = more.map_or(window, |m| m.0 * RATIO);
        let (rows, q) = (self.rows(start), self.x("q", heads * dim));
        let cap = window + self.graph.max.rows;
        let compressed = more.map(|(entries, picked)| Compressed {
            cache: self.graph.state("cache", entries, dim),
            entries,
            ratio: RATIO,
            select: picked.map(|k| {
                let list = |_| [k as u32].into_iter().chain(0..k as u32).collect();
                self.words("select", Extent::ROWS, 1 + k, list)
            }),
        });
        let ring = self.graph.state("ring", cap, dim);
        let (sinks, scale) = (self.weight("sinks", F32, 1, heads), (dim as f32).sqrt().recip());
        let table = self.x("table", 64);
        let a = Attention { rows, q, table, ring, cap, window, compressed, sinks, heads, scale };
        ops::attention(&mut self.graph, a);
    }

    /// After `context` keys of one sequence, of which so many as are given are picked. A value that is
    /// shorter than a key is a part of it.
    pub fn causal(
        &mut self,
        heads: usize,
        groups: usize,
        dim: usize,
        value_dim: usize,
        context: usize,
        picked: Option<usize>,
    ) {
        let (rows, q) = (self.rows(context), self.x("q", heads * dim));
        let places = context + self.graph.max.rows;
        let keys = self.graph.state("keys", places, groups * dim);
        let values =
            (value_dim == dim).then(|| self.graph.state("values", places, groups * value_dim));
        let select = picked.map(|k| {
            let list = |_| [k as u32].into_iter().chain(0..k as u32).collect();
            self.words("select", Extent::ROWS, 1 + k, list)
        });
        let (context, scale) = (places, (dim as f32).sqrt().recip());
        let a = CausalAttention {
            rows,
            q,
            keys,
            values,
            value_dim,
            heads,
            groups,
            context,
            scale,
            select,
        };
        ops::causal_attention(&mut self.graph, a);
    }

    pub fn index(&mut self, heads: usize, dim: usize, entries: usize) {
        let (ratio, scale) = (4, ((dim * heads) as f32).sqrt().recip());
        let (rows, q) = (self.rows(ratio * entries), self.x("q", heads * dim));
        let (q, weights) = (q.into(), self.x("weights", heads).into());
        let keys = self.graph.state("keys", entries, dim);
        let i = IndexScores { rows, q, weights, heads, keys, entries, ratio, scale };
        ops::index_scores(&mut self.graph, i);
    }

    pub fn topk(&mut self, k: usize, entries: usize) {
        let ratio = 4;
        let (rows, scores) = (self.rows(ratio * entries), self.x("scores", entries));
        ops::topk(&mut self.graph, rows, scores, ratio, k);
    }

    /// A pool for each of the widths of entries.
    pub fn compress(&mut self, dims: &[usize], ratio: usize, overlap: bool) {
        let series = 1 + usize::from(overlap);
        let (rows, table) = (self.rows(4 * ratio - 1), self.x("table", 64));
        let (cap, entries, eps) = (series * ratio + self.graph.max.rows, 64, EPS);
        let channels: usize = dims.iter().sum();
        let x = self.x("x", 2 * series * channels).into();
        let ring = self.graph.state("ring", cap, 2 * series * channels);
        let weights = self.weight("weights", F32, 1, (ratio * series + 1) * channels);
        let cache = |(i, d): (usize, &usize)| self.graph.state(format!("cache {i}"), entries, *d);
        let caches = dims.iter().enumerate().map(cache).collect();
        let c =
            Compress { rows, x, weights, table, ring, caches, cap, entries, ratio, overlap, eps };
        ops::compress(&mut self.graph, c);
    }

    /// A sub-layer's output for 4 streams of 4096.
    pub fn post(&mut self) -> MhcPost {
        let (streams, coef) = (self.x("streams", 4 * 4096), self.x("coef", 20));
        MhcPost { streams, coef, block: self.x("y", 4096), n: 4 }
    }

    pub fn sample(&mut self, sampling: Sampling) {
        let (outs, logits) = (self.outs(sampling), self.input("logits", Extent::OUTS, 129_280));
        ops::sample(&mut self.graph, logits, outs);
    }

    pub fn vit_attention(&mut self, heads: usize, dim: usize) {
        let end = self.graph.max.rows as u32;
        let qkv = self.x("qkv", 3 * heads * dim);
        let patches = self.words("patches", Extent::ROWS, 4, |_| vec![0, 0, 0, end]);
        ops::vit_attention(&mut self.graph, qkv, patches, heads);
    }

    pub fn cost(&self) -> Cost {
        let node = self.graph.nodes().last().expect("a case has an op");
        let (op, step) = (&node.op, self.graph.max);
        op.cost(&self.graph, step) + op.context_cost(&self.graph, step, self.depth)
    }

    /// The device as the case wants it, if it can be so.
    pub fn device(&self, gpu: &Gpu) -> Option<Gpu> {
        let mut gpu = gpu.clone();
        if self.half {
            // Software adapters have faster kernels.
            gpu.limits = gpu.limits.of_hardware();
            return gpu.multiply_matrices(true).then_some(gpu);
        }
        Some(gpu)
    }

    /// The graph, ready to run, and its inputs.
    pub fn prepare(self, gpu: &Gpu) -> (GpuGraph, Vec<(TensorId, Data)>) {
        let (graph, mut store) = (Arc::new(self.graph), GpuStore::default());
        store.add(gpu, &graph, &Numbers, &mut |_| {}).expect("weights fit the device");
        let run = GpuGraph::new(gpu, Arc::clone(&graph), &mut store).expect("kernels compile");
        (run, self.inputs)
    }
}

/// The `i`-th of a series without pattern, in [-1, 1).
fn float(i: usize) -> f32 {
    ((i as u32).wrapping_mul(2_654_435_769) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Weights without pattern; integers count up, which makes a page table the identity.
struct Numbers;

impl WeightSource for Numbers {
    fn read(&self, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> fathom::Result<()> {
        let per_row = t.row_bytes() / if matches!(t.elem, F16 | BF16) { 2 } else { 4 };
        for i in rows.start * per_row..rows.end * per_row {
            match t.elem {
                U32 => out.extend((i as u32).to_le_bytes()),
                F32 => out.extend(float(i).to_le_bytes()),
                F16 => out.extend(half::f16::from_f32(float(i)).to_le_bytes()),
                BF16 => out.extend(half::bf16::from_f32(float(i)).to_le_bytes()),
                // Numbers of usual size, in whatever format a part of it is a scale.
                Elem::Block(_) => {
                    let bits = (i as u32).wrapping_mul(2_654_435_769) & 0x03ff_03ff;
                    out.extend((bits | 0x3400_3400).to_le_bytes());
                }
            }
        }
        Ok(())
    }
}
