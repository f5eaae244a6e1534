//! `fathom inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::Outcome;
use super::common::{self, bytes, print_json, print_line};
use crate::formats::{Inventory, LayerKind, ModelConfig, Weights};
use crate::graph::{Graph, Home, StepSize, plan};
use crate::models::deepseek_v4_vision::{largest, vision_graph};
use crate::models::{Capacity, ModelWeights, text_graph};
use crate::{Error, Result};

/// Tells a model's architecture, sizes and formats, and the memory it needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom inspect
  fathom inspect DeepSeek-V4-Flash-Vision-Exp/ --context 32768
  fathom inspect model.gguf
  fathom inspect model/ --json

Nothing is loaded: only the configuration and the tensors' headers are read.")]
pub struct Args {
    /// GGUF file, or folder with config.json and safetensors files [default: the built-in model]
    model: Option<PathBuf>,
    /// Tokens of context to compute the memory for [default: the model's limit, up to 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Rows of a prefill step to compute the memory for
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    chunk: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    architecture: &'static str,
    parameters: u64,
    active_parameters: u64,
    active_bytes: u64,
    layers: usize,
    #[serde(flatten)]
    kinds: Option<LayerKinds>,
    layer_groups: Vec<LayerGroup>,
    hidden: usize,
    heads: usize,
    kv_heads: Option<usize>,
    head_dim: usize,
    experts: usize,
    experts_per_token: usize,
    shared_experts: usize,
    vocabulary: usize,
    vision_layers: usize,
    max_context: usize,
    bytes_by_format: BTreeMap<&'static str, u64>,
    tensors: usize,
    unused_tensors: usize,
    unused_bytes: u64,
    runnable: bool,
    not_runnable_because: Option<String>,
    memory: Option<Memory>,
}

/// Of a V4 model, how many layers are of each kind.
#[derive(Serialize)]
struct LayerKinds {
    window_layers: usize,
    csa_layers: usize,
    hca_layers: usize,
}

impl LayerKinds {
    fn of(config: &ModelConfig) -> Option<Self> {
        let ModelConfig::V4(config) = config else { return None };
        let count = |f: fn(&LayerKind) -> bool| config.layers.iter().filter(|k| f(k)).count();
        Some(Self {
            window_layers: count(|k| matches!(k, LayerKind::Window)),
            csa_layers: count(|k| matches!(k, LayerKind::Csa { .. })),
            hca_layers: count(|k| matches!(k, LayerKind::Hca { .. })),
        })
    }
}

/// Layers that are alike.
#[derive(Serialize)]
struct LayerGroup {
    kind: &'static str,
    layers: Vec<usize>,
    expert_formats: BTreeSet<&'static str>,
    other_formats: BTreeSet<&'static str>,
}

impl LayerGroup {
    /// Groups all layers, in the order of each group's first.
    fn all(config: &ModelConfig, inventory: &Inventory) -> Vec<Self> {
        let mut groups: Vec<Self> = vec![];
        for (l, formats) in inventory.layers.iter().enumerate() {
            let (kind, experts, others) = (kind(config, l), &formats.experts, &formats.others);
            let alike = |g: &&mut Self| {
                g.kind == kind && g.expert_formats == *experts && g.other_formats == *others
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.layers.push(l),
                None => groups.push(Self {
                    kind,
                    layers: vec![l],
                    expert_formats: experts.clone(),
                    other_formats: others.clone(),
                }),
            }
        }
        groups
    }
}

/// What kind of layer the `l`-th is.
fn kind(config: &ModelConfig, l: usize) -> &'static str {
    match config {
        ModelConfig::V4(c) => match c.layers[l] {
            LayerKind::Window => "window",
            LayerKind::Csa { .. } => "CSA",
            LayerKind::Hca { .. } => "HCA",
        },
        ModelConfig::Mla(c) if l >= c.dense_layers => "experts",
        ModelConfig::Mla(_) | ModelConfig::Dense(_) => "dense",
    }
}

/// Key-value heads a layer; `None` if it has a latent vector in their stead.
fn kv_heads(config: &ModelConfig) -> Option<usize> {
    match config {
        ModelConfig::V4(_) => Some(1),
        ModelConfig::Mla(_) => None,
        ModelConfig::Dense(c) => Some(c.kv_heads),
    }
}

#[derive(Serialize)]
struct Memory {
    context: usize,
    chunk: usize,
    weight_bytes: u64,
    state_bytes: u64,
    scratch_bytes: u64,
    total_bytes: u64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let model = common::open(args.model.as_ref())?;
    let checkpoint = &model.checkpoint;
    let config = ModelConfig::from_checkpoint(checkpoint)?;
    let limit = config.max_context();
    let context = args.context.map_or(limit.min(8192), |c| c as usize);
    if context > limit {
        let what = format!("a context of {context} tokens: the model takes up to {limit}");
        return Err(Error::Request(what));
    }
    let memory = memory(&config, Weights::new(checkpoint), context, args.chunk as usize);
    let inventory = Inventory::of(checkpoint, &config);
    let (experts, experts_per_token, shared_experts) = config.experts();
    let report = Report {
        architecture: config.architecture(),
        parameters: inventory.parameters,
        active_parameters: inventory.active_parameters,
        active_bytes: inventory.active_bytes,
        layers: config.layers(),
        kinds: LayerKinds::of(&config),
        layer_groups: LayerGroup::all(&config, &inventory),
        hidden: config.hidden(),
        heads: config.heads(),
        kv_heads: kv_heads(&config),
        head_dim: config.head_dim(),
        experts,
        experts_per_token,
        shared_experts,
        vocabulary: config.vocab(),
        vision_layers: config.vision().map_or(0, |v| v.layers),
        max_context: limit,
        bytes_by_format: inventory.bytes_by_format,
        tensors: inventory.tensors,
        unused_tensors: inventory.unused_tensors,
        unused_bytes: inventory.unused_bytes,
        runnable: memory.is_ok(),
        not_runnable_because: memory.as_ref().err().map(ToString::to_string),
        memory: memory.ok(),
    };
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn memory(c: &ModelConfig, files: Weights<'_>, context: usize, chunk: usize) -> Result<Memory> {
    let mut weights = ModelWeights::new(files);
    let capacity = Capacity::new(c, context, chunk);
    let chunk = capacity.chunk;
    let most = StepSize { rows: chunk, outs: 1 };
    let mut graphs = vec![text_graph(c, &mut weights, capacity, most)?.0];
    if let Some(v) = c.vision() {
        graphs.push(vision_graph(c.hidden(), v, &mut weights, largest(v))?.0);
    }
    let of = |home: Home| -> u64 {
        let all = graphs.iter().flat_map(Graph::tensors).filter(|t| t.home == home);
        all.map(|t| t.bytes(t.rows.fixed) as u64).sum()
    };
    let (weight_bytes, state_bytes) = (of(Home::Weight), of(Home::State));
    // Graphs share scratch buffers: each counts once, at its largest.
    let mut sizes: Vec<usize> = vec![];
    for graph in &graphs {
        for (i, size) in plan(graph).sizes.into_iter().enumerate() {
            match sizes.get_mut(i) {
                Some(have) => *have = size.max(*have),
                None => sizes.push(size),
            }
        }
    }
    let scratch_bytes = sizes.iter().sum::<usize>() as u64;
    let total_bytes = weight_bytes + state_bytes + scratch_bytes;
    Ok(Memory { context, chunk, weight_bytes, state_bytes, scratch_bytes, total_bytes })
}

fn text(r: &Report) -> String {
    let kv_heads = r.kv_heads.map_or("a latent vector".to_owned(), |n| plural(n, "key-value head"));
    let mut out = format!(
        "{}, {} parameters; a token meets {}, stored in {}\n\
         {}, width {}, {} of {}, {kv_heads}\n",
        r.architecture,
        millions(r.parameters),
        millions(r.active_parameters),
        bytes(r.active_bytes),
        plural(r.layers, "layer"),
        r.hidden,
        plural(r.heads, "head"),
        r.head_dim,
    );
    for group in &r.layer_groups {
        let others = list(&group.other_formats);
        out += &format!(
            "  {} {} ({}): {others}",
            group.layers.len(),
            group.kind,
            ranges(&group.layers)
        );
        if !group.expert_formats.is_empty() {
            out += &format!("; experts {}", list(&group.expert_formats));
        }
        out.push('\n');
    }
    if r.experts > 0 {
        out += &format!(
            "{} experts, {} a token, {} shared; ",
            r.experts, r.experts_per_token, r.shared_experts
        );
    }
    out += &format!("vocabulary {}; context up to {}\n", r.vocabulary, r.max_context);
    if r.vision_layers > 0 {
        out += &format!("sees pictures through {}\n", plural(r.vision_layers, "vision layer"));
    }
    let formats = r.bytes_by_format.iter().map(|(d, &n)| format!("{d} {}", bytes(n)));
    let formats = formats.collect::<Vec<_>>().join(", ");
    out += &format!("{} tensors: {formats}\n", r.tensors);
    if r.unused_tensors > 0 {
        out += &format!(
            "not used: the drafter (MTP, DSpark), {} tensors, {}\n",
            r.unused_tensors,
            bytes(r.unused_bytes)
        );
    }
    match &r.memory {
        Some(m) => {
            out += &format!(
                "memory at {} tokens of context, {} rows a step: {} = weights {} + state {} + \
                 scratch {}",
                m.context,
                m.chunk,
                bytes(m.total_bytes),
                bytes(m.weight_bytes),
                bytes(m.state_bytes),
                bytes(m.scratch_bytes),
            );
        }
        None => {
            let why = r.not_runnable_because.as_deref().unwrap_or_default();
            out += &format!("cannot be run yet: {why}");
        }
    }
    out
}

/// `2700000` -> `2.70 M`.
fn millions(n: u64) -> String {
    match n as f64 / 1e6 {
        m if m < 1e3 => format!("{m:.2} M"),
        m => format!("{:.2} B", m / 1e3),
    }
}

fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

fn list(formats: &BTreeSet<&str>) -> String {
    formats.iter().copied().collect::<Vec<_>>().join(" ")
}

/// `[0, 1, 2, 4, 6]` -> `0-2, 4-6 by 2`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts = vec![];
    let mut rest = numbers;
    while let [first, tail @ ..] = rest {
        let step = tail.first().map_or(1, |next| next - first);
        let fits = tail.iter().zip(1..).take_while(|&(n, i)| *n == first + i * step).count();
        // Two numbers make a range only if they are neighbours.
        let fits = if fits == 1 && step > 1 { 0 } else { fits };
        let last = first + fits * step;
        parts.push(match (fits, step) {
            (0, _) => first.to_string(),
            (_, 1) => format!("{first}-{last}"),
            _ => format!("{first}-{last} by {step}"),
        });
        rest = &tail[fits..];
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_ranges() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[3], "3"),
            (&[0, 1], "0-1"),
            (&[2, 4], "2, 4"),
            (&[2, 4, 6, 7, 8], "2-6 by 2, 7-8"),
            (&[0, 5, 6, 7], "0, 5-7"),
        ] {
            assert_eq!(ranges(numbers), text);
        }
        assert_eq!([millions(2_700_000), millions(284_330_000_000)], ["2.70 M", "284.33 B"]);
    }
}
