//! Arguments and progress that subcommands share.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::formats::{self, BlockFormat};
use crate::models;
use crate::runtime::{self, Engine, EngineOptions, Model};
use crate::{Error, Result};

/// What to run on.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Backend {
    /// The GPU; the CPU reference path where there is no adapter.
    #[default]
    Auto,
    /// The GPU, or an error.
    Gpu,
    /// The CPU reference path: for checking, slow.
    Cpu,
}

impl From<Backend> for runtime::Backend {
    fn from(b: Backend) -> Self {
        match b {
            Backend::Auto => Self::Auto,
            Backend::Gpu => Self::Gpu,
            Backend::Cpu => Self::Cpu,
        }
    }
}

/// How much of the rounding of activations that a model was trained with is imitated.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Qat {
    /// None, as in Transformers.
    Off,
    /// What attention keeps, to FP8.
    Kv,
    /// All of it, as in DeepSeek's reference code.
    Full,
}

impl From<Qat> for formats::Qat {
    fn from(q: Qat) -> Self {
        match q {
            Qat::Off => Self::Off,
            Qat::Kv => Self::Kv,
            Qat::Full => Self::Full,
        }
    }
}

/// What the inputs of matrices are rounded to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Activations {
    /// 8 bits, with a scale for 32, as in llama.cpp, of quantized matrices; on software adapters of prompts alone.
    Q8,
    /// 16 bits, and the matrices too, in prompts on GPUs whose tensor cores take these; else nothing.
    F16,
    /// Nothing: exact, and slower.
    F32,
}

impl From<Activations> for models::Activations {
    fn from(a: Activations) -> Self {
        match a {
            Activations::Q8 => Self::Q8,
            Activations::F16 => Self::F16,
            Activations::F32 => Self::F32,
        }
    }
}

/// Where to run, and in what.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// What to run on
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Adapter to use: an index or part of a name from `fathom devices` [env: FATHOM_ADAPTER]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<String>,
    /// Quantize matrices to this format while loading: q4_0, q8_0, q4_k, ...
    #[arg(long, value_name = "TYPE", value_parser = quant)]
    pub quant: Option<BlockFormat>,
    /// What the inputs of matrices are rounded to; f32, the default, is not at all
    #[arg(long, value_enum, value_name = "TYPE")]
    pub activations: Option<Activations>,
    /// Take the default kernels, whatever `fathom tune` has chosen for the adapter
    #[arg(long)]
    pub no_tune: bool,
}

/// The format called `name`, of those that can be quantized to.
///
/// # Errors
/// What there is, if that is none of them.
pub fn quant(name: &str) -> Result<BlockFormat, String> {
    BlockFormat::named(name).filter(|f| f.can_quantize()).ok_or_else(|| {
        let able = BlockFormat::all().filter(|f| f.can_quantize());
        let names: Vec<_> = able.map(|f| f.name().to_lowercase()).collect();
        format!("no such format to quantize to; there are {}", names.join(", "))
    })
}

impl DeviceArgs {
    /// Options of an engine on this device.
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            backend: self.backend.into(),
            adapter: self.adapter.clone(),
            quant: self.quant,
            activations: self.activations.map_or_else(Default::default, Into::into),
            tuned: !self.no_tune,
            ..EngineOptions::default()
        }
    }
}

/// Opens a model: a folder, a GGUF file, or the one that is built in.
///
/// # Errors
/// If there is no usable model.
pub fn open(model: Option<&PathBuf>) -> Result<Model> {
    match model {
        Some(path) => Model::open(path),
        None => Model::builtin(),
    }
}

/// Loads an engine with a progress bar.
///
/// # Errors
/// As [`Engine::load`].
pub fn load(model: &Model, options: &EngineOptions) -> Result<Engine> {
    let bar = bar("loading", "{msg}");
    let engine = Engine::load(&model.checkpoint, options, &mut |what, done, total| {
        let count = match what {
            "kernels" => format!("{done}/{total}"),
            _ => format!("{}/{}", bytes(done), bytes(total)),
        };
        bar.set_message(format!("{what} {count}"));
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    engine
}

/// A progress bar on standard error, hidden unless that is a terminal.
pub fn bar(what: &str, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{what} {{wide_bar}} {unit} {{eta}}");
    let style = ProgressStyle::with_template(&template);
    let bar = ProgressBar::new(0);
    // The template is one of ours; should it be wrong, the default style serves as well.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// Prints a value as JSON on standard output.
///
/// # Errors
/// If standard output is closed.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::Request(format!("cannot be written as JSON: {e}")))?;
    print_line(&text)
}

/// Prints a line on standard output; a closed pipe is an error rather than a panic.
///
/// # Errors
/// If standard output is closed.
pub fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::io("standard output", e))
}

/// Writes on standard error. Nobody is left to be told if that is closed.
pub fn tell(text: impl std::fmt::Display) {
    let mut err = anstream::stderr();
    let _ = write!(err, "{text}").and_then(|()| err.flush());
}

/// `1536` -> `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}
