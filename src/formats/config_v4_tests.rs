//! Tests of `config_v4.rs`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(value: &Value) -> Result<V4Config> {
    V4Config::parse(Path::new("config.json"), &value.to_string())
}

fn fault(value: &Value) -> String {
    read(value).unwrap_err().to_string()
}

/// The published config of V4-Flash-Vision-Exp, without the keys nobody reads and the ratios.
const VISION_EXP: &str = r#"{
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
    "hidden_size": 4096, "num_hidden_layers": 43, "num_attention_heads": 64,
    "num_key_value_heads": 1, "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1024,
    "o_groups": 8, "o_lora_rank": 1024, "sliding_window": 128,
    "index_n_heads": 64, "index_head_dim": 128, "index_topk": 512, "hc_mult": 4,
    "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "n_routed_experts": 256, "num_experts_per_tok": 6,
    "n_shared_experts": 1, "moe_intermediate_size": 2048, "num_hash_layers": 3,
    "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc",
    "norm_topk_prob": true, "swiglu_limit": 10.0, "vocab_size": 129280,
    "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1, "rope_theta": 10000,
    "compress_rope_theta": 160000, "max_position_embeddings": 1048576, "rms_norm_eps": 1e-20,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 65536},
    "dspark_block_size": 5, "vision_n_layers": 32, "vision_dim": 1024, "vision_n_heads": 16,
    "vision_inter_dim": 2816, "vision_patch_size": 14, "vision_rope_theta": 10000,
    "vision_downsample_ratio": 3, "vision_max_n_token": 384, "vision_min_pixels": 147456,
    "vision_max_wh_ratio": 8
}"#;

/// [`VISION_EXP`] with the compression ratio of each layer and of the three draft stages.
fn vision_exp() -> Value {
    let mut config: Value = serde_json::from_str(VISION_EXP).unwrap();
    let ratios = [0, 0].into_iter().chain([4, 128].repeat(20)).chain([4, 0, 0, 0]);
    config["compress_ratios"] = ratios.collect();
    config
}

/// [`vision_exp`] with `key` changed to `value`.
fn with(key: &str, value: impl Into<Value>) -> Value {
    let mut config = vision_exp();
    config[key] = value.into();
    config
}

/// [`vision_exp`] without `key`.
fn without(key: &str) -> Value {
    let mut config = vision_exp();
    config.as_object_mut().unwrap().remove(key);
    config
}

#[test]
fn reads_the_hugging_face_spelling() {
    let c = read(&vision_exp()).unwrap();
    assert_eq!(c.layers.len(), 43);
    assert_eq!(c.layers[1], LayerKind::Window);
    assert_eq!(c.layers[2], LayerKind::Csa { ratio: 4 });
    assert_eq!(c.layers[41], LayerKind::Hca { ratio: 128 });
    assert_eq!(c.layers[42], LayerKind::Csa { ratio: 4 });
    let yarn = Yarn { factor: 16.0, original_context: 65536, beta_fast: 32.0, beta_slow: 1.0 };
    assert_eq!(c.yarn, Some(yarn));
    assert_eq!((c.rope_theta, c.compress_rope_theta, c.eps), (1e4, 1.6e5, 1e-20));
    assert_eq!((c.bos, c.eos.as_slice(), c.hash_layers, c.rope_dim), (0, &[1][..], 3, 64));
    let vision = c.vision.unwrap();
    assert_eq!((vision.layers, vision.heads, vision.max_wh_ratio), (32, 16, Some(8)));
    assert!(c.dspark);
    assert_eq!(c.prompt_style, None);
}

#[test]
fn reads_the_reference_spelling_alike() {
    let mut reference = vision_exp();
    let map = reference.as_object_mut().unwrap();
    for (from, to) in [
        ("hidden_size", "dim"),
        ("num_hidden_layers", "n_layers"),
        ("num_attention_heads", "n_heads"),
        ("qk_rope_head_dim", "rope_head_dim"),
        ("sliding_window", "window_size"),
        ("num_experts_per_tok", "n_activated_experts"),
        ("moe_intermediate_size", "moe_inter_dim"),
        ("num_hash_layers", "n_hash_layers"),
        ("routed_scaling_factor", "route_scale"),
        ("scoring_func", "score_func"),
        ("rms_norm_eps", "norm_eps"),
    ] {
        let value = map.remove(from).unwrap();
        map.insert(to.into(), value);
    }
    for gone in ["architectures", "model_type", "rope_scaling"] {
        map.remove(gone);
    }
    map.extend([
        ("original_seq_len".into(), 65536.into()),
        ("rope_factor".into(), 16.into()),
        ("beta_fast".into(), 32.into()),
    ]);
    assert_eq!(read(&reference).unwrap(), read(&vision_exp()).unwrap());
    reference["original_seq_len"] = 0.into();
    assert_eq!(read(&reference).unwrap().yarn, None);
}

#[test]
fn reads_what_transformers_saves() {
    let mut saved = vision_exp();
    let map = saved.as_object_mut().unwrap();
    for gone in ["compress_ratios", "num_hash_layers", "rope_scaling", "qk_rope_head_dim"] {
        map.remove(gone);
    }
    saved["num_hidden_layers"] = 3.into();
    saved["layer_types"] =
        json!(["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]);
    saved["compress_rates"] =
        json!({"compressed_sparse_attention": 2, "heavily_compressed_attention": 16});
    saved["mlp_layer_types"] = json!(["hash_moe", "moe", "moe"]);
    saved["partial_rotary_factor"] = 0.125.into();
    saved["rope_parameters"] = json!({
        "main": {"rope_type": "default", "rope_theta": 9000.0},
        "compress": {"rope_type": "yarn", "rope_theta": 1e5, "factor": 8, "attention_factor": 1.0,
                     "original_max_position_embeddings": 4096},
    });
    let c = read(&saved).unwrap();
    assert_eq!(
        c.layers,
        [LayerKind::Window, LayerKind::Csa { ratio: 2 }, LayerKind::Hca { ratio: 16 }]
    );
    assert_eq!((c.hash_layers, c.rope_dim), (1, 64));
    assert_eq!((c.rope_theta, c.compress_rope_theta), (9e3, 1e5));
    let yarn = Yarn { factor: 8.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0 };
    assert_eq!(c.yarn, Some(yarn));

    let mut bad = saved.clone();
    bad["mlp_layer_types"] = json!(["moe", "hash_moe", "moe"]);
    assert!(fault(&bad).contains("field `mlp_layer_types` is"), "{}", fault(&bad));
    let mut bad = saved.clone();
    bad["layer_types"][1] = "full_attention".into();
    assert!(fault(&bad).ends_with("unknown kind of layer `full_attention`"), "{}", fault(&bad));
    let mut bad = saved.clone();
    bad["rope_parameters"]["compress"]["attention_factor"] = 1.2.into();
    assert!(
        fault(&bad).contains("field `rope_parameters.compress.attention_factor` is 1.2: only 1")
    );
    let mut bad = saved;
    bad["rope_parameters"]["compress"]["rope_type"] = "linear".into();
    assert!(fault(&bad).contains("field `rope_parameters.compress.rope_type` is \"linear\""));
}

#[test]
fn values_left_out_are_the_familys() {
    let c = read(&without("rope_scaling")).unwrap();
    assert_eq!(c.yarn, None);
    let c = read(&without("vision_n_layers")).unwrap();
    assert_eq!(c.vision, None);
    for key in ["swiglu_limit", "routed_scaling_factor", "hc_mult", "rope_theta", "bos_token_id"] {
        assert_eq!(read(&without(key)).unwrap(), read(&vision_exp()).unwrap(), "{key}");
    }
    assert_eq!(read(&with("swiglu_limit", 0)).unwrap().swiglu_limit, f32::MAX);
    assert_eq!(read(&with("eos_token_id", json!([1, 7]))).unwrap().eos, [1, 7]);
    assert_eq!(
        read(&with("vision_max_wh_ratio", Value::Null)).unwrap().vision.unwrap().max_wh_ratio,
        None
    );
    let ratios = read(&with("compress_ratios", json!(vec![1; 43]))).unwrap();
    assert_eq!(ratios.layers[0], LayerKind::Hca { ratio: 1 });
}

#[test]
fn what_attention_keeps_is_rounded_if_the_weights_are_fp8() {
    let qat = |config: &Value| read(config).unwrap().qat;
    assert_eq!(qat(&vision_exp()), Qat::Off);
    assert_eq!(qat(&with("dtype", "bfloat16")), Qat::Off);
    // As Hugging Face's config says it, and the reference code's.
    assert_eq!(qat(&with("quantization_config", json!({"quant_method": "fp8"}))), Qat::Kv);
    assert_eq!(qat(&with("quantization_config", json!({"quant_method": "awq"}))), Qat::Off);
    assert_eq!(qat(&with("dtype", "fp8")), Qat::Kv);
}

#[test]
fn faults_name_field_and_value() {
    assert_eq!(
        fault(&without("hidden_size")),
        "config.json: field `hidden_size` or `dim` is missing"
    );
    for (key, value, what) in [
        ("hidden_size", json!(0), "field `hidden_size` is 0: expected a whole number"),
        ("hidden_size", json!("4096"), "field `hidden_size` is \"4096\": expected a whole"),
        ("rms_norm_eps", json!(0), "field `rms_norm_eps` is 0: expected a number above 0"),
        ("compress_ratios", json!([0, 4]), "field `compress_ratios` is [0,4]: 2 entries for"),
        ("compress_ratios", json!([-1]), "field `compress_ratios` is [-1]: expected a list"),
        ("o_groups", json!(7), "field `o_groups` is 7: does not divide the 64 attention heads"),
        ("qk_rope_head_dim", json!(63), "heads of 512 with 63 rotated"),
        ("index_head_dim", json!(32), "field `index_head_dim` is 32: smaller than the 64"),
        ("n_routed_experts", json!(5), "field `n_routed_experts` is 5: smaller than the 6"),
        ("scoring_func", json!("softmax"), "field `scoring_func` is \"softmax\": only"),
        ("eos_token_id", json!(129280), "field `eos_token_id` is 129280: id 129280 is not below"),
        ("eos_token_id", json!("x"), "field `eos_token_id` is \"x\": expected a token id"),
        ("vision_n_heads", json!(3), "field `vision_n_heads` is 3: does not divide `vision_dim`"),
        ("swiglu_limit", json!(-1), "field `swiglu_limit` is -1: expected a number above 0"),
    ] {
        let text = fault(&with(key, value));
        assert!(text.starts_with("config.json: ") && text.contains(what), "{text}");
    }
}

/// A value such as a broken or foreign config might have anywhere.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,9}|yarn|default".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let key = "main|compress|rope_type|factor|type|original_max_position_embeddings";
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
        pick in any::<prop::sample::Index>(),
        value in any_value(),
        rope in any_value(),
    ) {
        let mut config = vision_exp();
        config["rope_parameters"] = rope;
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        config[pick.get(&keys).as_str()] = value;
        if let Err(e) = read(&config) {
            prop_assert!(e.to_string().starts_with("config.json: "), "{}", e);
        }
    }
}
