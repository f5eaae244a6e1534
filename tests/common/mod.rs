//! Runs a small graph on the GPU and by its reference functions, from the same random contents, and
//! compares everything the graph wrote.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use fathom::gpu::{Gpu, GpuGraph, GpuStore, Limits, WeightSource};
use fathom::graph::reference::{Data, Host, Store};
use fathom::graph::{Access, Elem, Graph, Home, StepSize, Tensor, TensorId};
use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The adapter under test. With `FATHOM_REQUIRE_GPU` set its absence is a failure; otherwise the
/// test says that it ran without one.
pub fn gpu() -> Option<Gpu> {
    match Gpu::open(None) {
        Ok(gpu) => Some(gpu),
        Err(e) if std::env::var_os("FATHOM_REQUIRE_GPU").is_none() => {
            eprintln!("NOT RUN ON A GPU: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Seeded random numbers for shapes and contents.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in `range`.
    pub fn int(&mut self, range: Range<usize>) -> usize {
        range.start + (self.0.next_u64() % (range.end - range.start) as u64) as usize
    }

    /// One of `from`.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.int(0..from.len())]
    }

    /// Uniform in [-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub fn ints(&mut self, n: usize, range: Range<usize>) -> Vec<u32> {
        (0..n).map(|_| self.int(range.clone()) as u32).collect()
    }
}

/// A graph under test with the contents of its weights, state and inputs.
pub struct Case {
    pub graph: Graph,
    pub step: StepSize,
    given: HashMap<TensorId, Data>,
    random: Random,
}

impl Case {
    /// An empty graph, run at its maximum size `step`.
    pub fn new(seed: u64, step: StepSize) -> Self {
        let graph = Graph::new("case", step);
        Self { graph, step, given: HashMap::new(), random: Random::new(seed) }
    }

    /// Sets the contents of a weight, state or input tensor (dense, without row padding). Those not
    /// set are filled with floats in [-1, 1) or, for integers, zeros.
    pub fn set(&mut self, id: TensorId, data: Data) {
        self.given.insert(id, data);
    }

    /// An f32 input with random contents.
    pub fn input(&mut self, name: &str, rows: fathom::graph::Extent, cols: usize) -> TensorId {
        self.graph.input(name, Elem::F32, rows, cols)
    }

    /// Compares GPU and reference at every tier the device can run; `tolerance` is relative to the
    /// root mean square of each tensor written (see [`error`]); integers must be equal.
    pub fn check(self, gpu: &Gpu, tolerance: f64) {
        let small = Limits { max_binding_bytes: gpu.limits.max_binding_bytes, ..Limits::CORE };
        let tiers = if gpu.limits.subgroups { vec![gpu.limits, small] } else { vec![small] };
        self.check_with(gpu, &tiers, tolerance);
    }

    /// As [`Case::check`], with these limits.
    pub fn check_with(mut self, gpu: &Gpu, tiers: &[Limits], tolerance: f64) {
        let contents: HashMap<TensorId, Data> = self
            .graph
            .ids()
            .filter_map(|id| {
                let t = self.graph.tensor(id);
                if matches!(t.home, Home::Scratch | Home::Output) {
                    return None;
                }
                let n = t.rows.at(self.step) * t.cols;
                let data = self.given.remove(&id).unwrap_or_else(|| match t.elem {
                    Elem::U32 => Data::U32(vec![0; n]),
                    _ => Data::F32(self.random.floats(n)),
                });
                assert_eq!(data.len(), n, "contents of `{}`", t.name);
                Some((id, rounded(t.elem, data)))
            })
            .collect();
        let of_home = |home| {
            let graph = &self.graph;
            contents.iter().filter(move |(id, _)| graph.tensor(**id).home == home)
        };

        let mut store = Store::default();
        for (id, data) in of_home(Home::Weight) {
            store.set_weight(&self.graph.tensor(*id).name, data.clone());
        }
        store.add_states(&self.graph).unwrap();
        let inputs: Vec<_> = of_home(Home::Input).map(|(id, d)| (*id, d.clone())).collect();
        let host = Host::new(&self.graph, &store, self.step, inputs.clone());
        for (id, data) in of_home(Home::State) {
            host.set(*id, data.clone());
        }
        host.run();

        let written: Vec<TensorId> = {
            let uses = self.graph.nodes().iter().flat_map(|n| n.op.uses());
            let mut ids: Vec<_> =
                uses.filter(|u| u.access != Access::Read).map(|u| u.tensor).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let expected: Vec<Data> = written.iter().map(|&id| host.data(id)).collect();
        let source = Given(
            of_home(Home::Weight)
                .map(|(id, d)| (self.graph.tensor(*id).name.clone(), d.clone()))
                .collect(),
        );
        let states: Vec<_> = of_home(Home::State).map(|(id, d)| (*id, d.clone())).collect();
        drop(host);
        let graph = Arc::new(self.graph);
        for &limits in tiers {
            let mut gpu = gpu.clone();
            gpu.limits = limits;
            let mut store = GpuStore::default();
            store.add(&gpu, &graph, &source, &mut |_| {}).unwrap();
            let run = GpuGraph::new(&gpu, Arc::clone(&graph), &mut store).unwrap();
            for (id, data) in &states {
                run.write(*id, data);
            }
            run.begin(self.step, &inputs);
            // Node by node, so that scratch that only a later node overwrites is compared too.
            let mut compared = 0;
            for (i, node) in graph.nodes().iter().enumerate() {
                run.submit(self.step, i..i + 1);
                for used in node.op.uses().iter().filter(|u| u.access != Access::Read) {
                    let later = graph.nodes()[i + 1..].iter().flat_map(|n| n.op.uses());
                    if later.clone().any(|u| u.access != Access::Read && u.tensor == used.tensor) {
                        continue;
                    }
                    let got = run.read(self.step, &[used.tensor]).unwrap().remove(0);
                    let at = written.iter().position(|&id| id == used.tensor).unwrap();
                    let name = format!(
                        "{} of {} ({limits:?})",
                        graph.tensor(used.tensor).name,
                        node.label
                    );
                    compare(&name, &got, &expected[at], tolerance);
                    compared += 1;
                }
            }
            assert_eq!(compared, written.len());
        }
    }
}

struct Given(HashMap<String, Data>);

impl WeightSource for Given {
    fn read(&self, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> fathom::Result<()> {
        let pad = (t.stride() - t.cols) * t.elem.bytes();
        for r in rows {
            match &self.0[&t.name] {
                Data::U32(v) => out.extend(bytemuck::cast_slice(&v[r * t.cols..(r + 1) * t.cols])),
                Data::F32(v) => {
                    for &x in &v[r * t.cols..(r + 1) * t.cols] {
                        match t.elem {
                            Elem::F16 => out.extend(f16::from_f32(x).to_le_bytes()),
                            Elem::BF16 => out.extend(bf16::from_f32(x).to_le_bytes()),
                            _ => out.extend(x.to_le_bytes()),
                        }
                    }
                }
            }
            out.resize(out.len() + pad, 0);
        }
        Ok(())
    }
}

/// Contents as the tensor's element type can hold them.
fn rounded(elem: Elem, data: Data) -> Data {
    match (elem, data) {
        (Elem::F16, Data::F32(v)) => {
            Data::F32(v.into_iter().map(|x| f16::from_f32(x).to_f32()).collect())
        }
        (Elem::BF16, Data::F32(v)) => {
            Data::F32(v.into_iter().map(|x| bf16::from_f32(x).to_f32()).collect())
        }
        (_, data) => data,
    }
}

/// The largest difference over the root mean square of what is expected.
pub fn error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square: f64 = expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let rms = (square / expected.len().max(1) as f64).sqrt().max(1e-30);
    let worst = got.iter().zip(expected).map(|(&a, &b)| {
        // Infinities must agree; NaN never does.
        if a == b { 0.0 } else { f64::from((a - b).abs()) }
    });
    worst.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / rms
}

fn compare(name: &str, got: &Data, expected: &Data, tolerance: f64) {
    match (got, expected) {
        (Data::F32(got), Data::F32(expected)) => {
            let e = error(got, expected);
            assert!(e <= tolerance, "{name}: error {e:.3e} over {tolerance:.1e}");
        }
        _ => assert_eq!(got, expected, "{name}"),
    }
}
