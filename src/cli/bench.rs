//! `fathom bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Outcome;
use super::common::{self, DeviceArgs, bar, bytes, print_json, print_line};
use super::plot::{Bar, Group, svg};
use super::table::{Style, Table};
use crate::gpu::Chosen;
use crate::gpu::probe::{Roofline, roofline};
use crate::runtime::bench::{self, Before, KernelTime, Speed, Test};
use crate::runtime::{EngineOptions, Runner};
use crate::{Error, Result};

/// Measures a model's speed, beside what the device can do at best
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom bench model.gguf
  fathom bench model.gguf -p 128,512 -n 32 -d 0,4096 -r 3 --md
  fathom bench --kernels
  fathom bench model/ -p 0 -n 16 -d 1024,65536 --random-depth --kernels
  fathom bench model.gguf --json > here.json
  fathom bench --compare here.json there.json --plot speeds.svg

pp N is a prompt of N tokens, tg N the decoding of N tokens, both at a batch of one, after a context \
of --depth tokens. `of copy` and `of fma` are the weights' bytes and the operations with them, a \
second, in percent of what a kernel that only copies, and one that only multiplies and adds, reached \
on the same device in the same run.")]
pub struct Args {
    /// Model folder or GGUF file [default: the built-in model]
    model: Option<PathBuf>,
    /// Prompt lengths
    #[arg(short = 'p', long, value_name = "N,...", value_delimiter = ',', default_value = "512",
        value_parser = clap::value_parser!(u32).range(0..))]
    prompt: Vec<u32>,
    /// Numbers of tokens to decode
    #[arg(short = 'n', long, value_name = "N,...", value_delimiter = ',', default_value = "128",
        value_parser = clap::value_parser!(u32).range(0..))]
    decode: Vec<u32>,
    /// Tokens in the context beforehand
    #[arg(short = 'd', long, value_name = "N,...", value_delimiter = ',', default_value = "0",
        value_parser = clap::value_parser!(u32).range(0..))]
    depth: Vec<u32>,
    /// Fill the context of --depth tokens with random numbers instead of computing it: what it holds
    /// makes hardly a difference to speed, and a long one can take hours to compute
    #[arg(long)]
    random_depth: bool,
    /// Repetitions of each test
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Time every op by the device's clock, in a prefill step and in a decode step at each depth
    #[arg(long)]
    kernels: bool,
    /// Print JSON
    #[arg(long, group = "output")]
    json: bool,
    /// Print CSV
    #[arg(long, group = "output")]
    csv: bool,
    /// Print Markdown
    #[arg(long, group = "output")]
    md: bool,
    /// Show reports written with --json side by side instead
    #[arg(long, value_name = "FILE.json", num_args = 1.., conflicts_with_all = ["model", "kernels", "json"])]
    compare: Vec<PathBuf>,
    /// Draw the comparison, too: tokens a second, and how much of the device they make use of
    #[arg(long, value_name = "FILE.svg", requires = "compare")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Deserialize, Serialize)]
struct Report {
    fathom: String,
    model: String,
    quant: Option<String>,
    device: String,
    /// Whether kernels were those that `fathom tune` has chosen.
    #[serde(default)]
    tuned: bool,
    /// Of what it has chosen, what is not the default.
    #[serde(default)]
    tuning: Vec<Chosen>,
    roofline: Option<Roofline>,
    weight_bytes: u64,
    state_bytes: u64,
    scratch_bytes: u64,
    load_seconds: f64,
    /// Of a first prompt of the first length, what is compiled at first use included.
    first_token_seconds: f64,
    dispatches_a_decode_step: Option<usize>,
    picture_milliseconds: Option<Vec<f64>>,
    /// Whether contexts were random numbers.
    #[serde(default)]
    random_depth: bool,
    speeds: Vec<Speed>,
    kernels: Vec<KernelTime>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let style = match (args.md, args.csv) {
        (true, _) => Style::Markdown,
        (_, true) => Style::Csv,
        _ => Style::Text,
    };
    if !args.compare.is_empty() {
        let reports = args.compare.iter().map(|p| read(p)).collect::<Result<Vec<_>>>()?;
        print_line(&compared(&reports).text(style))?;
        if let Some(path) = &args.plot {
            std::fs::write(path, svg(&groups(&reports))).map_err(|e| Error::io(path, e))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let report = measure(args)?;
    if args.json {
        print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if style != Style::Csv {
        print_line(&summary(&report))?;
    }
    print_line(&speeds(&report).text(style))?;
    if args.kernels {
        print_line("")?;
        match report.kernels.is_empty() {
            true => print_line("the device has no clock to time kernels with")?,
            false => print_line(&kernels(&report).text(style))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tests(args: &Args) -> Vec<(Test, usize)> {
    let lengths = |of: &[u32]| of.iter().filter(|&&n| n > 0).map(|&n| n as usize).collect();
    let (prompts, decodes): (Vec<_>, Vec<_>) = (lengths(&args.prompt), lengths(&args.decode));
    let at_depth = |depth: usize| {
        let prefill = prompts.iter().map(|&n| Test::Prefill(n));
        let tests = prefill.chain(decodes.iter().map(|&n| Test::Decode(n)));
        tests.map(|test| (test, depth)).collect::<Vec<_>>()
    };
    args.depth.iter().flat_map(|&d| at_depth(d as usize)).collect()
}

fn measure(args: &Args) -> Result<Report> {
    let tests = tests(args);
    let longest = args.prompt.iter().copied().max().unwrap_or(1).max(1) as usize;
    // The context that the longest test needs; one place more for the token it ends with.
    let needed = tests.iter().map(|&(test, depth)| match test {
        Test::Prefill(n) | Test::Decode(n) => depth + n + 1,
    });
    let timed = args.depth.iter().filter(|_| args.kernels).map(|&d| d as usize + longest + 1);
    let before = |depth| Before { depth, random: args.random_depth };
    let start = Instant::now();
    let model = common::open(args.model.as_ref())?;
    let context = Some(needed.chain(timed).max().unwrap_or(1));
    let mut engine = common::load(&model, &EngineOptions { context, ..args.device.options() })?;
    let load_seconds = start.elapsed().as_secs_f64();
    let progress = bar("measuring", "{msg} {pos}/{len}");
    progress.set_length(tests.len() as u64 + 1);

    // Compiles what is compiled at first use, and is itself a figure: the wait for a first token.
    let repeats = args.repeats as usize;
    progress.set_message("warming up");
    let start = Instant::now();
    let longest = longest.min(engine.context);
    bench::speed(&mut engine, Test::Prefill(longest), Before::NOTHING, 1)?;
    let first_token_seconds = start.elapsed().as_secs_f64();
    bench::speed(&mut engine, Test::Decode(1), Before::NOTHING, 1)?;

    let mut speeds = vec![];
    for (test, depth) in tests {
        progress.inc(1);
        speeds.push(bench::speed(&mut engine, test, before(depth), repeats)?);
    }
    let picture_milliseconds = bench::pictures(&mut engine, repeats)?;
    let mut kernels = vec![];
    if args.kernels {
        for &depth in &args.depth {
            kernels.extend(bench::kernels(&mut engine, before(depth as usize), longest, repeats)?);
        }
    }
    progress.finish_and_clear();
    let dispatches = engine.dispatches();
    let (roofline, [weight_bytes, state_bytes, scratch_bytes]) = match engine.runner() {
        Runner::Gpu { gpu, store, .. } => (Some(roofline(gpu)?), store.bytes()),
        Runner::Cpu { .. } => (None, [0; 3]),
    };
    let (tuned, tuning) = match engine.runner() {
        Runner::Gpu { gpu, .. } => (gpu.tuned, Chosen::changes(&gpu.limits.tuning)),
        Runner::Cpu { .. } => (false, vec![]),
    };
    Ok(Report {
        fathom: env!("CARGO_PKG_VERSION").into(),
        model: model.name.clone(),
        quant: args.device.quant.map(|q| q.name().to_lowercase()),
        device: engine.device.clone(),
        tuned,
        tuning,
        roofline,
        weight_bytes,
        state_bytes,
        scratch_bytes,
        load_seconds,
        first_token_seconds,
        dispatches_a_decode_step: dispatches,
        picture_milliseconds,
        random_depth: args.random_depth,
        speeds,
        kernels,
    })
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("not a report of `fathom bench --json`: {e}")))
}

fn summary(r: &Report) -> String {
    let quant = r.quant.as_ref().map_or(String::new(), |q| format!(", quantized to {q}"));
    let mut out = format!("{}{quant}\n{}\n", r.model, r.device);
    if let Some(m) = r.roofline {
        let (copy, fma) = (m.bytes_per_second / 1e9, m.flops_per_second / 1e9);
        let dots = m.byte_ops_per_second / 1e9;
        out += &format!("at best: {copy:.1} GB/s copied, {fma:.1} GFLOP/s multiplied and added, ");
        out += &format!("{dots:.1} GOP/s in products of bytes");
        if m.matrix_flops_per_second > 0.0 {
            let matrices = m.matrix_flops_per_second / 1e9;
            out += &format!(", {matrices:.1} GFLOP/s by cooperative matrices");
        }
        out += "\n";
        let memory = [r.weight_bytes, r.state_bytes, r.scratch_bytes].map(bytes);
        let [weights, state, scratch] = memory;
        out += &format!("GPU memory: weights {weights}, state {state}, scratch {scratch}\n");
    }
    for Chosen { kernel, class, chosen } in &r.tuning {
        out += &format!("tuned: {kernel}, {class}: {chosen}\n");
    }
    if let Some(n) = r.dispatches_a_decode_step {
        out += &format!("{n} dispatches a decoded token\n");
    }
    out += &format!(
        "loaded in {:.2} s, first prompt answered after another {:.2} s\n",
        r.load_seconds, r.first_token_seconds
    );
    if r.random_depth {
        out += "contexts hold random numbers\n";
    }
    if let Some(times) = &r.picture_milliseconds {
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        out += &format!("a picture is encoded in {mean:.0} ms\n");
    }
    out
}

fn percent(part: f64, whole: Option<f64>) -> String {
    whole.map_or("-".into(), |whole| format!("{:.1}%", 100.0 * part / whole))
}

fn speeds(r: &Report) -> Table {
    let heads = ["test", "tokens/s", "+-", "GB/s", "of copy", "GFLOP/s", "of fma"];
    let row = |s: &Speed| {
        let (b, f) = (s.weight_bytes_per_second, s.weight_flops_per_second);
        vec![
            s.test.clone(),
            format!("{:.2}", s.mean),
            format!("{:.2}", s.deviation),
            format!("{:.2}", b / 1e9),
            percent(b, r.roofline.map(|m| m.bytes_per_second)),
            format!("{:.2}", f / 1e9),
            percent(f, r.roofline.map(|m| m.flops_per_second)),
        ]
    };
    Table { heads: heads.map(Into::into).into(), rows: r.speeds.iter().map(row).collect() }
}

fn kernels(r: &Report) -> Table {
    let heads = ["phase", "op", "nodes", "ms", "share", "GB/s", "of copy", "GFLOP/s", "of fma"];
    let row = |k: &KernelTime| {
        let phase = r.kernels.iter().filter(|o| o.phase == k.phase);
        let total: f64 = phase.map(|o| o.seconds).sum();
        // A clock may be too coarse to see a short kernel.
        let per_second = |n: u64| if k.seconds > 0.0 { n as f64 / k.seconds } else { 0.0 };
        let (b, f) = (per_second(k.bytes), per_second(k.flops));
        vec![
            k.phase.clone(),
            k.op.clone(),
            k.nodes.to_string(),
            format!("{:.3}", k.seconds * 1e3),
            percent(k.seconds, Some(total)),
            format!("{:.2}", b / 1e9),
            percent(b, r.roofline.map(|m| m.bytes_per_second)),
            format!("{:.2}", f / 1e9),
            percent(f, r.roofline.map(|m| m.flops_per_second)),
        ]
    };
    Table { heads: heads.map(Into::into).into(), rows: r.kernels.iter().map(row).collect() }
}

/// What was measured in any of `reports`, in order.
fn all_tests(reports: &[Report]) -> Vec<&str> {
    let mut tests: Vec<&str> = vec![];
    for speed in reports.iter().flat_map(|r| &r.speeds) {
        if !tests.contains(&speed.test.as_str()) {
            tests.push(&speed.test);
        }
    }
    tests
}

/// A group of bars a test, a bar a report. A bar's note is its speed, and the larger of the parts of
/// what the device could copy and compute.
fn groups(reports: &[Report]) -> Vec<Group> {
    let note = |r: &Report, s: &Speed| {
        let speed = format!("{:.1}", s.mean);
        let Some(most) = r.roofline else { return speed };
        let copy = 100.0 * s.weight_bytes_per_second / most.bytes_per_second;
        let fma = 100.0 * s.weight_flops_per_second / most.flops_per_second;
        let (part, of) = if copy > fma { (copy, "copy") } else { (fma, "fma") };
        format!("{speed} ({part:.0}% of {of})")
    };
    let bar = |r: &Report, test: &str| {
        let speed = r.speeds.iter().find(|s| s.test == test)?;
        // The device's name, without its driver.
        let device = r.device.split(" (").next().unwrap_or(&r.device);
        let label = format!("{}, {device}", file_name(&r.model));
        Some(Bar { label, value: speed.mean, note: note(r, speed) })
    };
    let group = |test: &&str| Group {
        title: format!("{test}, tokens/s"),
        bars: reports.iter().filter_map(|r| bar(r, test)).collect(),
    };
    all_tests(reports).iter().map(group).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Tests down, reports across.
fn compared(reports: &[Report]) -> Table {
    let mut heads = vec!["test".to_owned()];
    heads.extend(reports.iter().map(|r| format!("{}, {}", r.model, r.device)));
    let row = |test: &&str| {
        let mut row = vec![(*test).to_owned()];
        row.extend(reports.iter().map(|r| {
            let speed = r.speeds.iter().find(|s| s.test == *test);
            speed.map_or("-".into(), |s| format!("{:.2} +- {:.2}", s.mean, s.deviation))
        }));
        row
    };
    Table { heads, rows: all_tests(reports).iter().map(row).collect() }
}
