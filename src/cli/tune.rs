//! `fathom tune`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::Outcome;
use super::common::{self, Activations, bar, print_json, print_line};
use super::table::{Style, Table};
use crate::formats::{BlockFormat, Weights};
use crate::gpu::{Choice, Gpu, Tuning, TuningFile};
use crate::models::ModelWeights;
use crate::runtime::tune::{Measured, Timed, model_cases, tune, tuning, usual_cases};
use crate::{Error, Result};

/// Measures which of several kernels are fastest on an adapter, and keeps that for all that runs there
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom tune
  fathom tune model.gguf --activations q8
  fathom tune --dry-run --json
  fathom tune --reset
  fathom bench model.gguf --no-tune

All candidates of a kernel give the same results but for rounding: a model may answer in other words \
after it was tuned, and always in the same ones until it is tuned again. What is chosen lies in the \
user's cache folder, and is used until the driver or Fathom's kernels change. Nothing else should keep \
the device busy meanwhile.")]
pub struct Args {
    /// Folder or GGUF file of a model: measures only what it asks for, in its shapes and formats
    /// [default: all, in usual ones]
    model: Option<PathBuf>,
    /// Adapter to use: an index or part of a name from `fathom devices` [env: FATHOM_ADAPTER]
    #[arg(long, value_name = "NAME|INDEX")]
    adapter: Option<String>,
    /// Format that the model's matrices will be quantized to while loading: q4_0, q8_0, q4_k, ...
    #[arg(long, value_name = "TYPE", value_parser = common::quant, requires = "model")]
    quant: Option<BlockFormat>,
    /// What the inputs of the model's matrices in GGUF's quantized formats will be rounded to
    #[arg(long, value_enum, value_name = "TYPE", requires = "model")]
    activations: Option<Activations>,
    /// Time to measure for, beside compiling [default: 1, on software adapters 20]
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<f64>,
    /// Only show what would be chosen
    #[arg(long)]
    dry_run: bool,
    /// Forget what was chosen for the adapter instead
    #[arg(long, conflicts_with_all = ["model", "seconds", "dry_run", "json"])]
    reset: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.0..=3600.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds up to 3600".into()),
    }
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    choices: Vec<Measured>,
    /// Where they are kept, if they are.
    kept: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let gpu = Gpu::open(args.adapter.as_deref())?;
    let file = TuningFile::of(&gpu.report);
    let no_folder = || Error::Request("there is no cache folder to keep a tuning in".into());
    if args.reset {
        let said = match file.ok_or_else(no_folder)?.remove()? {
            true => "forgotten: kernels are the defaults",
            false => "nothing was kept: kernels are the defaults",
        };
        print_line(&format!("{}\n{said}", gpu.report))?;
        return Ok(ExitCode::SUCCESS);
    }
    let software = gpu.is_software();
    let cases = match &args.model {
        None => usual_cases(Choice::all(), software),
        Some(path) => {
            let model = common::open(Some(path))?;
            let mut weights = ModelWeights::new(Weights::new(&model.checkpoint));
            weights.quantize_to(args.quant);
            weights.multiply_with(args.activations.map_or_else(Default::default, Into::into));
            model_cases(&model.checkpoint, &mut weights, software)?
        }
    };
    let budget = args.seconds.unwrap_or(if software { 20.0 } else { 1.0 });
    let progress = bar("tuning", "{pos}/{len} choices");
    let measured = tune(&gpu, cases, Duration::from_secs_f64(budget), &mut |done, all| {
        progress.set_length(all);
        progress.set_position(done);
    });
    progress.finish_and_clear();
    let choices = measured?;

    let mut kept = None;
    if !args.dry_run {
        let file = file.ok_or_else(no_folder)?;
        // A model's choices go beside those that another one has left; what can't be read is replaced.
        let before = match &args.model {
            Some(_) => file.load().ok().flatten().unwrap_or_default(),
            None => Tuning::DEFAULT,
        };
        file.save(&tuning(before, &choices))?;
        kept = Some(file.path().to_owned());
    }
    let report = Report { adapter: gpu.report.to_string(), choices, kept };
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report) -> Result<()> {
    print_line(&format!("{}\n{}", report.adapter, table(&report.choices).text(Style::Text)))?;
    let changed = report.choices.iter().filter(|c| c.taken != 0).count();
    let all = report.choices.len();
    print_line(&format!("{changed} of {all} choices are not the default"))?;
    match &report.kept {
        Some(path) => print_line(&format!("kept in {}", path.display())),
        None => print_line("not kept"),
    }
}

/// A line a candidate, under what it is a candidate for.
fn table(choices: &[Measured]) -> Table {
    let heads = ["kernel", "class", "measured on", "candidate", "us", ""].map(Into::into).into();
    let lines = |m: &Measured| {
        let mut about = [m.kernel.into(), m.class.clone(), m.shape.clone()];
        let line = |c: &Timed| {
            let mark = if c.candidate == m.chosen { "chosen" } else { "" };
            let time = format!("{:.1}", c.microseconds);
            let mut row: Vec<String> = about.iter_mut().map(std::mem::take).collect();
            row.extend([c.candidate.clone(), time, mark.into()]);
            row
        };
        m.candidates.iter().map(line).collect::<Vec<_>>()
    };
    Table { heads, rows: choices.iter().flat_map(lines).collect() }
}
