//! How a question becomes a prompt, with a tiny model of zeros: whatever it reads, it answers with
//! its token 0, which ends the reply.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Fathom, on_cpu};

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
/// In the manner of R1's: whatever is asked, it opens reasoning.
const ALWAYS_THINKS: &str = "{{ bos_token }}{% for m in messages %}{{ '<｜User｜>' + m.content }}\
                             {% endfor %}{{ '<think>\n' }}";

/// A Llama of one layer whose weights are all zero.
fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 264,
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "rms_norm_eps": 1e-5,
        "rope_theta": 1e4, "max_position_embeddings": 128, "hidden_act": "silu",
        "tie_word_embeddings": false,
    });
    write(folder.path(), "config.json", &config);
    write(folder.path(), "tokenizer.json", &tokenizer());
    let tensors = [
        ("model.embed_tokens.weight", vec![264, 8]),
        ("lm_head.weight", vec![264, 8]),
        ("model.norm.weight", vec![8]),
        ("model.layers.0.input_layernorm.weight", vec![8]),
        ("model.layers.0.post_attention_layernorm.weight", vec![8]),
        ("model.layers.0.self_attn.q_proj.weight", vec![8, 8]),
        ("model.layers.0.self_attn.k_proj.weight", vec![4, 8]),
        ("model.layers.0.self_attn.v_proj.weight", vec![4, 8]),
        ("model.layers.0.self_attn.o_proj.weight", vec![8, 8]),
        ("model.layers.0.mlp.gate_proj.weight", vec![8, 8]),
        ("model.layers.0.mlp.up_proj.weight", vec![8, 8]),
        ("model.layers.0.mlp.down_proj.weight", vec![8, 8]),
    ];
    let zeros = vec![0; 264 * 8 * 4];
    let views = tensors.map(|(name, shape)| {
        let bytes = 4 * shape.iter().product::<usize>();
        (name, TensorView::new(Dtype::F32, shape, &zeros[..bytes]).unwrap())
    });
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A token for each byte, after the special ones: texts have as many tokens as bytes.
fn tokenizer() -> Value {
    let special = [EOS, BOS, "<｜User｜>", "<think>", "</think>"];
    let added: Vec<_> = special
        .iter()
        .zip(0..)
        .map(|(content, id): (_, u32)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let mut vocabulary: serde_json::Map<_, _> = special
        .iter()
        .zip(0..)
        .map(|(token, id): (_, u32)| (token.to_string(), id.into()))
        .collect();
    let printable = |b: &u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256).filter(|b| !printable(b)).zip(0x100..).map(|(_, symbol)| symbol);
    let symbols = (0..256).filter(printable).chain(others);
    vocabulary.extend(
        symbols
            .zip(5..)
            .map(|(symbol, id): (_, u32)| (char::from_u32(symbol).unwrap().to_string(), id.into())),
    );
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                            "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level, "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

fn run(folder: &Path, question: &str) -> Fathom {
    on_cpu("run").arg(folder).args(["--prompt", question])
}

/// The tokens of the prompt that `question` becomes, and what was said about it.
fn prompt_tokens(folder: &Path, question: &str, more: &[&str]) -> (u64, String) {
    let done = run(folder, question).arg("--json").args(more).done();
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{}", done.err));
    assert_eq!((&report["finish"], &report["reply_tokens"]), (&json!("stop"), &json!(1)));
    (report["prompt_tokens"].as_u64().unwrap(), done.err)
}

#[test]
fn a_folders_template_writes_its_prompts() {
    let folder = model();
    let path = folder.path();
    let bounds = json!({"bos_token": BOS, "eos_token": {"content": EOS}, "add_bos_token": true});
    write(path, "tokenizer_config.json", &bounds);
    let question = "abc<｜User｜>";
    let (tokens, said) = prompt_tokens(path, question, &[]);
    assert_eq!(tokens as usize, 1 + question.len());
    assert!(said.contains("no chat format is known"), "{said}");

    std::fs::write(path.join("chat_template.jinja"), ALWAYS_THINKS).unwrap();
    let (tokens, said) = prompt_tokens(path, question, &[]);
    assert_eq!(tokens as usize, 2 + question.len() + 2);
    assert_eq!(said.lines().count(), 1, "{said}");
    let (_, said) = prompt_tokens(path, question, &["--think", "off"]);
    assert!(said.contains("always thinks first"), "{said}");
    let (_, said) = prompt_tokens(path, question, &["--think", "high"]);
    assert!(!said.contains("always thinks first"), "{said}");
    let (tokens, said) = prompt_tokens(path, question, &["--raw"]);
    assert_eq!(tokens as usize, 1 + question.len());
    assert_eq!(said.lines().count(), 1, "{said}");
    run(path, "a").args(["--raw", "--system", "b"]).misused("--raw");

    std::fs::write(path.join("chat_template.jinja"), "a\n{{ raise_exception('no') }}").unwrap();
    run(path, "a").fails(&["chat_template.jinja: chat template, line 2: no"]);
    std::fs::write(path.join("chat_template.jinja"), "{% if %}").unwrap();
    run(path, "a").fails(&["chat_template.jinja: chat template, line 1: "]);
    std::fs::write(path.join("chat_template.jinja"), "{# nothing #}").unwrap();
    let (tokens, _) = prompt_tokens(path, question, &[]);
    assert_eq!(tokens, 1);
}

#[test]
fn generation_config_ends_replies() {
    let folder = model();
    let path = folder.path();
    write(path, "generation_config.json", &json!({"eos_token_id": [7, 0]}));
    let (tokens, _) = prompt_tokens(path, "abc", &["--raw"]);
    assert_eq!(tokens, 4);
    write(path, "generation_config.json", &json!({"eos_token_id": "x"}));
    run(path, "a").fails(&["generation_config.json: "]);
}
