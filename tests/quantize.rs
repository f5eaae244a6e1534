//! `fathom::quantize`: files that mean what the folder they are made of means.

mod common;

use std::path::{Path, PathBuf};

use fathom::formats::{Checkpoint, DType, Gguf, TensorView, Value};
use fathom::models::Activations;
use fathom::quantize::{Kind, Report, quantize};
use fathom::runtime::{Backend, Engine, EngineOptions, Prompt, Session};
use fathom::text::{TextFolder, Vocabulary};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView as Raw, serialize_to_file};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle").join(name)
}

fn make(input: &Path, output: &Path, kind: Kind) -> Report {
    let mut last = (0, 1);
    let report = quantize(input, output, kind, false, &mut |done, total| last = (done, total));
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(last, (report.bytes, report.bytes));
    report
}

/// The error of `fathom quantize` on a folder.
fn fault(input: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let made = quantize(input, &folder.path().join("x.gguf"), Kind::Q8_0, false, &mut |_, _| {});
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    made.unwrap_err().to_string()
}

fn logits(checkpoint: &Checkpoint, ids: &[u32]) -> Vec<f32> {
    let options = EngineOptions {
        backend: Backend::Cpu,
        context: Some(ids.len()),
        outs: usize::MAX,
        activations: Activations::F32,
        ..EngineOptions::default()
    };
    let mut engine = Engine::load(checkpoint, &options, &mut |_, _, _| {}).unwrap();
    let prompt = Prompt::from_ids(ids, &engine.config, vec![]).unwrap();
    let mut out = vec![];
    let mut keep = |rows: &[f32]| {
        out.extend_from_slice(rows);
        Ok(())
    };
    Session::new(&mut engine).logits(prompt, 1024, &mut keep).unwrap();
    out
}

/// A file in f32 gives the logits that the reference gives of the folder: names, metadata, order of
/// rows, stacks of experts.
#[test]
fn files_give_the_logits_of_folders() {
    for name in [
        "llama",
        "llama_bias",
        "qwen2",
        "v2",
        "v2_lite",
        "v3_fp8",
        "text_official",
        "text_hf_names",
        "text_hf_saved",
        "text_fp8_fp4",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let report = make(&fixture(name), &path, Kind::F32);
        assert!(report.fallbacks.is_empty() && !report.requantized, "{name}");
        let bytes = std::fs::read(fixture(name).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids: Vec<u32> = bytemuck::pod_collect_to_vec(file.tensor("ids").unwrap().data());
        let wanted: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor("logits").unwrap().data());
        let got = logits(&Checkpoint::open(&path).unwrap(), &ids);
        let e = common::error(&got, &wanted);
        println!("{name}: {e:.2e}");
        assert!(e <= 2e-4, "{name}: error {e:.2e}");
    }
}

/// Numbers of a tensor, whatever its format.
fn numbers(view: &TensorView<'_>) -> Vec<f32> {
    let DType::Block(format) = view.dtype else { return view.to_f32().unwrap() };
    let mut out = vec![0.0; view.elements()];
    format.dequantize(view.bytes, &mut out);
    out
}

/// From a file to a file: the same tensors nearly, the same metadata but for what says the format.
#[test]
fn files_become_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make(&fixture("text_fp8_fp4"), &path("f32.gguf"), Kind::F32);
    let first = Checkpoint::open(path("f32.gguf")).unwrap();
    // The largest error of a tensor's numbers, as a part of its root mean square.
    for (kind, most) in [(Kind::Q8_0, 0.05), (Kind::MXFP4, 2.0), (Kind::BF16, 0.05)] {
        let report = make(&path("f32.gguf"), &path("second.gguf"), kind);
        let second = Checkpoint::open(path("second.gguf")).unwrap();
        assert!(first.names().eq(second.names()));
        let mut bytes = 0;
        for name in first.names() {
            let (a, b) = (first.tensor(name).unwrap(), second.tensor(name).unwrap());
            assert_eq!(a.shape, b.shape, "{name}");
            bytes += b.bytes.len() as u64;
            if a.dtype == DType::I32 {
                assert_eq!(a.bytes, b.bytes, "{name}");
                continue;
            }
            let e = common::error(&numbers(&b), &numbers(&a));
            assert!(e < most, "{name} in {}: {e}", b.dtype);
            let whole = a.shape.len() == 1 || name.contains("ffn_gate_inp");
            assert!(!whole || (e == 0.0 && b.dtype == DType::F32), "{name} in {}", b.dtype);
        }
        assert_eq!(report.bytes, bytes);
        assert_eq!(report.bytes_by_format.values().sum::<u64>(), bytes);
        let keys = |c: &Checkpoint| -> Vec<(String, Value)> {
            let all = c.gguf().unwrap().metadata();
            let same = all.filter(|(key, _)| *key != "general.file_type");
            same.map(|(key, value)| (key.to_owned(), value.clone())).collect()
        };
        assert_eq!(keys(&first), keys(&second));
        let file_type = second.gguf().unwrap().u32("general.file_type").unwrap();
        assert_eq!(file_type, Some(kind.file_type()));
        let _ = std::fs::remove_file(path("second.gguf"));
    }
}

/// A folder with a Llama of one layer and rows of 256, whose config and tensors can be changed.
fn llama(change: impl FnOnce(&mut Json, &mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> TempDir {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
        "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false, "bos_token_id": 257, "eos_token_id": [258, 259],
    });
    let mut random = common::Random::new(3);
    let mut tensors = vec![];
    let layer = "model.layers.0";
    for (name, shape) in [
        ("model.embed_tokens".to_owned(), vec![300, 256]),
        ("model.norm".to_owned(), vec![256]),
        ("lm_head".to_owned(), vec![300, 256]),
        (format!("{layer}.input_layernorm"), vec![256]),
        (format!("{layer}.post_attention_layernorm"), vec![256]),
        (format!("{layer}.self_attn.q_proj"), vec![256, 256]),
        (format!("{layer}.self_attn.k_proj"), vec![128, 256]),
        (format!("{layer}.self_attn.v_proj"), vec![128, 256]),
        (format!("{layer}.self_attn.o_proj"), vec![256, 256]),
        (format!("{layer}.mlp.gate_proj"), vec![256, 256]),
        (format!("{layer}.mlp.up_proj"), vec![256, 256]),
        (format!("{layer}.mlp.down_proj"), vec![256, 256]),
    ] {
        // Products keep the size of what they are of.
        let size = if shape.len() == 2 { 1.0 / 16.0 } else { 1.0 };
        let values = random.floats(shape.iter().product()).iter().map(|v| v * size).collect();
        tensors.push((format!("{name}.weight"), shape, values));
    }
    change(&mut config, &mut tensors);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let views = tensors.iter().map(|(name, shape, values)| {
        (name, Raw::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).unwrap())
    });
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

#[test]
fn every_kind_is_near_the_original() {
    let model = llama(|_, _| {});
    let ids: Vec<u32> = (0..20).map(|i| i * 13 % 300).collect();
    let wanted = logits(&Checkpoint::open(model.path()).unwrap(), &ids);
    for (kind, expected, most) in [
        (Kind::F16, "F16", 0.005),
        (Kind::Q8_0, "Q8_0", 0.07),
        (Kind::Q6K, "Q6_K", 0.2),
        (Kind::Q4K, "Q4_K", 0.7),
        (Kind::Q4_0, "Q4_0", 1.0),
        (Kind::MXFP4, "MXFP4", 1.5),
    ] {
        let path = model.path().join(format!("{expected}.gguf"));
        let report = make(model.path(), &path, kind);
        assert!(report.bytes_by_format.contains_key(expected), "{report:?}");
        assert!(report.fallbacks.is_empty(), "{report:?}");
        let e = common::error(&logits(&Checkpoint::open(&path).unwrap(), &ids), &wanted);
        println!("{expected}: {e:.3}");
        assert!(e < most, "{expected}: error {e}");
    }
}

#[test]
fn the_tokenizer_comes_along() {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    let model = llama(|_, _| {});
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    alphabet.push("he".into());
    let vocab: Json =
        alphabet.iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect();
    let added = |id: u32, content: &str, special: bool| {
        json!({
            "id": id, "content": content, "special": special, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "post_processor": null, "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["h", "e"]]},
        "added_tokens": [
            added(257, "<s>", true), added(258, "</s>", true), added(259, "<|im_end|>", true),
            added(260, "extra", false),
        ],
    });
    let write = |name: &str, text: &Json| {
        std::fs::write(model.path().join(name), text.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer);
    let template = "{{ messages[0].content }}";
    write(
        "tokenizer_config.json",
        &json!({
            "bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
            "chat_template": template,
        }),
    );
    let path = model.path().join("x.gguf");
    make(model.path(), &path, Kind::Q8_0);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let gguf: &Gguf = checkpoint.gguf().unwrap();
    assert_eq!(gguf.str("tokenizer.ggml.pre").unwrap(), Some("smollm"));
    assert_eq!(gguf.str("tokenizer.chat_template").unwrap(), Some(template));
    assert_eq!(gguf.u32("tokenizer.ggml.eot_token_id").unwrap(), Some(259));
    let types = gguf.i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(types.len(), 300);
    assert_eq!(types[255..263], [1, 1, 3, 3, 3, 4, 5, 5]);
    let vocabulary = Vocabulary::from_gguf(gguf).unwrap().unwrap();
    let from_file = vocabulary.into_tokenizer(&path).unwrap();
    let from_folder = TextFolder::new(model.path()).tokenizer().unwrap();
    assert_eq!(from_file.bounds().bos, from_folder.bounds().bos);
    assert_eq!(from_file.bounds().eos, Some(258));
    for text in ["hello the 42 öß", "extra<s> he", "  \n\nhe"] {
        assert_eq!(from_file.encode(text).unwrap(), from_folder.encode(text).unwrap(), "{text}");
    }

    let mut other = tokenizer.clone();
    other["pre_tokenizer"] = json!({"type": "Whitespace"});
    write("tokenizer.json", &other);
    assert!(fault(model.path()).ends_with("its `pre_tokenizer` has no name in GGUF files"));
    other = tokenizer;
    other["model"]["byte_fallback"] = json!(true);
    write("tokenizer.json", &other);
    assert!(fault(model.path()).contains("not byte-level BPE"));
}

#[test]
fn what_cannot_be_quantized_is_told_in_a_line() {
    let nan = llama(|_, tensors| tensors[5].2[700] = f32::NAN);
    let told = fault(nan.path());
    let end = "`model.layers.0.self_attn.q_proj.weight`: element 188 of a row is NaN";
    assert!(told.ends_with(end), "{told}");
    let huge = llama(|_, tensors| tensors[9].2[0] = 1e20);
    assert!(
        fault(huge.path()).ends_with("100000000000000000000 is too large for the scales of Q8_0")
    );
    let unknown = llama(|_, tensors| tensors[3].0 = "model.layers.0.mystery".into());
    let told = fault(unknown.path());
    assert!(
        told.ends_with(
            "`model.layers.0.mystery`: has no place in a GGUF file of this architecture"
        ),
        "{told}"
    );
    let shape = llama(|config, tensors| {
        config["num_attention_heads"] = json!(8);
        tensors[6].1[0] = 100;
        tensors[6].2.truncate(100 * 256);
    });
    let told = fault(shape.path());
    assert!(told.ends_with("has 100 rows, which are no heads of 32"), "{told}");
    let v32 = fault(&fixture("v32"));
    assert!(v32.contains("config.json: llama.cpp's architecture for V3.2"), "{v32}");

    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there.gguf");
    std::fs::write(&there, "precious").unwrap();
    let to = |path: &Path, replace| {
        quantize(&fixture("llama"), path, Kind::F16, replace, &mut |_, _| {})
    };
    let told = to(&there, false).unwrap_err().to_string();
    assert!(told.ends_with("there.gguf: is there already; --force replaces it"), "{told}");
    assert_eq!(std::fs::read(&there).unwrap(), b"precious");
    to(&there, true).unwrap();
    Checkpoint::open(&there).unwrap();
    let told = to(&folder.path().join("x.bin"), false).unwrap_err().to_string();
    assert!(told.ends_with("x.bin: the name of a GGUF file ends in .gguf"), "{told}");
    let told = to(&folder.path().join("no/x.gguf"), false).unwrap_err().to_string();
    assert!(told.contains("x.gguf: No such file"), "{told}");
}
