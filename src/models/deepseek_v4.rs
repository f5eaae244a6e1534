//! DeepSeek V4 (V4-Flash, V4-Flash-Vision-Exp, V4-Pro): the language model.
//!
//! Every layer has two sub-layers, attention and mixture of experts, each wrapped by
//! manifold-constrained hyper-connections over `N` residual streams. Attention is multi-query over
//! one latent that is both key and value, through a sliding window and, on most layers, compressed
//! entries: few and all visible (HCA) or many and picked by an indexer (CSA).

use super::builder::{Builder, Experts, at_most};
use super::{Capacity, ModelWeights, RopeTable, TextTensors, frequencies};
use crate::formats::{LayerKind, Qat, RopeScaling, V4Config};
use crate::graph::{Elem, Extent, Graph, StepSize, TensorId};
use crate::ops::{
    self, ActRound, Attention, Closed, Compress, Compressed, EmbedVision, Extra, HeadRope,
    IndexScores, MOST_ROTATED, MOST_STREAMS, MhcHead, MhcPre, Narrow, Route, Score,
};
use crate::{Error, Result};

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
    let c = config;
    check(c)?;
    let mut b = Builder::new("deepseek_v4", c, weights, capacity, max);

    let vision = match &c.vision {
        Some(_) => Some(EmbedVision {
            images: b.g.input("images", Elem::F32, Extent::ROWS, c.hidden),
            marks: b.w.stacked(
                &mut b.g,
                "image_marks",
                &["image_start", "image_pad", "image_newline", "image_end"],
                c.hidden,
            )?,
        }),
        None => None,
    };
    let images = vision.as_ref().map(|v| v.images);
    let table = b.matrix("embed.weight", c.vocab, c.hidden)?;
    let streams = ops::embed(&mut b.g, b.rows, table, vision, c.hc_mult);
    for (l, kind) in c.layers.iter().enumerate() {
        b.layer(l, *kind, streams)?;
    }

    let last = ops::gather(&mut b.g, streams, b.outs);
    let x = b.hc_head(last)?;
    let head = b.matrix("head.weight", c.vocab, c.hidden)?;
    Ok(b.finish(x, head, images))
}

/// Sinkhorn iterations above which a config is taken to be mistaken: a step would never end.
const MOST_ITERATIONS: usize = 1000;

/// Refuses dimensions that the kernels have no room for.
fn check(c: &V4Config) -> Result<()> {
    at_most("hc_mult", c.hc_mult, MOST_STREAMS)?;
    at_most("hc_sinkhorn_iters", c.hc_iters, MOST_ITERATIONS)?;
    let rotated = c.qat == Qat::Full && c.index_dim > 0;
    if rotated && !(c.index_dim.is_power_of_two() && c.index_dim <= MOST_ROTATED) {
        return Err(Error::Config(format!(
            "`index_head_dim` is {}: --qat full rotates indexer heads of a power of two up to \
             {MOST_ROTATED}",
            c.index_dim
        )));
    }
    Builder::<V4Config>::check_experts(c.experts, c.experts_per_token)
}

impl Builder<'_, '_, V4Config> {
    fn layer(&mut self, l: usize, kind: LayerKind, streams: TensorId) -> Result<()> {
        let n = self.c.hc_mult;
        let layer = format!("layers.{l}");

        let (x, coef) = self.hc_pre(streams, &format!("{layer}.hc_attn"), &layer, "attn_norm")?;
        let block = self.attention(x, l, kind)?;
        ops::mhc_post(&mut self.g, streams, coef, block, n);

        let (x, coef) = self.hc_pre(streams, &format!("{layer}.hc_ffn"), &layer, "ffn_norm")?;
        let block = self.routed(x, l)?;
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
        let rope = self.rope_of(kind, None);

        let full = c.qat == Qat::Full;
        let narrow = self.narrow(x, full);
        let qr = self.linear(narrow, &format!("{p}.wq_a.weight"), c.q_lora)?;
        let qr = self.norm(qr, &format!("{p}.q_norm.weight"), c.eps)?;
        let qr = self.narrow(qr, full);
        let q = self.linear(qr, &format!("{p}.wq_b.weight"), c.heads * c.head_dim)?;
        ops::head_rope(&mut self.g, HeadRope::new(q, rope, c.heads).normed(c.eps));

        let kv = self.linear(narrow, &format!("{p}.wkv.weight"), c.head_dim)?;
        let kv = self.norm(kv, &format!("{p}.kv_norm.weight"), c.eps)?;
        ops::head_rope(&mut self.g, HeadRope::new(kv, rope, 1));
        if let Some(r) = self.kept() {
            ops::act_round_in_place(&mut self.g, kv, r);
        }
        // Long enough that a whole chunk can be written before any of its rows looks back.
        let window = c.window.min(self.capacity.context);
        let cap = window + chunk;
        let ring = self.g.state(format!("{p}.window"), slots * cap, c.head_dim);
        ops::ring_write(&mut self.g, self.rows, kv, ring, cap, None);

        let compressed = match kind {
            LayerKind::Window => None,
            LayerKind::Hca { ratio } => {
                let r = self.kept();
                let cache = self.compress(x, &format!("{p}.compressor"), c.head_dim, kind, r)?;
                let entries = self.entries(ratio);
                Some(Compressed { cache, entries, ratio, select: None })
            }
            LayerKind::Csa { ratio } => {
                let r = self.kept();
                let cache = self.compress(x, &format!("{p}.compressor"), c.head_dim, kind, r)?;
                let select = self.index(x, qr, &format!("{p}.indexer"), rope, kind)?;
                let entries = self.entries(ratio);
                Some(Compressed { cache, entries, ratio, select: Some(select) })
            }
        };
        let sinks = self.vector(&format!("{p}.attn_sink"), c.heads)?;
        let (rows, heads, scale) = (self.rows, c.heads, (c.head_dim as f32).sqrt().recip());
        let attention = Attention { rows, q, ring, cap, window, compressed, sinks, heads, scale };
        let o = ops::attention(&mut self.g, attention);
        // The values were rotated with the keys; this takes the query's own rotation out again.
        ops::head_rope(&mut self.g, HeadRope::new(o, rope, c.heads).inverse());

        let groups = c.o_groups;
        let extra = Extra { groups, ..Extra::default() };
        let z = self.linear_with(o, &format!("{p}.wo_a.weight"), groups * c.o_lora, extra)?;
        let z = self.narrow(z, full);
        self.linear(z, &format!("{p}.wo_b.weight"), c.hidden)
    }

    /// How keys and entries that attention keeps are rounded.
    fn kept(&self) -> Option<ActRound> {
        let cols = self.c.head_dim - self.c.rope_dim;
        let r = ActRound { heads: 1, cols, group: 64, to: Narrow::E4m3, rotate: false };
        (self.c.qat != Qat::Off && cols > 0).then_some(r)
    }

    /// How queries, of so many heads, and keys of the indexer are rounded.
    fn indexed(&self, heads: usize) -> Option<ActRound> {
        let (cols, group, to) = (self.c.index_dim, 32, Narrow::E2m1);
        (self.c.qat == Qat::Full).then_some(ActRound { heads, cols, group, to, rotate: true })
    }

    /// Entries of a compressed cache: those a full context closes, and room for one at least.
    fn entries(&self, ratio: usize) -> usize {
        (self.capacity.context / ratio).max(1)
    }

    /// Pools windows of `ratio` tokens into entries of width `dim`, rounded if so told; gives the
    /// cache they go to.
    fn compress(
        &mut self,
        x: TensorId,
        p: &str,
        dim: usize,
        kind: LayerKind,
        rounding: Option<ActRound>,
    ) -> Result<TensorId> {
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
        let table = self.rope_of(kind, Some(ratio));
        let cache = self.g.state(format!("{p}.entries"), slots * entries, dim);
        let (kv, score, eps) = (kv_ring, score_ring, self.c.eps);
        ops::compress(
            &mut self.g,
            Compress { rows, kv, score, norm, table, cache, cap, entries, ratio, overlap, eps },
        );
        if let Some(r) = rounding {
            ops::act_round_closed(&mut self.g, cache, Closed { rows, entries, ratio }, r);
        }
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
        let r = self.indexed(1);
        let keys = self.compress(x, &format!("{p}.compressor"), c.index_dim, kind, r)?;
        let q = self.linear(qr, &format!("{p}.wq_b.weight"), c.index_heads * c.index_dim)?;
        ops::head_rope(&mut self.g, HeadRope::new(q, rope, c.index_heads));
        if let Some(r) = self.indexed(c.index_heads) {
            ops::act_round_in_place(&mut self.g, q, r);
        }
        let weights = self.linear(x, &format!("{p}.weights_proj.weight"), c.index_heads)?;
        let scale = ((c.index_dim * c.index_heads) as f32).sqrt().recip();
        let (rows, entries) = (self.rows, self.entries(ratio));
        let scores = IndexScores { rows, q, weights, keys, entries, ratio, scale };
        Ok(ops::index_topk(&mut self.g, scores, c.index_topk.min(entries)))
    }

    fn routed(&mut self, x: TensorId, l: usize) -> Result<TensorId> {
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
        let (score, groups, normalise) = (Score::SqrtSoftplus, None, true);
        let scale = c.route_scale;
        let route =
            Route { rows, logits, bias, image_bias, hash, k, score, groups, normalise, scale };
        let (ids, weights) = ops::route(&mut self.g, route);
        let experts = Experts {
            prefix: &p,
            matrices: ["w1", "w3", "w2"],
            count: c.experts,
            inter: c.moe_inter,
            shared_inter: c.shared_experts * c.moe_inter,
            limit: c.swiglu_limit,
            narrow: c.qat == Qat::Full,
            ids,
            weights,
        };
        self.experts(x, &experts, None)
    }

    /// The input of cosines and sines for a layer of this kind: of each row's position, or of the
    /// start of the window of `window` tokens it closes.
    fn rope_of(&mut self, kind: LayerKind, window: Option<usize>) -> TensorId {
        let c = self.c;
        let (name, theta, scaling) = match kind {
            LayerKind::Window => ("rope", c.rope_theta, RopeScaling::Plain),
            _ => {
                let scaling = c.yarn.map_or(RopeScaling::Plain, RopeScaling::Yarn);
                ("rope_compress", c.compress_rope_theta, scaling)
            }
        };
        let name = match window {
            Some(w) => format!("{name}_{w}"),
            None => name.to_owned(),
        };
        let input = self.g.input(&name, Elem::F32, Extent::ROWS, c.rope_dim);
        if self.ropes.iter().all(|t| t.input != input) {
            let frequencies = frequencies(c.rope_dim, theta, &scaling);
            self.ropes.push(RopeTable { input, frequencies, amplitude: 1.0, window });
        }
        input
    }
}
