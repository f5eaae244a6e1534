//! A model's configuration as the metadata of a GGUF file.

use std::path::Path;

use serde_json::Value as Json;

use super::kind::Kind;
use crate::formats::{
    Array, Checkpoint, DenseConfig, LayerKind, MlaConfig, MlaFamily, ModelConfig, RopeScaling,
    V4Config, Value, Yarn,
};
use crate::{Error, Result};

/// Numbers of the functions that routers score experts by.
const SOFTMAX: u32 = 1;
const SIGMOID: u32 = 2;
const SQRT_SOFTPLUS: u32 = 4;

/// Everything but the vocabulary.
pub(super) fn metadata(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    folder: &Path,
    kind: Kind,
) -> Result<Vec<(String, Value)>> {
    let architecture = match config {
        ModelConfig::Dense(c) if c.qwen2 => "qwen2",
        ModelConfig::Dense(_) => "llama",
        ModelConfig::Mla(_) => "deepseek2",
        ModelConfig::V4(_) => "deepseek4",
    };
    let mut keys = Keys { architecture, list: vec![] };
    keys.general("architecture", Value::Str(architecture.into()));
    keys.general("type", Value::Str("model".into()));
    let name = folder.canonicalize().ok();
    if let Some(name) = name.as_ref().and_then(|path| path.file_name()) {
        keys.general("name", Value::Str(name.to_string_lossy().into_owned()));
    }
    keys.general("file_type", Value::U32(kind.file_type()));
    keys.general("quantization_version", Value::U32(2));
    keys.size("block_count", config.layers());
    keys.size("context_length", config.max_context());
    keys.size("embedding_length", config.hidden());
    keys.size("vocab_size", config.vocab());
    keys.size("attention.head_count", config.heads());
    let refused = |what: &str| Err(Error::file(checkpoint.config_path(), what));
    match config {
        ModelConfig::Dense(c) => dense(&mut keys, c).or_else(refused)?,
        ModelConfig::Mla(c) => mla(&mut keys, c, checkpoint).or_else(refused)?,
        ModelConfig::V4(c) => v4(&mut keys, c),
    }
    Ok(keys.list)
}

/// A list in the making.
struct Keys {
    architecture: &'static str,
    list: Vec<(String, Value)>,
}

impl Keys {
    fn general(&mut self, key: &str, value: Value) {
        self.list.push((format!("general.{key}"), value));
    }

    fn set(&mut self, key: &str, value: Value) {
        self.list.push((format!("{}.{key}", self.architecture), value));
    }

    fn size(&mut self, key: &str, size: usize) {
        // No dimension of a config comes near 2^32.
        self.set(key, Value::U32(size as u32));
    }

    fn float(&mut self, key: &str, number: f32) {
        self.set(key, Value::F32(number));
    }

    fn yarn(&mut self, yarn: &Yarn) {
        self.set("rope.scaling.type", Value::Str("yarn".into()));
        self.float("rope.scaling.factor", yarn.factor);
        self.size("rope.scaling.original_context_length", yarn.original_context);
        self.float("rope.scaling.yarn_beta_fast", yarn.beta_fast);
        self.float("rope.scaling.yarn_beta_slow", yarn.beta_slow);
    }
}

/// What an architecture of llama.cpp cannot express, as an error line.
type Refused<T> = std::result::Result<T, &'static str>;

fn dense(keys: &mut Keys, c: &DenseConfig) -> Refused<()> {
    if c.qwen2 && matches!(c.rope.scaling, RopeScaling::Llama3(_) | RopeScaling::Factors(_)) {
        return Err("a rotary embedding stretched as Llama's has no place in a GGUF file of Qwen2");
    }
    keys.size("attention.head_count_kv", c.kv_heads);
    keys.size("attention.key_length", c.head_dim);
    keys.size("attention.value_length", c.head_dim);
    keys.size("rope.dimension_count", c.head_dim);
    keys.size("feed_forward_length", c.inter);
    keys.float("attention.layer_norm_rms_epsilon", c.eps);
    keys.float("rope.freq_base", c.rope.theta);
    match &c.rope.scaling {
        // Factors are a tensor.
        RopeScaling::Plain | RopeScaling::Llama3(_) | RopeScaling::Factors(_) => {}
        RopeScaling::Linear(factor) => {
            keys.set("rope.scaling.type", Value::Str("linear".into()));
            keys.float("rope.scaling.factor", *factor);
        }
        RopeScaling::Yarn(yarn) => {
            if (c.rope.amplitude - (1.0 + 0.1 * yarn.factor.ln())).abs() > 1e-5 {
                return Err("`attention_factor` other than YaRN's own has no place in a GGUF file");
            }
            keys.yarn(yarn);
        }
    }
    Ok(())
}

fn mla(keys: &mut Keys, c: &MlaConfig, checkpoint: &Checkpoint) -> Refused<()> {
    if c.family == MlaFamily::V32 {
        return Err(
            "llama.cpp's architecture for V3.2 is not known here; V2 and V3 can be written",
        );
    }
    if c.attention_bias {
        return Err("`attention_bias` has no place in a GGUF file");
    }
    // In the absorbed form all heads share one key, the latent and its rotated part.
    keys.size("attention.head_count_kv", 1);
    keys.size("attention.key_length", c.kv_lora + c.rope_dim);
    keys.size("attention.value_length", c.kv_lora);
    keys.size("attention.key_length_mla", c.nope_dim + c.rope_dim);
    keys.size("attention.value_length_mla", c.v_dim);
    keys.size("attention.kv_lora_rank", c.kv_lora);
    if let Some(rank) = c.q_lora {
        keys.size("attention.q_lora_rank", rank);
    }
    keys.float("attention.layer_norm_rms_epsilon", c.eps);
    keys.size("rope.dimension_count", c.rope_dim);
    keys.float("rope.freq_base", c.rope.theta);
    keys.size("feed_forward_length", c.inter);
    keys.size("leading_dense_block_count", c.dense_layers);
    experts(keys, [c.experts, c.experts_per_token, c.shared_experts, c.moe_inter], c.route_scale);
    keys.set("expert_weights_norm", Value::Bool(c.normalise));
    let scoring = if c.family == MlaFamily::V2 { SOFTMAX } else { SIGMOID };
    keys.set("expert_gating_func", Value::U32(scoring));
    if c.groups > 1 {
        keys.size("expert_group_count", c.groups);
        keys.size("expert_group_used_count", c.top_groups);
    }
    match &c.rope.scaling {
        RopeScaling::Plain => {}
        RopeScaling::Yarn(yarn) => {
            let all = mscale_all_dim(checkpoint);
            if (c.rope.amplitude - 1.0).abs() > 1e-5 && all != 0.0 {
                return Err("`mscale` other than `mscale_all_dim` has no place in a GGUF file");
            }
            keys.yarn(yarn);
            keys.float("rope.scaling.yarn_log_multiplier", 0.1 * all);
        }
        _ => return Err("of stretched rotary embeddings only \"yarn\" can be written"),
    }
    Ok(())
}

/// The weight of YaRN's effect on attention scores; 0 if the config has none.
fn mscale_all_dim(checkpoint: &Checkpoint) -> f32 {
    // It was parsed before as a config.
    let config: Json = serde_json::from_str(checkpoint.config_text()).unwrap_or_default();
    let of = |object: &str| config.get(object)?.get("mscale_all_dim")?.as_f64();
    of("rope_scaling").or_else(|| of("rope_parameters")).unwrap_or_default() as f32
}

fn experts(keys: &mut Keys, [count, used, shared, width]: [usize; 4], scale: f32) {
    keys.size("expert_count", count);
    keys.size("expert_used_count", used);
    keys.size("expert_shared_count", shared);
    keys.size("expert_feed_forward_length", width);
    keys.float("expert_weights_scale", scale);
}

fn v4(keys: &mut Keys, c: &V4Config) {
    keys.size("attention.head_count_kv", 1);
    keys.size("attention.key_length", c.head_dim);
    keys.size("attention.value_length", c.head_dim);
    keys.size("attention.q_lora_rank", c.q_lora);
    keys.size("attention.output_lora_rank", c.o_lora);
    keys.size("attention.output_group_count", c.o_groups);
    keys.size("attention.sliding_window", c.window);
    keys.float("attention.layer_norm_rms_epsilon", c.eps);
    let ratio = |layer: &LayerKind| match layer {
        LayerKind::Window => 0,
        LayerKind::Csa { ratio } | LayerKind::Hca { ratio } => *ratio as u32,
    };
    let ratios = c.layers.iter().map(ratio).collect();
    keys.set("attention.compress_ratios", Value::Array(Array::U32(ratios)));
    keys.float("attention.compress_rope_freq_base", c.compress_rope_theta);
    keys.size("attention.indexer.head_count", c.index_heads);
    keys.size("attention.indexer.key_length", c.index_dim);
    keys.size("attention.indexer.top_k", c.index_topk);
    keys.size("rope.dimension_count", c.rope_dim);
    keys.float("rope.freq_base", c.rope_theta);
    if let Some(yarn) = &c.yarn {
        keys.yarn(yarn);
    }
    keys.size("hyper_connection.count", c.hc_mult);
    keys.size("hyper_connection.sinkhorn_iterations", c.hc_iters);
    keys.float("hyper_connection.epsilon", c.hc_eps);
    keys.size("hash_layer_count", c.hash_layers);
    keys.size("feed_forward_length", c.moe_inter);
    experts(keys, [c.experts, c.experts_per_token, c.shared_experts, c.moe_inter], c.route_scale);
    keys.set("expert_weights_norm", Value::Bool(true));
    keys.set("expert_gating_func", Value::U32(SQRT_SOFTPLUS));
    if c.swiglu_limit < f32::MAX {
        let limits = vec![c.swiglu_limit; c.layers.len()];
        keys.set("swiglu_clamp_exp", Value::Array(Array::F32(limits)));
    }
}
