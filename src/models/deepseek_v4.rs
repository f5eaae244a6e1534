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
    self, ActRound, Attention, Closed, Columns, Compress, Compressed, EmbedVision, Extra, HeadRope,
    IndexScores, LatentKeep, MOST_ROTATED, MOST_STREAMS, MhcHead, MhcPost, MhcPre, Narrow, Route,
    Score,
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
    let mut mix = None;
    for (l, kind) in c.layers.iter().enumerate() {
        b.g.set_layer(Some(l));
        mix = b.layer(l, *kind, streams, mix)?;
    }
    b.g.set_layer(None);

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
    if !c.head_dim.is_multiple_of(2) {
        let what = format!("`head_dim` is {}, Fathom's kernels take even ones", c.head_dim);
        return Err(Error::Config(what));
    }
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

/// How a layer's compressors pool tokens.
#[derive(Clone, Copy)]
struct Pooling {
    /// Tokens a window.
    ratio: usize,
    /// Whether a window reaches into the one before, with a series of its own.
    overlap: bool,
}

impl Pooling {
    fn of(kind: LayerKind) -> Option<Self> {
        match kind {
            LayerKind::Window => None,
            LayerKind::Hca { ratio } => Some(Self { ratio, overlap: false }),
            LayerKind::Csa { ratio } => Some(Self { ratio, overlap: true }),
        }
    }

    /// Series of what is pooled.
    fn series(self) -> usize {
        if self.overlap { 2 } else { 1 }
    }

    /// The matrices of compressors, of each its name and the width of its entries.
    fn matrices(self, pools: &[(String, usize)]) -> Vec<(String, usize)> {
        let of = |(pool, dim): &(String, usize)| {
            ["wkv", "wgate"].map(|name| (format!("{pool}.{name}"), self.series() * dim))
        };
        pools.iter().flat_map(of).collect()
    }
}

impl Builder<'_, '_, V4Config> {
    /// A layer, whose first mix of the streams the layer before has made; gives that of the next one.
    fn layer(
        &mut self,
        l: usize,
        kind: LayerKind,
        streams: TensorId,
        mix: Option<TensorId>,
    ) -> Result<Option<TensorId>> {
        let layer = format!("layers.{l}");
        let (attn, ffn) = (format!("{layer}.hc_attn"), format!("{layer}.hc_ffn"));
        let next = (l + 1 < self.c.layers.len()).then(|| format!("layers.{}.hc_attn", l + 1));

        let norm = format!("{layer}.attn_norm.weight");
        let (x, coef) = self.hc_pre(streams, mix, &attn, &norm)?;
        let block = self.attention(x, l, kind)?;
        let mix = self.hc_post(streams, coef, block, Some(&ffn))?;

        let norm = format!("{layer}.ffn_norm.weight");
        let (x, coef) = self.hc_pre(streams, mix, &ffn, &norm)?;
        let block = self.routed(x, l)?;
        self.hc_post(streams, coef, block, next.as_deref())
    }

    /// The mixing matrix of a sub-layer: small, and read while the streams are written.
    fn hc_mixer(&mut self, hc: &str) -> Result<TensorId> {
        let (n, hidden) = (self.c.hc_mult, self.c.hidden);
        self.w.table(&mut self.g, &format!("{hc}_fn"), (2 + n) * n, n * hidden)
    }

    /// Collapses the streams, with their mix if there is one yet, into a sub-layer's normed input; also
    /// the coefficients to go back.
    fn hc_pre(
        &mut self,
        streams: TensorId,
        mix: Option<TensorId>,
        hc: &str,
        norm: &str,
    ) -> Result<(TensorId, TensorId)> {
        let (n, c) = (self.c.hc_mult, self.c);
        let mix = match mix {
            Some(mix) => mix,
            None => {
                let w = self.hc_mixer(hc)?;
                self.multiply(streams, w, Extra::default())
            }
        };
        let base = self.vector(&format!("{hc}_base"), (2 + n) * n)?;
        let scale = self.vector(&format!("{hc}_scale"), 3)?;
        let norm = self.vector(norm, c.hidden)?;
        let (iters, hc_eps, eps) = (c.hc_iters, c.hc_eps, c.eps);
        let pre = MhcPre { streams, mix, base, scale, norm, n, iters, hc_eps, eps };
        Ok(ops::mhc_pre(&mut self.g, pre))
    }

    /// Writes a sub-layer's output into the streams; gives their mix for the next one, if there is one.
    fn hc_post(
        &mut self,
        streams: TensorId,
        coef: TensorId,
        block: TensorId,
        next: Option<&str>,
    ) -> Result<Option<TensorId>> {
        let post = MhcPost { streams, coef, block, n: self.c.hc_mult };
        let Some(next) = next else {
            ops::mhc_post(&mut self.g, post);
            return Ok(None);
        };
        let w = self.hc_mixer(next)?;
        Ok(Some(ops::mhc_post_mix(&mut self.g, post, w)))
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
        let indexer = format!("{p}.indexer");
        let (rows, rope, pooling) = (self.rows, self.rope_of(kind, None), Pooling::of(kind));
        let (full, picks) = (c.qat == Qat::Full, matches!(kind, LayerKind::Csa { .. }));

        // All that is made of the layer's input.
        let narrow = self.narrow(x, full);
        let mut parts = vec![
            (narrow, vec![(format!("{p}.wq_a"), c.q_lora)]),
            (narrow, vec![(format!("{p}.wkv"), c.head_dim)]),
        ];
        let mut pools = vec![];
        if let Some(pooling) = pooling {
            pools.push((format!("{p}.compressor"), c.head_dim));
            if picks {
                pools.push((format!("{indexer}.compressor"), c.index_dim));
            }
            parts.push((x, pooling.matrices(&pools)));
        }
        if picks {
            parts.push((x, vec![(format!("{indexer}.weights_proj"), c.index_heads)]));
        }
        // Whoever reads columns of these may load 8 at a time.
        let made = self.project_each(&parts, 8)?;
        let (qr, latent) = (made[0], made[1]);

        let norm = self.vector(&format!("{p}.q_norm.weight"), c.q_lora)?;
        let qr = ops::rms_norm(&mut self.g, qr, norm, c.eps);
        let qr = self.narrow(qr, full);
        let mut parts = vec![(qr, vec![(format!("{p}.wq_b"), c.heads * c.head_dim)])];
        if picks {
            let outputs = c.index_heads * c.index_dim;
            parts.push((qr, vec![(format!("{indexer}.wq_b"), outputs)]));
        }
        // Queries of the indexer that are rounded have a tensor for themselves.
        let at_once = if full { 1 } else { 2 };
        let mut queries = vec![];
        for parts in parts.chunks(at_once) {
            queries.extend(self.project_each(parts, 1)?);
        }
        let (q, index_q) = (queries[0].of, queries.get(1).copied());

        // Long enough that a whole chunk can be written before any of its rows looks back.
        let window = c.window.min(self.capacity.context);
        let cap = window + self.capacity.chunk;
        let ring = self.g.state(format!("{p}.window"), self.capacity.slots * cap, c.head_dim);
        let norm = self.vector(&format!("{p}.kv_norm.weight"), c.head_dim)?;
        let beside = index_q.is_some_and(|i| i.of == q);
        let (table, heads, eps) = (rope, c.heads, c.eps);
        let index_heads = if beside { c.index_heads } else { 0 };
        ops::latent_keep(
            &mut self.g,
            LatentKeep { rows, q, heads, index_heads, latent, norm, table, ring, cap, eps },
        );
        if let Some(r) = self.kept() {
            ops::act_round_closed(&mut self.g, ring, Closed { rows, entries: cap, ratio: 1 }, r);
        }

        let mut compressed = None;
        if let Some(pooling) = pooling {
            let caches = self.compress(&p, made[2], &pools, kind, pooling)?;
            let mut select = None;
            if let Some(q) = index_q {
                if !beside {
                    self.index_queries(q.of, rope);
                }
                select = Some(self.pick(q, made[3], caches[1], pooling.ratio));
            }
            let (cache, ratio, entries) = (caches[0], pooling.ratio, self.entries(pooling.ratio));
            compressed = Some(Compressed { cache, entries, ratio, select });
        }
        let sinks = self.vector(&format!("{p}.attn_sink"), c.heads)?;
        let scale = (c.head_dim as f32).sqrt().recip();
        let o = ops::attention(
            &mut self.g,
            Attention { rows, q, table, ring, cap, window, compressed, sinks, heads, scale },
        );

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

    /// Pools windows of tokens, `x` being what the compressors called `pools` made of the layer's input,
    /// into entries of their widths: attention's, then the indexer's. Gives the caches they go to.
    fn compress(
        &mut self,
        p: &str,
        x: Columns,
        pools: &[(String, usize)],
        kind: LayerKind,
        pooling: Pooling,
    ) -> Result<Vec<TensorId>> {
        let Pooling { ratio, overlap } = pooling;
        let (rows, slots, entries) = (self.rows, self.capacity.slots, self.entries(ratio));
        // The windows a chunk closes may begin before it.
        let cap = pooling.series() * ratio + self.capacity.chunk;
        let columns = pooling.matrices(pools).iter().map(|m| m.1).sum();
        let ring = self.g.state(format!("{p}.pooled"), slots * cap, columns);

        let (mut weights, mut caches) = (vec![], vec![]);
        for (pool, dim) in pools {
            weights.push((format!("{pool}.ape"), ratio * pooling.series() * dim));
            weights.push((format!("{pool}.norm.weight"), *dim));
            caches.push(self.g.state(format!("{pool}.entries"), slots * entries, *dim));
        }
        let weights = self.w.joined(&mut self.g, weights)?;
        let (table, eps) = (self.rope_of(kind, Some(ratio)), self.c.eps);
        let all = caches.clone();
        let c =
            Compress { rows, x, weights, table, ring, caches, cap, entries, ratio, overlap, eps };
        ops::compress(&mut self.g, c);
        for (cache, rounding) in all.iter().zip([self.kept(), self.indexed(1)]) {
            if let Some(r) = rounding {
                ops::act_round_closed(&mut self.g, *cache, Closed { rows, entries, ratio }, r);
            }
        }
        Ok(all)
    }

    /// Readies queries of the indexer that have a tensor for themselves.
    fn index_queries(&mut self, q: TensorId, rope: TensorId) {
        let heads = self.c.index_heads;
        ops::head_rope(&mut self.g, HeadRope::new(q, rope, heads));
        if let Some(r) = self.indexed(heads) {
            ops::act_round_in_place(&mut self.g, q, r);
        }
    }

    /// The lightning indexer: which compressed entries each row attends to.
    fn pick(&mut self, q: Columns, weights: Columns, keys: TensorId, ratio: usize) -> TensorId {
        let (c, rows, entries) = (self.c, self.rows, self.entries(ratio));
        let heads = c.index_heads;
        let scale = ((c.index_dim * heads) as f32).sqrt().recip();
        let scores = IndexScores { rows, q, weights, heads, keys, entries, ratio, scale };
        ops::index_topk(&mut self.g, scores, c.index_topk.min(entries))
    }

    fn routed(&mut self, x: TensorId, l: usize) -> Result<TensorId> {
        let c = self.c;
        let p = format!("layers.{l}.ffn");
        let (k, rows) = (c.experts_per_token, self.rows);

        let logits = self.router(x, &format!("{p}.gate.weight"), c.experts)?;
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
