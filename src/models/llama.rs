//! Llama and Qwen2, and the distills of DeepSeek R1 that are of these architectures.
//!
//! Every layer adds to one residual stream: attention in which groups of query heads share keys and
//! values, then a gated feed-forward. Qwen2 differs in its biases alone.

use super::builder::Builder;
use super::{Capacity, ModelWeights, TextTensors};
use crate::Result;
use crate::formats::DenseConfig;
use crate::graph::{Graph, StepSize, TensorId};
use crate::ops::{self, CausalAttention, Pairs, RopeKeep};

/// Builds the graph for steps of up to `max` rows.
///
/// # Errors
/// If a weight is missing, of the wrong shape or in a format without kernels.
pub fn text_graph(
    config: &DenseConfig,
    weights: &mut ModelWeights<'_>,
    capacity: Capacity,
    max: StepSize,
) -> Result<(Graph, TextTensors)> {
    let c = config;
    let mut b = Builder::new(if c.qwen2 { "qwen2" } else { "llama" }, c, weights, capacity, max);
    let rope = b.rope(c.head_dim, &c.rope);
    let table = b.matrix("model.embed_tokens.weight", c.vocab, c.hidden)?;
    let mut x = ops::embed(&mut b.g, b.rows, table, None, 1);
    for l in 0..c.layers {
        b.g.set_layer(Some(l));
        x = b.layer(x, &format!("model.layers.{l}"), rope)?;
    }
    b.g.set_layer(None);
    b.finish_stream(x, c.eps, c.vocab, c.tied.then_some(table))
}

impl Builder<'_, '_, DenseConfig> {
    fn layer(&mut self, x: TensorId, p: &str, rope: TensorId) -> Result<TensorId> {
        let c = self.c;
        let n = self.norm(x, &format!("{p}.input_layernorm.weight"), c.eps)?;
        let x = self.attention(n, &format!("{p}.self_attn"), rope, x)?;
        let n = self.norm(x, &format!("{p}.post_attention_layernorm.weight"), c.eps)?;
        self.gated(n, &format!("{p}.mlp"), c.inter, c.mlp_bias, x)
    }

    fn attention(
        &mut self,
        x: TensorId,
        p: &str,
        rope: TensorId,
        residual: TensorId,
    ) -> Result<TensorId> {
        let c = self.c;
        let parts = [("q_proj", c.heads), ("k_proj", c.kv_heads), ("v_proj", c.kv_heads)]
            .map(|(name, heads)| (format!("{p}.{name}"), heads * c.head_dim));
        let q = self.project_all(x, &parts, c.qkv_bias)?;
        let Capacity { slots, context, .. } = self.capacity;
        let [keys, values] = ["keys", "values"].map(|name| {
            self.g.state(format!("{p}.{name}"), slots * context, c.kv_heads * c.head_dim)
        });
        let pairs = if c.rope_interleaved { Pairs::Interleaved } else { Pairs::Halves };
        let (rows, heads, groups) = (self.rows, c.heads, c.kv_heads);
        let keep =
            RopeKeep { rows, qkv: q, table: rope, keys, values, heads, groups, context, pairs };
        ops::rope_keep(&mut self.g, keep);
        let attention = CausalAttention {
            rows,
            q,
            keys,
            values: Some(values),
            value_dim: c.head_dim,
            heads,
            groups,
            context,
            scale: (c.head_dim as f32).sqrt().recip(),
            select: None,
        };
        let o = ops::causal_attention(&mut self.g, attention);
        self.project(o, &format!("{p}.o_proj"), c.hidden, c.o_bias, Some(residual))
    }
}
