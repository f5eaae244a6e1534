//! `fathom devices`.

use std::process::ExitCode;

use super::Outcome;
use super::common::{bytes, print_json, print_line};
use crate::gpu::adapters;

/// Lists the GPU adapters, their limits and features, and the tier Fathom uses on each
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

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let found = adapters()?;
    if args.json {
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        print_line(
            "No GPU adapter found. Install your card's driver, or a software one (Debian and \
             Ubuntu: apt install mesa-vulkan-drivers). Fathom runs on its CPU reference path.",
        )?;
    }
    for a in &found {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let [min, max] = a.subgroup_sizes;
        print_line(&format!(
            "{}: {}\n   {} {}, {}\n   tier {}; subgroups of {}; f16 {}, timestamps {}, \
             cooperative matrix {}\n   buffers to {}, bindings to {}, {} storage buffers a stage, \
             workgroups of {} with {}",
            a.index,
            a.name,
            a.backend,
            a.kind,
            a.driver,
            a.tier,
            if min == max { min.to_string() } else { format!("{min} to {max}") },
            yes(a.f16),
            yes(a.timestamps),
            yes(a.cooperative_matrix),
            bytes(a.max_buffer_bytes),
            bytes(a.max_binding_bytes),
            a.storage_buffers,
            a.workgroup_invocations,
            bytes(a.workgroup_bytes.into()),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
