//! What a checkpoint's tensors add up to, from their headers alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Checkpoint, DType, ModelConfig, TensorView};

/// Totals over a model's tensors. Block scales belong to the weights they scale: they count as
/// bytes, not as parameters, and not as tensors of a format of their own.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Numbers that were learnt; two for each byte of packed FP4. Drafters do not count.
    pub parameters: u64,
    /// Those of them that a token of text meets: of the routed experts its share, of the embedding
    /// table one row, of the vision tower none.
    pub active_parameters: u64,
    /// Bytes these are stored in: what decoding reads for a token.
    pub active_bytes: u64,
    /// Tensors, scales and those that are not used included.
    pub tensors: usize,
    /// Stored bytes by number format, of what is used.
    pub bytes_by_format: BTreeMap<&'static str, u64>,
    /// Tensors of drafters, which Fathom does not run.
    pub unused_tensors: usize,
    /// Their bytes.
    pub unused_bytes: u64,
    /// The formats in each layer.
    pub layers: Vec<LayerFormats>,
}

/// The number formats in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerFormats {
    /// Of its routed experts.
    pub experts: BTreeSet<&'static str>,
    /// Of all else in it.
    pub others: BTreeSet<&'static str>,
}

/// What the output head is called; without one, the embedding table serves as it.
const HEADS: [&str; 4] =
    ["head.weight", "lm_head.weight", "language_model.lm_head.weight", "output.weight"];

/// What a tensor is to a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Always read.
    Always,
    /// One of its rows is read.
    Table,
    /// A token's share of the experts is read.
    Expert,
    /// Read for pictures only.
    Vision,
    /// Never read.
    Drafter,
}

impl Inventory {
    /// Adds up the tensors of `checkpoint`, whose configuration is `config`. No tensor's bytes are
    /// looked at.
    pub fn of(checkpoint: &Checkpoint, config: &ModelConfig) -> Self {
        let scaled = scaled_weights(checkpoint);
        let (experts, visited, _) = config.experts();
        let tied = !HEADS.iter().any(|name| checkpoint.contains(name));
        let mut all =
            Self { layers: vec![LayerFormats::default(); config.layers()], ..Self::default() };
        for view in checkpoint.views() {
            all.tensors += 1;
            let layer = layer(&view.name);
            let bytes = view.bytes.len() as u64;
            let role = role(&view.name, layer.is_some_and(|layer| layer >= config.layers()), tied);
            if role == Role::Drafter {
                all.unused_tensors += 1;
                all.unused_bytes += bytes;
                continue;
            }
            let (format, parameters) = stored(&view, checkpoint, &scaled);
            all.parameters += parameters;
            *all.bytes_by_format.entry(format).or_default() += bytes;
            if let Some(layer) = layer.and_then(|layer| all.layers.get_mut(layer)) {
                let formats =
                    if role == Role::Expert { &mut layer.experts } else { &mut layer.others };
                formats.insert(format);
            }
            let share = |n: u64| match role {
                Role::Always => n,
                Role::Table => n / view.shape.first().map_or(1, |&rows| rows.max(1) as u64),
                // The product may not fit 64 bits if a file is as large as it says.
                Role::Expert => (u128::from(n) * visited as u128 / experts.max(1) as u128) as u64,
                Role::Vision | Role::Drafter => 0,
            };
            all.active_parameters += share(parameters);
            all.active_bytes += share(bytes);
        }
        all
    }
}

/// The name of the weight whose scales the tensor called `name` holds, if that is what it is named
/// like.
fn weight_of(name: &str) -> Option<String> {
    if let Some(stem) = name.strip_suffix(".scale") {
        return Some(format!("{stem}.weight"));
    }
    name.strip_suffix("_scale_inv").map(str::to_owned)
}

/// Every weight that has block scales, with the width of these.
fn scaled_weights(checkpoint: &Checkpoint) -> HashMap<String, usize> {
    let scales = checkpoint.views().filter_map(|view| {
        let weight = weight_of(&view.name).filter(|weight| checkpoint.contains(weight))?;
        Some((weight, view.shape.last().copied().unwrap_or(1)))
    });
    scales.collect()
}

/// The format a tensor's bytes belong to, and how many parameters it is.
fn stored(
    view: &TensorView<'_>,
    checkpoint: &Checkpoint,
    scaled: &HashMap<String, usize>,
) -> (&'static str, u64) {
    if let Some(weight) = weight_of(&view.name).and_then(|name| checkpoint.get(&name)) {
        return (format(&weight, scaled), 0);
    }
    let format = format(view, scaled);
    let elements = view.elements() as u64;
    let parameters = match view.dtype {
        DType::I8 | DType::U8 if format == FP4 => 2 * elements,
        // Tables of ids are not learnt.
        dtype if dtype.is_integer() || dtype == DType::Bool => 0,
        _ => elements,
    };
    (format, parameters)
}

const FP4: &str = "FP4";

/// A weight's format; with scales, what the two make together.
fn format(view: &TensorView<'_>, scaled: &HashMap<String, usize>) -> &'static str {
    let columns = view.shape.last().copied().unwrap_or(1);
    match (view.dtype, scaled.get(&view.name)) {
        (DType::F4E2M1, Some(_)) => FP4,
        // A byte holds two numbers, a scale is for 32.
        (DType::I8 | DType::U8, Some(scales)) if scales.saturating_mul(16) == columns => FP4,
        (DType::F8E4M3, Some(_)) => "FP8",
        (dtype, _) => dtype.name(),
    }
}

/// The number of the layer a tensor is in.
fn layer(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    parts.find(|part| matches!(*part, "layers" | "blk"))?;
    parts.next()?.parse().ok()
}

fn role(name: &str, beyond_layers: bool, tied: bool) -> Role {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let ends = |tails: &[&str]| tails.iter().any(|tail| name.ends_with(tail));
    if beyond_layers || begins(&["mtp."]) || name.contains(".nextn.") {
        Role::Drafter
    } else if begins(&["vision.", "aligner.", "image_"]) {
        Role::Vision
    } else if name.contains(".experts.") || name.contains("_exps.") || name.contains(".switch_mlp.")
    {
        Role::Expert
    } else if ends(&["tid2eid", "tid2eid.weight"])
        || !tied && (ends(&["embed_tokens.weight", "token_embd.weight"]) || name == "embed.weight")
    {
        Role::Table
    } else {
        Role::Always
    }
}
