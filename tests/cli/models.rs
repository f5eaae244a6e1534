//! Model folders that are broken in one way each.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Fathom, copy_of, fathom, file, on_cpu};

const SHARDED: &str = "tests/fixtures/oracle/text_official";
const WITH_VISION: &str = "tests/fixtures/oracle/vision_one";

/// `fathom logits` of a few tokens: loads the whole model, and needs no tokenizer.
fn loads(folder: &Path) -> Fathom {
    let tokens = folder.join("tokens.json");
    std::fs::write(&tokens, "[1, 2, 3, 4, 5]").unwrap();
    let out = folder.join("logits");
    on_cpu("logits").arg(folder).arg("--tokens").arg(tokens).arg("--out").arg(out)
}

/// A copy of a fixture whose config.json has some fields replaced.
fn with_config(folder: &str, fields: Value) -> TempDir {
    let copy = copy_of(folder);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
    copy
}

/// A tensor on its way from one file to another.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A copy of a fixture whose tensors have been through `change`, in one file.
fn with_tensors(folder: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> TempDir {
    let copy = copy_of(folder);
    let mut tensors = HashMap::new();
    for entry in std::fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("model") {
            let bytes = std::fs::read(&path).unwrap();
            if let Ok(all) = SafeTensors::deserialize(&bytes) {
                for (name, t) in all.tensors() {
                    let bytes = t.data().to_vec();
                    tensors.insert(
                        name,
                        Tensor { dtype: t.dtype(), shape: t.shape().to_vec(), bytes },
                    );
                }
            }
            std::fs::remove_file(path).unwrap();
        }
    }
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, t)| (name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(copy.path().join("model.safetensors"), file).unwrap();
    copy
}

#[test]
fn whole_models_load() {
    loads(copy_of(SHARDED).path()).succeeds();
    loads(with_tensors(SHARDED, |_| {}).path()).succeeds();
    loads(with_config(WITH_VISION, json!({})).path()).succeeds();
}

#[test]
fn folders_that_are_no_models() {
    for command in ["inspect", "run -p hello --backend cpu", "eval --backend cpu", "verify"] {
        fathom(command.split(' ')).arg("no/such/folder").fails(&["no/such/folder", "not a model"]);
    }
    let (folder, path) = file("notes.txt", "hello");
    loads(folder.path()).fails(&["config.json", "(os error"]);
    fathom(["inspect"]).arg(path).fails(&["notes.txt", "not a model: neither"]);

    let copy = copy_of(SHARDED);
    on_cpu("run -p hello").arg(copy.path()).fails(&["tokenizer.json", "(os error"]);
    std::fs::write(copy.path().join("tokenizer.json"), "{").unwrap();
    on_cpu("run -p hello").arg(copy.path()).fails(&["tokenizer.json", "not a tokenizer"]);
    // A tokenizer that knows more tokens than the model.
    let tokenizer = super::repository("weights/minnow/tokenizer.json");
    std::fs::copy(tokenizer, copy.path().join("tokenizer.json")).unwrap();
    on_cpu("run -p hello").arg(copy.path()).fails(&["token", "its tokenizer is another model's"]);
}

#[test]
fn rounding_that_does_not_fit_the_model() {
    let (llama, v4) = (copy_of("tests/fixtures/oracle/llama"), copy_of(SHARDED));
    let rounded = |folder: &TempDir, qat| loads(folder.path()).args(["--qat", qat]);
    rounded(&llama, "kv").fails(&["LlamaForCausalLM", "no --qat but `off`"]);
    rounded(&v4, "full").fails(&["`index_head_dim` is 12", "power of two"]);
    rounded(&v4, "some").misused("--qat");
}

#[test]
fn configs_that_cannot_be_read() {
    let text = std::fs::read_to_string(super::repository(SHARDED).join("config.json")).unwrap();
    for (from, to, part) in [
        (text.as_str(), "", "not a JSON object"),
        (&text, "[1]", "not a JSON object"),
        (&text, "hidden_size: 44", "not a JSON object"),
        (&text, "{}", "`architectures` or `model_type` is missing"),
        ("DeepseekV4ForCausalLM", "GPT2LMHeadModel", "unknown architecture"),
        ("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": NaN", "not a JSON object"),
        ("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": Infinity", "not a JSON object"),
        ("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e999", "number out of range"),
        ("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e99", "`rms_norm_eps` is 1e+99"),
    ] {
        let copy = copy_of(SHARDED);
        assert!(text.contains(from), "{from}");
        std::fs::write(copy.path().join("config.json"), text.replace(from, to)).unwrap();
        loads(copy.path()).fails(&["config.json", part]);
        fathom(["inspect"]).arg(copy.path()).fails(&["config.json", part]);
    }
}

#[test]
fn config_numbers_that_make_no_sense() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-44)),
        ("hidden_size", json!(44.5)),
        ("hidden_size", json!("44")),
        ("hidden_size", json!(1_000_000_000_000u64)),
        ("sliding_window", json!(1_000_000_000_000_000u64)),
        ("vocab_size", json!(1u64 << 40)),
        ("vocab_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1 << 28)),
        ("index_topk", json!(1e15)),
        ("routed_scaling_factor", json!(-1)),
        ("swiglu_limit", json!(-1)),
        ("rope_theta", json!(0)),
        ("o_groups", json!(2)),
        ("eos_token_id", json!(77)),
        ("num_experts_per_tok", json!(6)),
        ("hc_mult", json!(9)),
        ("hc_sinkhorn_iters", json!(1 << 28)),
    ] {
        let copy = with_config(SHARDED, json!({ field: value }));
        let named = if field.starts_with("num_h") { "compress_ratios" } else { field };
        let named = if field.starts_with("num_e") { "n_routed_experts" } else { named };
        loads(copy.path()).fails(&[named]);
    }
    for (field, value) in [
        ("vision_patch_size", json!(1 << 28)),
        ("vision_downsample_ratio", json!(1 << 28)),
        ("vision_max_n_token", json!(1 << 28)),
        ("vision_n_heads", json!(1 << 28)),
    ] {
        loads(with_config(WITH_VISION, json!({ field: value })).path())
            .fails(&["config.json", field]);
    }
}

/// The largest sizes a config may name, one after the other: a tensor is found to be of another
/// shape, or the number only sets a limit. Nothing of that size is allocated.
#[test]
fn the_largest_config_numbers() {
    let largest = 1 << 28;
    let loads = |folder: &Path| loads(folder).within_memory();
    for field in [
        "hidden_size",
        "num_attention_heads",
        "head_dim",
        "q_lora_rank",
        "o_lora_rank",
        "index_n_heads",
        "index_head_dim",
        "moe_intermediate_size",
        "n_shared_experts",
        "vocab_size",
    ] {
        let copy = with_config(SHARDED, json!({ field: largest }));
        loads(copy.path()).fails(&["tensor `", "has shape"]);
        let report = fathom(["inspect", "--json"]).arg(copy.path()).within_memory().json();
        assert_eq!(report["runnable"], false, "{field}");
    }
    for field in ["sliding_window", "index_topk", "max_position_embeddings", "num_hash_layers"] {
        let copy = with_config(SHARDED, json!({ field: largest }));
        let done = loads(copy.path()).done();
        let hashed = field == "num_hash_layers";
        assert_eq!(done.code, Some(i32::from(hashed)), "{field}: {}", done.err);
    }
    let everything = json!({
        "hidden_size": largest, "num_attention_heads": largest, "head_dim": largest,
        "q_lora_rank": largest, "o_lora_rank": largest, "moe_intermediate_size": largest,
        "n_routed_experts": largest, "vocab_size": largest, "sliding_window": largest,
    });
    let copy = with_config(SHARDED, everything);
    loads(copy.path()).fails(&["n_routed_experts"]);
    fathom(["inspect"]).arg(copy.path()).succeeds();
    let vision = json!({ "vision_dim": largest, "vision_n_heads": 1, "vision_inter_dim": largest,
        "vision_patch_size": 1024, "vision_downsample_ratio": 64, "vision_n_layers": largest });
    loads(with_config(WITH_VISION, vision).path()).fails(&["tensor `vision.", "has shape"]);
    // Room for a step with the largest picture: more than a page, less than the machine.
    let done =
        loads(with_config(WITH_VISION, json!({ "vision_max_n_token": 1 << 20 })).path()).done();
    assert!(done.code == Some(0) || done.err.contains("no memory for"), "{}", done.err);
}

#[test]
fn a_context_that_no_memory_holds() {
    let copy = with_config("weights/minnow", json!({ "max_position_embeddings": 1 << 28 }));
    let run = || on_cpu("run -p hello --max-tokens 1").arg(copy.path());
    run().succeeds();
    let done = run().arg("--context").arg((1 << 28).to_string()).done();
    // A system that promises more memory than it has lets it run.
    assert!(done.code == Some(0) || done.err.contains("a smaller --context"), "{}", done.err);
    if cfg!(target_os = "linux") {
        let run = run().arg("--context").arg((1 << 28).to_string()).within_memory();
        run.fails(&["no memory for", "a smaller --context"]);
    }
    let small = with_config("weights/minnow", json!({ "max_position_embeddings": 8 }));
    let picture = on_cpu("run -p hello --image samples/scene.png").arg(small.path());
    picture.fails(&["the context 8; the model takes no larger one"]);
    if fathom(["devices", "--json"]).json() != json!([]) {
        fathom(["verify"]).arg(small.path()).fails(&["the context 8"]);
        let run = fathom(["run", "-p", "hello", "--context", "268435456"]).arg(copy.path());
        run.fails(&["GPU: ", "a smaller --context"]);
    }
}

#[test]
fn tensors_that_are_missing_or_of_another_shape() {
    const NAME: &str = "layers.1.attn.wq_a.weight";
    let copy = with_tensors(SHARDED, |all| drop(all.remove(NAME).unwrap()));
    loads(copy.path()).fails(&[NAME]);
    let report = fathom(["inspect", "--json"]).arg(copy.path()).json();
    assert!(report["not_runnable_because"].as_str().unwrap().contains(NAME), "{report}");

    let copy = with_tensors(SHARDED, |all| all.get_mut(NAME).unwrap().shape.reverse());
    loads(copy.path()).fails(&[NAME, "has shape [44, 21], not [21, 44]"]);
    let copy = with_tensors(SHARDED, |all| {
        let t = all.get_mut(NAME).unwrap();
        t.shape[0] -= 1;
        t.bytes.truncate(4 * t.shape[0] * t.shape[1]);
    });
    loads(copy.path()).fails(&[NAME, "has shape [20, 44], not [21, 44]"]);
    let copy = with_tensors(SHARDED, |all| {
        let t = all.get_mut(NAME).unwrap();
        (t.dtype, t.shape) = (Dtype::I32, vec![21, 44]);
    });
    loads(copy.path()).fails(&[NAME, "I32"]);
    // An expert table that names an expert there is not.
    let copy = with_tensors(SHARDED, |all| {
        all.get_mut("layers.0.ffn.gate.tid2eid").unwrap().bytes[0] = 99;
    });
    loads(copy.path()).fails(&["layers.0.ffn.gate.tid2eid", "99"]);
    // Weights that are no numbers give logits that are none, and no worse.
    let copy = with_tensors("weights/minnow", |all| {
        let all = all.values_mut().filter(|t| t.dtype == Dtype::BF16 || t.dtype == Dtype::F32);
        all.for_each(|t| t.bytes.fill(0xff));
    });
    on_cpu("run -p hello --max-tokens 3 --temperature 1 --top-p 0.5").arg(copy.path()).succeeds();
    loads(copy.path()).succeeds();
}

#[test]
fn files_that_end_early() {
    let bytes = std::fs::read(super::repository(WITH_VISION).join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let cuts = [
        0,
        1,
        7,
        8,
        9,
        header / 2,
        header - 1,
        header,
        header + 1,
        bytes.len() / 2,
        bytes.len() - 1,
    ];
    for cut in cuts {
        let copy = copy_of(WITH_VISION);
        let path = copy.path().join("model.safetensors");
        std::fs::write(&path, &bytes[..cut]).unwrap();
        loads(copy.path()).fails(&["model.safetensors: "]);
        fathom(["inspect"]).arg(copy.path()).fails(&["model.safetensors: "]);
    }
    let copy = copy_of(SHARDED);
    std::fs::remove_file(copy.path().join("model-00002-of-00003.safetensors")).unwrap();
    loads(copy.path()).fails(&["index.json", "model-00002-of-00003.safetensors", "missing"]);
    std::fs::write(copy.path().join("model.safetensors.index.json"), "{}").unwrap();
    loads(copy.path()).fails(&["index.json", "weight_map"]);
}

/// A GGUF file broken in one way each: one line that names the file, and the tensor or the metadata,
/// and no memory taken for what is not there.
#[test]
fn gguf_files_that_are_broken() {
    let sound = std::fs::read(super::repository("tests/fixtures/gguf/types.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let inspects = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        fathom(["inspect"]).arg(&path).within_memory()
    };
    // Sound, but of a model without a size.
    inspects(&sound).fails(&["model.gguf", "field `hidden_size` is missing"]);

    let huge = (1u64 << 63).to_le_bytes();
    // Where the entry of the tensor `f16` ends: two dimensions, a type, an offset.
    let name = [&3u64.to_le_bytes()[..], b"f16"].concat();
    let entry = sound.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    for (at, bytes, part) in [
        (0, &b"GGML"[..], "not a GGUF file"),
        (4, &[0, 0, 0, 3], "a big-endian GGUF file"),
        (4, &[9, 0, 0, 0], "GGUF version 9"),
        (8, &huge, "9223372036854775808 tensors are announced"),
        (16, &huge, "9223372036854775808 metadata entries are announced"),
        (24, &huge, "key of metadata entry 0: 9223372036854775808 bytes of text"),
        (52, &[99, 0, 0, 0], "metadata `general.architecture`: value of the unknown type 99"),
        (56, &huge, "metadata `general.architecture`: 9223372036854775808 bytes of text"),
        (entry, &[5, 0, 0, 0], "tensor `f16`: 5 dimensions"),
        (entry + 4, &huge, "tensor `f16`: its shape [3, 9223372036854775808] is too large"),
        (entry + 20, &[77, 0, 0, 0], "tensor `f16`: its type 77 is unknown"),
        (entry + 24, &[1, 0, 0, 0], "tensor `f16`: its offset 1 is not a multiple of 64"),
        (entry + 24, &[0; 8], "tensor `f32`: overlaps tensor `f16`"),
        (entry + 24, &huge, "tensor `f16`: 12 bytes at offset 9223372036854775808 of the data"),
    ] {
        let mut broken = sound.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        inspects(&broken).fails(&["model.gguf", part]);
    }
    for end in [10, 40, 500, sound.len() - 64] {
        inspects(&sound[..end]).fails(&["model.gguf"]);
    }
}
