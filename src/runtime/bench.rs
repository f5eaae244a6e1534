//! How fast a model runs: prefill and decode at any depth, pictures, and every kernel. What
//! `fathom bench` shows.

use std::collections::BTreeMap;
use std::time::Instant;

use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use super::engine::Prepared;
use super::{Engine, Prompt, Sampling, Session};
use crate::graph::reference::Data;
use crate::graph::{Graph, Home, StepSize};
use crate::{Result, media};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A prompt of so many tokens in one go, the first token of the answer included.
    Prefill(usize),
    /// So many tokens, one after the other.
    Decode(usize),
}

/// What is in the context before a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// How many tokens.
    pub depth: usize,
    /// Whether the state they leave is random numbers instead of computed: what it holds makes hardly
    /// a difference to speed, and a long context can take hours to compute.
    pub random: bool,
}

impl Before {
    /// An empty context.
    pub const NOTHING: Self = Self { depth: 0, random: false };
}

/// Speeds of one test at one depth.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Speed {
    /// As llama-bench calls it: `pp512`, `tg128 @ d4096`.
    pub test: String,
    /// Tokens of the test.
    pub tokens: usize,
    /// Tokens that were in the context before.
    pub depth: usize,
    /// Tokens a second of each repetition.
    pub samples: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// Bytes of weights that the test must read, and operations it must do with them, a second at
    /// the mean speed: a lower bound, since attention comes on top.
    pub weight_bytes_per_second: f64,
    /// See `weight_bytes_per_second`.
    pub weight_flops_per_second: f64,
}

/// Time of one op's nodes in a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KernelTime {
    /// `prefill` or `decode`, and at which depth: `decode @ d4096`.
    pub phase: String,
    /// The op.
    pub op: String,
    /// Nodes that run it.
    pub nodes: usize,
    /// Seconds of all of them together.
    pub seconds: f64,
    /// Bytes they must move.
    pub bytes: u64,
    /// Operations they must do.
    pub flops: u64,
}

fn tokens(engine: &Engine, count: usize) -> Prompt {
    let mut prompt = Prompt::default();
    prompt.fill(count, engine.config.vocab());
    prompt
}

/// ` @ d4096`; nothing at a depth of 0.
fn at(depth: usize) -> String {
    if depth > 0 { format!(" @ d{depth}") } else { String::new() }
}

/// A session in which the tokens of `before` are fed, and the token after them.
fn begin<'e>(engine: &'e mut Engine, before: Before, whole: &Prompt) -> Result<(Session<'e>, u32)> {
    if before.random {
        randomise(engine);
    }
    let mut session = Session::new(engine);
    let prompt = tokens_before(whole, before.depth);
    let token = match before {
        Before { depth: 0, .. } => 0,
        Before { random: true, .. } => {
            session.presume(prompt)?;
            0
        }
        _ => session.feed(prompt, &Sampling::default(), &mut |_, _| {})?,
    };
    Ok((session, token))
}

/// Fills all state with numbers of mean 0 and variance 1, as what is kept after a norm has.
fn randomise(engine: &mut Engine) {
    let graph = engine.graphs()[0].clone();
    for id in graph.ids().filter(|&id| graph.tensor(id).home == Home::State) {
        let t = graph.tensor(id);
        let number = |i: usize| {
            let bits = (i as u32).wrapping_mul(2_654_435_769);
            let mixed = (bits ^ (bits >> 15)).wrapping_mul(0x85eb_ca6b);
            (mixed >> 8) as f32 / (1 << 24) as f32 * 12f32.sqrt() - 3f32.sqrt()
        };
        let numbers = (0..t.rows.fixed * t.cols).map(number).collect();
        engine.write_state(id, Data::F32(numbers));
    }
}

/// Runs a test `repeats` times, each after a fresh context of this kind.
///
/// # Errors
/// If it does not fit the context, or the device fails.
pub fn speed(engine: &mut Engine, test: Test, before: Before, repeats: usize) -> Result<Speed> {
    let depth = before.depth;
    let (kind, count) = match test {
        Test::Prefill(n) => ("pp", n),
        Test::Decode(n) => ("tg", n),
    };
    let (weight_bytes, weight_flops) = weight_cost(engine, test);
    let sampling = Sampling::default();
    let whole = tokens(engine, depth + count);
    let mut samples = vec![];
    for _ in 0..repeats {
        let (mut session, mut token) = begin(engine, before, &whole)?;
        let start = Instant::now();
        match test {
            Test::Prefill(_) => {
                session.feed(whole.clone(), &sampling, &mut |_, _| {})?;
            }
            Test::Decode(_) => {
                for _ in 0..count {
                    token = session.next(token, &sampling)?;
                }
            }
        }
        samples.push(count as f64 / start.elapsed().as_secs_f64());
    }
    let mean = mean(&samples);
    let square = samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
    let deviation = (square / (samples.len().max(2) - 1) as f64).sqrt();
    let per_second = |work: u64| work as f64 / count.max(1) as f64 * mean;
    Ok(Speed {
        test: format!("{kind}{count}{}", at(depth)),
        tokens: count,
        depth,
        mean,
        deviation,
        weight_bytes_per_second: per_second(weight_bytes),
        weight_flops_per_second: per_second(weight_flops),
        samples,
    })
}

fn tokens_before(whole: &Prompt, depth: usize) -> Prompt {
    let mut prompt = Prompt::default();
    prompt.rows.extend(whole.rows[..depth].iter().cloned());
    prompt
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

/// Bytes and operations of the nodes that read weights, in all steps of a test.
fn weight_cost(engine: &Engine, test: Test) -> (u64, u64) {
    let (graph, steps) = match test {
        Test::Decode(n) => (engine.graphs()[1], vec![1; n]),
        Test::Prefill(n) => {
            let chunk = engine.chunk;
            let steps = (0..n).step_by(chunk).map(|at| chunk.min(n - at)).collect();
            (engine.graphs()[0], steps)
        }
    };
    let reads_weights = |g: &Graph, i: usize| {
        let uses = g.nodes()[i].op.uses();
        uses.iter().any(|u| g.tensor(u.tensor).home == Home::Weight)
    };
    let mut sum = (0, 0);
    for rows in steps {
        for (i, node) in graph.nodes().iter().enumerate() {
            if reads_weights(graph, i) {
                let cost = node.op.cost(graph, StepSize { rows, outs: 1 });
                sum = (sum.0 + cost.bytes, sum.1 + cost.flops);
            }
        }
    }
    sum
}

/// Milliseconds to encode a picture of the size that fills the model's budget, `repeats` times over;
/// `None` if the model cannot see. Each time another picture, since encodings are kept.
///
/// # Errors
/// If the device fails.
pub fn pictures(engine: &mut Engine, repeats: usize) -> Result<Option<Vec<f64>>> {
    let Some(plan) = engine.plan_config() else { return Ok(None) };
    let mut times = vec![];
    // The first one is to warm up.
    for i in 0..=repeats as u32 {
        let picture = RgbImage::from_fn(1024, 768, |x, y| {
            let v = (x / 16 * 37 + y / 16 * 91 + i * 7919) % 256;
            Rgb([v as u8, (v * 3) as u8, (i * 31) as u8])
        });
        let patches = media::prepare(&picture, &plan)?;
        let start = Instant::now();
        engine.encode(patches)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.remove(0);
    Ok(Some(times))
}

/// Time of every op in a prefill step of `rows` rows after `before` (none if that is one row or none)
/// and in the decode step after it, by the device's clock: the median over `repeats`. Empty if the
/// device has no clock, or there is no device.
///
/// # Errors
/// If the step does not fit the context, or the device fails.
pub fn kernels(
    engine: &mut Engine,
    before: Before,
    rows: usize,
    repeats: usize,
) -> Result<Vec<KernelTime>> {
    let depth = before.depth;
    let rows = rows.min(engine.chunk).min(engine.context.saturating_sub(depth + 1));
    let end = depth + rows;
    let prompt = tokens(engine, end + 1);
    engine.check(&prompt)?;
    begin(engine, before, &prompt)?;
    let sampling = Sampling::default();
    let phases = [("prefill", depth..end), ("decode", end..end + 1)];
    let mut out = vec![];
    for (phase, range) in phases.into_iter().filter(|(phase, _)| rows > 1 || *phase == "decode") {
        let (outs, first) = (range.end - 1..range.end, range.start);
        let Prepared { graph, step, inputs } = engine.prepare(&prompt, range, outs, &sampling);
        let Some(gpu) = engine.runner().gpu_graph(graph) else { return Ok(vec![]) };
        let mut runs = vec![];
        for _ in 0..=repeats.max(1) {
            gpu.begin(step, &inputs);
            let Some(run) = gpu.profile(step)? else { return Ok(vec![]) };
            runs.push(run);
        }
        // The first one compiles.
        runs.remove(0);
        let mut by_op: BTreeMap<&str, KernelTime> = BTreeMap::new();
        let graph = gpu.graph();
        for (i, node) in graph.nodes().iter().enumerate() {
            let mut times: Vec<_> = runs.iter().map(|run| run[i]).collect();
            times.sort_unstable();
            let cost = node.op.cost(graph, step) + node.op.context_cost(graph, step, first);
            let name = node.op.name();
            let line = by_op.entry(name).or_insert_with(|| KernelTime {
                phase: format!("{phase}{}", at(depth)),
                op: name.into(),
                nodes: 0,
                seconds: 0.0,
                bytes: 0,
                flops: 0,
            });
            line.nodes += 1;
            line.seconds += times[times.len() / 2].as_secs_f64();
            line.bytes += cost.bytes;
            line.flops += cost.flops;
        }
        let mut lines: Vec<_> = by_op.into_values().collect();
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        out.extend(lines);
    }
    Ok(out)
}
