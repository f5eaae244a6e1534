//! Every op of a model's graphs on the GPU against its reference, from the same inputs: what
//! `fathom verify` shows.

use std::sync::Arc;

use serde::Serialize;

use super::engine::Prepared;
use super::{Engine, Prompt, Sampling};
use crate::graph::Home;
use crate::graph::reference::{Data, Host, Store};
use crate::media::Patches;
use crate::models::ModelWeights;
use crate::{Error, Result};

/// The largest error allowed of any op, relative to the root mean square of what it writes.
/// Single-precision sums over thousands of terms in another order stay well below.
pub const TOLERANCE: f64 = 1e-4;

/// How one op did.
#[derive(Clone, Debug, Serialize)]
pub struct OpReport {
    /// The op's name.
    pub op: &'static str,
    /// How often it ran.
    pub runs: usize,
    /// The largest difference, relative to the root mean square of the tensor. Infinite if
    /// integers differed or something was not a number.
    pub worst: f64,
    /// The node where that was.
    pub at: String,
    /// Whether it is within [`TOLERANCE`].
    pub passed: bool,
}

/// Runs every node of every graph on the GPU and by its reference, for a prompt in two chunks, two
/// decode steps and one picture, feeding the reference with what the GPU held before the node.
///
/// # Errors
/// If the engine runs on the CPU, the prompt cannot be fed, or the device fails.
pub fn verify(
    engine: &mut Engine,
    weights: &ModelWeights<'_>,
    prompt: &Prompt,
    picture: Option<Patches>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<OpReport>> {
    engine.check(prompt)?;
    let len = prompt.len();
    let first = prompt.chunk_end(0, len.saturating_sub(2).div_ceil(2).max(1));
    let mut steps = vec![];
    if let Some(picture) = picture {
        steps.extend(engine.prepare_picture(picture));
    }
    // Some randomness in the sampler, so that all of it is met.
    let sampling =
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.01, ..Sampling::default() };
    let mut start = 0;
    for end in [first, len.saturating_sub(2), len.saturating_sub(1), len] {
        let end = prompt.chunk_end(start, end.saturating_sub(start));
        if end > start {
            steps.push(engine.prepare(prompt, start..end, end - 1..end, &sampling));
            start = end;
        }
    }
    let mut store = Store::default();
    for step in &steps {
        let graph = engine.runner().graph(step.graph);
        weights.fill(graph, &mut store, &mut |_| {})?;
        store.add_states(graph)?;
    }
    let nodes = |s: &Prepared| engine.runner().graph(s.graph).nodes().len();
    let total = steps.iter().map(nodes).sum();
    let mut done = 0;
    let mut reports: Vec<OpReport> = vec![];
    for step in steps {
        step_reports(engine, &store, step, &mut reports, &mut || {
            done += 1;
            progress(done, total);
        })?;
    }
    reports.sort_by(|a, b| a.op.cmp(b.op));
    Ok(reports)
}

fn step_reports(
    engine: &Engine,
    store: &Store,
    step: Prepared,
    reports: &mut Vec<OpReport>,
    progress: &mut dyn FnMut(),
) -> Result<()> {
    let graph = Arc::clone(engine.runner().graph(step.graph));
    let Some(gpu) = engine.runner().gpu_graph(step.graph) else {
        return Err(Error::Request("verify compares a GPU with the CPU: there is no GPU".into()));
    };
    gpu.begin(step.step, &step.inputs);
    let host = Host::new(&graph, store, step.step, step.inputs);
    for (i, node) in graph.nodes().iter().enumerate() {
        let uses = node.op.uses();
        let held: Vec<_> = uses
            .iter()
            .filter(|u| !matches!(graph.tensor(u.tensor).home, Home::Weight | Home::Input))
            .map(|u| u.tensor)
            .collect();
        for (&id, data) in held.iter().zip(gpu.read(step.step, &held)?) {
            host.set(id, data);
        }
        gpu.submit(step.step, i..i + 1);
        node.op.reference(&host);
        let written: Vec<_> = uses.iter().filter(|u| u.access.makes()).map(|u| u.tensor).collect();
        let mut worst = 0.0;
        for (&id, got) in written.iter().zip(gpu.read(step.step, &written)?) {
            worst = difference(&got, &host.data(id)).max(worst);
        }
        record(reports, node.op.name(), &node.label, worst);
        progress();
    }
    Ok(())
}

fn record(reports: &mut Vec<OpReport>, op: &'static str, label: &str, error: f64) {
    let at = match reports.iter().position(|r| r.op == op) {
        Some(at) => at,
        None => {
            let at = label.to_owned();
            reports.push(OpReport { op, runs: 0, worst: 0.0, at, passed: true });
            reports.len() - 1
        }
    };
    let report = &mut reports[at];
    report.runs += 1;
    if error > report.worst {
        report.worst = error;
        report.at = label.to_owned();
    }
    report.passed = report.worst <= TOLERANCE;
}

/// The largest difference over the root mean square of `expected`; integers are equal or not.
pub fn difference(got: &Data, expected: &Data) -> f64 {
    let (Data::F32(got), Data::F32(expected)) = (got, expected) else {
        return if got == expected { 0.0 } else { f64::INFINITY };
    };
    let square: f64 = expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let rms = (square / expected.len().max(1) as f64).sqrt().max(f64::MIN_POSITIVE);
    let worst = got.iter().zip(expected).fold(0.0, |worst: f64, (&a, &b)| {
        let d = if a == b { 0.0 } else { f64::from(a - b).abs() };
        if d.is_nan() { f64::INFINITY } else { worst.max(d) }
    });
    worst / rms
}
