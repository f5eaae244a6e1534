//! Every tensor of checkpoints in the names of Transformers and mlx-vlm, found by its official
//! name, with the configs they write.

use std::collections::{BTreeMap, BTreeSet};

use fathom::formats::{Checkpoint, DType, LayerKind, ModelConfig, TensorView, V4Config, Weights};
use safetensors::tensor::{Dtype, TensorView as Raw, serialize};
use serde::Deserialize;

const DIALECTS: &str = include_str!("../fixtures/text/dialects.json");

#[derive(Deserialize)]
struct Dialect {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

/// A checkpoint with the names and shapes of `dialect`, of one byte an element.
fn checkpoint(dialect: &Dialect) -> Checkpoint {
    let largest = dialect.tensors.values().map(|shape| shape.iter().product::<usize>()).max();
    let bytes = vec![0; largest.unwrap()];
    let views = dialect.tensors.iter().map(|(name, shape)| {
        let len = shape.iter().product();
        (name, Raw::new(Dtype::U8, shape.clone(), &bytes[..len]).unwrap())
    });
    let file = serialize(views, None).unwrap();
    Checkpoint::from_static(&dialect.config.to_string(), file.leak()).unwrap()
}

/// The official names and shapes of a model's tensors; those with `false` may be missing.
fn official(c: &V4Config) -> Vec<(String, Vec<usize>, bool)> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize]| all.push((name, shape.to_vec(), true));
    let d = c.hidden;
    let mix = (2 + c.hc_mult) * c.hc_mult;
    add("embed.weight".into(), &[c.vocab, d]);
    add("head.weight".into(), &[c.vocab, d]);
    add("norm.weight".into(), &[d]);
    add("hc_head_fn".into(), &[c.hc_mult, c.hc_mult * d]);
    add("hc_head_base".into(), &[c.hc_mult]);
    add("hc_head_scale".into(), &[1]);
    for (i, kind) in c.layers.iter().enumerate() {
        let mut layer = |name: &str, shape: &[usize]| add(format!("layers.{i}.{name}"), shape);
        layer("attn_norm.weight", &[d]);
        layer("ffn_norm.weight", &[d]);
        for half in ["attn", "ffn"] {
            layer(&format!("hc_{half}_fn"), &[mix, c.hc_mult * d]);
            layer(&format!("hc_{half}_base"), &[mix]);
            layer(&format!("hc_{half}_scale"), &[3]);
        }
        layer("attn.wq_a.weight", &[c.q_lora, d]);
        layer("attn.q_norm.weight", &[c.q_lora]);
        layer("attn.wq_b.weight", &[c.heads * c.head_dim, c.q_lora]);
        layer("attn.wkv.weight", &[c.head_dim, d]);
        layer("attn.kv_norm.weight", &[c.head_dim]);
        layer("attn.wo_a.weight", &[c.o_groups * c.o_lora, c.heads * c.head_dim / c.o_groups]);
        layer("attn.wo_b.weight", &[d, c.o_groups * c.o_lora]);
        layer("attn.attn_sink", &[c.heads]);
        let mut compressor = |at: &str, ratio: usize, series: usize, dim: usize| {
            layer(&format!("attn.{at}compressor.wkv.weight"), &[series * dim, d]);
            layer(&format!("attn.{at}compressor.wgate.weight"), &[series * dim, d]);
            layer(&format!("attn.{at}compressor.ape"), &[ratio, series * dim]);
            layer(&format!("attn.{at}compressor.norm.weight"), &[dim]);
        };
        match *kind {
            LayerKind::Window => {}
            LayerKind::Hca { ratio } => compressor("", ratio, 1, c.head_dim),
            LayerKind::Csa { ratio } => {
                compressor("", ratio, 2, c.head_dim);
                compressor("indexer.", ratio, 2, c.index_dim);
                layer("attn.indexer.wq_b.weight", &[c.index_heads * c.index_dim, c.q_lora]);
                layer("attn.indexer.weights_proj.weight", &[c.index_heads, d]);
            }
        }
        layer("ffn.gate.weight", &[c.experts, d]);
        let experts = (0..c.experts).map(|e| format!("experts.{e}"));
        for at in experts.chain(["shared_experts".into()]) {
            layer(&format!("ffn.{at}.w1.weight"), &[c.moe_inter, d]);
            layer(&format!("ffn.{at}.w2.weight"), &[d, c.moe_inter]);
            layer(&format!("ffn.{at}.w3.weight"), &[c.moe_inter, d]);
        }
    }
    if let Some(v) = &c.vision {
        let (pixels, square) = (3 * v.patch * v.patch, v.downsample * v.downsample);
        for marker in ["image_start", "image_end", "image_newline", "image_pad"] {
            add(marker.into(), &[d]);
        }
        add("aligner.w1.weight".into(), &[d, v.dim * square]);
        add("aligner.w1.bias".into(), &[d]);
        add("aligner.w2.weight".into(), &[d, d]);
        add("aligner.w2.bias".into(), &[d]);
        add("vision.norm.weight".into(), &[v.dim]);
        add("vision.patch_embed.proj.weight".into(), &[v.dim, pixels]);
        add("vision.patch_embed.proj.bias".into(), &[v.dim]);
        for i in 0..v.layers {
            let mut block = |name: &str, shape: &[usize]| {
                add(format!("vision.blocks.{i}.{name}"), shape);
            };
            block("norm1.weight", &[v.dim]);
            block("norm2.weight", &[v.dim]);
            block("attn.wqkv.weight", &[3 * v.dim, v.dim]);
            block("attn.wqkv.bias", &[3 * v.dim]);
            block("attn.wo.weight", &[v.dim, v.dim]);
            block("attn.wo.bias", &[v.dim]);
            block("mlp.w1.weight", &[2 * v.inter, v.dim]);
            block("mlp.w2.weight", &[v.dim, v.inter]);
        }
    }
    for i in 0..c.layers.len() {
        let hashed = i < c.hash_layers;
        let gate = |name: &str| format!("layers.{i}.ffn.gate.{name}");
        all.push((gate("tid2eid"), vec![c.vocab, c.experts_per_token], hashed));
        all.push((gate("bias"), vec![c.experts], !hashed));
        all.push((gate("bias_vl"), vec![c.experts], c.vision.is_some()));
    }
    all
}

/// Finds every tensor of `checkpoint` by its official name, and no tensor is left over.
fn check(name: &str, checkpoint: &Checkpoint) {
    let config = V4Config::from_checkpoint(checkpoint).unwrap();
    let weights = Weights::new(checkpoint);
    let mut reached = BTreeSet::new();
    // The name of a part of a tensor goes on with which part.
    let mut reach = |view: &TensorView<'_>| {
        reached.insert(view.name.split('[').next().unwrap_or_default().to_owned());
    };
    for (tensor, shape, needed) in official(&config) {
        let found = weights.find(&tensor).unwrap();
        assert!(found.is_some() || !needed, "{name}: {tensor}");
        let Some(view) = found else { continue };
        reach(&view);
        let scale = tensor.strip_suffix(".weight").map(|module| format!("{module}.scale"));
        if let Some(scale) = scale.and_then(|scale| weights.find(&scale).unwrap()) {
            assert_eq!(scale.dtype, DType::F8E8M0);
            reach(&scale);
        }
        // Two FP4 numbers to a byte.
        let shape = match (view.dtype, shape.as_slice()) {
            (DType::I8, [rows, columns]) => vec![*rows, columns / 2],
            _ => shape,
        };
        view.expect_shape(&shape).unwrap();
    }
    let all: BTreeSet<_> = checkpoint.names().map(str::to_owned).collect();
    assert_eq!(reached, all, "{name}: not every stored tensor was reached");
}

#[test]
fn every_tensor_of_every_dialect_is_found() {
    let dialects: BTreeMap<String, Dialect> = serde_json::from_str(DIALECTS).unwrap();
    assert_eq!(dialects.len(), 3);
    for (name, dialect) in dialects {
        check(&name, &checkpoint(&dialect));
    }
}

#[test]
fn every_tensor_of_every_v4_oracle_checkpoint_is_found() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let checkpoint = Checkpoint::open(&path).unwrap();
        if let ModelConfig::V4(_) = ModelConfig::from_checkpoint(&checkpoint).unwrap() {
            check(&path.display().to_string(), &checkpoint);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn the_configs_mean_the_same() {
    let dialects: BTreeMap<String, Dialect> = serde_json::from_str(DIALECTS).unwrap();
    let configs: Vec<_> = dialects
        .values()
        .map(|dialect| {
            let config =
                V4Config::parse("config.json".as_ref(), &dialect.config.to_string()).unwrap();
            V4Config { vision: None, ..config }
        })
        .collect();
    assert!(configs.windows(2).all(|two| two[0] == two[1]), "{configs:#?}");
    assert_eq!(
        configs[0].layers,
        [LayerKind::Window, LayerKind::Csa { ratio: 4 }, LayerKind::Hca { ratio: 128 }]
    );
    assert_eq!((configs[0].rope_dim, configs[0].hash_layers), (8, 1));
    assert_eq!(configs[0].yarn.map(|yarn| yarn.factor), Some(16.0));
}
