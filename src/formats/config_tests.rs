//! Tests of `config.rs`, and of the families but V4.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::formats::{IndexConfig, Llama3, Rope, RopeScaling, Yarn};

fn read(value: &Value) -> Result<ModelConfig> {
    ModelConfig::parse(Path::new("config.json"), &value.to_string())
}

fn fault(value: &Value) -> String {
    read(value).unwrap_err().to_string()
}

fn mla(value: &Value) -> MlaConfig {
    match read(value).unwrap() {
        ModelConfig::Mla(config) => config,
        other => panic!("{other:?}"),
    }
}

fn dense(value: &Value) -> DenseConfig {
    match read(value).unwrap() {
        ModelConfig::Dense(config) => config,
        other => panic!("{other:?}"),
    }
}

/// `config` with `key` changed to `value`.
fn with(mut config: Value, key: &str, value: impl Into<Value>) -> Value {
    config[key] = value.into();
    config
}

/// `config` without `key`.
fn without(mut config: Value, key: &str) -> Value {
    config.as_object_mut().unwrap().remove(key);
    config
}

/// What matters of the published config of DeepSeek R1.
fn r1() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "attention_bias": false, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
        "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                         "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false,
        "topk_group": 4, "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280,
    })
}

/// What matters of the published config of DeepSeek V2-Lite.
fn v2_lite() -> Value {
    json!({
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
        "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1,
        "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "moe_intermediate_size": 1408, "n_group": 1,
        "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
        "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
                         "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_group": 1,
        "topk_method": "greedy", "v_head_dim": 128, "vocab_size": 102400,
    })
}

/// What matters of the published config of Llama 3.2 1B.
fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": true, "vocab_size": 128256,
    })
}

/// What matters of the published config of DeepSeek-R1-Distill-Qwen-1.5B.
fn distill() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_size": 1536, "intermediate_size": 8960,
        "max_position_embeddings": 131072, "max_window_layers": 21, "num_attention_heads": 12,
        "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": false,
        "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936,
    })
}

#[test]
fn reads_v3() {
    let c = mla(&r1());
    assert_eq!((c.family, c.q_lora, c.dense_layers), (MlaFamily::V3, Some(1536), 3));
    assert_eq!((c.groups, c.top_groups, c.normalise, c.route_scale), (8, 4, true, 2.5));
    let yarn = Yarn { factor: 40.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0 };
    let rope = Rope { theta: 1e4, scaling: RopeScaling::Yarn(yarn), amplitude: 1.0 };
    assert_eq!((&c.rope, c.rope_interleaved), (&rope, true));
    // (0.1 ln 40 + 1)^2 / sqrt(192)
    assert!((c.attention_scale - 0.135_234).abs() < 1e-6, "{}", c.attention_scale);
    let config = read(&r1()).unwrap();
    assert_eq!((config.window(), config.experts(), config.head_dim()), (None, (256, 8, 1), 192));
    assert_eq!((config.bos(), config.eos()), (Some(0), &[1][..]));
    for key in ["n_group", "topk_group", "norm_topk_prob", "first_k_dense_replace", "eos_token_id"]
    {
        assert_eq!(mla(&without(r1(), key)), c, "{key}");
    }
}

#[test]
fn reads_v32() {
    let mut config = with(r1(), "architectures", json!(["DeepseekV32ForCausalLM"]));
    config["index_n_heads"] = 32.into();
    config["index_topk"] = 1024.into();
    let c = mla(&config);
    assert_eq!(c.index, Some(IndexConfig { heads: 32, dim: 128, topk: 1024 }));
    config.as_object_mut().unwrap().remove("first_k_dense_replace");
    config["num_hidden_layers"] = 3.into();
    config["mlp_layer_types"] = json!(["dense", "sparse", "sparse"]);
    assert_eq!(mla(&config).dense_layers, 1);
    config["mlp_layer_types"] = json!(["dense", "sparse", "dense"]);
    assert!(fault(&config).contains("field `mlp_layer_types` is"), "{}", fault(&config));
    config["mlp_layer_types"] = Value::Null;
    config["q_lora_rank"] = Value::Null;
    assert!(fault(&config).ends_with("field `q_lora_rank` is missing"), "{}", fault(&config));
}

#[test]
fn reads_v2() {
    let c = mla(&v2_lite());
    assert_eq!((c.family, c.q_lora, c.dense_layers), (MlaFamily::V2, None, 1));
    assert_eq!((c.groups, c.top_groups, c.normalise, c.route_scale), (1, 1, false, 1.0));
    assert_eq!((c.shared_experts, c.rope.amplitude, c.bos), (2, 1.0, Some(100_000)));
    let mut v2 = with(v2_lite(), "topk_method", "group_limited_greedy");
    v2["n_group"] = 8.into();
    v2["topk_group"] = 3.into();
    assert_eq!((mla(&v2).groups, mla(&v2).top_groups), (8, 3));
}

#[test]
fn reads_llama_and_qwen2() {
    let c = dense(&llama());
    let llama3 = Llama3 { factor: 32.0, original_context: 8192, low_freq: 1.0, high_freq: 4.0 };
    assert_eq!(c.rope, Rope { theta: 5e5, scaling: RopeScaling::Llama3(llama3), amplitude: 1.0 });
    assert_eq!((c.kv_heads, c.head_dim, c.tied, c.qkv_bias), (8, 64, true, false));
    assert_eq!(c.eos, [128_001, 128_008, 128_009]);
    let biased = dense(&with(llama(), "attention_bias", true));
    assert!(biased.qkv_bias && biased.o_bias && !biased.mlp_bias);
    assert!(dense(&with(llama(), "fathom_rope_interleaved", true)).rope_interleaved);

    let c = dense(&distill());
    assert_eq!((c.qwen2, c.head_dim, c.qkv_bias, c.o_bias), (true, 128, true, false));
    assert_eq!(read(&distill()).unwrap().architecture(), "Qwen2ForCausalLM");
    assert_eq!(dense(&without(distill(), "eos_token_id")).eos, [0; 0]);
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    // 0.1 ln 4 + 1
    let amplitude = dense(&with(distill(), "rope_scaling", yarn)).rope.amplitude;
    assert!((amplitude - 1.138_629_4).abs() < 1e-6, "{amplitude}");
}

#[test]
fn rope_objects_of_either_spelling() {
    let new = json!({"rope_type": "linear", "factor": 2.5, "rope_theta": 777.0});
    let config = with(without(llama(), "rope_scaling"), "rope_parameters", new);
    let rope = Rope { theta: 777.0, scaling: RopeScaling::Linear(2.5), amplitude: 1.0 };
    assert_eq!(dense(&config).rope, rope);
    let factors: Vec<f32> = (1..33).map(|i| i as f32).collect();
    let config = with(llama(), "fathom_rope_factors", json!(factors));
    assert_eq!(dense(&config).rope.scaling, RopeScaling::Factors(factors));
    let plain = Rope { theta: 5e5, scaling: RopeScaling::Plain, amplitude: 1.0 };
    assert_eq!(dense(&with(llama(), "rope_scaling", Value::Null)).rope, plain);
    let config = with(
        r1(),
        "rope_scaling",
        json!({"type": "yarn", "factor": 4, "mscale": 2.0,
        "mscale_all_dim": 0.5, "original_max_position_embeddings": 4096}),
    );
    // (0.2 ln 4 + 1) / (0.05 ln 4 + 1)
    let amplitude = mla(&config).rope.amplitude;
    assert!((amplitude - 1.194_464_9).abs() < 1e-6, "{amplitude}");
}

#[test]
fn only_v4_is_rounded() {
    let mut config = read(&llama()).unwrap();
    config.set_qat(Qat::Off).unwrap();
    let error = config.set_qat(Qat::Kv).unwrap_err().to_string();
    assert!(error.contains("LlamaForCausalLM") && error.contains("--qat"), "{error}");
}

#[test]
fn faults_name_field_and_value() {
    assert_eq!(
        fault(&json!({"architectures": ["GPT2LMHeadModel"]})),
        "config.json: field `architectures` is [\"GPT2LMHeadModel\"]: unknown architecture \
         (supported: DeepseekV4ForCausalLM, DeepseekV32ForCausalLM, DeepseekV3ForCausalLM, \
         DeepseekV2ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM)"
    );
    assert!(fault(&json!({"model_type": "gpt2"})).contains("field `model_type` is \"gpt2\""));
    assert!(fault(&json!({})).contains("`architectures` or `model_type` is missing (supported: "));
    let e = V4Config::parse(Path::new("config.json"), &llama().to_string()).unwrap_err();
    assert_eq!(e.to_string(), "config.json: is of a LlamaForCausalLM, not of a DeepSeek V4");
    let dynamic = json!({"type": "dynamic", "factor": 2});
    for (config, key, value, what) in [
        (r1(), "kv_lora_rank", json!(0), "field `kv_lora_rank` is 0: expected a whole number"),
        (r1(), "qk_rope_head_dim", json!(63), "field `qk_rope_head_dim` is 63: expected an even"),
        (r1(), "n_group", json!(3), "field `n_group` is 3: does not divide the 256 experts"),
        (r1(), "n_group", json!(256), "field `n_group` is 256: expected groups of at least two"),
        (r1(), "topk_group", json!(9), "field `topk_group` is 9: more than the 8 groups"),
        (r1(), "num_experts_per_tok", json!(129), "a token can only choose from 128 experts"),
        (r1(), "scoring_func", json!("softmax"), "field `scoring_func` is \"softmax\": only"),
        (r1(), "hidden_act", json!("gelu"), "field `hidden_act` is \"gelu\": only \"silu\""),
        (r1(), "moe_layer_freq", json!(2), "field `moe_layer_freq` is 2: only 1"),
        (r1(), "rope_scaling", dynamic.clone(), "field `rope_scaling.type` is \"dynamic\": only"),
        (v2_lite(), "topk_method", json!("best"), "field `topk_method` is \"best\": only"),
        (v2_lite(), "norm_topk_prob", json!(true), "field `norm_topk_prob` is true: only false"),
        (llama(), "num_key_value_heads", json!(5), "`num_key_value_heads` is 5: does not divide"),
        (llama(), "head_dim", json!(63), "field `head_dim` is 63: heads of 63: expected an even"),
        (llama(), "attention_bias", json!(1), "field `attention_bias` is 1: expected true or"),
        (llama(), "fathom_rope_factors", json!([1.0]), "is [1.0]: expected 32 numbers above 0"),
        (llama(), "partial_rotary_factor", json!(0.5), "is 0.5: only 1 is supported"),
        (distill(), "use_sliding_window", json!(true), "windows of attention are not supported"),
        (distill(), "eos_token_id", json!(151_936), "id 151936 is not below the 151936"),
    ] {
        let text = fault(&with(config, key, value));
        assert!(text.starts_with("config.json: ") && text.contains(what), "{text}");
    }
}

/// A value such as a broken or foreign config might have anywhere.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,9}|yarn|llama3|linear|dense|sparse|sigmoid".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let key =
            "type|factor|mscale|original_max_position_embeddings|low_freq_factor|high_freq_factor";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_of_any_field_panics(
        config in prop::sample::select(vec![r1(), v2_lite(), llama(), distill()]),
        pick in any::<prop::sample::Index>(),
        value in any_value(),
        rope in any_value(),
    ) {
        let mut config = with(config, "rope_scaling", rope);
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        config[pick.get(&keys).as_str()] = value;
        match read(&config) {
            Ok(config) => drop((config.architecture(), config.head_dim())),
            Err(e) => prop_assert!(e.to_string().starts_with("config.json: "), "{}", e),
        }
    }
}
