//! Every op's kernels, one at a time: time, bytes and operations a second, and what part that is of
//! what the device was seen to do when it only copied, or only multiplied and added.
//!
//!     cargo bench --bench kernels -- --quick
//!     cargo bench --bench kernels -- 'matmul|attention'
//!
//! A time is wall clock around submission and wait, over the dispatches in between. Bytes and
//! operations are the least that the op needs (`Op::cost`), so reading something twice shows as a
//! lower rate; what stays in caches from one dispatch to the next, as a higher one.

mod build;
mod cases;

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use build::Build;
use cases::CASES;
use criterion::{Criterion, Throughput};
use fathom::gpu::probe::probes;
use fathom::gpu::{Gpu, GpuGraph};
use fathom::graph::reference::Data;
use fathom::graph::{Cost, TensorId};

/// Dispatches a submission: so many that its cost vanishes, so few that no driver's watchdog barks.
const AT_ONCE: u32 = 32;

/// The time that so many dispatches of a graph's last node take.
fn time(gpu: &Gpu, graph: &GpuGraph, inputs: &[(TensorId, Data)], dispatches: u64) -> Duration {
    let (step, last) = (graph.graph().max, graph.graph().nodes().len() - 1);
    // Anew each time, since some ops work in place and numbers would grow or vanish.
    graph.begin(step, inputs);
    graph.submit(step, 0..last + 1);
    timed(gpu, dispatches, |times| graph.repeat(step, last..last + 1, times))
}

fn timed(gpu: &Gpu, dispatches: u64, submit: impl Fn(u32)) -> Duration {
    gpu.wait().expect("the device works");
    let start = Instant::now();
    let mut left = dispatches;
    while left > 0 {
        let now = left.min(u64::from(AT_ONCE));
        submit(now as u32);
        left -= now;
    }
    gpu.wait().expect("the device works");
    start.elapsed()
}

/// What was measured of one row of the report.
struct Line {
    name: &'static str,
    cost: Cost,
    seconds: f64,
}

/// Has criterion call `time` with numbers of dispatches; the best time goes to `lines`.
fn measure(
    criterion: &mut Criterion,
    lines: &mut Vec<Line>,
    name: &'static str,
    cost: Cost,
    time: impl Fn(u64) -> Duration,
) {
    let (group, id) = name.split_once('/').expect("a name is OP/SHAPE");
    let mut group = criterion.benchmark_group(group);
    group.throughput(match cost {
        Cost { bytes, flops: 0 } => Throughput::BytesDecimal(bytes),
        Cost { bytes: 0, flops } => Throughput::Elements(flops),
        Cost { bytes, flops } => Throughput::ElementsAndBytes { elements: flops, bytes },
    });
    let mut seconds = f64::INFINITY;
    group.bench_function(id, |b| {
        b.iter_custom(|n| {
            let took = time(n);
            seconds = seconds.min(took.as_secs_f64() / n as f64);
            took
        });
    });
    group.finish();
    // Infinite if it was filtered out.
    if seconds.is_finite() {
        lines.push(Line { name, cost, seconds });
    }
}

fn main() {
    let gpu = match Gpu::open(None) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("NOT RUN ON A GPU: {e}"),
    };
    println!("{}", gpu.report);
    let (warm_up, measured) = (Duration::from_millis(200), Duration::from_secs(1));
    let criterion = Criterion::default().warm_up_time(warm_up).measurement_time(measured);
    let mut criterion = criterion.sample_size(10).configure_from_args();
    let mut lines = vec![];
    for probe in probes(&gpu.limits) {
        let ready = OnceCell::new();
        measure(&mut criterion, &mut lines, probe.name, probe.cost, |n| {
            let ready = ready.get_or_init(|| probe.prepare(&gpu));
            timed(&gpu, n, |times| ready.submit(&gpu, times))
        });
    }
    for case in CASES {
        let ready = OnceCell::new();
        let build = Build::new(case);
        let Some(gpu) = build.device(&gpu) else { continue };
        measure(&mut criterion, &mut lines, case.name, build.cost(), |n| {
            let (graph, inputs) = ready.get_or_init(|| Build::new(case).prepare(&gpu));
            time(&gpu, graph, inputs, n)
        });
    }
    criterion.final_summary();
    report(&lines);
}

/// Prints what was achieved of what is possible, if the probes were not filtered out.
fn report(lines: &[Line]) {
    let [copy, fma, dots, rest @ ..] = lines else { return };
    if copy.cost.flops > 0 || fma.cost.bytes > 0 || dots.cost.bytes > 0 || rest.is_empty() {
        return;
    }
    let bytes = |l: &Line| l.cost.bytes as f64 / l.seconds / 1e9;
    let flops = |l: &Line| l.cost.flops as f64 / l.seconds / 1e9;
    let (most_bytes, most_flops) = (bytes(copy), flops(fma));
    println!("{:60}{:>10}{:>9}{:>9}{:>11}{:>9}", "", "us", "GB/s", "of copy", "GFLOP/s", "of fma");
    for l in lines {
        let (b, f) = (bytes(l), flops(l));
        let (of_b, of_f) = (100.0 * b / most_bytes, 100.0 * f / most_flops);
        let us = l.seconds * 1e6;
        println!("{:60}{us:10.1}{b:9.2}{of_b:8.1}%{f:11.2}{of_f:8.1}%", l.name);
    }
}
