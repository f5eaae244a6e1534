//! DeepSeek V4 (V4-Flash, V4-Flash-Vision-Exp, V4-Pro): the language model.
//!
//! Every layer has two sub-layers, attention and mixture of experts, each wrapped by
//! manifold-constrained hyper-connections over `N` residual streams. Attention is multi-query over
//! one latent that is both key and value, through a sliding window and, on most layers, compressed
//! entries: few and all visible (HCA) or many and picked by an indexer (CSA).

use super::{ModelWeights, RopeTable, frequencies};
use crate::formats::{LayerKind, V4Config};
use crate::graph::{Elem, Extent, Graph, StepSize, TensorId};
use crate::ops::{
    self, Attention, Chosen, Compress, Compressed, EXPERT_TILE, EmbedVision, Extra, FEW_ROWS,
    IndexScores, MOST_CHOICES, MOST_EXPERTS, MOST_STREAMS, MhcHead, MhcPre, Route,
};
use crate::{Error, Result};

/// How much a graph must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences whose state is kept at a time.
    pub slots: usize,
    /// Tokens a sequence may have.
    pub context: usize,
    /// The largest number of rows of any step, of any graph that shares the state.
    pub chunk: usize,
}

impl Capacity {
    /// For one sequence of `context` tokens and prefill steps of `chunk` rows, or more where a
    /// picture needs more: its rows see each other, so they cannot be parted.
    pub fn new(config: &V4Config, context: usize, chunk: usize) -> Self {
        let picture = config.vision.as_ref().map_or(0, |v| v.max_tokens + 3);
        Self { slots: 1, context, chunk: chunk.clamp(1, context).max(picture) }
    }
}

/// The tensors of a [`text_graph`] that the runtime feeds and reads.
#[derive(Debug)]
pub struct TextTensors {
    /// Input `[T, 8]`: a [`crate::runtime::Row`] each.
    pub rows: TensorId,
    /// Input `[O, 8]`: a [`crate::runtime::Out`] each.
    pub outs: TensorId,
    /// Input `[T, D]`: aligner rows of the step's IMAGE rows, on models that see.
    pub images: Option<TensorId>,
    /// Inputs of cosines and sines.
    pub ropes: Vec<RopeTable>,
    /// Output `[O, vocab]`.
    pub logits: TensorId,
    /// Output `[O, 1]`: the sampled tokens.
    pub tokens: TensorId,
}

/// Builds the graph for steps of up to `max` rows.
///
/// # Errors
/// If a weight is missing, of the wrong shape or in a format without kernels, or a dimension is
/// larger than the kernels take.
pub fn text_graph(
    config: &V4Config,
    weights: &mut ModelWeights<'_>,
    capacity: Capacity,
    max: StepSize,
) -> Result<(Graph, TextTensors)> {
    let phase = if max.rows > FEW_ROWS { "prefill" } else { "decode" };
    let mut g = Graph::new(format!("deepseek_v4 {phase}"), max);
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let outs = g.input("outs", Elem::U32, Extent::OUTS, 8);
    let c = config;
    check(c)?;

    let vision = match &c.vision {
        Some(_) => Some(EmbedVision {
            images: g.input("images", Elem::F32, Extent::ROWS, c.hidden),
            marks: weights.stacked(
                &mut g,
                "image_marks",
                &["image_start", "image_pad", "image_newline", "image_end"],
                c.hidden,
            )?,
        }),
        None => None,
    };
    let images = vision.as_ref().map(|v| v.images);
    let table = weights.matrix(&mut g, "embed.weight", c.vocab, c.hidden)?;
    let streams = ops::embed(&mut g, rows, table, vision, c.hc_mult);

    let mut b = Builder { c, w: weights, g, rows, ropes: vec![], capacity };
    for (l, kind) in c.layers.iter().enumerate() {
        b.layer(l, *kind, streams)?;
    }

    let last = ops::gather(&mut b.g, streams, outs);
    let x = b.hc_head(last)?;
    let head = b.matrix("head.weight", c.vocab, c.hidden)?;
    let extra = Extra { output: Some("logits"), ..Extra::default() };
    let logits = ops::matmul_with(&mut b.g, x, head, extra);
    let tokens = ops::sample(&mut b.g, logits, outs);
    Ok((b.g, TextTensors { rows, outs, images, ropes: b.ropes, logits, tokens }))
}

/// Sinkhorn iterations above which a config is taken to be mistaken: a step would never end.
const MOST_ITERATIONS: usize = 1000;

/// Refuses dimensions that the kernels have no room for.
fn check(c: &V4Config) -> Result<()> {
    for (name, value, most) in [
        ("hc_mult", c.hc_mult, MOST_STREAMS),
        ("hc_sinkhorn_iters", c.hc_iters, MOST_ITERATIONS),
        ("n_routed_experts", c.experts, MOST_EXPERTS),
        ("num_experts_per_tok", c.experts_per_token, MOST_CHOICES),
    ] {
        if value > most {
            let what = format!("`{name}` is {value}, Fathom's kernels take up to {most}");
            return Err(Error::Config(what));
        }
    }
    Ok(())
}

struct Builder<'a, 'w> {
    c: &'a V4Config,
    w: &'a mut ModelWeights<'w>,
    g: Graph,
    rows: TensorId,
    ropes: Vec<RopeTable>,
    capacity: Capacity,
}

impl Builder<'_, '_> {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<TensorId> {
        self.w.matrix(&mut self.g, name, rows, cols)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<TensorId> {
        self.w.vector(&mut self.g, name, len)
    }

    /// `x` times the matrix `name` `[outputs, cols of x]`.
    fn linear(&mut self, x: TensorId, name: &str, outputs: usize) -> Result<TensorId> {
        let inputs = self.g.tensor(x).cols;
        let w = self.matrix(name, outputs, inputs)?;
        Ok(ops::matmul(&mut self.g, x, w))
    }

    fn norm(&mut self, x: TensorId, name: &str) -> Result<TensorId> {
        let cols = self.g.tensor(x).cols;
        let w = self.vector(name, cols)?;
        Ok(ops::rms_norm(&mut self.g, x, w, self.c.eps))
    }

    fn layer(&mut self, l: usize, kind: LayerKind, streams: TensorId) -> Result<()> {
        let n = self.c.hc_mult;
        let layer = format!("layers.{l}");

        let (x, coef) = self.hc_pre(streams, &format!("{layer}.hc_attn"), &layer, "attn_norm")?;
        let block = self.attention(x, l, kind)?;
        ops::mhc_post(&mut self.g, streams, coef, block, n);

        let (x, coef) = self.hc_pre(streams, &format!("{layer}.hc_ffn"), &layer, "ffn_norm")?;
        let block = self.experts(x, l)?;
        ops::mhc_post(&mut self.g, streams, coef, block, n);
        Ok(())
    }

    /// Collapses the streams into a sub-layer's normed input; also the coefficients to go back.
    fn hc_pre(
        &mut self,
        streams: TensorId,
        hc: &str,
        layer: &str,
        norm: &str,
    ) -> Result<(TensorId, TensorId)> {
        let (n, c) = (self.c.hc_mult, self.c);
        let mix = self.linear(streams, &format!("{hc}_fn"), (2 + n) * n)?;
        let base = self.vector(&format!("{hc}_base"), (2 + n) * n)?;
        let scale = self.vector(&format!("{hc}_scale"), 3)?;
        let norm = self.vector(&format!("{layer}.{norm}.weight"), c.hidden)?;
        let (iters, hc_eps, eps) = (c.hc_iters, c.hc_eps, c.eps);
        let pre = MhcPre { streams, mix, base, scale, norm, n, iters, hc_eps, eps };
        Ok(ops::mhc_pre(&mut self.g, pre))
    }

    /// Collapses the streams for the last time, into the head's normed input.
    fn hc_head(&mut self, streams: TensorId) -> Result<TensorId> {
        let (n, c) = (self.c.hc_mult, self.c);
        let mix = self.linear(streams, "hc_head_fn", n)?;
        let base = self.vector("hc_head_base", n)?;
        let scale = self.vector("hc_head_scale", 1)?;
        let norm = self.vector("norm.weight", c.hidden)?;
        let (hc_eps, eps) = (c.hc_eps, c.eps);
        Ok(ops::mhc_head(&mut self.g, MhcHead { streams, mix, base, scale, norm, n, hc_eps, eps }))
    }

    fn attention(&mut self, x: TensorId, l: usize, kind: LayerKind) -> Result<TensorId> {
        let c = self.c;
        let p = format!("layers.{l}.attn");
        let (slots, chunk) = (self.capacity.slots, self.capacity.chunk);
        let rope = self.rope(kind, None);

        let qr = self.linear(x, &format!("{p}.wq_a.weight"), c.q_lora)?;
        let qr = self.norm(qr, &format!("{p}.q_norm.weight"))?;
        let q = self.linear(qr, &format!("{p}.wq_b.weight"), c.heads * c.head_dim)?;
        ops::head_rope(&mut self.g, q, rope, c.heads, Some(c.eps), false);

        let kv = self.linear(x, &format!("{p}.wkv.weight"), c.head_dim)?;
        let kv = self.norm(kv, &format!("{p}.kv_norm.weight"))?;
        ops::head_rope(&mut self.g, kv, rope, 1, None, false);
        // Long enough that a whole chunk can be written before any of its rows looks back.
        let cap = c.window.min(self.capacity.context) + chunk;
        let ring = self.g.state(format!("{p}.window"), slots * cap, c.head_dim);
        ops::ring_write(&mut self.g, self.rows, kv, ring, cap, None);

        let compressed = match kind {
            LayerKind::Window => None,
            LayerKind::Hca { ratio } => {
                let cache = self.compress(x, &format!("{p}.compressor"), c.head_dim, kind)?;
                let entries = self.entries(ratio);
                Some(Compressed { cache, entries, ratio, select: None })
            }
            LayerKind::Csa { ratio } => {
                let cache = self.compress(x, &format!("{p}.compressor"), c.head_dim, kind)?;
                let select = self.index(x, qr, &format!("{p}.indexer"), rope, kind)?;
                let entries = self.entries(ratio);
                Some(Compressed { cache, entries, ratio, select: Some(select) })
            }
        };
        let sinks = self.vector(&format!("{p}.attn_sink"), c.heads)?;
        let (rows, heads, scale) = (self.rows, c.heads, (c.head_dim as f32).sqrt().recip());
        let attention = Attention { rows, q, ring, cap, compressed, sinks, heads, scale };
        let o = ops::attention(&mut self.g, attention);
        // The values were rotated with the keys; this takes the query's own rotation out again.
        ops::head_rope(&mut self.g, o, rope, c.heads, None, true);

        let groups = c.o_groups;
        let inner = c.heads * c.head_dim / groups;
        let wo_a = self.matrix(&format!("{p}.wo_a.weight"), groups * c.o_lora, inner)?;
        let z = ops::matmul_with(&mut self.g, o, wo_a, Extra { groups, ..Extra::default() });
        self.linear(z, &format!("{p}.wo_b.weight"), c.hidden)
    }

    /// Entries of a compressed cache: those a full context closes, and room for one at least.
    fn entries(&self, ratio: usize) -> usize {
        (self.capacity.context / ratio).max(1)
    }

    /// Pools windows of `ratio` tokens into entries of width `dim`; gives the cache they go to.
    fn compress(&mut self, x: TensorId, p: &str, dim: usize, kind: LayerKind) -> Result<TensorId> {
        let (ratio, overlap) = match kind {
            LayerKind::Csa { ratio } => (ratio, true),
            LayerKind::Hca { ratio } => (ratio, false),
            LayerKind::Window => unreachable!("a window layer compresses nothing"),
        };
        let series = if overlap { 2 } else { 1 };
        let (slots, width) = (self.capacity.slots, series * dim);
        // The windows a chunk closes may begin before it.
        let cap = series * ratio + self.capacity.chunk;
        let entries = self.entries(ratio);

        let kv = self.linear(x, &format!("{p}.wkv.weight"), width)?;
        let score = self.linear(x, &format!("{p}.wgate.weight"), width)?;
        let ape = self.w.table(&mut self.g, &format!("{p}.ape"), ratio, width)?;
        let kv_ring = self.g.state(format!("{p}.kv"), slots * cap, width);
        let score_ring = self.g.state(format!("{p}.score"), slots * cap, width);
        let (g, rows) = (&mut self.g, self.rows);
        ops::ring_write(g, rows, kv, kv_ring, cap, None);
        ops::ring_write(g, rows, score, score_ring, cap, Some((ape, ratio)));

        let norm = self.vector(&format!("{p}.norm.weight"), dim)?;
        let table = self.rope(kind, Some(ratio));
        let cache = self.g.state(format!("{p}.entries"), slots * entries, dim);
        let (kv, score, eps) = (kv_ring, score_ring, self.c.eps);
        ops::compress(
            &mut self.g,
            Compress { rows, kv, score, norm, table, cache, cap, entries, ratio, overlap, eps },
        );
        Ok(cache)
    }

    /// The lightning indexer: which compressed entries each row attends to.
    fn index(
        &mut self,
        x: TensorId,
        qr: TensorId,
        p: &str,
        rope: TensorId,
        kind: LayerKind,
    ) -> Result<TensorId> {
        let LayerKind::Csa { ratio } = kind else {
            unreachable!("only CSA layers have an indexer")
        };
        let c = self.c;
        let keys = self.compress(x, &format!("{p}.compressor"), c.index_dim, kind)?;
        let q = self.linear(qr, &format!("{p}.wq_b.weight"), c.index_heads * c.index_dim)?;
        ops::head_rope(&mut self.g, q, rope, c.index_heads, None, false);
        let weights = self.linear(x, &format!("{p}.weights_proj.weight"), c.index_heads)?;
        let scale = ((c.index_dim * c.index_heads) as f32).sqrt().recip();
        let (rows, entries) = (self.rows, self.entries(ratio));
        let scores = IndexScores { rows, q, weights, keys, entries, ratio, scale };
        let scores = ops::index_scores(&mut self.g, scores);
        let k = c.index_topk.min(entries);
        Ok(ops::topk(&mut self.g, rows, scores, ratio, k))
    }

    fn experts(&mut self, x: TensorId, l: usize) -> Result<TensorId> {
        let c = self.c;
        let p = format!("layers.{l}.ffn");
        let (k, rows) = (c.experts_per_token, self.rows);

        let logits = self.linear(x, &format!("{p}.gate.weight"), c.experts)?;
        let hashed = l < c.hash_layers;
        let hash = match hashed {
            true => {
                let name = format!("{p}.gate.tid2eid");
                Some(self.w.integers(&mut self.g, &name, [c.vocab, k], c.experts)?)
            }
            false => None,
        };
        let bias = match hashed {
            true => None,
            false => Some(self.vector(&format!("{p}.gate.bias"), c.experts)?),
        };
        let image_bias = match &c.vision {
            Some(_) => Some(self.vector(&format!("{p}.gate.bias_vl"), c.experts)?),
            None => None,
        };
        let route = Route { rows, logits, bias, image_bias, hash, k, scale: c.route_scale };
        let (ids, weights) = ops::route(&mut self.g, route);
        // Every expert is resident: the page table is the identity.
        let pages = self.w.known(&mut self.g, "expert_pages", (0..c.experts as u32).collect());
        let tiles = (self.g.max.rows > FEW_ROWS)
            .then(|| ops::expert_tiles(&mut self.g, ids, c.experts, EXPERT_TILE));
        let chosen = Chosen { ids, weights, pages, tiles };

        let w1 = self.bank(&p, "w1", c.moe_inter, c.hidden)?;
        let w3 = self.bank(&p, "w3", c.moe_inter, c.hidden)?;
        let w2 = self.bank(&p, "w2", c.hidden, c.moe_inter)?;
        let h = ops::expert_gate_up(&mut self.g, x, w1, w3, chosen, c.swiglu_limit);
        let routed = ops::expert_down(&mut self.g, h, w2, chosen);

        let shared = match c.shared_experts * c.moe_inter {
            0 => None,
            inter => {
                let gate = self.linear(x, &format!("{p}.shared_experts.w1.weight"), inter)?;
                let up = self.linear(x, &format!("{p}.shared_experts.w3.weight"), inter)?;
                let h = ops::swiglu(&mut self.g, gate, Some(up), c.swiglu_limit);
                Some(self.linear(h, &format!("{p}.shared_experts.w2.weight"), c.hidden)?)
            }
        };
        Ok(ops::combine(&mut self.g, routed, k, shared))
    }

    fn bank(&mut self, p: &str, name: &str, rows: usize, cols: usize) -> Result<TensorId> {
        let parts = (0..self.c.experts).map(|e| format!("{p}.experts.{e}.{name}.weight")).collect();
        self.w.bank(&mut self.g, &format!("{p}.experts.{name}"), parts, rows, cols)
    }

    /// The input of cosines and sines for a layer of this kind: of each row's position, or of the
    /// start of the window of `window` tokens it closes.
    fn rope(&mut self, kind: LayerKind, window: Option<usize>) -> TensorId {
        let c = self.c;
        let (name, theta, yarn) = match kind {
            LayerKind::Window => ("rope", c.rope_theta, None),
            _ => ("rope_compress", c.compress_rope_theta, c.yarn),
        };
        let name = match window {
            Some(w) => format!("{name}_{w}"),
            None => name.to_owned(),
        };
        let input = self.g.input(&name, Elem::F32, Extent::ROWS, c.rope_dim);
        if self.ropes.iter().all(|t| t.input != input) {
            let frequencies = frequencies(c.rope_dim, theta, yarn);
            self.ropes.push(RopeTable { input, frequencies, window });
        }
        input
    }
}
