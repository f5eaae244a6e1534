//! Runs a small graph on the GPU and by its reference functions, from the same random contents, and
//! compares everything the graph wrote.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use fathom::formats::BlockFormat;
use fathom::gpu::{Gpu, GpuGraph, GpuStore, Limits, Matrices, WeightSource};
use fathom::graph::reference::{Data, Host, Store};
use fathom::graph::{EightBits, Elem, Graph, Home, Node, StepSize, Tensor, TensorId, fuse};
use fathom::ops::{self, CodeOrder};
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

/// What results by cooperative matrices in f16 may be off by, root mean square over root mean square:
/// rounding two numbers to 11 bits leaves a sum of their products off by 2^-11.3 of it, and a gate
/// multiplies two such sums.
pub const HALF_TOLERANCE: f64 = 1e-3;

/// `limits` with cooperative matrices in f16, if the adapter has such. With `FATHOM_TIER=matrices` their
/// absence is a failure.
pub fn with_matrices(gpu: &Gpu, limits: Limits) -> Option<Limits> {
    static FOUND: OnceLock<Option<Matrices>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut gpu = gpu.clone();
        gpu.multiply_matrices(true).then_some(gpu.limits.matrices).flatten()
    });
    let wanted = std::env::var("FATHOM_TIER").is_ok_and(|tier| tier == "matrices");
    assert!(found.is_some() || !wanted, "{} multiplies no matrices", gpu.report);
    // Software adapters have faster kernels.
    let limits = limits.of_hardware();
    found.map(|found| Limits { subgroups: true, matrices: Some(found), ..limits })
}

/// Every format that weights may have.
pub fn formats() -> impl Iterator<Item = Elem> {
    [Elem::F32, Elem::F16, Elem::BF16].into_iter().chain(BlockFormat::all().map(Elem::Block))
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

    /// A length of weight rows: one of `from`, made whole blocks where nothing else is stored.
    pub fn cols(&mut self, elem: Elem, from: &[usize]) -> usize {
        let cols = self.pick(from);
        match elem {
            Elem::Block(f) if f.ggml().is_some() => cols.next_multiple_of(f.block()),
            _ => cols,
        }
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

    /// A stored row of any bits, but with scales that give numbers of about `size`.
    pub fn blocks(&mut self, format: BlockFormat, cols: usize, size: f32) -> Vec<u8> {
        let mut row: Vec<u8> =
            (0..format.stored_bytes(cols)).map(|_| self.0.next_u32() as u8).collect();
        for block in row.chunks_exact_mut(format.block_bytes()) {
            self.set_scales(format, block, size);
        }
        row
    }

    fn set_scales(&mut self, format: BlockFormat, block: &mut [u8], size: f32) {
        use BlockFormat::*;
        // Where f16 scales and minimums are, and what the largest numbers would be with 1 for scale.
        let (places, most): (&[usize], f32) = match format {
            Q4_0 | IQ4NL => (&[0], if format == Q4_0 { 8.0 } else { 127.0 }),
            Q5_0 => (&[0], 16.0),
            Q4_1 => (&[0, 2], 16.0),
            Q5_1 => (&[0, 2], 32.0),
            Q8_0 => (&[0], 128.0),
            Q2K => (&[80, 82], 45.0),
            Q3K => (&[108], 128.0),
            Q4K => (&[0, 2], 63.0 * 15.0),
            Q5K => (&[0, 2], 63.0 * 31.0),
            Q6K => (&[208], 128.0 * 32.0),
            IQ4XS => (&[0], 32.0 * 127.0),
            MXFP4 | FP8 => {
                block[0] = (self.int(118..128) as f32 + size.log2()) as u8;
                (&[], 1.0)
            }
            FP8F32 => {
                block[..4].copy_from_slice(&(self.float() * size / 100.0).to_le_bytes());
                (&[], 1.0)
            }
        };
        for &at in places {
            let scale = f16::from_f32((1.0 + self.float()) * size / most);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if matches!(format, FP8 | FP8F32) {
            // The codes that are no numbers.
            for code in block.iter_mut().skip(format.block_bytes() - format.block()) {
                *code -= u8::from(*code & 127 == 127);
            }
        }
    }
}

/// A graph under test with the contents of its weights, state and inputs.
pub struct Case {
    pub graph: Graph,
    pub step: StepSize,
    given: HashMap<TensorId, Data>,
    /// Stored rows of weights in block formats.
    blocks: HashMap<String, Vec<u8>>,
    /// What a node makes in 8 bits along with its result.
    rounded: Option<EightBits>,
    random: Random,
}

impl Case {
    /// An empty graph, run at its maximum size `step`.
    pub fn new(seed: u64, step: StepSize) -> Self {
        let graph = Graph::new("case", step);
        let (given, blocks) = (HashMap::new(), HashMap::new());
        Self { graph, step, given, blocks, rounded: None, random: Random::new(seed) }
    }

    /// Sets the contents of a weight, state or input tensor (dense, without row padding). Those not
    /// set are filled with floats in [-1, 1) or, for integers, zeros; weights in block formats always
    /// are, with random blocks.
    pub fn set(&mut self, id: TensorId, data: Data) {
        self.given.insert(id, data);
    }

    /// Gives a weight these blocks, row by row.
    pub fn set_blocks(&mut self, name: &str, stored: Vec<u8>) {
        self.blocks.insert(name.to_owned(), stored);
    }

    /// Random blocks for a weight that was given none, and the numbers they mean.
    fn fill_blocks(&mut self, name: &str, format: BlockFormat, rows: usize, cols: usize) -> Data {
        let random = || (0..rows).flat_map(|_| self.random.blocks(format, cols, 1.0)).collect();
        let stored = self.blocks.entry(name.to_owned()).or_insert_with(random);
        let mut numbers = vec![0.0; rows * cols];
        let each = stored.chunks_exact(stored.len() / rows).zip(numbers.chunks_exact_mut(cols));
        each.for_each(|(stored, row)| format.dequantize(stored, row));
        Data::F32(numbers)
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

    /// As [`Case::check`], with `y`, which the graph's one node makes, in 8 bits too: made by the same
    /// node, alone or beside numbers that another node reads.
    pub fn check_in_eight_bits(mut self, gpu: &Gpu, y: TensorId, is_read: bool, tolerance: f64) {
        let order = self.random.pick(&[CodeOrder::Parted, CodeOrder::Bytes]);
        let to = ops::quantize_activations(&mut self.graph, y, order);
        self.rounded = Some(EightBits { of: y, to, order });
        fuse(&mut self.graph);
        assert_eq!(self.graph.nodes().len(), 1);
        if is_read {
            let cols = self.graph.tensor(y).cols;
            let w = self.graph.weight("reader", Elem::F32, 3, cols);
            ops::matmul(&mut self.graph, y, w);
        }
        self.check(gpu, tolerance);
    }

    /// As [`Case::check`], with these limits; with matrices in f16, where there are such, as well.
    pub fn check_with(mut self, gpu: &Gpu, tiers: &[Limits], tolerance: f64) {
        let contents: HashMap<TensorId, Data> = self
            .graph
            .ids()
            .filter_map(|id| {
                let t = self.graph.tensor(id).clone();
                if matches!(t.home, Home::Scratch | Home::Output) {
                    return None;
                }
                let rows = t.rows.at(self.step);
                let n = rows * t.cols;
                let data = self.given.remove(&id).unwrap_or_else(|| match t.elem {
                    Elem::U32 => Data::U32(vec![0; n]),
                    Elem::Block(format) => self.fill_blocks(&t.name, format, rows, t.cols),
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
            let mut ids: Vec<_> = uses.filter(|u| u.access.makes()).map(|u| u.tensor).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let expected: Vec<Data> = written.iter().map(|&id| host.data(id)).collect();
        let numbers =
            of_home(Home::Weight).map(|(id, d)| (self.graph.tensor(*id).name.clone(), d.clone()));
        let source = Given { numbers: numbers.collect(), blocks: self.blocks };
        let states: Vec<_> = of_home(Home::State).map(|(id, d)| (*id, d.clone())).collect();
        drop(host);
        let graph = Arc::new(self.graph);
        let matrices = tiers.last().and_then(|&limits| with_matrices(gpu, limits));
        let rounded = matrices.map(|limits| (limits, tolerance.max(HALF_TOLERANCE)));
        let tiers = tiers.iter().map(|&limits| (limits, tolerance));
        for (limits, tolerance) in tiers.chain(rounded) {
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
                for used in node.op.uses().iter().filter(|u| u.access.makes()) {
                    let later = graph.nodes()[i + 1..].iter().flat_map(|n| n.op.uses());
                    if later.clone().any(|u| u.access.makes() && u.tensor == used.tensor) {
                        continue;
                    }
                    let at = written.iter().position(|&id| id == used.tensor).unwrap();
                    compared += 1;
                    // Of what is made in 8 bits as well, the rest is only kept if it is read.
                    let rounded = self.rounded.filter(|e| makes(node, e.of));
                    if rounded.is_some_and(|e| e.of == used.tensor && !graph.is_read(e.of)) {
                        continue;
                    }
                    let got = run.read(self.step, &[used.tensor]).unwrap().remove(0);
                    if let Some(e) = rounded.filter(|e| e.to == used.tensor) {
                        let of = written.iter().position(|&id| id == e.of).unwrap();
                        check_eight_bits(&got, e.order, &expected[of], tolerance);
                        continue;
                    }
                    let name = format!(
                        "{} of {} ({limits:?})",
                        graph.tensor(used.tensor).name,
                        node.label
                    );
                    let measure = if Some(limits) == matrices { mean_error } else { error };
                    compare(&name, &got, &expected[at], measure, tolerance);
                }
            }
            assert_eq!(compared, written.len());
        }
    }
}

fn makes(node: &Node, id: TensorId) -> bool {
    node.op.uses().iter().any(|u| u.tensor == id && u.access.makes())
}

/// Checks that activations in 8 bits are `expected`, rounded: each within half a step, but for what
/// `tolerance` allows of the root mean square.
fn check_eight_bits(got: &Data, order: CodeOrder, expected: &Data, tolerance: f64) {
    let (Data::U32(words), Data::F32(expected)) = (got, expected) else { panic!("other types") };
    let square: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    let slack = tolerance * (square / expected.len() as f64).sqrt();
    assert_eq!(words.len() / 12, expected.len() / 32);
    for (words, expected) in words.chunks_exact(12).zip(expected.chunks_exact(32)) {
        let codes: &[i8] = bytemuck::cast_slice(&words[..8]);
        let [scale, first, last] = [8, 9, 10].map(|i| f64::from(f32::from_bits(words[i])));
        let top = expected.iter().fold(0.0, |top: f64, v| top.max(f64::from(v.abs())));
        assert!((scale * 127.0 - top).abs() <= 2.0 * slack, "scale {scale}, largest {top}");
        let mut sums = [0.0; 2];
        for (i, &v) in expected.iter().enumerate() {
            let place = match order {
                CodeOrder::Bytes => i,
                CodeOrder::Parted => i % 2 * 16 + i / 8 * 4 + i % 8 / 2,
            };
            let number = scale * f64::from(codes[place]);
            sums[i / 16] += number;
            // Half a step, and what the inverse of the scale, of 15 bits, is off at 127 steps.
            let off = (number - f64::from(v)).abs();
            assert!(off <= 0.505 * scale + slack, "{number} for {v}, steps of {scale}");
        }
        for (got, sum) in [first, last].into_iter().zip(sums) {
            assert!((got - sum).abs() <= 1e-5 * 16.0 * top + 1e-30, "sum {got}, not {sum}");
        }
    }
}

struct Given {
    numbers: HashMap<String, Data>,
    blocks: HashMap<String, Vec<u8>>,
}

impl WeightSource for Given {
    fn read(&self, t: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> fathom::Result<()> {
        for r in rows {
            let end = out.len() + t.row_bytes();
            let cells = r * t.cols..(r + 1) * t.cols;
            match (&self.numbers[&t.name], t.elem) {
                (_, Elem::Block(format)) => {
                    let bytes = format.stored_bytes(t.cols);
                    format.pack_row(&self.blocks[&t.name][r * bytes..][..bytes], t.cols, out);
                }
                (Data::U32(v), _) => out.extend(bytemuck::cast_slice(&v[cells])),
                (Data::F32(v), elem) => {
                    for &x in &v[cells] {
                        match elem {
                            Elem::F16 => out.extend(f16::from_f32(x).to_le_bytes()),
                            Elem::BF16 => out.extend(bf16::from_f32(x).to_le_bytes()),
                            _ => out.extend(x.to_le_bytes()),
                        }
                    }
                }
            }
            out.resize(end, 0);
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

/// The root mean square of all differences over that of what is expected.
pub fn mean_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let of = |a: &f32, b: &f32| if a == b { 0.0 } else { f64::from(a - b).powi(2) };
    let off: f64 = got.iter().zip(expected).map(|(a, b)| of(a, b)).sum();
    let square: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let e = (off / square.max(1e-30)).sqrt();
    if e.is_nan() { f64::INFINITY } else { e }
}

fn compare(
    name: &str,
    got: &Data,
    expected: &Data,
    measure: fn(&[f32], &[f32]) -> f64,
    tolerance: f64,
) {
    match (got, expected) {
        (Data::F32(got), Data::F32(expected)) => {
            let e = measure(got, expected);
            assert!(e <= tolerance, "{name}: error {e:.3e} over {tolerance:.1e}");
        }
        _ => assert_eq!(got, expected, "{name}"),
    }
}
