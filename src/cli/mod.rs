//! The command line: one file a subcommand.

mod bench;
mod common;
mod devices;
mod eval;
mod inspect;
mod logits;
mod plot;
mod quantize;
mod run;
mod table;
mod tune;
mod verify;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{Error, Result};

/// A local inference engine for DeepSeek's multimodal mixture-of-experts models, on any GPU.
#[derive(Debug, Parser)]
#[command(name = "fathom", version, about, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Devices(devices::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Logits(logits::Args),
    Quantize(quantize::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Tune(tune::Args),
}

/// Runs the command line; errors are one line on standard error and exit status 1.
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FATHOM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Quantize(args) => quantize::run(&args),
    };
    match done {
        Ok(code) => code,
        // Whoever closed the pipe wants to read no more.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(e) => {
            common::tell(format!("{}\n", one_line(&e)));
            ExitCode::FAILURE
        }
    }
}

/// An error's text without line breaks and whatever else would upset a terminal: it may quote a
/// file.
fn one_line(e: &Error) -> String {
    e.to_string().trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a subcommand gives back: its exit status, or an error to print.
type Outcome = Result<ExitCode>;
