//! `fathom logits`: how outsiders check the engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use safetensors::tensor::{Dtype, TensorView};

use super::Outcome;
use super::common::{self, DeviceArgs, Qat, bar};
use crate::media;
use crate::runtime::{EngineOptions, Prompt, Session};
use crate::{Error, Result};

/// Writes the logits of every position of a token list
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom logits model/ --tokens ids.json --out logits.safetensors
  fathom logits model/ --tokens ids.json --image cat.png --chunk 7 --backend cpu --out l.safetensors

The tokens are a JSON list of ids. Positions of a picture carry the checkpoint's own image ids, \
vocabulary size + type (START 0, PAD 1, IMAGE 2, NEWLINE 3, END 4), laid out as the model's \
processor does; give one --image for each such block, in order. The output holds `logits`, f32 \
[tokens, vocabulary].")]
pub struct Args {
    /// Folder with config.json and safetensors files [default: the built-in model]
    model: Option<PathBuf>,
    /// JSON list of token ids
    #[arg(long, value_name = "FILE.json")]
    tokens: PathBuf,
    /// Picture of an image block of the tokens; once for each, in order
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Tokens to prefill at a time, never parting an image block; 1 goes token by token
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    chunk: u32,
    /// Where to write the logits
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Rounding of activations that V4 models were trained with: to imitate none, what attention
    /// keeps, or all of it
    #[arg(long, value_enum, default_value = "off")]
    qat: Qat,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let text = std::fs::read_to_string(&args.tokens).map_err(|e| Error::io(&args.tokens, e))?;
    let ids: Vec<u32> = serde_json::from_str(&text)
        .map_err(|e| Error::file(&args.tokens, format!("is not a JSON list of token ids: {e}")))?;
    check_out(&args.out)?;
    let model = common::open(args.model.as_ref())?;
    let chunk = args.chunk as usize;
    let options = EngineOptions {
        context: Some(ids.len().max(1)),
        chunk,
        outs: usize::MAX,
        qat: Some(args.qat.into()),
        ..args.device.options()
    };
    let mut engine = common::load(&model, &options)?;
    let vocab = engine.config.vocab();

    let mut pictures = vec![];
    for path in &args.image {
        let plan = engine.plan_config().ok_or_else(|| {
            Error::Request(format!("{}: this model takes no pictures", path.display()))
        })?;
        let patches = media::prepare(&media::picture::read(path)?, &plan)?;
        pictures.push(engine.encode(patches)?);
    }
    let prompt = Prompt::from_ids(&ids, &engine.config, pictures)?;
    let bar = bar("prefill", "{pos}/{len} tokens");
    bar.set_length(ids.len() as u64);
    let mut logits: Vec<f32> = vec![];
    logits.try_reserve_exact(ids.len() * vocab).map_err(|_| {
        let tokens = ids.len();
        Error::Request(format!("no memory for the logits of {tokens} tokens over {vocab} ids"))
    })?;
    Session::new(&mut engine).logits(prompt, chunk, &mut |rows| {
        logits.extend_from_slice(rows);
        bar.inc((rows.len() / vocab) as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    write(&args.out, &logits, [ids.len(), vocab])?;
    Ok(ExitCode::SUCCESS)
}

/// Finds out what is sure to fail before anything is computed.
fn check_out(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, "is a folder"));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(Error::file(path, format!("there is no folder {}", folder.display())))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, logits: &[f32], shape: [usize; 2]) -> Result<()> {
    let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
    let failed = |e: safetensors::SafeTensorError| Error::file(path, e.to_string());
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).map_err(failed)?;
    let file = safetensors::serialize([("logits", view)], None::<HashMap<String, String>>);
    std::fs::write(path, file.map_err(failed)?).map_err(|e| Error::io(path, e))
}
