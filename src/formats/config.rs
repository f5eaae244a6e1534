//! `config.json` of the V4 family, in the Hugging Face spelling or that of DeepSeek's reference
//! code, checked and under Fathom's names.

use std::path::Path;

use super::Checkpoint;
use super::fields::Fields;
use crate::{Error, Result};

/// The architectures [`V4Config`] reads, as `architectures[0]` spells them.
const ARCHITECTURES: [&str; 1] = ["DeepseekV4ForCausalLM"];
/// The same as `model_type` spells them.
const MODEL_TYPES: [&str; 1] = ["deepseek_v4"];

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

/// YaRN stretching of the rotary embedding on layers that compress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How many times the original context the stretched one is.
    pub factor: f32,
    /// Tokens of context before stretching.
    pub original_context: usize,
    /// Rotations over the original context above which a frequency is left as it is.
    pub beta_fast: f32,
    /// Rotations below which a frequency is divided by `factor` in full.
    pub beta_slow: f32,
}

/// Dimensions of the vision tower and of the plan that cuts pictures into patches.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of a patch's vector.
    pub dim: usize,
    /// Attention heads; each is `dim / heads` wide, a multiple of 4.
    pub heads: usize,
    /// Width inside the gated feed-forward.
    pub inter: usize,
    /// Side of a square patch in pixels.
    pub patch: usize,
    /// Base of the 2-D rotary embedding.
    pub theta: f32,
    /// Patches along each side of the square that becomes one token.
    pub downsample: usize,
    /// Most tokens a picture may take, its markers and padding included.
    pub max_tokens: usize,
    /// Pictures of fewer pixels are enlarged to about this many.
    pub min_pixels: usize,
    /// Pictures wider than this many times their height are squeezed; `None` for no such limit.
    pub max_wh_ratio: Option<usize>,
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
}

impl V4Config {
    /// Reads the `config.json` of `checkpoint`. Errors name the file, the field and its value.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        Self::parse(checkpoint.config_path(), checkpoint.config_text())
    }

    /// Reads the text of a `config.json`, which errors will call `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let f = Fields::parse(path, text)?;
        check_architecture(path, &f)?;
        check_fixed_choices(&f)?;

        let layers = layer_kinds(&f)?;
        let head_dim = f.size(&["head_dim"])?;
        let indexed = layers.iter().any(|kind| matches!(kind, LayerKind::Csa { .. }));
        let index = |name| if indexed { f.size(&[name]) } else { f.size_or(&[name], 0) };
        let vocab = f.size(&["vocab_size"])?;
        let (rope_theta, compress_rope_theta, yarn) = rope(&f)?;
        let config = Self {
            hidden: f.size(&["hidden_size", "dim"])?,
            heads: f.size(&["num_attention_heads", "n_heads"])?,
            head_dim,
            rope_dim: rope_dim(&f, head_dim)?,
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
            hash_layers: hash_layers(&f, layers.len())?,
            route_scale: f.positive(&["routed_scaling_factor", "route_scale"])?.unwrap_or(1.5),
            swiglu_limit: swiglu_limit(&f)?,
            vocab,
            rope_theta,
            compress_rope_theta,
            yarn,
            max_context: f.size_or(&["max_position_embeddings"], 1 << 20)?,
            eps: f.positive(&["rms_norm_eps", "norm_eps"])?.unwrap_or(1e-6),
            bos: token_ids(&f, "bos_token_id", 0, vocab)?[0],
            eos: token_ids(&f, "eos_token_id", 1, vocab)?,
            vision: vision(&f)?,
            dspark: f.has_prefix("dspark_"),
            prompt_style: f.get(&["fathom_prompt_style"], "a text")?,
            layers,
        };
        config.check_relations(&f)?;
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

/// Refuses a config that names another architecture, or none without being in the reference
/// spelling.
fn check_architecture(path: &Path, f: &Fields<'_>) -> Result<()> {
    let supported = format!("supported: {}", ARCHITECTURES.join(", "));
    let architectures: Option<Vec<String>> = f.get(&["architectures"], "a list of texts")?;
    if let Some(name) = architectures.as_ref().and_then(|names| names.first()) {
        if ARCHITECTURES.contains(&name.as_str()) {
            return Ok(());
        }
        return Err(f.error("architectures", format!("unknown architecture ({supported})")));
    }
    match f.get::<String>(&["model_type"], "a text")? {
        Some(name) if MODEL_TYPES.contains(&name.as_str()) => Ok(()),
        Some(_) => Err(f.error("model_type", format!("unknown architecture ({supported})"))),
        None if f.has(&["dim"]) && f.has(&["n_layers"]) => Ok(()),
        None => {
            let what = format!("field `architectures` or `model_type` is missing ({supported})");
            Err(Error::file(path, what))
        }
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

/// Token ids below `vocab`, given as one number or a list; `default` if missing or empty.
fn token_ids(f: &Fields<'_>, name: &str, default: u32, vocab: usize) -> Result<Vec<u32>> {
    let kind = "a token id or a list of them";
    let mut ids = match f.get::<Vec<u32>>(&[name], kind) {
        Ok(ids) => ids.unwrap_or_default(),
        Err(_) => f.get::<u32>(&[name], kind)?.into_iter().collect(),
    };
    if ids.is_empty() {
        ids.push(default);
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(f.error(name, format!("id {id} is not below the {vocab} of `vocab_size`"))),
        None => Ok(ids),
    }
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
    if let Some(kind) = &main
        && rope_type(kind)? != RopeType::Plain
    {
        return Err(kind.error("rope_type", "layers that do not compress are never stretched"));
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

#[derive(PartialEq)]
enum RopeType {
    Plain,
    Yarn,
}

/// What a rope object says it is; errors for kinds that no model of the family uses.
fn rope_type(f: &Fields<'_>) -> Result<RopeType> {
    let names = ["rope_type", "type"];
    let kind: Option<String> = f.get(&names, "a text")?;
    match kind.as_deref() {
        None | Some("default") => Ok(RopeType::Plain),
        Some("yarn") => Ok(RopeType::Yarn),
        Some(_) => {
            let name = if f.has(&names[..1]) { names[0] } else { names[1] };
            Err(f.error(name, "only \"default\" and \"yarn\" are supported"))
        }
    }
}

/// The stretching a rope object describes, if it does.
fn yarn(f: &Fields<'_>, factor: &str, original: &str) -> Result<Option<Yarn>> {
    if rope_type(f)? == RopeType::Plain {
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

/// The vision tower: there if `vision_n_layers` is there and above 0. Values a file leaves out are
/// those of the one released model.
fn vision(f: &Fields<'_>) -> Result<Option<VisionConfig>> {
    let layers = f.count(&["vision_n_layers"])?.unwrap_or(0);
    if layers == 0 {
        return Ok(None);
    }
    let vision = VisionConfig {
        layers,
        dim: f.size(&["vision_dim"])?,
        heads: f.size(&["vision_n_heads"])?,
        inter: f.size(&["vision_inter_dim"])?,
        patch: f.size_or(&["vision_patch_size"], 14)?,
        theta: f.positive(&["vision_rope_theta"])?.unwrap_or(10_000.0),
        downsample: f.size_or(&["vision_downsample_ratio"], 3)?,
        max_tokens: f.size_or(&["vision_max_n_token"], 384)?,
        min_pixels: f.count(&["vision_min_pixels"])?.unwrap_or(384 * 384),
        max_wh_ratio: f.count(&["vision_max_wh_ratio"])?.filter(|&ratio| ratio > 0),
    };
    // Sizes of pictures are multiplied with each other, so each has a bound of its own.
    for (name, value, most) in [
        ("vision_patch_size", vision.patch, 1024),
        ("vision_downsample_ratio", vision.downsample, 64),
        ("vision_max_n_token", vision.max_tokens, 1 << 20),
    ] {
        if value > most {
            return Err(f.error(name, format!("expected at most {most}")));
        }
    }
    // Rotation splits a head into rows and columns, and each into pairs.
    if !vision.dim.is_multiple_of(4 * vision.heads) {
        let what = format!("does not divide `vision_dim` {} into multiples of 4", vision.dim);
        return Err(f.error("vision_n_heads", what));
    }
    Ok(Some(vision))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
