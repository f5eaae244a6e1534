//! `config.json` of the V4 family, in the Hugging Face spelling or that of DeepSeek's reference
//! code, checked and under Fathom's names.

use std::path::Path;

use super::Checkpoint;
use super::config::{ModelConfig, token_ids};
use super::config_rope::{Yarn, kind};
use super::config_vision::{VisionConfig, vision};
use super::fields::Fields;
use crate::{Error, Result};

/// How a layer's attention sees beyond the sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// Not at all.
    Window,
    /// Through the `index_topk` compressed entries its indexer picks; entries overlap, one every
    /// `ratio` tokens.
    Csa {
        /// Tokens an entry advances by.
        ratio: usize,
    },
    /// Through every compressed entry, one for each `ratio` tokens.
    Hca {
        /// Tokens in an entry.
        ratio: usize,
    },
}

/// What of the reference's rounding of activations is imitated. The released models were trained
/// with all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qat {
    /// Nothing: the exact formulas, as Transformers and mlx-vlm compute them.
    #[default]
    Off,
    /// What attention keeps: keys of the window and compressed entries, to FP8 but for the rotated
    /// part.
    Kv,
    /// All: beside those the inputs of the matrices that are released in FP8 and FP4, to FP8, and the
    /// indexer's queries and keys, rotated, to FP4.
    Full,
}

/// Dimensions and constants of a model of the V4 family.
#[derive(Clone, Debug, PartialEq)]
pub struct V4Config {
    /// Width D of a residual stream.
    pub hidden: usize,
    /// The kind of each layer, first to last; its length is the number of layers.
    pub layers: Vec<LayerKind>,
    /// Query heads; they share one key-value head. A multiple of `o_groups`.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The last so many elements of a head are rotated; even.
    pub rope_dim: usize,
    /// Rank of the query projection.
    pub q_lora: usize,
    /// Groups of heads that the output projection first mixes apart.
    pub o_groups: usize,
    /// Rank of a group's output projection.
    pub o_lora: usize,
    /// Tokens in the sliding window, the current one included.
    pub window: usize,
    /// Heads of the indexer; 0 only if no layer has one.
    pub index_heads: usize,
    /// Width of an indexer head, at least `rope_dim`; 0 only if no layer has an indexer.
    pub index_dim: usize,
    /// Compressed entries an indexer picks; 0 only if no layer has one.
    pub index_topk: usize,
    /// Residual streams N of the hyper-connections.
    pub hc_mult: usize,
    /// Sinkhorn iterations that balance the mixing of streams.
    pub hc_iters: usize,
    /// Floor added in that balancing.
    pub hc_eps: f32,
    /// Routed experts a layer.
    pub experts: usize,
    /// Routed experts a token visits.
    pub experts_per_token: usize,
    /// Shared experts, all in one matrix `shared_experts * moe_inter` wide.
    pub shared_experts: usize,
    /// Width inside an expert.
    pub moe_inter: usize,
    /// The first so many layers pick experts by token id instead of by score.
    pub hash_layers: usize,
    /// Factor on the normalised weights of the routed experts.
    pub route_scale: f32,
    /// Bound on an expert's gate and up values; `f32::MAX` for none.
    pub swiglu_limit: f32,
    /// Token ids the embedding table knows; pictures use ids just above.
    pub vocab: usize,
    /// Rotary base of layers that do not compress.
    pub rope_theta: f32,
    /// Rotary base of layers that compress, and of their entries.
    pub compress_rope_theta: f32,
    /// Stretching of the rotary embedding of layers that compress.
    pub yarn: Option<Yarn>,
    /// Most tokens a sequence may have.
    pub max_context: usize,
    /// Added to the mean square in the text model's norms. May be so small that it only guards
    /// against 0/0.
    pub eps: f32,
    /// Id of the token that begins a text.
    pub bos: u32,
    /// Ids of the tokens that end an answer; at least one.
    pub eos: Vec<u32>,
    /// The vision tower, if the model has one.
    pub vision: Option<VisionConfig>,
    /// Whether the config speaks of the drafter that models since July 2026 carry. Fathom does not
    /// run it; it tells the prompt style.
    pub dspark: bool,
    /// `fathom_prompt_style`, if the folder's owner set it.
    pub prompt_style: Option<String>,
    /// How activations are rounded: what attention keeps, if the checkpoint is quantized to FP8 as
    /// released, else not at all.
    pub qat: Qat,
}

impl V4Config {
    /// Reads the `config.json` of `checkpoint`. Errors name the file, the field and its value.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        Self::parse(checkpoint.config_path(), checkpoint.config_text())
    }

    /// Reads the text of a `config.json`, which errors will call `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        match ModelConfig::parse(path, text)? {
            ModelConfig::V4(config) => Ok(config),
            other => {
                let what = format!("is of a {}, not of a DeepSeek V4", other.architecture());
                Err(Error::file(path, what))
            }
        }
    }

    /// Reads a config that is known to be of this family.
    pub(super) fn read(f: &Fields<'_>) -> Result<Self> {
        check_fixed_choices(f)?;

        let layers = layer_kinds(f)?;
        let head_dim = f.size(&["head_dim"])?;
        let indexed = layers.iter().any(|kind| matches!(kind, LayerKind::Csa { .. }));
        let index = |name| if indexed { f.size(&[name]) } else { f.size_or(&[name], 0) };
        let vocab = f.size(&["vocab_size"])?;
        let (rope_theta, compress_rope_theta, yarn) = rope(f)?;
        let config = Self {
            hidden: f.size(&["hidden_size", "dim"])?,
            heads: f.size(&["num_attention_heads", "n_heads"])?,
            head_dim,
            rope_dim: rope_dim(f, head_dim)?,
            q_lora: f.size(&["q_lora_rank"])?,
            o_groups: f.size(&["o_groups"])?,
            o_lora: f.size(&["o_lora_rank"])?,
            window: f.size_or(&["sliding_window", "window_size"], 128)?,
            index_heads: index("index_n_heads")?,
            index_dim: index("index_head_dim")?,
            index_topk: index("index_topk")?,
            hc_mult: f.size_or(&["hc_mult"], 4)?,
            hc_iters: f.size_or(&["hc_sinkhorn_iters"], 20)?,
            hc_eps: f.positive(&["hc_eps"])?.unwrap_or(1e-6),
            experts: f.size(&["n_routed_experts"])?,
            experts_per_token: f.size(&["num_experts_per_tok", "n_activated_experts"])?,
            shared_experts: f.size_or(&["n_shared_experts"], 1)?,
            moe_inter: f.size(&["moe_intermediate_size", "moe_inter_dim"])?,
            hash_layers: hash_layers(f, layers.len())?,
            route_scale: f.positive(&["routed_scaling_factor", "route_scale"])?.unwrap_or(1.5),
            swiglu_limit: swiglu_limit(f)?,
            vocab,
            rope_theta,
            compress_rope_theta,
            yarn,
            max_context: f.size_or(&["max_position_embeddings"], 1 << 20)?,
            eps: f.positive(&["rms_norm_eps", "norm_eps"])?.unwrap_or(1e-6),
            bos: one_or(token_ids(f, "bos_token_id", vocab)?, 0)[0],
            eos: one_or(token_ids(f, "eos_token_id", vocab)?, 1),
            vision: vision(f)?,
            dspark: f.has_prefix("dspark_"),
            prompt_style: f.get(&["fathom_prompt_style"], "a text")?,
            qat: default_qat(f)?,
            layers,
        };
        config.check_relations(f)?;
        Ok(config)
    }

    /// Refuses dimensions that do not fit each other.
    fn check_relations(&self, f: &Fields<'_>) -> Result<()> {
        if !self.heads.is_multiple_of(self.o_groups) {
            let what = format!("does not divide the {} attention heads", self.heads);
            return Err(f.error("o_groups", what));
        }
        if !self.rope_dim.is_multiple_of(2) || self.rope_dim > self.head_dim {
            let what = format!(
                "heads of {} with {} rotated: expected an even number no larger than the head",
                self.head_dim, self.rope_dim
            );
            return Err(f.error("head_dim", what));
        }
        if self.index_dim != 0 && self.index_dim < self.rope_dim {
            let what = format!("smaller than the {} elements that are rotated", self.rope_dim);
            return Err(f.error("index_head_dim", what));
        }
        if self.experts_per_token > self.experts {
            let what =
                format!("smaller than the {} experts a token visits", self.experts_per_token);
            return Err(f.error("n_routed_experts", what));
        }
        Ok(())
    }
}

/// Refuses choices that the family's files can express but no released model makes.
fn check_fixed_choices(f: &Fields<'_>) -> Result<()> {
    f.fixed("scoring_func", "sqrtsoftplus")?;
    f.fixed("score_func", "sqrtsoftplus")?;
    f.fixed("topk_method", "noaux_tc")?;
    f.fixed("norm_topk_prob", true)?;
    f.fixed("hidden_act", "silu")?;
    f.fixed("num_key_value_heads", 1)?;
    f.fixed("attention_bias", false)?;
    f.fixed("mlp_bias", false)?;
    f.fixed("tie_word_embeddings", false)
}

/// By the quantization that Hugging Face's config or (`dtype`) the reference code's speaks of.
fn default_qat(f: &Fields<'_>) -> Result<Qat> {
    let quantization = match f.object(&["quantization_config"])? {
        Some(q) => q.get::<String>(&["quant_method"], "a text")?,
        None => f.get(&["dtype"], "a text")?,
    };
    Ok(if quantization.as_deref() == Some("fp8") { Qat::Kv } else { Qat::Off })
}

/// Each layer's kind: from `layer_types` and `compress_rates` as Transformers writes them, else
/// from `compress_ratios`, whose entries beyond the number of layers belong to draft stages.
fn layer_kinds(f: &Fields<'_>) -> Result<Vec<LayerKind>> {
    let count = f.size(&["num_hidden_layers", "n_layers"])?;
    let too_short =
        |name, len| f.error(name, format!("{len} entries for a model of {count} layers"));
    if let Some(types) = f.get::<Vec<String>>(&["layer_types"], "a list of texts")? {
        if types.len() < count {
            return Err(too_short("layer_types", types.len()));
        }
        let rates = f.object(&["compress_rates"])?;
        let rate = |name: &str, older: &str, default| match &rates {
            Some(rates) if rates.has(&[name]) => rates.size(&[name]),
            _ => f.size_or(&[older], default),
        };
        let csa = rate("compressed_sparse_attention", "compress_rate_csa", 4)?;
        let hca = rate("heavily_compressed_attention", "compress_rate_hca", 128)?;
        return (types.iter().take(count))
            .map(|kind| match kind.as_str() {
                "sliding_attention" => Ok(LayerKind::Window),
                "compressed_sparse_attention" => Ok(LayerKind::Csa { ratio: csa }),
                "heavily_compressed_attention" => Ok(LayerKind::Hca { ratio: hca }),
                other => Err(f.error("layer_types", format!("unknown kind of layer `{other}`"))),
            })
            .collect();
    }
    let kind = "a list of whole numbers below 2^28";
    let ratios: Vec<u32> = f
        .get(&["compress_ratios"], kind)?
        .ok_or_else(|| f.missing(&["compress_ratios", "layer_types"]))?;
    if ratios.len() < count {
        return Err(too_short("compress_ratios", ratios.len()));
    }
    (ratios.iter().take(count))
        .map(|&ratio| match ratio as usize {
            0 => Ok(LayerKind::Window),
            // This spelling has no word for the indexer: ratio 4 means it, and only that one.
            4 => Ok(LayerKind::Csa { ratio: 4 }),
            ratio if ratio < 1 << 28 => Ok(LayerKind::Hca { ratio }),
            _ => Err(f.error("compress_ratios", format!("expected {kind}"))),
        })
        .collect()
}

/// How many of the `layers` layers route by token id: from a number, else from Transformers'
/// `mlp_layer_types`.
fn hash_layers(f: &Fields<'_>, layers: usize) -> Result<usize> {
    let names = ["num_hash_layers", "n_hash_layers"];
    if let Some(count) = f.count(&names)? {
        return Ok(count.min(layers));
    }
    let Some(types) = f.get::<Vec<String>>(&["mlp_layer_types"], "a list of texts")? else {
        return Err(f.missing(&[names[0], names[1], "mlp_layer_types"]));
    };
    if types.len() < layers {
        let what = format!("{} entries for a model of {layers} layers", types.len());
        return Err(f.error("mlp_layer_types", what));
    }
    let hashed = types.iter().take(layers).take_while(|kind| *kind == "hash_moe").count();
    if let Some(other) = types[..layers].iter().skip(hashed).find(|kind| *kind != "moe") {
        let what = format!("expected layers of `hash_moe` and then of `moe`, found `{other}`");
        return Err(f.error("mlp_layer_types", what));
    }
    Ok(hashed)
}

/// Rotated elements of a head, given as a number or, by Transformers, as a share of the head.
fn rope_dim(f: &Fields<'_>, head_dim: usize) -> Result<usize> {
    let names = ["qk_rope_head_dim", "rope_head_dim"];
    if f.has(&names) {
        return f.size(&names);
    }
    let Some(share) = f.positive(&["partial_rotary_factor"])? else {
        return Err(f.missing(&[names[0], names[1], "partial_rotary_factor"]));
    };
    if share > 1.0 {
        return Err(f.error("partial_rotary_factor", "expected a share of the head, at most 1"));
    }
    Ok((head_dim as f64 * f64::from(share)) as usize)
}

/// The bound on an expert's values; the reference code writes 0 for none.
fn swiglu_limit(f: &Fields<'_>) -> Result<f32> {
    match f.get::<f32>(&["swiglu_limit"], "a number")? {
        None => Ok(10.0),
        Some(0.0) => Ok(f32::MAX),
        Some(_) => Ok(f.positive(&["swiglu_limit"])?.unwrap_or(10.0)),
    }
}

/// The ids, or `default` if there are none.
fn one_or(mut ids: Vec<u32>, default: u32) -> Vec<u32> {
    if ids.is_empty() {
        ids.push(default);
    }
    ids
}

/// Both rotary bases and the stretching, from any of the places they are written: flat beside
/// `rope_scaling`; nested under `rope_parameters.main` and `.compress`, as Transformers 5 does; or
/// the reference code's `rope_factor` and `original_seq_len`.
fn rope(f: &Fields<'_>) -> Result<(f32, f32, Option<Yarn>)> {
    let parameters = f.object(&["rope_parameters"])?;
    let nested = |name| parameters.as_ref().map_or(Ok(None), |p| p.object(&[name]));
    let (main, compress) = (nested("main")?, nested("compress")?);
    let theta = |part: &Option<Fields<'_>>, name, default| -> Result<f32> {
        let inner = part.as_ref().map_or(Ok(None), |p| p.positive(&["rope_theta"]))?;
        Ok(inner.or(f.positive(&[name])?).unwrap_or(default))
    };
    let rope_theta = theta(&main, "rope_theta", 10_000.0)?;
    let compress_rope_theta = theta(&compress, "compress_rope_theta", 160_000.0)?;
    if let Some(main) = &main
        && stretches(main)?
    {
        return Err(main.error("rope_type", "layers that do not compress are never stretched"));
    }
    let scaling = match f.object(&["rope_scaling"])? {
        Some(flat) => Some(flat),
        None => compress.or(parameters.filter(|p| !p.has(&["main"]))),
    };
    let yarn = match scaling {
        Some(scaling) => yarn(&scaling, "factor", "original_max_position_embeddings")?,
        // The reference code means "no stretching" by an original length of 0.
        None if f.count(&["original_seq_len"])?.unwrap_or(0) > 0 => {
            Some(yarn_values(f, "rope_factor", "original_seq_len")?)
        }
        None => None,
    };
    Ok((rope_theta, compress_rope_theta, yarn))
}

/// Whether a rope object stretches; errors for kinds that no model of the family uses.
fn stretches(f: &Fields<'_>) -> Result<bool> {
    match kind(f)?.as_str() {
        "default" => Ok(false),
        "yarn" => Ok(true),
        _ => {
            let name = if f.has(&["rope_type"]) { "rope_type" } else { "type" };
            Err(f.error(name, "only \"default\" and \"yarn\" are supported"))
        }
    }
}

/// The stretching a rope object describes, if it does.
fn yarn(f: &Fields<'_>, factor: &str, original: &str) -> Result<Option<Yarn>> {
    if !stretches(f)? {
        return Ok(None);
    }
    // The reference does not scale the rotated values, which Transformers writes as a factor of 1.
    if f.get::<f32>(&["attention_factor"], "a number")?.is_some_and(|x| x != 1.0) {
        return Err(f.error("attention_factor", "only 1 is supported"));
    }
    yarn_values(f, factor, original).map(Some)
}

fn yarn_values(f: &Fields<'_>, factor: &str, original: &str) -> Result<Yarn> {
    Ok(Yarn {
        factor: f.positive(&[factor])?.ok_or_else(|| f.missing(&[factor]))?,
        original_context: f.size(&[original])?,
        beta_fast: f.positive(&["beta_fast"])?.unwrap_or(32.0),
        beta_slow: f.positive(&["beta_slow"])?.unwrap_or(1.0),
    })
}

#[cfg(test)]
#[path = "config_v4_tests.rs"]
mod tests;
