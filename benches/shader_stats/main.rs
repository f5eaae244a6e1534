//! What AMD's compiler makes of every kernel that a model asks for: registers, spills, occupancy. No
//! GPU is needed, since Mesa's driver compiles for a chip that it is told to suppose.
//!
//! `scripts/shader-stats` runs this and writes `docs/shader_stats.md`.

mod radv;

use std::collections::BTreeMap;
use std::path::Path;

use fathom::formats::{Checkpoint, ModelConfig, Weights};
use fathom::gpu::{Kernel, Limits, Matrices, Tuning};
use fathom::graph::{Graph, StepSize};
use fathom::models::deepseek_v4_vision::vision_graph;
use fathom::models::{Activations, Capacity, ModelWeights, text_graph};
use radv::{Chip, Stats};

/// A binding of a card of today, and subgroups.
const LIMITS: Limits = Limits { max_binding_bytes: 2 << 30, subgroups: true, ..Limits::CORE };
/// What products of prompts are made by, if asked for.
const MATRICES: Matrices = Matrices { size: 16, half: true, lanes: 64 };
/// Tokens of context.
const CONTEXT: usize = 4096;

fn main() {
    // `cargo bench` adds options of its own.
    let paths: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let chip = match Chip::open() {
        Ok(chip) => chip,
        Err(why) => return eprintln!("shader_stats: {why}"),
    };
    let with_matrices = Limits { matrices: Some(MATRICES), ..LIMITS };
    let tiers = [Some(LIMITS), chip.matrices.then_some(with_matrices)];
    let limits: Vec<_> = Tuning::all()
        .flat_map(|tuning| tiers.into_iter().flatten().map(move |l| Limits { tuning, ..l }))
        .collect();
    let mut builtin = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/weights/minnow").to_owned()];
    builtin.extend(paths);
    println!("# Kernels on {}\n", chip.name());
    println!(
        "Written by `scripts/shader-stats`: what Mesa's {} makes of the kernels, those that `fathom tune` \
         may choose among them, without a GPU. \
         Occupancy is subgroups a SIMD as the driver reckons them; LDS is bytes of workgroup memory.",
        chip.driver()
    );
    for path in builtin {
        let name = Path::new(&path).file_name().and_then(|n| n.to_str()).unwrap_or(&path);
        println!("\n## {name}\n");
        println!(
            "| kernel | flags | constants | phases | VGPRs | SGPRs | spilled | LDS | occupancy | instructions |"
        );
        println!("|---|---|---|---|--:|--:|--:|--:|--:|--:|");
        let mut kernels: BTreeMap<[String; 3], (Kernel, Vec<&str>)> = BTreeMap::new();
        for (phase, graph) in graphs(Path::new(&path)) {
            let each = |node| limits.iter().map(move |limits| (node, limits));
            for (node, limits) in graph.nodes().iter().flat_map(each) {
                for kernel in node.op.kernels(&graph, limits) {
                    let (_, phases) = kernels.entry(key(&kernel)).or_insert((kernel, vec![]));
                    if !phases.contains(&phase) {
                        phases.push(phase);
                    }
                }
            }
        }
        for (key, (kernel, phases)) in kernels {
            let stats = row(&chip.compile(&kernel));
            println!("| {} | {} | {stats} |", key.join(" | "), phases.join(", "));
        }
    }
}

/// The graphs that a model runs in, by phase.
fn graphs(path: &Path) -> Vec<(&'static str, Graph)> {
    let checkpoint = Checkpoint::open(path).expect("a model");
    let config = ModelConfig::from_checkpoint(&checkpoint).expect("a model");
    let mut weights = ModelWeights::new(Weights::new(&checkpoint));
    let capacity = Capacity::new(&config, CONTEXT.min(config.max_context()), 512);
    let mut graphs = vec![];
    for activations in [Activations::F32, Activations::Q8] {
        weights.multiply_with(activations);
        for (phase, rows) in [("decode", 1), ("prefill", capacity.chunk)] {
            let max = StepSize { rows, outs: 1 };
            let graph = text_graph(&config, &mut weights, capacity, max).expect("a model").0;
            graphs.push((phase, graph));
        }
    }
    if let Some(v) = config.vision() {
        let patches = v.max_tokens * v.downsample * v.downsample;
        let max = StepSize { rows: patches, outs: v.max_tokens };
        let graph = vision_graph(config.hidden(), v, &mut weights, max).expect("a model").0;
        graphs.push(("vision", graph));
    }
    graphs
}

/// What a kernel is compiled from: its name, flags and constants.
fn key(k: &Kernel) -> [String; 3] {
    let consts: Vec<_> = k.consts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [k.shader.to_owned(), k.flags.join(" "), consts.join(" ")]
}

fn row(stats: &Stats) -> String {
    let of = |name: &str| stats.get(name).map_or("?".to_owned(), u64::to_string);
    let spilled = ["Spilled VGPRs", "Spilled SGPRs"].map(|s| stats.get(s).copied().unwrap_or(0));
    [
        of("VGPRs"),
        of("SGPRs"),
        spilled.iter().sum::<u64>().to_string(),
        of("LDS size"),
        of("Subgroups per SIMD"),
        of("Instructions"),
    ]
    .join(" | ")
}
