//! `fathom quantize`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Outcome;
use super::common::{self, bytes, print_json, print_line};
use crate::quantize::{Kind, Report, quantize};

/// Writes a model as a GGUF file in another precision
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom quantize DeepSeek-R1-Distill-Qwen-1.5B/ r1-q4_k.gguf --type q4_k
  fathom quantize model-f16.gguf model-q8_0.gguf --type q8_0 --force
  fathom quantize DeepSeek-V3/ v3-mxfp4.gguf --type mxfp4 --json

Norms, biases and routers stay in F32. Rows that a format's blocks do not fit get one with smaller
blocks: q5_0 for q4_k, q8_0 for q6_k, f16 where even blocks of 32 do not fit. Memory stays below 2 GB
whatever the model's size.")]
pub struct Args {
    /// Folder with config.json and safetensors files, or a GGUF file
    model: PathBuf,
    /// The GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Format of most weights
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Kind,
    /// Replace OUT.gguf if it is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let bar = common::bar("quantizing", "{bytes}/{total_bytes}");
    let report = quantize(&args.model, &args.out, args.kind, args.force, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(r: &Report) -> String {
    let formats = r.bytes_by_format.iter().map(|(d, &n)| format!("{d} {}", bytes(n)));
    let mut out = format!(
        "{} tensors, {:.2} M parameters in {}, {:.2} bits each: {}",
        r.tensors,
        r.parameters as f64 / 1e6,
        bytes(r.bytes),
        8.0 * r.bytes as f64 / r.parameters.max(1) as f64,
        formats.collect::<Vec<_>>().join(", "),
    );
    let mut kinds = BTreeMap::<_, usize>::new();
    for f in &r.fallbacks {
        *kinds.entry((f.row, f.wanted, f.got)).or_default() += 1;
    }
    for ((row, wanted, got), count) in kinds {
        let tensors = if count == 1 { "tensor" } else { "tensors" };
        out +=
            &format!("\n{count} {tensors} with rows of {row} in {got}, as {wanted} does not fit");
    }
    if r.left_out > 0 {
        out += &format!("\n{} tensors for drafting and pictures were left out", r.left_out);
    }
    if r.requantized {
        out += "\nthe weights were quantized before: what was lost then stays lost";
    }
    out
}
