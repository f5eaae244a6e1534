//! `fathom inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::Outcome;
use super::common::{self, bytes, print_json, print_line};
use crate::formats::{LayerKind, ModelConfig, Weights};
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
  fathom inspect model/ --json

Nothing is loaded: only the configuration and the tensors' headers are read.")]
pub struct Args {
    /// Folder with config.json and safetensors files [default: the built-in model]
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
    layers: usize,
    #[serde(flatten)]
    kinds: Option<LayerKinds>,
    hidden: usize,
    heads: usize,
    head_dim: usize,
    experts: usize,
    experts_per_token: usize,
    shared_experts: usize,
    vocabulary: usize,
    vision_layers: usize,
    max_context: usize,
    bytes_by_format: BTreeMap<String, u64>,
    tensors: usize,
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
    let parameters = checkpoint.parameters();
    let (experts, experts_per_token, shared_experts) = config.experts();
    let report = Report {
        architecture: config.architecture(),
        parameters,
        active_parameters: parameters.saturating_sub(config.idle_parameters()),
        layers: config.layers(),
        kinds: LayerKinds::of(&config),
        hidden: config.hidden(),
        heads: config.heads(),
        head_dim: config.head_dim(),
        experts,
        experts_per_token,
        shared_experts,
        vocabulary: config.vocab(),
        vision_layers: config.vision().map_or(0, |v| v.layers),
        max_context: limit,
        bytes_by_format: checkpoint
            .bytes_by_dtype()
            .into_iter()
            .map(|(d, n)| (d.name().to_owned(), n))
            .collect(),
        tensors: checkpoint.names().count(),
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
    let kinds = r.kinds.as_ref().map_or(String::new(), |k| {
        format!(" ({} window, {} CSA, {} HCA)", k.window_layers, k.csa_layers, k.hca_layers)
    });
    let mut out = format!(
        "{}, {:.2} M parameters, {:.2} M of them used a token\n\
         {} layers{kinds}, width {}, {} heads of {}\n",
        r.architecture,
        r.parameters as f64 / 1e6,
        r.active_parameters as f64 / 1e6,
        r.layers,
        r.hidden,
        r.heads,
        r.head_dim,
    );
    if r.experts > 0 {
        out += &format!(
            "{} experts, {} a token, {} shared; ",
            r.experts, r.experts_per_token, r.shared_experts
        );
    }
    out += &format!("vocabulary {}; context up to {}\n", r.vocabulary, r.max_context);
    if r.vision_layers > 0 {
        out += &format!("sees pictures through {} vision layers\n", r.vision_layers);
    }
    let formats = r.bytes_by_format.iter().map(|(d, &n)| format!("{d} {}", bytes(n)));
    let formats = formats.collect::<Vec<_>>().join(", ");
    out += &format!("{} tensors: {formats}\n", r.tensors);
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
