//! `fathom verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use image::{Rgb, RgbImage};
use serde::Serialize;

use super::Outcome;
use super::common::{self, Qat, bar, print_json, print_line};
use crate::formats::{BlockFormat, Weights};
use crate::gpu::AdapterReport;
use crate::media;
use crate::models::ModelWeights;
use crate::runtime::verify::{OpReport, TOLERANCE, verify};
use crate::runtime::{Backend, EngineOptions, Prompt, Runner};
use crate::{Error, Result};

/// Compares every op of a model on the GPU with its CPU reference
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom verify
  fathom verify --adapter radeon
  FATHOM_TIER=core fathom verify --json

Each op runs on the GPU and by its reference from the same inputs, in a prefill of two chunks, two \
decode steps and one picture. The exit status is 1 if any differs by more than the tolerance.")]
pub struct Args {
    /// Folder with config.json and safetensors files [default: the built-in model]
    model: Option<PathBuf>,
    /// Adapter to use: an index or part of a name from `fathom devices` [env: FATHOM_ADAPTER]
    #[arg(long, value_name = "NAME|INDEX")]
    adapter: Option<String>,
    /// Take the default kernels, whatever `fathom tune` has chosen for the adapter
    #[arg(long)]
    no_tune: bool,
    /// Rounding of activations that V4 models were trained with: to imitate none, what attention
    /// keeps, or all of it [default: kv for checkpoints quantized to FP8, else off]
    #[arg(long, value_enum)]
    qat: Option<Qat>,
    /// Quantize matrices to this format while loading: q4_0, q8_0, q4_k, ...
    #[arg(long, value_name = "TYPE", value_parser = common::quant)]
    quant: Option<BlockFormat>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(4..=4096))]
    tokens: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    adapter: AdapterReport,
    tolerance: f64,
    passed: bool,
    ops: Vec<OpReport>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let model = common::open(args.model.as_ref())?;
    let options = EngineOptions {
        backend: Backend::Gpu,
        adapter: args.adapter.clone(),
        qat: args.qat.map(Into::into),
        quant: args.quant,
        tuned: !args.no_tune,
        ..EngineOptions::default()
    };
    let mut engine = common::load(&model, &options)?;
    let Runner::Gpu { gpu, .. } = engine.runner() else {
        return Err(Error::Gpu("no adapter".into()));
    };
    let adapter = gpu.report.clone();
    let picture = match engine.plan_config() {
        Some(plan) => Some(media::prepare(&test_picture(), &plan)?),
        None => None,
    };

    let tokens = (args.tokens as usize).min(engine.context);
    let mut prompt = Prompt::default();
    if let Some(patches) = picture.clone() {
        let encoded = engine.encode(patches)?;
        prompt = Prompt::new(&[crate::text::Piece::Image(0)], vec![encoded]);
    }
    prompt.fill(tokens, engine.config.vocab());

    let mut weights = ModelWeights::new(Weights::new(&model.checkpoint));
    engine.declare(&mut weights)?;
    let bar = bar("verifying", "{pos}/{len} ops");
    let ops = verify(&mut engine, &weights, &prompt, picture, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let ops = ops?;
    let passed = ops.iter().all(|o| o.passed);
    let report = Report { model: model.name.clone(), adapter, tolerance: TOLERANCE, passed, ops };
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A picture with something in every part of it.
fn test_picture() -> RgbImage {
    RgbImage::from_fn(150, 100, |x, y| {
        Rgb([(x * 5 % 256) as u8, (y * 7 % 256) as u8, (x * y) as u8])
    })
}

fn print(r: &Report) -> Result<()> {
    print_line(&format!("{} on {}", r.model, r.adapter))?;
    print_line(&format!("{:<16} {:>6} {:>11}  {:<4}  worst at", "op", "runs", "error", ""))?;
    for o in &r.ops {
        let mark = if o.passed { "ok" } else { "FAIL" };
        print_line(&format!("{:<16} {:>6} {:>11.2e}  {mark:<4}  {}", o.op, o.runs, o.worst, o.at))?;
    }
    let verdict = if r.passed { "all ops agree" } else { "SOME OPS DIFFER" };
    print_line(&format!("{verdict} (tolerance {:.0e} of the root mean square)", r.tolerance))
}
