//! A small random V4 model in every block format: its logits are those of the plain reference on the
//! numbers that the blocks mean.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::Random;
use fathom::formats::{BlockFormat, Checkpoint, DType, GgufWriter, TensorInfo};
use fathom::models::Activations;
use fathom::quantize::{Kind, quantize};
use fathom::runtime::{Backend, Engine, EngineOptions, Prompt, Session};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

/// Largest difference allowed, relative to the root mean square of the reference's logits.
const TOLERANCE: f64 = 5e-4;

/// The columns of every matrix: a block of each format.
const WIDE: usize = 256;
const HEADS: usize = 4;
const HEAD: usize = 64;
const EXPERTS: usize = 4;
const VOCAB: usize = 96;

fn config() -> String {
    let config = json!({
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
        "vocab_size": VOCAB, "hidden_size": WIDE, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": HEAD,
        "qk_rope_head_dim": 16, "q_lora_rank": WIDE, "o_groups": 1, "o_lora_rank": WIDE,
        "sliding_window": 8, "compress_ratios": [0, 4], "rope_theta": 100.0,
        "compress_rope_theta": 300.0, "max_position_embeddings": 64,
        "index_n_heads": HEADS, "index_head_dim": HEAD, "index_topk": 2, "hc_mult": 2,
        "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "n_routed_experts": EXPERTS,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": WIDE,
        "num_hash_layers": 0, "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus",
        "topk_method": "noaux_tc", "norm_topk_prob": true, "swiglu_limit": 10.0,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    config.to_string()
}

/// Every tensor's name and shape.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> = vec![
        ("embed.weight".into(), vec![VOCAB, WIDE]),
        ("head.weight".into(), vec![VOCAB, WIDE]),
        ("norm.weight".into(), vec![WIDE]),
        ("hc_head_fn".into(), vec![2, 2 * WIDE]),
        ("hc_head_base".into(), vec![2]),
        ("hc_head_scale".into(), vec![1]),
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            all.push((format!("layers.{layer}.{name}"), shape.to_vec()));
        };
        for block in ["attn", "ffn"] {
            add(&format!("{block}_norm.weight"), &[WIDE]);
            add(&format!("hc_{block}_fn"), &[8, 2 * WIDE]);
            add(&format!("hc_{block}_base"), &[8]);
            add(&format!("hc_{block}_scale"), &[3]);
        }
        add("attn.wq_a.weight", &[WIDE, WIDE]);
        add("attn.q_norm.weight", &[WIDE]);
        add("attn.wq_b.weight", &[HEADS * HEAD, WIDE]);
        add("attn.wkv.weight", &[HEAD, WIDE]);
        add("attn.kv_norm.weight", &[HEAD]);
        add("attn.attn_sink", &[HEADS]);
        add("attn.wo_a.weight", &[WIDE, HEADS * HEAD]);
        add("attn.wo_b.weight", &[WIDE, WIDE]);
        if layer == 1 {
            for compressor in ["attn.compressor", "attn.indexer.compressor"] {
                add(&format!("{compressor}.wkv.weight"), &[2 * HEAD, WIDE]);
                add(&format!("{compressor}.wgate.weight"), &[2 * HEAD, WIDE]);
                add(&format!("{compressor}.ape"), &[4, 2 * HEAD]);
                add(&format!("{compressor}.norm.weight"), &[HEAD]);
            }
            add("attn.indexer.wq_b.weight", &[HEADS * HEAD, WIDE]);
            add("attn.indexer.weights_proj.weight", &[HEADS, WIDE]);
        }
        add("ffn.gate.weight", &[EXPERTS, WIDE]);
        add("ffn.gate.bias", &[EXPERTS]);
        let experts = (0..EXPERTS).map(|e| format!("experts.{e}"));
        for expert in experts.chain(["shared_experts".into()]) {
            for matrix in ["w1", "w2", "w3"] {
                add(&format!("ffn.{expert}.{matrix}.weight"), &[WIDE, WIDE]);
            }
        }
    }
    all
}

/// Random numbers that keep activations near 1.
fn tensors() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut random = Random::new(11);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let columns = *shape.last().unwrap();
        let numbers = random.floats(shape.iter().product());
        let numbers = match shape.len() {
            1 => numbers.iter().map(|x| 1.0 + x / 2.0).collect(),
            _ => numbers.iter().map(|x| 1.5 * x / (columns as f32).sqrt()).collect(),
        };
        (name, (shape, numbers))
    };
    shapes().into_iter().map(tensor).collect()
}

fn checkpoint(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config()).unwrap();
    let views = tensors.iter().map(|(name, (shape, numbers))| {
        let bytes = bytemuck::cast_slice(numbers);
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn logits(model: &Path, backend: Backend, quant: Option<BlockFormat>) -> Vec<f32> {
    let checkpoint = Checkpoint::open(model).unwrap();
    let activations = Activations::F32;
    let options = EngineOptions {
        backend,
        chunk: 8,
        outs: 8,
        quant,
        activations,
        ..EngineOptions::default()
    };
    let mut engine = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap();
    let ids: Vec<u32> = (0..21).map(|i| i * 37 % VOCAB as u32).collect();
    let prompt = Prompt::from_ids(&ids, &engine.config, vec![]).unwrap();
    let mut out = vec![];
    let take = &mut |rows: &[f32]| {
        out.extend_from_slice(rows);
        Ok(())
    };
    Session::new(&mut engine).logits(prompt, 8, take).unwrap();
    out
}

/// The numbers that a matrix has once it is quantised; and whether it should be.
fn quantized(
    name: &str,
    shape: &[usize],
    numbers: &[f32],
    format: BlockFormat,
) -> Option<Vec<f32>> {
    if shape.len() == 1 || !name.ends_with(".weight") || name.ends_with(".gate.weight") {
        return None;
    }
    let mut out = vec![0.0; numbers.len()];
    for (from, to) in numbers.chunks_exact(shape[1]).zip(out.chunks_exact_mut(shape[1])) {
        let mut stored = vec![];
        format.quantize(from, &mut stored).unwrap();
        format.dequantize(&stored, to);
    }
    Some(out)
}

fn has_gpu() -> bool {
    common::gpu().is_some()
}

#[test]
fn quantized_while_loading() {
    let tensors = tensors();
    let folder = checkpoint(&tensors);
    let exact = logits(folder.path(), Backend::Cpu, None);
    for format in BlockFormat::all().filter(|f| f.can_quantize()) {
        let mut rounded = tensors.clone();
        for (name, (shape, numbers)) in &mut rounded {
            if let Some(changed) = quantized(name, shape, numbers, format) {
                *numbers = changed;
            }
        }
        let expected = logits(checkpoint(&rounded).path(), Backend::Cpu, None);
        let lost = common::error(&expected, &exact);
        assert!(lost > 10.0 * TOLERANCE, "{format} changes next to nothing: {lost:.2e}");
        // One will do: the next test has kernels of all of them.
        let on_gpu = format == BlockFormat::Q4_0 && has_gpu();
        for backend in [Some(Backend::Cpu), on_gpu.then_some(Backend::Gpu)].into_iter().flatten() {
            let e = common::error(&logits(folder.path(), backend, Some(format)), &expected);
            println!("{format} {backend:?}: {e:.2e}, {lost:.2e} lost by quantising");
            assert!(e <= TOLERANCE, "{format} on {backend:?}: error {e:.2e}");
        }
    }
}

/// The GGUF file `from`, its matrices filled with random blocks of `format`: kept as these in `blocks`,
/// as the numbers that they mean in `numbers`.
fn fill(from: &Checkpoint, format: BlockFormat, blocks: &Path, numbers: &Path) {
    let mut random = Random::new(12);
    let mut files = [(vec![], vec![]), (vec![], vec![])];
    for name in from.names() {
        let view = from.tensor(name).unwrap();
        let (cols, rows) =
            (*view.shape.last().unwrap(), view.elements() / view.shape.last().unwrap());
        let matrix =
            view.shape.len() > 1 && cols.is_multiple_of(format.block()) && !name.contains("hc_");
        let (mut stored, mut meant) = (view.bytes.to_vec(), view.bytes.to_vec());
        if matrix {
            let row = |_| random.blocks(format, cols, 1.0 / 8.0);
            let all: Vec<_> = (0..rows).map(row).collect();
            let mut floats = vec![0.0; rows * cols];
            for (row, floats) in all.iter().zip(floats.chunks_exact_mut(cols)) {
                format.dequantize(row, floats);
            }
            (stored, meant) = (all.concat(), bytemuck::cast_slice(&floats).to_vec());
        }
        let info = |dtype| TensorInfo { name: name.into(), dtype, shape: view.shape.clone() };
        let kept = if matrix { DType::Block(format) } else { view.dtype };
        files[0].0.push(info(kept));
        files[0].1.push(stored);
        files[1].0.push(info(view.dtype));
        files[1].1.push(meant);
    }
    let metadata: Vec<_> = from.gguf().unwrap().metadata().collect();
    for (path, (infos, data)) in [blocks, numbers].into_iter().zip(files) {
        assert!(infos.len() == data.len() && infos.len() > 20);
        let file = std::fs::File::create(path).unwrap();
        let mut writer = GgufWriter::begin(file, metadata.iter().copied(), &infos).unwrap();
        data.iter().for_each(|bytes| writer.data(bytes).unwrap());
        writer.finish().unwrap();
    }
}

#[test]
fn stored_in_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = quantize(
        checkpoint(&tensors()).path(),
        &path("f32.gguf"),
        Kind::F32,
        false,
        &mut |_, _| {},
    );
    assert!(made.unwrap().fallbacks.is_empty());
    let plain = Checkpoint::open(path("f32.gguf")).unwrap();
    for format in BlockFormat::all().filter(|f| f.ggml().is_some()) {
        let (blocks, numbers) = (path(&format!("{format}.gguf")), path("numbers.gguf"));
        fill(&plain, format, &blocks, &numbers);
        let expected = logits(&numbers, Backend::Cpu, None);
        for backend in [Some(Backend::Cpu), has_gpu().then_some(Backend::Gpu)].into_iter().flatten()
        {
            let e = common::error(&logits(&blocks, backend, None), &expected);
            println!("{format} {backend:?}: {e:.2e}");
            assert!(e <= TOLERANCE, "{format} on {backend:?}: error {e:.2e}");
        }
    }
}
