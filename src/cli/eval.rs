//! `fathom eval`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Outcome;
use super::common::{self, DeviceArgs, bar, print_json, print_line, tell};
use crate::eval::{Example, Task, easy_vqa, generate};
use crate::runtime::{Chat, ReplyOptions, Sampling};
use crate::text::{Effort, Mode};
use crate::{Error, Result};

/// Measures the default model's accuracy on questions about pictures, clips and texts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom eval
  fathom eval --task direction,count --count 500
  fathom eval --task easy-vqa --easy-vqa site-packages/easy_vqa/data/test --count 10000
  fathom eval --json

Questions are drawn afresh from the seed; easy-VQA's official test split is read from the data \
folder of the Python package easy-vqa (pip install easy-vqa).")]
pub struct Args {
    /// Folder of another model to measure [default: the built-in model]
    model: Option<PathBuf>,
    /// Tasks to measure, separated by commas [default: all]
    #[arg(long, value_name = "TASK,...", value_delimiter = ',')]
    task: Vec<String>,
    /// Questions a task at most
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Draws the questions
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The test data of the Python package easy-vqa: adds the task easy-vqa
    #[arg(long, value_name = "FOLDER")]
    easy_vqa: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show every wrong answer on standard error
    #[arg(long)]
    show_wrong: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Serialize)]
struct Score {
    task: &'static str,
    questions: usize,
    right: usize,
    accuracy: f64,
}

#[derive(Serialize)]
struct Report {
    model: String,
    device: String,
    seed: u64,
    seconds: f64,
    tasks: Vec<Score>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let mut sets = vec![];
    for task in tasks(args)? {
        let examples = match (task, &args.easy_vqa) {
            (Task::EasyVqa, Some(folder)) => easy_vqa::load(folder, args.count as usize)?,
            (Task::EasyVqa, None) => {
                return Err(Error::Request("the task easy-vqa needs --easy-vqa FOLDER".into()));
            }
            (task, _) => generate(task, args.count as usize, args.seed),
        };
        sets.push((task, examples));
    }
    let model = common::open(args.model.as_ref())?;
    let mut engine = common::load(&model, &args.device.options())?;
    let device = engine.device.clone();
    let tokenizer = model.tokenizer()?;
    let style = model.prompt_style(&tokenizer)?;
    let bar = bar("asking", "{pos}/{len} {msg}");
    bar.set_length(sets.iter().map(|s| s.1.len() as u64).sum());
    let start = Instant::now();
    let mut scores = vec![];
    for (task, examples) in &sets {
        bar.set_message(task.name());
        let mut right = 0;
        for example in examples {
            let chat = Chat::new(&mut engine, Arc::clone(&tokenizer), style.clone());
            let reply = ask(chat, example)?;
            let good = example.accepts(&reply);
            right += usize::from(good);
            if args.show_wrong && !good {
                bar.suspend(|| {
                    let Example { question, answer, .. } = example;
                    let name = task.name();
                    tell(format!("{name}: {question} -> {reply:?}, not {answer:?}\n"));
                });
            }
            bar.inc(1);
        }
        let questions = examples.len();
        let accuracy = right as f64 / questions.max(1) as f64;
        scores.push(Score { task: task.name(), questions, right, accuracy });
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let report = Report { model: model.name, device, seed: args.seed, seconds, tasks: scores };
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tasks(args: &Args) -> Result<Vec<Task>> {
    if args.task.is_empty() {
        let easy = args.easy_vqa.is_some().then_some(Task::EasyVqa);
        return Ok(easy.into_iter().chain(Task::GENERATED).collect());
    }
    let named = args.task.iter().map(|name| {
        Task::from_name(name).ok_or_else(|| {
            let known = Task::GENERATED.map(Task::name).join(", ");
            Error::Request(format!("no task `{name}`; there are easy-vqa, {known}"))
        })
    });
    named.collect()
}

/// Asks one question in an empty conversation, always taking the likeliest token.
fn ask(mut chat: Chat<'_>, example: &Example) -> Result<String> {
    if example.times.is_empty() {
        for picture in &example.images {
            chat.picture(picture)?;
        }
    } else {
        let times = example.times.iter().map(|&t| f64::from(t));
        chat.frames(times.zip(&example.images))?;
    }
    let mode = if example.think { Mode::Thinking(Effort::Low) } else { Mode::Chat };
    let options = ReplyOptions { mode, max_tokens: 200, sampling: Sampling::default() };
    Ok(chat.ask(&example.question, &options, &mut |_, _| {}, &mut |_| Ok(()))?.answer)
}

fn print(r: &Report) -> Result<()> {
    print_line(&format!("{} on {}", r.model, r.device))?;
    for s in &r.tasks {
        let Score { task, questions, right, accuracy } = s;
        print_line(&format!("{task:<12} {:>6.2}%  {right} of {questions}", 100.0 * accuracy))?;
    }
    print_line(&format!("seed {}, {:.0} s", r.seed, r.seconds))
}
