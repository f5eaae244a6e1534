//! `config.json` of DeepSeek V2, V2-Lite, V3 (R1, V3.1) and V3.2.

use super::config::{flag, token_ids};
use super::config_rope::{Rope, rope, sharpening};
use super::fields::Fields;
use crate::Result;

/// Which models with multi-head latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlaFamily {
    /// V2, V2-Lite, V2.5: experts are scored by softmax; a group of them counts by its best.
    V2,
    /// V3, R1, V3.1: experts are scored by sigmoid and chosen with a correction bias; a group
    /// counts by its best two.
    V3,
    /// V3.2: V3 with an indexer that picks the positions a row attends to.
    V32,
}

/// Dimensions of V3.2's indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexConfig {
    /// Heads.
    pub heads: usize,
    /// Width of a head, at least the rotated elements.
    pub dim: usize,
    /// Positions it picks.
    pub topk: usize,
}

/// Dimensions and constants of a model with multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct MlaConfig {
    /// Which models it is one of.
    pub family: MlaFamily,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers. Further ones in a checkpoint predict more tokens at once and are not run.
    pub layers: usize,
    /// Query heads; each has its own keys and values, made of one latent a position.
    pub heads: usize,
    /// Rank of the query projection; `None` if it is a single matrix.
    pub q_lora: Option<usize>,
    /// Width of the latent that keys and values are made of.
    pub kv_lora: usize,
    /// Elements of a query or key that are not rotated; they come first.
    pub nope_dim: usize,
    /// Elements that are rotated; even. All heads share those of the key.
    pub rope_dim: usize,
    /// Width of a head's value.
    pub v_dim: usize,
    /// Whether pairs that rotate together are neighbours rather than halves of the rotated part.
    pub rope_interleaved: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// Factor on the scores of attention.
    pub attention_scale: f32,
    /// Whether the projections to the latents and the output projection have biases.
    pub attention_bias: bool,
    /// The indexer of V3.2.
    pub index: Option<IndexConfig>,
    /// Width inside the feed-forward of a layer without experts.
    pub inter: usize,
    /// The first so many layers have no experts; at most `layers`.
    pub dense_layers: usize,
    /// Routed experts a layer.
    pub experts: usize,
    /// Routed experts a token visits.
    pub experts_per_token: usize,
    /// Shared experts, all in one matrix `shared_experts * moe_inter` wide.
    pub shared_experts: usize,
    /// Width inside an expert.
    pub moe_inter: usize,
    /// Groups the experts are parted in; 1 for none.
    pub groups: usize,
    /// Groups a token's experts may come from.
    pub top_groups: usize,
    /// Whether the weights of a token's experts are made to add up to 1.
    pub normalise: bool,
    /// Factor on these weights.
    pub route_scale: f32,
    /// Token ids the embedding table knows.
    pub vocab: usize,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Most tokens a sequence may have.
    pub max_context: usize,
    /// Added to the mean square in the norms of layers. Those of latents have their own.
    pub eps: f32,
    /// Id of the token that begins a text.
    pub bos: Option<u32>,
    /// Ids of the tokens that end an answer.
    pub eos: Vec<u32>,
}

impl MlaConfig {
    /// Reads a config that is known to be of `family`.
    pub(super) fn read(f: &Fields<'_>, family: MlaFamily) -> Result<Self> {
        let v2 = family == MlaFamily::V2;
        check_fixed_choices(f, v2)?;
        let layers = f.size(&["num_hidden_layers"])?;
        let vocab = f.size(&["vocab_size"])?;
        let defaults = if v2 { (2048, 1, 2) } else { (4096, 0, 1) };
        let max_context = f.size_or(&["max_position_embeddings"], defaults.0)?;
        let ids = |name, default| -> Result<Vec<u32>> {
            let ids = token_ids(f, name, vocab)?;
            Ok(if ids.is_empty() { vec![default] } else { ids })
        };
        let (nope_dim, rope_dim) = (f.size(&["qk_nope_head_dim"])?, f.size(&["qk_rope_head_dim"])?);
        let rope = rope(f, rope_dim, max_context)?;
        let (groups, top_groups) = groups(f, family)?;
        let config = Self {
            family,
            hidden: f.size(&["hidden_size"])?,
            layers,
            heads: f.size(&["num_attention_heads"])?,
            q_lora: f.count(&["q_lora_rank"])?.filter(|&rank| rank > 0),
            kv_lora: f.size(&["kv_lora_rank"])?,
            nope_dim,
            rope_dim,
            v_dim: f.size(&["v_head_dim"])?,
            rope_interleaved: flag(f, "rope_interleave", true)?,
            attention_scale: ((nope_dim + rope_dim) as f32).sqrt().recip() * sharpening(f, &rope)?,
            rope,
            attention_bias: flag(f, "attention_bias", false)?,
            index: index(f, family)?,
            inter: f.size(&["intermediate_size"])?,
            dense_layers: dense_layers(f, layers, if v2 { 0 } else { 3 })?,
            experts: f.size(&["n_routed_experts", "num_experts"])?,
            experts_per_token: f.size(&["num_experts_per_tok"])?,
            shared_experts: f.count(&["n_shared_experts"])?.unwrap_or(if v2 { 2 } else { 1 }),
            moe_inter: f.size(&["moe_intermediate_size"])?,
            groups,
            top_groups,
            normalise: flag(f, "norm_topk_prob", !v2)?,
            route_scale: f.positive(&["routed_scaling_factor"])?.unwrap_or(if v2 {
                1.0
            } else {
                2.5
            }),
            vocab,
            tied: flag(f, "tie_word_embeddings", false)?,
            max_context,
            eps: f.positive(&["rms_norm_eps"])?.unwrap_or(1e-6),
            bos: ids("bos_token_id", defaults.1)?.first().copied(),
            eos: ids("eos_token_id", defaults.2)?,
        };
        config.check_relations(f)?;
        Ok(config)
    }

    /// Refuses dimensions that do not fit each other.
    fn check_relations(&self, f: &Fields<'_>) -> Result<()> {
        if !self.rope_dim.is_multiple_of(2) {
            return Err(f.error("qk_rope_head_dim", "expected an even number"));
        }
        if !self.experts.is_multiple_of(self.groups) {
            let what = format!("does not divide the {} experts", self.experts);
            return Err(f.error("n_group", what));
        }
        let group = self.experts / self.groups;
        if self.family != MlaFamily::V2 && self.groups > 1 && group < 2 {
            return Err(f.error("n_group", "expected groups of at least two experts"));
        }
        if self.top_groups > self.groups {
            let what = format!("more than the {} groups of experts", self.groups);
            return Err(f.error("topk_group", what));
        }
        if self.experts_per_token > self.top_groups * group {
            let what = format!("a token can only choose from {} experts", self.top_groups * group);
            return Err(f.error("num_experts_per_tok", what));
        }
        if self.index.is_some_and(|index| index.dim < self.rope_dim) {
            let what = format!("smaller than the {} elements that are rotated", self.rope_dim);
            return Err(f.error("index_head_dim", what));
        }
        if self.index.is_some() && self.q_lora.is_none() {
            return Err(f.missing(&["q_lora_rank"]));
        }
        Ok(())
    }
}

/// Refuses choices that the families' files can express but no released model makes.
fn check_fixed_choices(f: &Fields<'_>, v2: bool) -> Result<()> {
    f.fixed("hidden_act", "silu")?;
    f.fixed("mlp_bias", false)?;
    f.fixed("moe_layer_freq", 1)?;
    if v2 {
        f.fixed("scoring_func", "softmax")?;
        f.fixed("norm_topk_prob", false)
    } else {
        f.fixed("scoring_func", "sigmoid")?;
        f.fixed("topk_method", "noaux_tc")
    }
}

/// (groups of experts, groups a token's experts may come from).
fn groups(f: &Fields<'_>, family: MlaFamily) -> Result<(usize, usize)> {
    let limited = match family {
        MlaFamily::V3 | MlaFamily::V32 => {
            return Ok((f.size_or(&["n_group"], 8)?, f.size_or(&["topk_group"], 4)?));
        }
        MlaFamily::V2 => f.get::<String>(&["topk_method"], "a text")?,
    };
    match limited.as_deref() {
        None | Some("greedy") => Ok((1, 1)),
        Some("group_limited_greedy") => Ok((f.size(&["n_group"])?, f.size(&["topk_group"])?)),
        Some(_) => {
            let what = "only \"greedy\" and \"group_limited_greedy\" are supported";
            Err(f.error("topk_method", what))
        }
    }
}

fn index(f: &Fields<'_>, family: MlaFamily) -> Result<Option<IndexConfig>> {
    if family != MlaFamily::V32 {
        return Ok(None);
    }
    Ok(Some(IndexConfig {
        heads: f.size_or(&["index_n_heads"], 64)?,
        dim: f.size_or(&["index_head_dim"], 128)?,
        topk: f.size_or(&["index_topk"], 2048)?,
    }))
}

/// How many of the layers have no experts: from a number, or from Transformers' `mlp_layer_types`.
fn dense_layers(f: &Fields<'_>, layers: usize, default: usize) -> Result<usize> {
    if let Some(types) = f.get::<Vec<String>>(&["mlp_layer_types"], "a list of texts")? {
        let dense = types.iter().take_while(|kind| *kind == "dense").count();
        if types.len() < layers || types.iter().skip(dense).any(|kind| kind != "sparse") {
            let what = format!("expected {layers} layers, of `dense` and then of `sparse`");
            return Err(f.error("mlp_layer_types", what));
        }
        return Ok(dense.min(layers));
    }
    Ok(f.count(&["first_k_dense_replace"])?.unwrap_or(default).min(layers))
}
