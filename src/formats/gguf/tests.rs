use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::builder::File;
use super::*;
use crate::formats::{BlockFormat, Checkpoint, DType, V4Config, Weights};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf");

fn open(file: &File) -> Checkpoint {
    Checkpoint::from_gguf_bytes("m.gguf", file.bytes()).unwrap()
}

/// What every metadata type and many tensor formats look like, by the format's own writer.
#[test]
fn reads_a_file_of_the_gguf_package() {
    let c = Checkpoint::open(Path::new(FIXTURES).join("types.gguf")).unwrap();
    let g = c.gguf().unwrap();
    let numbers = ["u8", "i8", "u16", "i16", "u32", "i32", "i64"]
        .map(|name| g.get(&format!("n.{name}")).unwrap().as_i64().unwrap());
    assert_eq!(numbers, [200, -100, 60000, -30000, 4_000_000_000, -2_000_000_000, -(1 << 62)]);
    assert_eq!(g.get("n.u64"), Some(&Value::U64(1 << 63)));
    assert_eq!(g.f32("n.f32").unwrap(), Some(1e-6));
    assert_eq!(g.get("n.f64"), Some(&Value::F64(1e-20)));
    assert_eq!(g.bool("n.yes").unwrap(), Some(true));
    assert_eq!(g.str("text").unwrap(), Some("größer"));
    assert_eq!(g.strings("a.texts").unwrap().unwrap().iter().collect::<Vec<_>>(), ["a", "", "ö"]);
    assert_eq!(g.i32s("a.i32").unwrap().unwrap(), [1, -2, 3]);
    assert_eq!(g.f32s("a.f32").unwrap().unwrap(), [0.5, -0.25]);
    assert_eq!(g.get("a.bool"), Some(&Value::Array(Array::Bool(vec![true, false]))));
    let arrays = vec![Array::I32(vec![1, 2]), Array::I32(vec![3])];
    assert_eq!(g.get("a.arrays"), Some(&Value::Array(Array::Array(arrays))));
    assert_eq!(g.str("missing").unwrap(), None);
    let wrong = g.u32("text").unwrap_err().to_string();
    let what = "metadata `text`: is a text, expected a whole number from 0 to 4294967295";
    assert!(wrong.ends_with(what), "{wrong}");
    check_tensors(&c);
}

/// The tensors of the fixtures: element i is (i % 64 - 32) / 32, as formats of few bits have it.
fn check_tensors(c: &Checkpoint) {
    let expected = |i: usize| (i % 64) as f32 / 32.0 - 1.0;
    for (name, shape) in [("f32", [2, 3]), ("f16", [3, 2])] {
        let view = c.tensor(name).unwrap();
        assert_eq!(view.shape, shape);
        assert_eq!(view.to_f32().unwrap(), (0..6).map(expected).collect::<Vec<_>>());
    }
    assert_eq!(c.tensor("i32").unwrap().to_i64().unwrap(), [-2, -1, 0, 1, 2, 3]);
    assert_eq!(c.tensor("i64").unwrap().to_i64().unwrap(), [0, 1]);
    let bf16 = c.tensor("bf16").unwrap();
    assert_eq!(bf16.to_f32().unwrap(), (0..384).map(expected).collect::<Vec<_>>());
    for name in ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4"] {
        let view = c.tensor(name).unwrap();
        let format = BlockFormat::named(name).unwrap();
        assert_eq!(view.dtype, DType::Block(format));
        assert_eq!(view.shape, [2, 3, 64]);
        assert_eq!(view.bytes.len(), 6 * format.stored_bytes(64));
        assert_eq!(view.row(1).unwrap().bytes, &view.bytes[3 * format.stored_bytes(64)..]);
    }
    // The scale of the first block, as Q8_0 begins: 1/127.
    let scale = half::f16::from_f32(1.0 / 127.0).to_le_bytes();
    assert_eq!(c.tensor("q8_0").unwrap().bytes[..2], scale);
}

#[test]
fn any_part_opens_the_whole() {
    for part in 1..=3 {
        let path = Path::new(FIXTURES).join(format!("split-{part:05}-of-00003.gguf"));
        let c = Checkpoint::open(path).unwrap();
        assert_eq!(c.names().count(), 11);
        let first = c.gguf().unwrap();
        assert_eq!(first.u32("split.no").unwrap(), Some(0));
        assert_eq!(first.str("general.architecture").unwrap(), Some("llama"));
        check_tensors(&c);
    }
}

/// A folder of some parts of the split fixture under these names, and one of them to open.
fn fault_of_parts(files: &[(&str, &str)], open: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in files {
        fs::copy(Path::new(FIXTURES).join(from), dir.path().join(to)).unwrap();
    }
    let text = Checkpoint::open(dir.path().join(open)).unwrap_err().to_string();
    text.replace(&dir.path().display().to_string(), "").replace(['/', '\\'], "")
}

#[test]
fn faults_of_split_models() {
    let [a, b, c] = [1, 2, 3].map(|part| format!("split-0000{part}-of-00003.gguf"));
    let (a, b, c) = (a.as_str(), b.as_str(), c.as_str());
    assert_eq!(
        fault_of_parts(&[(a, a), (c, c)], c),
        format!("{b}: missing: part 2 of the 3 of this model")
    );
    assert_eq!(
        fault_of_parts(&[(a, a), (a, b), (c, c)], a),
        format!("{b}: says it is part 1 of 3, named as part 2 of 3")
    );
    let one = "model.gguf";
    let named = "one of the 3 parts of a model, but not named NAME-00001-of-00003.gguf";
    assert_eq!(fault_of_parts(&[(b, one)], one), format!("{one}: {named}"));
    let fewer = "split-00001-of-00002.gguf";
    assert_eq!(fault_of_parts(&[(a, fewer)], fewer), format!("{fewer}: {named}"));
    assert_eq!(
        fault_of_parts(&[(a, a), ("types.gguf", b), (c, c)], a),
        format!("{b}: does not say which part of a model it is, named as part 2 of 3")
    );
    // A part with a tensor that another has, and one with fewer than announced.
    for (second, announced, what) in [
        ("t", 2, "m-00002-of-00002.gguf: tensor `t` is also in "),
        ("u", 3, "m-00001-of-00002.gguf: 3 tensors are announced, its parts have 2"),
    ] {
        let part = |no: u16, name: &str| {
            File::of("llama")
                .with("split.no", Value::U16(no))
                .with("split.count", Value::U16(2))
                .with("split.tensors.count", Value::I32(announced))
                .tensor(name, &[1], 0, 4)
                .bytes()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = |part| dir.path().join(format!("m-0000{part}-of-00002.gguf"));
        fs::write(path(1), part(0, "t")).unwrap();
        fs::write(path(2), part(1, second)).unwrap();
        let text = Checkpoint::open(path(1)).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn a_folder_with_one_gguf_model() {
    let dir = tempfile::tempdir().unwrap();
    for part in 1..=3 {
        let name = format!("split-0000{part}-of-00003.gguf");
        fs::copy(Path::new(FIXTURES).join(&name), dir.path().join(&name)).unwrap();
    }
    // Many such folders hold the original config.json too.
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().names().count(), 11);
    fs::write(dir.path().join("other.gguf"), "").unwrap();
    let several = Checkpoint::open(dir.path()).unwrap_err().to_string();
    let what = "holds several GGUF models, `other` and `split`: name one's file";
    assert!(several.ends_with(what), "{several}");
}

#[test]
fn errors_name_file_and_tensor() {
    let file = File::new().tensor_at("blk.0.attn_q.weight", &[32], 2, 64);
    let e = Checkpoint::from_gguf_bytes("m.gguf", file.with_data(32)).unwrap_err().to_string();
    assert!(e.starts_with("m.gguf: tensor `blk.0.attn_q.weight`: 18 bytes at offset 64"), "{e}");
}

/// A file of an architecture with these numbers below its name.
fn with_numbers(architecture: &str, numbers: &[(&str, u32)]) -> File {
    numbers.iter().fold(File::of(architecture), |file, (key, n)| {
        file.with(&format!("{architecture}.{key}"), Value::U32(*n))
    })
}

fn config(file: &File) -> Json {
    serde_json::from_str(open(file).config_text()).unwrap()
}

#[test]
fn llama_config() {
    let file = with_numbers(
        "llama",
        &[
            ("embedding_length", 576),
            ("block_count", 30),
            ("attention.head_count", 9),
            ("attention.head_count_kv", 3),
            ("context_length", 8192),
            ("feed_forward_length", 1536),
            ("vocab_size", 9),
        ],
    )
    .with("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
    .with("llama.rope.freq_base", Value::F32(100_000.0))
    .with("tokenizer.ggml.bos_token_id", Value::U32(1))
    .with("tokenizer.ggml.eos_token_id", Value::U32(2))
    .with("tokenizer.ggml.eot_token_id", Value::U32(3))
    .tensor("token_embd.weight", &[2, 12], 0, 96);
    assert_eq!(
        config(&file),
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "max_position_embeddings": 8192, "intermediate_size": 1536,
            "vocab_size": 12, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0,
            "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": true,
            "bos_token_id": 1, "eos_token_id": [2, 3], "fathom_rope_interleaved": true,
        })
    );
}

#[test]
fn factors_of_frequencies_are_passed_on() {
    let factors = [1.0f32, 1.2074839, 8.0];
    let file =
        with_numbers("llama", &[("block_count", 1)]).tensor("rope_freqs.weight", &[3], 0, 12);
    let mut bytes = file.with_data(0);
    bytes.extend(factors.iter().flat_map(|x| x.to_le_bytes()));
    let file = Checkpoint::from_gguf_bytes("m.gguf", bytes).unwrap();
    let config: Json = serde_json::from_str(file.config_text()).unwrap();
    let read: Vec<f32> = serde_json::from_value(config["fathom_rope_factors"].clone()).unwrap();
    assert_eq!(read, factors);
}

#[test]
fn qwen2_config() {
    let file = with_numbers("qwen2", &[("embedding_length", 8)])
        .tensor("output.weight", &[2, 2], 0, 16)
        .with("qwen2.rope.scaling.type", Value::Str("linear".into()))
        .with("qwen2.rope.scaling.factor", Value::F32(4.0));
    assert_eq!(
        config(&file),
        json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 8,
            "rope_theta": 10_000.0, "hidden_act": "silu", "attention_bias": false,
            "tie_word_embeddings": false, "rope_scaling": { "rope_type": "linear", "factor": 4.0 },
        })
    );
}

/// DeepSeek-V3's config.json and the metadata llama.cpp's converter makes of it.
#[test]
fn deepseek_v3_config() {
    let file = with_numbers(
        "deepseek2",
        &[
            ("embedding_length", 7168),
            ("block_count", 61),
            ("attention.head_count", 128),
            ("attention.head_count_kv", 1),
            ("feed_forward_length", 18432),
            ("vocab_size", 129_280),
            ("attention.q_lora_rank", 1536),
            ("attention.kv_lora_rank", 512),
            ("attention.key_length", 576),
            ("attention.value_length", 512),
            ("attention.key_length_mla", 192),
            ("attention.value_length_mla", 128),
            ("rope.dimension_count", 64),
            ("leading_dense_block_count", 3),
            ("expert_count", 256),
            ("expert_used_count", 8),
            ("expert_shared_count", 1),
            ("expert_group_count", 8),
            ("expert_group_used_count", 4),
            ("expert_feed_forward_length", 2048),
            ("expert_gating_func", 2),
            ("rope.scaling.original_context_length", 4096),
        ],
    )
    .with("deepseek2.expert_weights_scale", Value::F32(2.5))
    .with("deepseek2.expert_weights_norm", Value::Bool(true))
    .with("deepseek2.rope.scaling.type", Value::Str("yarn".into()))
    .with("deepseek2.rope.scaling.factor", Value::F32(40.0))
    .with("deepseek2.rope.scaling.yarn_log_multiplier", Value::F32(0.1));
    assert_eq!(
        config(&file),
        json!({
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
            "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
            "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129_280,
            "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 3,
            "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
            "n_group": 8, "topk_group": 4, "moe_intermediate_size": 2048, "moe_layer_freq": 1,
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true,
            "routed_scaling_factor": 2.5, "rope_theta": 10_000.0, "hidden_act": "silu",
            "attention_bias": false, "tie_word_embeddings": true,
            "rope_scaling": {
                "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
                "mscale": 1.0, "mscale_all_dim": 1.0,
            },
        })
    );
}

/// V2-Lite by an older converter: no keys for the absorbed form, none for the scoring.
#[test]
fn deepseek_v2_configs() {
    let lite = with_numbers(
        "deepseek2",
        &[
            ("attention.head_count", 16),
            ("attention.key_length", 192),
            ("attention.value_length", 128),
            ("rope.dimension_count", 64),
            ("expert_count", 64),
        ],
    )
    .with("deepseek2.expert_weights_scale", Value::F32(0.0))
    .with("deepseek2.rope.scaling.type", Value::Str("yarn".into()))
    .with("deepseek2.rope.scaling.yarn_log_multiplier", Value::F32(0.0707));
    let c = config(&lite);
    for (field, value) in [
        ("model_type", json!("deepseek_v2")),
        ("q_lora_rank", Json::Null),
        ("qk_nope_head_dim", json!(128)),
        ("v_head_dim", json!(128)),
        ("num_key_value_heads", json!(16)),
        ("scoring_func", json!("softmax")),
        ("topk_method", json!("greedy")),
        ("norm_topk_prob", json!(false)),
        ("routed_scaling_factor", json!(1.0)),
        ("n_group", json!(1)),
    ] {
        assert_eq!(c[field], value, "{field}");
    }
    let mscale = json!({ "rope_type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707 });
    assert_eq!(c["rope_scaling"], mscale);
    let old = with_numbers("deepseek2", &[("embedding_length", 7168), ("expert_count", 256)]);
    let old = config(&old);
    assert_eq!([&old["n_group"], &old["topk_group"]], [8, 4]);
    let grouped = config(&lite.with("deepseek2.expert_group_count", Value::U32(8)));
    assert_eq!(grouped["topk_method"], "group_limited_greedy");
    let unknown = with_numbers("deepseek2", &[("expert_gating_func", 3)]).bytes();
    let e = Checkpoint::from_gguf_bytes("m.gguf", unknown).unwrap_err().to_string();
    assert_eq!(e, "m.gguf: metadata `deepseek2.expert_gating_func`: unknown scoring function 3");
}

/// V4-Flash's metadata, as llama.cpp's converter writes them, give V4-Flash's dimensions.
#[test]
fn deepseek_v4_config() {
    let ratios = [vec![0, 0], [4, 128].repeat(20), vec![4, 0]].concat();
    let file = with_numbers(
        "deepseek4",
        &[
            ("embedding_length", 4096),
            ("block_count", 44),
            ("nextn_predict_layers", 1),
            ("attention.head_count", 64),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 512),
            ("attention.value_length", 512),
            ("context_length", 1 << 20),
            ("vocab_size", 129_280),
            ("rope.dimension_count", 64),
            ("attention.q_lora_rank", 1024),
            ("attention.output_lora_rank", 1024),
            ("attention.output_group_count", 8),
            ("attention.sliding_window", 128),
            ("attention.indexer.head_count", 64),
            ("attention.indexer.key_length", 128),
            ("attention.indexer.top_k", 512),
            ("expert_count", 256),
            ("expert_used_count", 6),
            ("expert_shared_count", 1),
            ("expert_feed_forward_length", 2048),
            ("expert_gating_func", 4),
            ("hash_layer_count", 3),
            ("hyper_connection.count", 4),
            ("hyper_connection.sinkhorn_iterations", 20),
            ("rope.scaling.original_context_length", 65536),
            ("feed_forward_length", 2048),
        ],
    )
    .with("deepseek4.attention.layer_norm_rms_epsilon", Value::F32(1e-20))
    .with("deepseek4.attention.compress_rope_freq_base", Value::F32(160_000.0))
    .with("deepseek4.attention.compress_ratios", Value::Array(Array::U32(ratios.clone())))
    .with("deepseek4.expert_weights_scale", Value::F32(1.5))
    .with("deepseek4.expert_weights_norm", Value::Bool(true))
    .with("deepseek4.hyper_connection.epsilon", Value::F32(1e-6))
    .with("deepseek4.swiglu_clamp_exp", Value::Array(Array::F32(vec![10.0; 43])))
    .with("deepseek4.rope.scaling.type", Value::Str("yarn".into()))
    .with("deepseek4.rope.scaling.factor", Value::F32(16.0))
    .with("deepseek4.rope.scaling.yarn_beta_fast", Value::F32(32.0))
    .with("deepseek4.rope.scaling.yarn_beta_slow", Value::F32(1.0))
    .tensor("output.weight", &[1], 0, 4)
    .tensor("blk.43.nextn.eh_proj.weight", &[1], 0, 4);
    let parsed = V4Config::from_checkpoint(&open(&file)).unwrap();
    let official = json!({
        "architectures": ["DeepseekV4ForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 43,
        "num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1024,
        "o_groups": 8, "o_lora_rank": 1024, "sliding_window": 128, "index_n_heads": 64,
        "index_head_dim": 128, "index_topk": 512, "hc_mult": 4, "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6, "n_routed_experts": 256, "num_experts_per_tok": 6, "n_shared_experts": 1,
        "moe_intermediate_size": 2048, "num_hash_layers": 3, "routed_scaling_factor": 1.5,
        "swiglu_limit": 10.0, "vocab_size": 129_280, "rope_theta": 10_000,
        "compress_rope_theta": 160_000, "max_position_embeddings": 1_048_576,
        "rms_norm_eps": 1e-20,
        "compress_ratios": ratios,
        "rope_scaling": {
            "type": "yarn", "factor": 16, "original_max_position_embeddings": 65536,
            "beta_fast": 32, "beta_slow": 1,
        },
    });
    let official = V4Config::parse(Path::new("c"), &official.to_string()).unwrap();
    assert_eq!(parsed, official);
}

#[test]
fn other_architectures_are_named() {
    let c = open(&File::of("gemma"));
    let e = V4Config::from_checkpoint(&c).unwrap_err().to_string();
    assert!(e.starts_with("m.gguf: field `architectures` is [\"gemma\"]: unknown"), "{e}");
}

/// Names of each family that a GGUF file has under another.
#[test]
fn canonical_names_are_found() {
    let pairs = [
        ("layers.3.attn.wq_a.weight", "blk.3.attn_q_a.weight"),
        ("layers.3.attn.attn_sink", "blk.3.attn_sinks.weight"),
        ("layers.3.attn.compressor.ape", "blk.3.attn_compressor_ape.weight"),
        ("layers.3.attn.indexer.weights_proj.weight", "blk.3.indexer.proj.weight"),
        ("layers.3.hc_ffn_scale", "blk.3.hc_ffn_scale.weight"),
        ("layers.3.ffn.gate.weight", "blk.3.ffn_gate_inp.weight"),
        ("layers.3.ffn.gate.bias", "blk.3.exp_probs_b.bias"),
        ("layers.3.ffn.gate.tid2eid", "blk.3.ffn_gate_tid2eid.weight"),
        ("hc_head_base", "output_hc_base.weight"),
        ("embed.weight", "token_embd.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias"),
        ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", "blk.0.attn_kv_a_mqa.weight"),
        ("model.layers.0.self_attn.k_b_proj.weight", "blk.0.attn_k_b.weight"),
        ("model.layers.0.self_attn.indexer.k_norm.bias", "blk.0.indexer.k_norm.bias"),
        ("model.layers.0.mlp.gate.e_score_correction_bias", "blk.0.exp_probs_b.bias"),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", "blk.0.ffn_up_shexp.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
    ];
    let mut stored: Vec<_> = pairs.iter().map(|pair| pair.1).collect();
    stored.sort_unstable();
    stored.dedup();
    let file = stored.iter().fold(File::new(), |file, name| file.tensor(name, &[1], 0, 4));
    let c = open(&file);
    for (canonical, stored) in pairs {
        assert_eq!(Weights::new(&c).get(canonical).unwrap().name, stored);
    }
    let missing = Weights::new(&c).get("layers.9.attn.wq_a.weight").unwrap_err().to_string();
    let what = "tensor `layers.9.attn.wq_a.weight`: not in the checkpoint, nor as \
                `blk.9.attn_q_a.weight`";
    assert_eq!(missing, what);
    assert!(!Weights::new(&c).contains("layers.3.attn.wq_a.scale"));
    assert!(!Weights::new(&c).contains("layers.3.attn.attn_sink.bias.weight"));
}

/// An expert is a slice of a tensor of blocks; gate and up may share one.
#[test]
fn experts_are_slices() {
    let q8 = BlockFormat::Q8_0.stored_bytes(32);
    let file = File::new()
        .tensor("blk.1.ffn_gate_exps.weight", &[32, 3, 2], 8, 6 * q8)
        .tensor("blk.1.ffn_down_exps.weight", &[32, 3, 2], 8, 6 * q8)
        .tensor("blk.2.ffn_gate_up_exps.weight", &[32, 4, 2], 8, 8 * q8);
    let c = open(&file);
    let w = Weights::new(&c);
    let whole = c.tensor("blk.1.ffn_gate_exps.weight").unwrap().bytes;
    for name in
        ["layers.1.ffn.experts.1.w1.weight", "model.layers.1.mlp.experts.1.gate_proj.weight"]
    {
        let view = w.get(name).unwrap();
        assert_eq!((view.shape.as_slice(), view.bytes), (&[3, 32][..], &whole[3 * q8..]));
        assert_eq!(view.name, "blk.1.ffn_gate_exps.weight[1]");
    }
    let both = c.tensor("blk.2.ffn_gate_up_exps.weight").unwrap().bytes;
    let up = w.get("model.layers.2.mlp.experts.1.up_proj.weight").unwrap();
    assert_eq!((up.shape.as_slice(), up.bytes), (&[2, 32][..], &both[6 * q8..]));
    let beyond = w.get("layers.1.ffn.experts.2.w2.weight").unwrap_err().to_string();
    assert!(beyond.ends_with("ffn_down_exps.weight`: expert 2 asked for, it has 2"), "{beyond}");
    assert!(!w.contains("layers.1.ffn.experts.0.w3.weight"));
}
