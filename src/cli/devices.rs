//! `fathom devices`.

use std::process::ExitCode;

use serde::Serialize;

use super::Outcome;
use super::common::{bytes, print_json, print_line};
use crate::gpu::{AdapterReport, Chosen, Matrices, TuningFile, adapters};

/// Lists the GPU adapters, their limits and features, and the tier and tuning Fathom uses on each
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom devices
  fathom devices --json
  FATHOM_TIER=core fathom devices

The first adapter of the list is used unless --adapter or FATHOM_ADAPTER names another one.")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An adapter, and what `fathom tune` has kept for it.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    adapter: &'a AdapterReport,
    tuned: bool,
    /// What of it is not the default.
    tuning: Vec<Chosen>,
    /// Why it is not used.
    tuning_error: Option<String>,
}

impl<'a> Report<'a> {
    fn new(adapter: &'a AdapterReport) -> Self {
        let kept = TuningFile::of(adapter).map_or(Ok(None), |file| file.load());
        let (kept, tuning_error) = match kept {
            Ok(kept) => (kept, None),
            Err(e) => (None, Some(e.to_string())),
        };
        let tuning = kept.map_or(vec![], |kept| Chosen::changes(&kept));
        Self { adapter, tuned: kept.is_some(), tuning, tuning_error }
    }

    /// In a few words.
    fn tuned(&self) -> String {
        match (&self.tuning_error, self.tuned) {
            (Some(why), _) => format!("not tuned: {why}"),
            (None, false) => "not tuned".into(),
            (None, true) if self.tuning.len() == 1 => "tuned: 1 choice is not the default".into(),
            (None, true) => format!("tuned: {} choices are not the default", self.tuning.len()),
        }
    }
}

/// Cooperative matrices in a few words.
fn matrices(all: &[Matrices]) -> String {
    let word =
        |m: &Matrices| format!("{0} x {0} in {1}", m.size, if m.half { "f16" } else { "f32" });
    let words: Vec<_> = all.iter().map(word).collect();
    if words.is_empty() { "no".into() } else { words.join(", ") }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let found = adapters()?;
    let reports: Vec<_> = found.iter().map(Report::new).collect();
    if args.json {
        print_json(&reports)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        print_line(
            "No GPU adapter found. Install your card's driver, or a software one (Debian and \
             Ubuntu: apt install mesa-vulkan-drivers). Fathom runs on its CPU reference path.",
        )?;
    }
    for report in &reports {
        let a = report.adapter;
        let yes = |b: bool| if b { "yes" } else { "no" };
        let [min, max] = a.subgroup_sizes;
        print_line(&format!(
            "{}: {}\n   {} {}, {}\n   tier {}; subgroups of {}; f16 {}, timestamps {}, \
             cooperative matrices {}\n   buffers to {}, bindings to {}, {} storage buffers a stage, \
             workgroups of {} with {}\n   {}",
            a.index,
            a.name,
            a.backend,
            a.kind,
            a.driver,
            a.tier,
            if min == max { min.to_string() } else { format!("{min} to {max}") },
            yes(a.f16),
            yes(a.timestamps),
            matrices(&a.matrices),
            bytes(a.max_buffer_bytes),
            bytes(a.max_binding_bytes),
            a.storage_buffers,
            a.workgroup_invocations,
            bytes(a.workgroup_bytes.into()),
            report.tuned(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
