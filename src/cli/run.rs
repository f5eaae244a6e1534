//! `fathom run`: one question, or a chat.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{Effects, Style};
use serde::Serialize;

use super::common::{self, DeviceArgs, Qat, bar, bytes, print_json, tell};
use super::{Outcome, one_line};
use crate::media::picture;
use crate::media::video::{self, ClipInfo, ClipOptions, Estimate};
use crate::runtime::{Chat, EngineOptions, Finish, Reply, ReplyOptions, Sampling};
use crate::text::{Channel, Delta, Mode, PromptStyle};
use crate::{Error, Result};

/// Asks a model about text, pictures and clips; without -p on a terminal, a chat
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom run --image samples/scene.png -p 'what color is the circle?'
  fathom run --video samples/clip.gif -p 'which direction does the shape move?'
  fathom run --think high -p 'what is 27 + 45?'
  fathom run DeepSeek-V4-Flash-Vision-Exp/ --image cat.jpg -p 'Describe this picture.'
  fathom run DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf -p 'Why is the sky blue?'
  fathom run base-model.gguf --raw -p 'Once upon a time'
  fathom run
  echo 'repeat: red circle' | fathom run

Pictures, then clips, then the text make one question. Reasoning goes to standard error, the answer \
to standard output. In a chat, /image FILE and /video FILE add to the next question, /clear forgets, \
/quit leaves.")]
pub struct Args {
    /// Folder with config.json, tokenizer.json and safetensors files, or a GGUF file [default: the
    /// built-in model]
    model: Option<PathBuf>,
    /// The question; read from standard input if that is not a terminal
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A picture to ask about; may be given more than once
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A clip, or a folder of frames, to ask about; may be given more than once
    #[arg(long, value_name = "FILE|FOLDER")]
    video: Vec<PathBuf>,
    /// Go on with the text as it is, without the model's chat format
    #[arg(long, conflicts_with_all = ["image", "video", "system", "think"])]
    raw: bool,
    /// An instruction the model reads first
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Whether the model thinks before it answers, and how hard
    /// [default: off]
    #[arg(long, value_name = "EFFORT", value_parser = ["off", "low", "high", "max"])]
    think: Option<String>,
    /// Tokens of the reply at most, thinking included
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Tokens of context to keep [default: the model's limit, up to 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Frames of a clip to sample a second
    #[arg(long, value_name = "N", default_value_t = 2.0, allow_negative_numbers = true)]
    fps: f64,
    /// Frames of a clip at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_frames: u32,
    /// Tokens of a frame at most, below the model's own limit for a picture
    #[arg(long, value_name = "N")]
    frame_tokens: Option<usize>,
    /// Rounding of activations that V4 models were trained with: to imitate none, what attention
    /// keeps, or all of it [default: kv for checkpoints quantized to FP8, else off]
    #[arg(long, value_enum)]
    qat: Option<Qat>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print the reply and its figures as JSON once it is complete
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// How tokens are chosen.
#[derive(Debug, clap::Args)]
struct SamplingArgs {
    /// Randomness; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Choose among this many of the likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Choose among the likeliest tokens that have this much of the probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Choose among tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Same seed, same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn sampling(&self) -> Result<Sampling> {
        let Self { temperature, top_k, top_p, min_p, seed } = *self;
        let check = |ok: bool, what: &str| {
            if ok { Ok(()) } else { Err(Error::Request(what.into())) }
        };
        check(temperature.is_finite() && temperature >= 0.0, "--temperature must be 0 or more")?;
        check((0.0..=1.0).contains(&top_p), "--top-p must be between 0 and 1")?;
        check((0.0..=1.0).contains(&min_p), "--min-p must be between 0 and 1")?;
        Ok(Sampling { temperature, top_k, top_p, min_p, seed })
    }
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    device: &'a str,
    #[serde(flatten)]
    reply: &'a Reply,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let options = ReplyOptions {
        mode: args.think.as_deref().unwrap_or("off").parse::<Mode>()?,
        max_tokens: args.max_tokens as usize,
        sampling: args.sampling.sampling()?,
    };
    let chatting = args.prompt.is_none() && !args.raw && std::io::stdin().is_terminal();
    let prompt = match &args.prompt {
        Some(text) => text.clone(),
        None if chatting => String::new(),
        None => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Error::io("standard input", e))?;
            if args.raw { text } else { text.trim().to_owned() }
        }
    };
    if !chatting && prompt.is_empty() && args.image.is_empty() && args.video.is_empty() {
        return Err(Error::Request("there is no question: give one with -p".into()));
    }
    // Loading a model takes long: a picture or clip that is none is told before.
    let pictures = args.image.iter().map(picture::read).collect::<Result<Vec<_>>>()?;
    for path in &args.video {
        video::open(path, &clip_options(args))?;
    }
    let model = common::open(args.model.as_ref())?;
    let engine_options = EngineOptions {
        context: args.context.map(|c| c as usize),
        qat: args.qat.map(Into::into),
        ..args.device.options()
    };
    let mut engine = common::load(&model, &engine_options)?;
    let device = engine.device.clone();
    note(&format!("{} on {device}", model.name));
    let tokenizer = model.tokenizer()?;
    let style = if args.raw { PromptStyle::Plain } else { model.prompt_style(&tokenizer)? };
    if matches!(style, PromptStyle::Plain) && !args.raw {
        note("no chat format is known for this model: it goes on with the text as it is");
    }
    let mut chat = Chat::new(&mut engine, tokenizer, style);
    if args.think.as_deref() == Some("off") && chat.opens_reasoning(options.mode) {
        note("this model always thinks first: --think off has no effect");
    }
    if let Some(text) = &args.system {
        chat.system(text);
    }
    for picture in pictures {
        chat.picture(&picture)?;
    }
    for path in &args.video {
        clip(&mut chat, path, args)?;
    }
    if chatting {
        return converse(&mut chat, args, &options);
    }
    let reply = if args.json {
        chat.ask(&prompt, &options, &mut |_, _| {}, &mut |_| Ok(()))?
    } else {
        say(&mut chat, &prompt, &options)?
    };
    if args.json {
        print_json(&Report { model: &model.name, device: &device, reply: &reply })?;
    }
    Ok(ExitCode::SUCCESS)
}

const DIM: Style = Style::new().effects(Effects::DIMMED);

/// A line about the run on standard error.
fn note(text: &str) {
    tell(format!("{DIM}{text}{DIM:#}\n"));
}

fn clip_options(args: &Args) -> ClipOptions {
    ClipOptions {
        fps: args.fps,
        max_frames: args.max_frames as usize,
        max_tokens_per_frame: args.frame_tokens,
    }
}

fn clip(chat: &mut Chat<'_>, path: &Path, args: &Args) -> Result<()> {
    let bar = bar("frames", "{pos}/{len}");
    let mut told = |info: &ClipInfo, cost: &Estimate| {
        bar.suspend(|| {
            note(&format!(
                "{}: {}, {}x{}, {:.1} s; {} frames, about {} tokens, {} held at a time",
                path.display(),
                info.container,
                info.width,
                info.height,
                info.duration_s,
                cost.frames,
                cost.tokens,
                bytes(cost.frame_bytes as u64),
            ));
        });
    };
    let done = chat.clip(path, &clip_options(args), &mut told, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}

/// Asks, and prints the reply as it comes.
fn say(chat: &mut Chat<'_>, prompt: &str, options: &ReplyOptions) -> Result<Reply> {
    let mut thinking = false;
    let bar = bar("prefill", "{pos}/{len} tokens");
    let mut progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    };
    let reply = chat.ask(prompt, options, &mut progress, &mut |delta: &Delta| {
        match delta.channel {
            Channel::Reasoning => {
                thinking = true;
                tell(format!("{DIM}{}{DIM:#}", delta.text));
            }
            Channel::Answer => {
                let mut text = delta.text.as_str();
                if thinking {
                    // Models put empty lines between their thoughts and their answer.
                    text = text.trim_start_matches('\n');
                    if text.is_empty() {
                        return Ok(());
                    }
                    thinking = false;
                    tell("\n");
                }
                let mut out = std::io::stdout();
                write!(out, "{text}")
                    .and_then(|()| out.flush())
                    .map_err(|e| Error::io("standard output", e))?;
            }
        }
        Ok(())
    })?;
    if thinking {
        tell("\n");
    }
    writeln!(std::io::stdout()).map_err(|e| Error::io("standard output", e))?;
    if reply.finish == Finish::Length {
        note(&format!("(stopped after {} tokens)", reply.reply_tokens));
    }
    if std::io::stderr().is_terminal() {
        let rate = reply.reply_tokens as f64 / reply.decode.as_secs_f64().max(1e-9);
        note(&format!(
            "{} prompt tokens, first token after {:.2} s, {} tokens at {rate:.1}/s",
            reply.prompt_tokens,
            reply.first_token.as_secs_f64(),
            reply.reply_tokens,
        ));
    }
    Ok(reply)
}

/// A chat on the terminal. What goes wrong with one question is told, and the chat goes on.
fn converse(chat: &mut Chat<'_>, args: &Args, options: &ReplyOptions) -> Outcome {
    note("Ask away; /image FILE, /video FILE, /clear, /quit.");
    let mut lines = std::io::stdin().lock().lines();
    loop {
        tell("> ");
        let Some(line) = lines.next() else { return Ok(ExitCode::SUCCESS) };
        let line = line.map_err(|e| Error::io("standard input", e))?;
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let done = match word {
            "" => Ok(()),
            "/quit" => return Ok(ExitCode::SUCCESS),
            "/clear" => {
                chat.clear();
                args.system.iter().for_each(|text| chat.system(text));
                Ok(())
            }
            "/image" | "/video" if rest.trim().is_empty() => {
                Err(Error::Request(format!("{word} needs the name of a file")))
            }
            "/image" => picture::read(rest.trim()).and_then(|p| chat.picture(&p)),
            "/video" => clip(chat, Path::new(rest.trim()), args),
            _ if word.starts_with('/') => Err(Error::Request(format!("no command {word}"))),
            _ => say(chat, line, options).map(drop),
        };
        if let Err(e) = done {
            tell(format!("{}\n", one_line(&e)));
        }
    }
}
