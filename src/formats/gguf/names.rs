//! The names tensors go by in GGUF files, from their canonical ones.
//!
//! Canonical are DeepSeek's official names for V4, Hugging Face's for all others. Two of these no
//! Hugging Face file has: `self_attn.k_b_proj` and `v_b_proj`, the halves of `kv_b_proj` that
//! newer `deepseek2` files store in its stead. With H heads,
//!
//! - `kv_b_proj` is `[H * (nope + v), kv_lora]`, each head's `nope` rows and then its `v`;
//! - `k_b_proj` is `[H * kv_lora, nope]`: the transpose of each head's first rows;
//! - `v_b_proj` is `[H * v, kv_lora]`.

use std::collections::BTreeMap;

use super::super::names::{Part, Pick};

/// A module's or parameter's canonical name and the module in a GGUF file that it becomes.
type Row = (&'static str, &'static str);

/// Parameters outside the layers, of both canonical spellings.
const TOP: [Row; 9] = [
    ("embed", "token_embd"),
    ("norm", "output_norm"),
    ("head", "output"),
    ("hc_head_fn", "output_hc_fn"),
    ("hc_head_base", "output_hc_base"),
    ("hc_head_scale", "output_hc_scale"),
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
];

/// Parameters below V4's `layers.N.`.
#[rustfmt::skip]
const OFFICIAL: [Row; 32] = [
    ("attn_norm",                     "attn_norm"),
    ("ffn_norm",                      "ffn_norm"),
    ("hc_attn_fn",                    "hc_attn_fn"),
    ("hc_attn_base",                  "hc_attn_base"),
    ("hc_attn_scale",                 "hc_attn_scale"),
    ("hc_ffn_fn",                     "hc_ffn_fn"),
    ("hc_ffn_base",                   "hc_ffn_base"),
    ("hc_ffn_scale",                  "hc_ffn_scale"),
    ("attn.wq_a",                     "attn_q_a"),
    ("attn.wq_b",                     "attn_q_b"),
    ("attn.q_norm",                   "attn_q_a_norm"),
    ("attn.wkv",                      "attn_kv"),
    ("attn.kv_norm",                  "attn_kv_a_norm"),
    ("attn.wo_a",                     "attn_output_a"),
    ("attn.wo_b",                     "attn_output_b"),
    ("attn.attn_sink",                "attn_sinks"),
    ("attn.compressor.wkv",           "attn_compressor_kv"),
    ("attn.compressor.wgate",         "attn_compressor_gate"),
    ("attn.compressor.ape",           "attn_compressor_ape"),
    ("attn.compressor.norm",          "attn_compressor_norm"),
    ("attn.indexer.wq_b",             "indexer.attn_q_b"),
    ("attn.indexer.weights_proj",     "indexer.proj"),
    ("attn.indexer.compressor.wkv",   "indexer_compressor_kv"),
    ("attn.indexer.compressor.wgate", "indexer_compressor_gate"),
    ("attn.indexer.compressor.ape",   "indexer_compressor_ape"),
    ("attn.indexer.compressor.norm",  "indexer_compressor_norm"),
    ("ffn.gate",                      "ffn_gate_inp"),
    ("ffn.gate.bias",                 "exp_probs_b.bias"),
    ("ffn.gate.tid2eid",              "ffn_gate_tid2eid"),
    ("ffn.shared_experts.w1",         "ffn_gate_shexp"),
    ("ffn.shared_experts.w2",         "ffn_down_shexp"),
    ("ffn.shared_experts.w3",         "ffn_up_shexp"),
];

/// Parameters below Hugging Face's `model.layers.N.`.
#[rustfmt::skip]
const HUGGING_FACE: [Row; 27] = [
    ("input_layernorm",                   "attn_norm"),
    ("post_attention_layernorm",          "ffn_norm"),
    ("self_attn.q_proj",                  "attn_q"),
    ("self_attn.k_proj",                  "attn_k"),
    ("self_attn.v_proj",                  "attn_v"),
    ("self_attn.o_proj",                  "attn_output"),
    ("self_attn.q_a_proj",                "attn_q_a"),
    ("self_attn.q_a_layernorm",           "attn_q_a_norm"),
    ("self_attn.q_b_proj",                "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa",      "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm",          "attn_kv_a_norm"),
    ("self_attn.kv_b_proj",               "attn_kv_b"),
    ("self_attn.k_b_proj",                "attn_k_b"),
    ("self_attn.v_b_proj",                "attn_v_b"),
    ("self_attn.indexer.wq_b",            "indexer.attn_q_b"),
    ("self_attn.indexer.wk",              "indexer.attn_k"),
    ("self_attn.indexer.k_norm",          "indexer.k_norm"),
    ("self_attn.indexer.weights_proj",    "indexer.proj"),
    ("mlp.gate_proj",                     "ffn_gate"),
    ("mlp.up_proj",                       "ffn_up"),
    ("mlp.down_proj",                     "ffn_down"),
    ("mlp.gate",                          "ffn_gate_inp"),
    ("mlp.gate.e_score_correction_bias",  "exp_probs_b.bias"),
    ("mlp.shared_experts.gate_proj",      "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj",        "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj",      "ffn_down_shexp"),
    ("mlp.experts.gate_up_proj",          "ffn_gate_up_exps"),
];

/// An expert's matrix by either name, the tensor of all experts, and which part of an expert's
/// slice it is where gate and up are one.
#[rustfmt::skip]
const EXPERT: [([&str; 2], &str, Part); 3] = [
    (["w1", "gate_proj"], "ffn_gate_exps", Part::Gate),
    (["w2", "down_proj"], "ffn_down_exps", Part::Whole),
    (["w3", "up_proj"],   "ffn_up_exps",   Part::Up),
];

/// Every name the tensor canonically called `name` may have in a GGUF file, and how to get it from
/// the tensor of that name. None for what such files do not have.
pub(in crate::formats) fn spellings(name: &str) -> Vec<(String, Pick)> {
    let layer = |prefix: &str| name.strip_prefix(prefix)?.split_once('.');
    let (layer, tail, table, experts) = if let Some((layer, tail)) = layer("layers.") {
        (layer, tail, &OFFICIAL[..], "ffn.experts.")
    } else if let Some((layer, tail)) = layer("model.layers.") {
        (layer, tail, &HUGGING_FACE[..], "mlp.experts.")
    } else {
        return translate(&TOP, name).map(|n| (n, Pick::AsStored)).into_iter().collect();
    };
    if let Some(spellings) = tail.strip_prefix(experts).and_then(|tail| expert(layer, tail)) {
        return spellings;
    }
    let halves = ["self_attn.k_b_proj.weight", "self_attn.v_b_proj.weight"];
    let pick = if halves.contains(&tail) { Pick::Flatten } else { Pick::AsStored };
    let found = translate(table, tail).map(|tail| (format!("blk.{layer}.{tail}"), pick));
    found.into_iter().collect()
}

/// Every parameter that a model may have outside its layers, or in layer `layer` except for its
/// experts' matrices: its canonical name, DeepSeek's `official` one or Hugging Face's, and its name in
/// a GGUF file.
pub fn gguf_parameters(official: bool, layer: Option<usize>) -> Vec<(String, String)> {
    let (prefix, blocks, table) = match layer {
        None => (String::new(), String::new(), &TOP[..]),
        Some(n) if official => (format!("layers.{n}."), format!("blk.{n}."), &OFFICIAL[..]),
        Some(n) => (format!("model.layers.{n}."), format!("blk.{n}."), &HUGGING_FACE[..]),
    };
    let spelled = |row: &&Row| row.0.starts_with("model.") || row.0 == "lm_head";
    let rows = table.iter().filter(|row| layer.is_some() || spelled(row) != official);
    let tails = rows.flat_map(|(stem, _)| {
        [(*stem).to_owned(), format!("{stem}.weight"), format!("{stem}.bias")]
    });
    let both = |tail: String| {
        let gguf = translate(table, &tail)?;
        Some((format!("{prefix}{tail}"), format!("{blocks}{gguf}")))
    };
    // By name, as a parameter may be a row of its own and another row's bias.
    tails.filter_map(both).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// The matrices of each of `experts` experts of a layer: their canonical names, as above, and the name
/// in a GGUF file of the tensor that has them one below the other.
pub fn gguf_experts(official: bool, layer: usize, experts: usize) -> [(Vec<String>, String); 3] {
    EXPERT.map(|(names, tensor, _)| {
        let (prefix, matrix) = if official { ("layers", "ffn") } else { ("model.layers", "mlp") };
        let name = names[usize::from(!official)];
        let of = |e| format!("{prefix}.{layer}.{matrix}.experts.{e}.{name}.weight");
        ((0..experts).map(of).collect(), format!("blk.{layer}.{tensor}.weight"))
    })
}

/// A canonical name by a table: parameters are called `weight` there even if they have no module.
fn translate(table: &[Row], name: &str) -> Option<String> {
    let find = |name: &str| table.iter().find(|row| row.0 == name).map(|row| row.1);
    match (find(name), name.rsplit_once('.')) {
        (Some(whole), _) if whole.ends_with(".bias") => Some(whole.to_owned()),
        (Some(module), _) => Some(format!("{module}.weight")),
        (None, Some((stem, leaf @ ("weight" | "bias")))) => Some(format!("{}.{leaf}", find(stem)?)),
        (None, _) => None,
    }
}

/// The names of `LAYER`'s expert matrix `tail`, e.g. `17.w1.weight`.
fn expert(layer: &str, tail: &str) -> Option<Vec<(String, Pick)>> {
    let (expert, matrix) = tail.strip_suffix(".weight")?.split_once('.')?;
    let expert = expert.parse().ok()?;
    let (_, tensor, part) = EXPERT.iter().find(|row| row.0.contains(&matrix))?;
    let mut found =
        vec![(format!("blk.{layer}.{tensor}.weight"), Pick::Expert(expert, Part::Whole))];
    if !matches!(part, Part::Whole) {
        let fused = format!("blk.{layer}.ffn_gate_up_exps.weight");
        found.push((fused, Pick::Expert(expert, *part)));
    }
    Some(found)
}
