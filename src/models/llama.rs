//! Llama and Qwen2, and the distills of DeepSeek R1 that are of these architectures.
//!
//! Every layer adds to one residual stream: attention in which groups of query heads share keys and
//! values, then a gated feed-forward. Qwen2 differs in its biases alone.

use super::builder::Builder;
use super::{Capacity, ModelWeights, TextTensors};
use crate::Result;
use crate::formats::DenseConfig;
use crate::graph::{Graph, StepSize, TensorId};
use crate::ops::{self, CausalAttention};

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
        x = b.layer(x, &format!("model.layers.{l}"), rope)?;
    }
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
        let width = c.kv_heads * c.head_dim;
        let q = self.project(x, &format!("{p}.q_proj"), c.heads * c.head_dim, c.qkv_bias, None)?;
        let k = self.project(x, &format!("{p}.k_proj"), width, c.qkv_bias, None)?;
        let v = self.project(x, &format!("{p}.v_proj"), width, c.qkv_bias, None)?;
        for (x, heads) in [(q, c.heads), (k, c.kv_heads)] {
            self.turn(x, rope, heads, c.rope_interleaved);
        }
        let keys = self.keep(&format!("{p}.keys"), k);
        let values = Some(self.keep(&format!("{p}.values"), v));
        let attention = CausalAttention {
            rows: self.rows,
            q,
            keys,
            values,
            value_dim: c.head_dim,
            heads: c.heads,
            groups: c.kv_heads,
            context: self.capacity.context,
            scale: (c.head_dim as f32).sqrt().recip(),
            select: None,
        };
        let o = ops::causal_attention(&mut self.g, attention);
        self.project(o, &format!("{p}.o_proj"), c.hidden, c.o_bias, Some(residual))
    }
}
