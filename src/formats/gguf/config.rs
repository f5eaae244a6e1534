//! A `config.json` in Hugging Face's spelling from a GGUF file's metadata.
//!
//! Fields whose keys are missing are left out, so that whoever reads the config names them. Beyond
//! what Transformers knows, these fields may appear:
//!
//! - `fathom_rope_interleaved: true` (`llama`): the rows of `q_proj` and `k_proj` are permuted so
//!   that rotation pairs neighbours (2i, 2i+1) of a head rather than its halves.
//! - `fathom_rope_factors: [..]` (`llama`): a head's frequency i is divided by the i-th of these. What
//!   the `llama3` kind of `rope_scaling` amounts to, which llama.cpp stores as the tensor
//!   `rope_freqs.weight`.
//!
//! YaRN of `deepseek2`: Hugging Face has `mscale` and `mscale_all_dim`; the key
//! `rope.scaling.yarn_log_multiplier` is a tenth of the latter, and all models of the architecture
//! have both equal (llama.cpp's graph supposes so), whence rotated values are not scaled and
//! scores are, by `(1 + 0.1 mscale_all_dim ln factor)^2`.

use serde_json::{Map, Number, Value as Json, json};

use super::super::TensorView;
use super::{Array, Gguf, Value};
use crate::Result;

/// llama.cpp's number for each scoring function of a router.
const SCORING: [(u32, &str); 3] = [(1, "softmax"), (2, "sigmoid"), (4, "sqrtsoftplus")];

/// A key below `ARCH.`, and the field it becomes.
type Field = (&'static str, &'static str);

/// Fields of every architecture.
const COMMON: [Field; 9] = [
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("context_length", "max_position_embeddings"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("vocab_size", "vocab_size"),
];

/// Fields of mixtures of experts.
const EXPERTS: [Field; 6] = [
    ("expert_count", "n_routed_experts"),
    ("expert_used_count", "num_experts_per_tok"),
    ("expert_shared_count", "n_shared_experts"),
    ("expert_feed_forward_length", "moe_intermediate_size"),
    ("expert_weights_scale", "routed_scaling_factor"),
    ("expert_weights_norm", "norm_topk_prob"),
];

/// Fields of `deepseek2`: V2, V3, R1.
const DEEPSEEK2: [Field; 6] = [
    ("attention.q_lora_rank", "q_lora_rank"),
    ("attention.kv_lora_rank", "kv_lora_rank"),
    ("rope.dimension_count", "qk_rope_head_dim"),
    ("leading_dense_block_count", "first_k_dense_replace"),
    ("expert_group_count", "n_group"),
    ("expert_group_used_count", "topk_group"),
];

/// Fields of `deepseek4`.
const DEEPSEEK4: [Field; 15] = [
    ("attention.q_lora_rank", "q_lora_rank"),
    ("attention.output_lora_rank", "o_lora_rank"),
    ("attention.output_group_count", "o_groups"),
    ("attention.key_length", "head_dim"),
    ("rope.dimension_count", "qk_rope_head_dim"),
    ("attention.sliding_window", "sliding_window"),
    ("attention.compress_ratios", "compress_ratios"),
    ("attention.compress_rope_freq_base", "compress_rope_theta"),
    ("attention.indexer.head_count", "index_n_heads"),
    ("attention.indexer.key_length", "index_head_dim"),
    ("attention.indexer.top_k", "index_topk"),
    ("hyper_connection.count", "hc_mult"),
    ("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters"),
    ("hyper_connection.epsilon", "hc_eps"),
    ("hash_layer_count", "num_hash_layers"),
];

/// Fields of `rope_scaling`, below `ARCH.rope.scaling.`.
const SCALING: [Field; 4] = [
    ("factor", "factor"),
    ("original_context_length", "original_max_position_embeddings"),
    ("yarn_beta_fast", "beta_fast"),
    ("yarn_beta_slow", "beta_slow"),
];

/// How models choose from groups of experts whose files are older than the keys that say so, by
/// width and number of experts: V2, and V3 with R1.
const GROUPS: [((u32, u32), [u32; 2]); 2] = [((5120, 160), [8, 3]), ((7168, 256), [8, 4])];

/// Finds a tensor by its name in the file.
pub(in crate::formats) type Find<'a> = &'a dyn Fn(&str) -> Option<TensorView<'a>>;

/// The text of the config. An architecture unknown here gets one that says no more than its name.
///
/// Errors name the metadata key or the tensor that is not what it should be.
pub(in crate::formats) fn config_text<'a>(gguf: &'a Gguf, find: Find<'a>) -> Result<String> {
    let architecture = gguf.str("general.architecture")?.unwrap_or_default();
    let mut c = Config { gguf, find, architecture, json: Map::new() };
    let (class, model_type) = match architecture {
        "llama" => ("LlamaForCausalLM", "llama"),
        "qwen2" => ("Qwen2ForCausalLM", "qwen2"),
        // A router with a sigmoid came with V3; R1 and V3.1 are the same.
        "deepseek2" if c.scoring()? == "sigmoid" => ("DeepseekV3ForCausalLM", "deepseek_v3"),
        "deepseek2" => ("DeepseekV2ForCausalLM", "deepseek_v2"),
        "deepseek4" => ("DeepseekV4ForCausalLM", "deepseek_v4"),
        other => {
            let unknown = json!({ "architectures": [other], "model_type": other });
            return Ok(unknown.to_string());
        }
    };
    c.set("architectures", json!([class]));
    c.set("model_type", json!(model_type));
    c.common()?;
    match architecture {
        "deepseek2" => c.deepseek2()?,
        "deepseek4" => c.deepseek4()?,
        _ => c.dense()?,
    }
    c.rope_scaling()?;
    Ok(Json::Object(c.json).to_string())
}

struct Config<'a> {
    gguf: &'a Gguf,
    find: Find<'a>,
    architecture: &'a str,
    json: Map<String, Json>,
}

impl Config<'_> {
    fn set(&mut self, field: &str, value: Json) {
        self.json.insert(field.to_owned(), value);
    }

    fn key(&self, tail: &str) -> String {
        format!("{}.{tail}", self.architecture)
    }

    fn u32(&self, tail: &str) -> Result<Option<u32>> {
        self.gguf.u32(&self.key(tail))
    }

    /// Copies the fields of a table whose keys are there.
    fn copy(&mut self, table: &[Field]) {
        for (tail, field) in table {
            if let Some(value) = self.gguf.get(&self.key(tail)) {
                self.set(field, to_json(value));
            }
        }
    }

    /// What every architecture has, with llama.cpp's defaults.
    fn common(&mut self) -> Result<()> {
        self.copy(&COMMON);
        self.skip_drafter()?;
        let table = (self.find)("token_embd.weight");
        // llama.cpp takes the vocabulary's size from the tokens, the tensor has it padded.
        if let Some(&rows) = table.as_ref().and_then(|table| table.shape.first()) {
            self.set("vocab_size", json!(rows));
        }
        if !self.json.contains_key("rope_theta") {
            self.set("rope_theta", json!(10_000.0));
        }
        self.set("hidden_act", json!("silu"));
        self.set("tie_word_embeddings", json!((self.find)("output.weight").is_none()));
        let id = |name| self.gguf.u32(&format!("tokenizer.ggml.{name}_token_id"));
        let (bos, eos, eot) = (id("bos")?, id("eos")?, id("eot")?);
        if let Some(bos) = bos {
            self.set("bos_token_id", json!(bos));
        }
        let mut ends: Vec<u32> = eos.into_iter().chain(eot).collect();
        ends.dedup();
        if !ends.is_empty() {
            self.set("eos_token_id", json!(ends));
        }
        Ok(())
    }

    /// Counts out the blocks at the end that draft further tokens, if the file has them.
    fn skip_drafter(&mut self) -> Result<()> {
        let (blocks, drafts) = (self.u32("block_count")?, self.u32("nextn_predict_layers")?);
        if let (Some(blocks), Some(drafts)) = (blocks, drafts)
            && let Some(layers) = blocks.checked_sub(drafts)
            && (self.find)(&format!("blk.{layers}.nextn.eh_proj.weight")).is_some()
        {
            self.set("num_hidden_layers", json!(layers));
        }
        Ok(())
    }

    /// `llama` and `qwen2`.
    fn dense(&mut self) -> Result<()> {
        self.copy(&[("attention.key_length", "head_dim")]);
        // Transformers takes these biases for granted in Qwen2, and asks for them in Llama.
        self.set("attention_bias", json!((self.find)("blk.0.attn_q.bias").is_some()));
        if self.architecture != "llama" {
            return Ok(());
        }
        if (self.find)("blk.0.ffn_gate.bias").is_some() {
            self.set("mlp_bias", json!(true));
        }
        self.set("fathom_rope_interleaved", json!(true));
        let Some(view) = (self.find)("rope_freqs.weight") else { return Ok(()) };
        let factors: Vec<Json> = view.to_f32()?.into_iter().map(fraction).collect();
        self.set("fathom_rope_factors", json!(factors));
        Ok(())
    }

    /// V2, V2-Lite, V3, R1, V3.1.
    fn deepseek2(&mut self) -> Result<()> {
        self.copy(&EXPERTS);
        self.copy(&DEEPSEEK2);
        // Files for the absorbed form give a head's true sizes under keys of their own, and say
        // that there is one key-value head.
        let size = |mla, plain| self.u32(mla)?.map_or_else(|| self.u32(plain), |n| Ok(Some(n)));
        let key = size("attention.key_length_mla", "attention.key_length")?;
        let value = size("attention.value_length_mla", "attention.value_length")?;
        if let (Some(key), Some(rope)) = (key, self.u32("rope.dimension_count")?) {
            self.set("qk_nope_head_dim", json!(key.saturating_sub(rope)));
        }
        if let Some(value) = value {
            self.set("v_head_dim", json!(value));
        }
        if let Some(heads) = self.json.get("num_attention_heads").cloned() {
            self.set("num_key_value_heads", heads);
        }
        // Left out, or 0, for what has no effect.
        let scale = self.json.entry("routed_scaling_factor").or_insert(json!(1.0));
        if *scale == json!(0.0) {
            *scale = json!(1.0);
        }
        self.json.entry("norm_topk_prob").or_insert(json!(false));
        self.json.entry("q_lora_rank").or_insert(Json::Null);
        let model = (self.u32("embedding_length")?, self.u32("expert_count")?);
        let known = GROUPS.iter().find(|row| model == (Some(row.0.0), Some(row.0.1)));
        let [groups, top] = known.map_or([1, 1], |row| row.1);
        let groups = self.json.entry("n_group").or_insert(json!(groups)).clone();
        self.json.entry("topk_group").or_insert(json!(top));
        let scoring = self.scoring()?;
        let method = match scoring {
            "sigmoid" => "noaux_tc",
            _ if groups == json!(1) => "greedy",
            _ => "group_limited_greedy",
        };
        self.set("scoring_func", json!(scoring));
        self.set("topk_method", json!(method));
        self.set("moe_layer_freq", json!(1));
        self.set("attention_bias", json!(false));
        Ok(())
    }

    /// V4.
    fn deepseek4(&mut self) -> Result<()> {
        self.copy(&EXPERTS);
        self.copy(&DEEPSEEK4);
        self.set("scoring_func", json!(self.scoring()?));
        self.json.remove("intermediate_size");
        // One bound for each layer; there is one for the model.
        let key = self.key("swiglu_clamp_exp");
        let limit = match self.gguf.get(&key) {
            None => 0.0,
            Some(Value::Array(Array::F32(limits)))
                if limits.windows(2).all(|pair| pair[0] == pair[1]) =>
            {
                limits.first().copied().unwrap_or_default()
            }
            Some(Value::F32(limit)) => *limit,
            Some(_) => return Err(self.gguf.error(&key, "expected one number for all layers")),
        };
        self.set("swiglu_limit", fraction(limit));
        Ok(())
    }

    /// The router's scoring function; softmax where the file does not say.
    fn scoring(&self) -> Result<&'static str> {
        let Some(number) = self.u32("expert_gating_func")?.filter(|&n| n != 0) else {
            return Ok("softmax");
        };
        let found = SCORING.iter().find(|row| row.0 == number);
        let key = self.key("expert_gating_func");
        let unknown = || self.gguf.error(&key, format_args!("unknown scoring function {number}"));
        found.map(|row| row.1).ok_or_else(unknown)
    }

    /// How the rotary embedding is stretched, if it is.
    fn rope_scaling(&mut self) -> Result<()> {
        let kind = match self.gguf.str(&self.key("rope.scaling.type"))? {
            None | Some("none") => return Ok(()),
            Some(kind) => kind.to_owned(),
        };
        let mut scaling = Map::new();
        scaling.insert("rope_type".into(), json!(kind));
        for (tail, field) in SCALING {
            if let Some(value) = self.gguf.get(&self.key(&format!("rope.scaling.{tail}"))) {
                scaling.insert(field.into(), to_json(value));
            }
        }
        let multiplier = self.key("rope.scaling.yarn_log_multiplier");
        if let Some(multiplier) = self.gguf.f32(&multiplier)? {
            // Rounded to what the original may have said: the tenth was taken in f64.
            let mscale = json!((f64::from(multiplier) * 1e6).round() / 1e5);
            scaling.insert("mscale".into(), mscale.clone());
            scaling.insert("mscale_all_dim".into(), mscale);
        }
        self.set("rope_scaling", Json::Object(scaling));
        Ok(())
    }
}

/// A number with no more digits than it takes to tell it from other `f32`s.
fn fraction(x: f32) -> Json {
    let shortest = x.to_string().parse().ok().and_then(Number::from_f64);
    shortest.map_or(Json::Null, Json::Number)
}

/// A metadata value as JSON. NaN, the infinities and what JSON has no place for become null, so that
/// they count as missing.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Str(text) => json!(text),
        Value::Bool(b) => json!(b),
        Value::F32(x) => fraction(*x),
        Value::F64(x) => Number::from_f64(*x).map_or(Json::Null, Json::Number),
        Value::U64(n) => json!(n),
        Value::Array(Array::F32(numbers)) => numbers.iter().copied().map(fraction).collect(),
        Value::Array(_) => value.to_i32s().map_or(Json::Null, |numbers| json!(numbers)),
        _ => value.as_i64().map_or(Json::Null, |n| json!(n)),
    }
}
