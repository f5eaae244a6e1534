//! DeepSeek V2, V2-Lite, V3, R1, V3.1 and V3.2.
//!
//! Every layer adds to one residual stream: multi-head latent attention (DeepSeek-V2,
//! arXiv:2405.04434), then a mixture of experts, in the first layers a plain feed-forward.
//!
//! Attention keeps one vector a position, `[c; k]`: the latent that the keys and values of all heads
//! are made of, and a rotated key that they share. With `K_h` and `V_h` a head's rows of
//! `kv_b_proj`, the head's score is `q . (K_h c) + q' . k = (K_h^T q) . c + q' . k` and its result
//! `sum w V_h c = V_h sum w c`. So queries are taken into the latent space, all heads attend to the
//! same vectors there, and what they gather is taken out again: keys and values are never made.
//!
//! In V3.2 an indexer picks the positions that a row attends to.

use super::builder::{Builder, Experts};
use super::{Capacity, ModelWeights, TextTensors};
use crate::Result;
use crate::formats::{MlaConfig, MlaFamily};
use crate::graph::{Elem, Extent, Graph, StepSize, TensorId};
use crate::ops::{
    self, CausalAttention, CopyColumns, Extra, GroupRank, Groups, HeadRope, IndexScores, Route,
    Score, Slice, Slices,
};

/// The norms of latents, and of the indexer's keys, have their own epsilon, whatever the config says.
const LATENT_EPS: f32 = 1e-6;

/// Builds the graph for steps of up to `max` rows.
///
/// # Errors
/// If a weight is missing, of the wrong shape or in a format without kernels, or there are more
/// experts than the kernels take.
pub fn text_graph(
    config: &MlaConfig,
    weights: &mut ModelWeights<'_>,
    capacity: Capacity,
    max: StepSize,
) -> Result<(Graph, TextTensors)> {
    let c = config;
    Builder::<MlaConfig>::check_experts(c.experts, c.experts_per_token)?;
    let name = match c.family {
        MlaFamily::V2 => "deepseek_v2",
        MlaFamily::V3 => "deepseek_v3",
        MlaFamily::V32 => "deepseek_v32",
    };
    let mut b = Builder::new(name, c, weights, capacity, max);
    let rope = b.rope(c.rope_dim, &c.rope);
    let table = b.matrix("model.embed_tokens.weight", c.vocab, c.hidden)?;
    let mut x = ops::embed(&mut b.g, b.rows, table, None, 1);
    for l in 0..c.layers {
        b.g.set_layer(Some(l));
        x = b.layer(x, l, rope)?;
    }
    b.g.set_layer(None);
    b.finish_stream(x, c.eps, c.vocab, c.tied.then_some(table))
}

impl Builder<'_, '_, MlaConfig> {
    fn layer(&mut self, x: TensorId, l: usize, rope: TensorId) -> Result<TensorId> {
        let c = self.c;
        let p = format!("model.layers.{l}");
        let n = self.norm(x, &format!("{p}.input_layernorm.weight"), c.eps)?;
        let x = self.attention(n, &format!("{p}.self_attn"), rope, x)?;
        let n = self.norm(x, &format!("{p}.post_attention_layernorm.weight"), c.eps)?;
        if l < c.dense_layers {
            self.gated(n, &format!("{p}.mlp"), c.inter, false, x)
        } else {
            self.routed(n, &format!("{p}.mlp"), x)
        }
    }

    fn attention(
        &mut self,
        x: TensorId,
        p: &str,
        rope: TensorId,
        residual: TensorId,
    ) -> Result<TensorId> {
        let c = self.c;
        let width = c.heads * (c.nope_dim + c.rope_dim);
        let (q, select) = match c.q_lora {
            None => (self.linear(x, &format!("{p}.q_proj.weight"), width)?, None),
            Some(rank) => {
                let a = self.project(x, &format!("{p}.q_a_proj"), rank, c.attention_bias, None)?;
                let a = self.norm(a, &format!("{p}.q_a_layernorm.weight"), LATENT_EPS)?;
                let q = self.linear(a, &format!("{p}.q_b_proj.weight"), width)?;
                (q, self.index(x, a, &format!("{p}.indexer"), rope)?)
            }
        };
        self.turn(q, rope, c.heads, c.rope_interleaved);

        let (name, cols) = (format!("{p}.kv_a_proj_with_mqa"), c.kv_lora + c.rope_dim);
        let latent = self.project(x, &name, cols, c.attention_bias, None)?;
        let norm = self.vector(&format!("{p}.kv_a_layernorm.weight"), c.kv_lora)?;
        ops::rms_norm_part(&mut self.g, latent, norm, LATENT_EPS, c.kv_lora);
        self.turn(latent, rope, 1, c.rope_interleaved);
        let keys = self.keep(&format!("{p}.latent"), latent);

        let attention = CausalAttention {
            rows: self.rows,
            q: self.latent_queries(q, p)?,
            keys,
            values: None,
            value_dim: c.kv_lora,
            heads: c.heads,
            groups: 1,
            context: self.capacity.context,
            scale: c.attention_scale,
            select,
        };
        let o = ops::causal_attention(&mut self.g, attention);
        let o = self.heads_values(o, p)?;
        self.project(o, &format!("{p}.o_proj"), c.hidden, c.attention_bias, Some(residual))
    }

    /// Queries `[T, H * (nope + rope)]` as queries of latents, `[T, H * (kv_lora + rope)]`.
    fn latent_queries(&mut self, q: TensorId, p: &str) -> Result<TensorId> {
        let c = self.c;
        let (from_step, to_step) = (c.nope_dim + c.rope_dim, c.kv_lora + c.rope_dim);
        let to = self.g.scratch("q_latent", Elem::F32, Extent::ROWS, c.heads * to_step);
        let (x, y) = (Slice { step: from_step, at: 0 }, Slice { step: to_step, at: 0 });
        let whole = format!("{p}.kv_b_proj.weight");
        if self.w.has(&whole) {
            let rows = c.nope_dim + c.v_dim;
            let w = self.matrix(&whole, c.heads * rows, c.kv_lora)?;
            let slices = Slices { x, w: Slice { step: rows, at: 0 }, y, outputs: c.kv_lora };
            ops::matmul_transposed(&mut self.g, q, w, c.heads, c.nope_dim, slices, Some(to));
        } else {
            // GGUF files may have the halves apart, that of the keys transposed.
            let w =
                self.matrix(&format!("{p}.k_b_proj.weight"), c.heads * c.kv_lora, c.nope_dim)?;
            let slices = Slices { x, w: Slice { step: c.kv_lora, at: 0 }, y, outputs: c.kv_lora };
            let slices = Some(slices);
            let extra = Extra { groups: c.heads, slices, into: Some(to), ..Extra::default() };
            self.multiply(q, w, extra);
        }
        let (from_at, to_at) = (c.nope_dim, c.kv_lora);
        let (count, width) = (c.heads, c.rope_dim);
        let copy = CopyColumns { from: q, from_step, from_at, to, to_step, to_at, count, width };
        ops::copy_columns(&mut self.g, copy);
        Ok(to)
    }

    /// What heads gathered, `[T, H * kv_lora]`, as values, `[T, H * v]`.
    fn heads_values(&mut self, o: TensorId, p: &str) -> Result<TensorId> {
        let c = self.c;
        let whole = format!("{p}.kv_b_proj.weight");
        let (name, step, at) = match self.w.has(&whole) {
            true => (whole, c.nope_dim + c.v_dim, c.nope_dim),
            false => (format!("{p}.v_b_proj.weight"), c.v_dim, 0),
        };
        let w = self.matrix(&name, c.heads * step, c.kv_lora)?;
        let slices = Slices {
            x: Slice { step: c.kv_lora, at: 0 },
            w: Slice { step, at },
            y: Slice { step: c.v_dim, at: 0 },
            outputs: c.v_dim,
        };
        let extra = Extra { groups: c.heads, slices: Some(slices), ..Extra::default() };
        Ok(self.multiply(o, w, extra))
    }

    /// The lightning indexer of V3.2: which positions each row attends to, from the layer's input `x`
    /// and the latent `q_latent` of its queries. `None` if that is all of them.
    fn index(
        &mut self,
        x: TensorId,
        q_latent: TensorId,
        p: &str,
        rope: TensorId,
    ) -> Result<Option<TensorId>> {
        let context = self.capacity.context;
        let Some(i) = self.c.index.filter(|i| i.topk < context) else { return Ok(None) };
        let q = self.linear(q_latent, &format!("{p}.wq_b.weight"), i.heads * i.dim)?;
        let k = self.linear(x, &format!("{p}.wk.weight"), i.dim)?;
        let norm = self.vector(&format!("{p}.k_norm.weight"), i.dim)?;
        let bias = self.vector(&format!("{p}.k_norm.bias"), i.dim)?;
        let k = ops::layer_norm(&mut self.g, k, norm, bias, LATENT_EPS);
        // Unlike attention's, its heads begin with what is rotated, and halves rotate together.
        for (x, heads) in [(q, i.heads), (k, 1)] {
            ops::head_rope(&mut self.g, HeadRope::new(x, rope, heads).at(0).halves());
        }
        let keys = self.keep(&format!("{p}.keys"), k);
        let weights = self.linear(x, &format!("{p}.weights_proj.weight"), i.heads)?;
        let scale = ((i.dim * i.heads) as f32).sqrt().recip();
        let (rows, entries, ratio) = (self.rows, context, 1);
        let (q, weights, heads) = (q.into(), weights.into(), i.heads);
        let scores = IndexScores { rows, q, weights, heads, keys, entries, ratio, scale };
        Ok(Some(ops::index_topk(&mut self.g, scores, i.topk)))
    }

    /// The mixture of experts, plus `residual`.
    fn routed(&mut self, x: TensorId, p: &str, residual: TensorId) -> Result<TensorId> {
        let c = self.c;
        let logits = self.router(x, &format!("{p}.gate.weight"), c.experts)?;
        let (score, rank, bias) = match c.family {
            MlaFamily::V2 => (Score::Softmax, GroupRank::Max, None),
            MlaFamily::V3 | MlaFamily::V32 => {
                let bias = self.vector(&format!("{p}.gate.e_score_correction_bias"), c.experts)?;
                (Score::Sigmoid, GroupRank::TopTwo, Some(bias))
            }
        };
        let groups = (c.groups > 1).then_some(Groups { n: c.groups, top: c.top_groups, rank });
        let route = Route {
            rows: self.rows,
            logits,
            bias,
            image_bias: None,
            hash: None,
            k: c.experts_per_token,
            score,
            groups,
            normalise: c.normalise,
            scale: c.route_scale,
        };
        let (ids, weights) = ops::route(&mut self.g, route);
        let experts = Experts {
            prefix: p,
            matrices: ["gate_proj", "up_proj", "down_proj"],
            count: c.experts,
            inter: c.moe_inter,
            shared_inter: c.shared_experts * c.moe_inter,
            limit: f32::MAX,
            narrow: false,
            ids,
            weights,
        };
        self.experts(x, &experts, Some(residual))
    }
}
