//! Measures the candidates of every [`Choice`] on a device: what `fathom tune` shows and keeps.
//!
//! Each choice has a [`Case`]: an op of usual shapes, or of those that a model has, with weights that
//! mean nothing. All candidates run in turns, as often as makes a sample of a few milliseconds, and the
//! fastest then runs against the default: it must win by [`MARGIN`] in the median of the rounds and at
//! best, or the default stays. So what else the machine does hardly changes a choice that makes no
//! difference.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Row;
use crate::Result;
use crate::formats::{BlockFormat, Checkpoint, ModelConfig};
use crate::gpu::tuning::{Numbers, Outputs, Work};
use crate::gpu::{Choice, Gpu, GpuGraph, GpuStore, Limits, Tuning, WeightSource, warm};
use crate::graph::reference::Data;
use crate::graph::{Elem, Extent, Graph, Node, StepSize, Tensor, TensorId};
use crate::models::{Activations, Capacity, ModelWeights, text_graph};
use crate::ops::{
    self, Attention, CausalAttention, Chosen, CodeOrder, EXPERT_TILES, FEW_ROWS, Slice, Slices,
};

/// How much faster than the default a candidate must be to take its place.
pub const MARGIN: f64 = 1.03;
/// How often all candidates of a choice run.
const ROUNDS: usize = 3;
/// How often the fastest and the default run then.
const LAST_ROUNDS: usize = 9;
/// Dispatches a sample at most: what no driver's watchdog barks at.
const MOST_TIMES: f64 = 256.0;
/// Cases that are compiled at once, and whose weights are held at once.
const TOGETHER: usize = 6;

/// What one choice is measured on.
#[derive(Debug)]
pub struct Case {
    choice: Choice,
    shape: String,
    graph: Arc<Graph>,
    inputs: Vec<(TensorId, Data)>,
    /// The nodes that are measured; those before them run once.
    nodes: Range<usize>,
}

/// How fast a candidate was.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// The candidate, in words.
    pub candidate: String,
    /// Its best time, of one op.
    pub microseconds: f64,
}

/// What was measured for one choice.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The choice.
    #[serde(skip)]
    pub choice: Choice,
    /// The candidate that is taken.
    #[serde(skip)]
    pub taken: usize,
    /// The kernel.
    pub kernel: &'static str,
    /// The class of shapes.
    pub class: String,
    /// What it was measured on.
    pub shape: String,
    /// The candidates that differ on this device, the default first.
    pub candidates: Vec<Timed>,
    /// The one that is taken.
    pub chosen: String,
}

/// What `measured` comes to, after `before`.
pub fn tuning(before: Tuning, measured: &[Measured]) -> Tuning {
    measured.iter().fold(before, |tuning, m| tuning.with(m.choice, m.taken))
}

/// A product of one weight, or of those of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Product {
    elem: Elem,
    eight_bits: bool,
    inner: usize,
    /// All that a row has.
    outputs: usize,
    experts: Option<Experts>,
}

/// Experts that rows choose among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Experts {
    count: usize,
    /// How many a row has.
    chosen: usize,
    /// Whether it is the first half of what they do, which is gated, or the second.
    gated: bool,
}

impl Product {
    /// What it comes to, beside others.
    fn work(&self) -> usize {
        let weights = 1 + usize::from(self.experts.is_some_and(|e| e.gated));
        weights * self.inner * self.outputs
    }
}

/// What fits the patience that one has with a device.
#[derive(Clone, Copy)]
struct Scale {
    /// Rows of a prefill.
    rows: usize,
    /// Outputs and inner length of large products of many rows.
    large: [usize; 2],
    /// The same of each expert.
    expert: [usize; 2],
    /// Keys of attention.
    keys: usize,
    /// Bytes of weights that a sample goes through: more than most caches hold.
    bytes: usize,
    /// Numbers that one weight has at most.
    numbers: usize,
}

/// The heads of an attention.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    groups: usize,
    dim: usize,
    /// The width of values of their own; they may be the first numbers of keys instead.
    values: (bool, usize),
}

impl Heads {
    /// As in V4.
    const V4: Self = Self { heads: 64, groups: 1, dim: 512, values: (false, 512) };
    /// As in Llama.
    const LLAMA: Self = Self { heads: 32, groups: 8, dim: 128, values: (true, 128) };

    fn of(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::V4(c) => {
                Self { heads: c.heads, groups: 1, dim: c.head_dim, values: (false, c.head_dim) }
            }
            ModelConfig::Mla(c) => Self {
                heads: c.heads,
                groups: 1,
                dim: c.kv_lora + c.rope_dim,
                values: (false, c.kv_lora),
            },
            ModelConfig::Dense(c) => Self {
                heads: c.heads,
                groups: c.kv_heads,
                dim: c.head_dim,
                values: (true, c.head_dim),
            },
        }
    }
}

impl Scale {
    fn of(software: bool) -> Self {
        match software {
            false => Self {
                rows: 512,
                large: [4096, 2048],
                expert: [1024, 2048],
                keys: 4096,
                bytes: 64 << 20,
                numbers: 1 << 28,
            },
            true => Self {
                rows: 128,
                large: [2048, 256],
                expert: [256, 256],
                keys: 1024,
                bytes: 16 << 20,
                numbers: 1 << 26,
            },
        }
    }
}

/// Rows for which `matmul_lanes` is measured: above them there is another kernel.
const LANE_ROWS: usize = 16;

/// A case for each of these, of shapes that are usual; smaller ones for `software`.
pub fn usual_cases(choices: impl Iterator<Item = Choice>, software: bool) -> Vec<Case> {
    let scale = Scale::of(software);
    choices.map(|choice| usual_case(choice, scale)).collect()
}

fn usual_case(choice: Choice, scale: Scale) -> Case {
    let of = |numbers, [outputs, inner]: [usize; 2]| {
        let (elem, eight_bits) = match numbers {
            Numbers::Floats => (Elem::BF16, false),
            Numbers::Blocks => (Elem::Block(BlockFormat::Q4K), false),
            Numbers::EightBits => (Elem::Block(BlockFormat::Q4K), true),
        };
        Product { elem, eight_bits, inner, outputs, experts: None }
    };
    let experts = |numbers| {
        let all = Experts { count: 32, chosen: 4, gated: true };
        let [outputs, inner] = scale.expert;
        let each = of(numbers, [all.chosen * outputs, inner]);
        product(choice, Product { experts: Some(all), ..each }, scale.rows, scale)
    };
    let many = |numbers, work| match work {
        Work::Small => product(choice, of(numbers, [1024, 1024]), Work::FEW_ROWS, scale),
        Work::Narrow => product(choice, of(numbers, [1024, scale.large[1]]), scale.rows, scale),
        Work::Wide => product(choice, of(numbers, scale.large), scale.rows, scale),
    };
    match choice {
        Choice::MatmulRows(numbers, outputs) => {
            let sides = match outputs {
                Outputs::Narrow => [1024, 1024],
                Outputs::Middle => [4096, 4096],
                Outputs::Wide => [32_768, 1024],
            };
            product(choice, of(numbers, sides), 1, scale)
        }
        Choice::MatmulTiles(numbers, work) => many(numbers, work),
        Choice::MatmulMatrices { work, .. } => many(Numbers::Floats, work),
        Choice::ExpertTiles(numbers) => experts(numbers),
        Choice::ExpertMatrices { .. } => experts(Numbers::Floats),
        Choice::MatmulLanes(numbers) => product(choice, of(numbers, scale.large), LANE_ROWS, scale),
        Choice::MatmulLanesRows(numbers) => product(choice, of(numbers, [4096, 1024]), 1, scale),
        Choice::MatmulTransposed => transposed(),
        Choice::Attention => attention(Heads::V4),
        Choice::CausalAttention => causal_attention(Heads::LLAMA, scale.keys),
    }
}

/// Cases for the choices that a model's language part asks for, with the products that have most to do
/// in it.
///
/// # Errors
/// If the model can't be run.
pub fn model_cases(
    checkpoint: &Checkpoint,
    weights: &mut ModelWeights<'_>,
    software: bool,
) -> Result<Vec<Case>> {
    let config = ModelConfig::from_checkpoint(checkpoint)?;
    let scale = Scale::of(software);
    let capacity = Capacity::new(&config, config.max_context().min(8192), scale.rows);
    let half = weights.activations() == Activations::F16;
    let mut found: Vec<(Choice, Vec<(Product, usize)>)> = vec![];
    for rows in [1, capacity.chunk] {
        let (graph, _) = text_graph(&config, weights, capacity, StepSize { rows, outs: 1 })?;
        let asked = graph.nodes().iter().flat_map(|node| choices(&graph, node, half));
        for (choice, product) in asked {
            let products = entry(&mut found, choice);
            if let Some(product) = product {
                *entry(products, product) += 1;
            }
        }
    }
    let case = |(choice, products): (Choice, Vec<(Product, usize)>)| {
        let work = |(p, times): &&(Product, usize)| times * p.work();
        let rows = match choice {
            Choice::Attention => return attention(Heads::of(&config)),
            Choice::CausalAttention => return causal_attention(Heads::of(&config), scale.keys),
            Choice::MatmulTransposed => return usual_case(choice, scale),
            Choice::MatmulTiles(_, Work::Small)
            | Choice::MatmulMatrices { work: Work::Small, .. } => {
                Work::FEW_ROWS.min(capacity.chunk)
            }
            Choice::MatmulTiles(..)
            | Choice::MatmulMatrices { .. }
            | Choice::ExpertTiles(_)
            | Choice::ExpertMatrices { .. } => capacity.chunk.min(scale.rows),
            Choice::MatmulLanes(_) => LANE_ROWS.min(capacity.chunk),
            Choice::MatmulRows(..) | Choice::MatmulLanesRows(_) => 1,
        };
        match products.iter().max_by_key(work) {
            Some(&(most, _)) => product(choice, most, rows, scale),
            None => usual_case(choice, scale),
        }
    };
    Ok(found.into_iter().map(case).collect())
}

/// What stands beside `key`, which is added if it is not there.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let at = list.iter().position(|e| e.0 == key).unwrap_or(list.len());
    if at == list.len() {
        list.push((key, V::default()));
    }
    &mut list[at].1
}

/// The choices that a node's kernels ask for on any device, which multiplies matrices in f16 if `half`, and
/// the product that it is.
fn choices(graph: &Graph, node: &Node, half: bool) -> Vec<(Choice, Option<Product>)> {
    let name = node.op.name();
    let few = graph.max.rows <= FEW_ROWS;
    match name {
        "matmul_transposed" => return vec![(Choice::MatmulTransposed, None)],
        "attention" if few => return vec![(Choice::Attention, None)],
        "causal_attention" if few => return vec![(Choice::CausalAttention, None)],
        "matmul" | "matmul_gated" | "expert_gate_up" | "expert_down" => {}
        _ => return vec![],
    }
    let [x, w, y] = match node.op.uses()[..] {
        [x, w, y, ..] => [x, w, y].map(|u| graph.tensor(u.tensor)),
        _ => return vec![],
    };
    let rows = y.rows.at(graph.max);
    let experts = name.starts_with("expert").then(|| Experts {
        count: w.rows.fixed / w.granule,
        chosen: y.rows.per_row,
        gated: name == "expert_gate_up",
    });
    let outputs = match (name, experts) {
        ("matmul_gated", _) => y.cols,
        (_, Some(experts)) => y.cols * experts.chosen,
        _ => w.rows.fixed,
    };
    let eight_bits = x.elem == Elem::U32;
    let mut product = Product { elem: w.elem, eight_bits, inner: w.cols, outputs, experts: None };
    let numbers = Numbers::of(product.elem, product.eight_bits);
    let choices = match (few || rows <= FEW_ROWS, experts) {
        (true, _) => vec![
            Choice::MatmulRows(numbers, Outputs::of(outputs)),
            Choice::MatmulLanesRows(numbers),
        ],
        (false, Some(_)) => {
            product.experts = experts;
            let mut choices = vec![Choice::ExpertTiles(numbers)];
            if !eight_bits {
                choices.push(Choice::ExpertMatrices { half });
            }
            choices
        }
        (false, None) => {
            let work = Work::of(rows, outputs, product.inner);
            let mut choices = vec![];
            // Of what is much, steps of few rows are small.
            let small = (work != Work::Small).then_some(Work::Small);
            for work in [Some(work), small].into_iter().flatten() {
                choices.push(Choice::MatmulTiles(numbers, work));
                if !product.eight_bits {
                    choices.push(Choice::MatmulMatrices { half, work });
                }
            }
            if small.is_some() {
                choices.push(Choice::MatmulLanes(numbers));
            }
            choices
        }
    };
    choices.into_iter().map(|choice| (choice, Some(product))).collect()
}

/// Products of the same input with so many weights that these don't all stay in a cache.
fn product(choice: Choice, p: Product, rows: usize, scale: Scale) -> Case {
    let Product { elem, eight_bits, mut inner, outputs, experts } = p;
    if let Some(experts) = experts {
        return product_of_experts(choice, p, experts, rows, scale);
    }
    // The class has to do with the outputs.
    while outputs * inner > scale.numbers && inner.is_multiple_of(512) {
        inner /= 2;
    }
    let step = StepSize { rows, outs: 1 };
    let mut g = Graph::new("product", step);
    let x = g.input("x", Elem::F32, Extent::ROWS, inner);
    let inputs = vec![(x, floats(rows * inner))];
    let x = codes(&mut g, x, elem, eight_bits);
    let first = g.nodes().len();
    // Many rows take long enough with one.
    let mut left = if rows > FEW_ROWS { 0 } else { scale.bytes };
    for i in 0..8 {
        let w = g.weight(format!("{choice:?} {i}"), elem, outputs, inner);
        ops::matmul(&mut g, x, w);
        left = left.saturating_sub(g.tensor(w).bytes(outputs));
        if left == 0 {
            break;
        }
    }
    let activations = if eight_bits { " by 8 bits" } else { "" };
    let rows = if rows == 1 { "1 row".into() } else { format!("{rows} rows") };
    let shape = format!("{}{activations}, {inner} to {outputs}, {rows}", elem.name());
    let nodes = first..g.nodes().len();
    Case { choice, shape, graph: Arc::new(g), inputs, nodes }
}

/// What of `x` a weight of such a type is multiplied with: its codes, if in 8 bits.
fn codes(g: &mut Graph, x: TensorId, elem: Elem, eight_bits: bool) -> TensorId {
    match CodeOrder::of(elem).filter(|_| eight_bits) {
        Some(order) => ops::quantize_activations(g, x, order),
        None => x,
    }
}

/// A product of experts, of rows that have chosen among them without pattern.
fn product_of_experts(choice: Choice, p: Product, of: Experts, rows: usize, scale: Scale) -> Case {
    let Product { elem, eight_bits, inner, outputs, .. } = p;
    let Experts { count: most, chosen: k, gated } = of;
    let outputs = outputs / k;
    // With fewer experts there are fewer rows: each has as many either way.
    let count = (scale.numbers / (outputs * inner)).min(most).max(k);
    let rows = (rows * count / most).max(FEW_ROWS + 1);
    let mut g = Graph::new("experts", StepSize { rows, outs: 1 });
    // The second half has a row of its own for each choice.
    let x_rows = Extent::rows(if gated { 1 } else { k });
    let x = g.input("x", Elem::F32, x_rows, inner);
    let ids = g.input("ids", Elem::U32, Extent::ROWS, k);
    let weights = g.input("weights", Elem::F32, Extent::ROWS, k);
    let pages = g.input("pages", Elem::U32, Extent { per_row: 0, fixed: 1, per_out: 0 }, count);
    let inputs = vec![
        (x, floats(x_rows.at(g.max) * inner)),
        (ids, Data::U32((0..rows * k).map(|i| any_below(count as u32, i)).collect())),
        (weights, floats(rows * k)),
        (pages, Data::U32((0..count as u32).collect())),
    ];
    let tiles = Some(ops::expert_tiles(&mut g, ids, count, EXPERT_TILES));
    let chosen = Chosen { ids, weights, pages, tiles };
    let x = codes(&mut g, x, elem, eight_bits);
    let first = g.nodes().len();
    let w = g.bank("w1", elem, count * outputs, inner, outputs);
    if gated {
        let w3 = g.bank("w3", elem, count * outputs, inner, outputs);
        ops::expert_gate_up(&mut g, x, w, w3, chosen, 10.0);
    } else {
        ops::expert_down(&mut g, x, w, chosen);
    }
    let activations = if eight_bits { " by 8 bits" } else { "" };
    let shape = format!(
        "{}{activations}, {inner} to {outputs}, {k} of {count} experts, {rows} rows",
        elem.name()
    );
    let nodes = first..g.nodes().len();
    Case { choice, shape, graph: Arc::new(g), inputs, nodes }
}

/// Queries into a latent space, as multi-head latent attention has them.
fn transposed() -> Case {
    let (heads, dim, latent) = (16, 128, 512);
    let mut g = Graph::new("transposed", StepSize { rows: 1, outs: 1 });
    let x = g.input("x", Elem::F32, Extent::ROWS, heads * dim);
    let w = g.weight("kv_b", Elem::BF16, 2 * heads * dim, latent);
    let of = |step| Slice { step, at: 0 };
    let slices = Slices { x: of(dim), w: of(2 * dim), y: of(latent), outputs: latent };
    ops::matmul_transposed(&mut g, x, w, heads, dim, slices, None);
    let shape = format!("BF16, {dim} to {latent}, {heads} heads, 1 row");
    let inputs = vec![(x, floats(heads * dim))];
    Case { choice: Choice::MatmulTransposed, shape, graph: Arc::new(g), inputs, nodes: 0..1 }
}

/// A token row after so many keys.
fn row_after(g: &mut Graph, keys: usize) -> (TensorId, Data) {
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let last = keys as u32 - 1;
    let row = Row { position: last, last, ..Row::default() };
    (rows, Data::U32(bytemuck::pod_collect_to_vec(&[row])))
}

/// With as many keys in one ring as V4's window has and as it picks beside.
fn attention(Heads { heads, dim, .. }: Heads) -> Case {
    let keys = 640;
    let mut g = Graph::new("attention", StepSize { rows: 1, outs: 1 });
    let rows = row_after(&mut g, keys);
    let q = g.input("q", Elem::F32, Extent::ROWS, heads * dim);
    // As many dimensions as V4 rotates.
    let rope = 64.min(dim);
    let table = g.input("table", Elem::F32, Extent::ROWS, rope);
    let ring = g.state("ring", keys, dim);
    let sinks = g.weight("sinks", Elem::F32, 1, heads);
    let a = Attention {
        rows: rows.0,
        q,
        table,
        ring,
        cap: keys,
        window: keys,
        compressed: None,
        sinks,
        heads,
        scale: (dim as f32).sqrt().recip(),
    };
    ops::attention(&mut g, a);
    let shape = format!("over {keys} keys, {heads} heads of {dim}, 1 row");
    let inputs = vec![rows, (q, floats(heads * dim)), (table, floats(rope))];
    Case { choice: Choice::Attention, shape, graph: Arc::new(g), inputs, nodes: 0..1 }
}

fn causal_attention(of: Heads, keys: usize) -> Case {
    let Heads { heads, groups, dim, values: (own, value_dim) } = of;
    let mut g = Graph::new("causal_attention", StepSize { rows: 1, outs: 1 });
    let rows = row_after(&mut g, keys);
    let q = g.input("q", Elem::F32, Extent::ROWS, heads * dim);
    let k = g.state("keys", keys, groups * dim);
    let values = own.then(|| g.state("values", keys, groups * value_dim));
    let a = CausalAttention {
        rows: rows.0,
        q,
        keys: k,
        values,
        value_dim,
        heads,
        groups,
        context: keys,
        scale: (dim as f32).sqrt().recip(),
        select: None,
    };
    ops::causal_attention(&mut g, a);
    let shape = format!("over {keys} keys, {heads} heads of {dim} in {groups} groups, 1 row");
    let inputs = vec![rows, (q, floats(heads * dim))];
    Case { choice: Choice::CausalAttention, shape, graph: Arc::new(g), inputs, nodes: 0..1 }
}

/// The `i`th of integers without pattern, of which some are met more often than others.
fn any_below(end: u32, i: usize) -> u32 {
    let bits = (i as u32 + 1).wrapping_mul(2_654_435_769);
    let bits = (bits ^ bits >> 15).wrapping_mul(0x2c1b_3c6d);
    (bits ^ bits >> 12) % end
}

/// Numbers without pattern in [-1, 1).
fn floats(n: usize) -> Data {
    let float = |i: usize| {
        let bits = (i as u32).wrapping_mul(2_654_435_769);
        (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Data::F32((0..n).map(float).collect())
}

/// Weights that are small numbers, but none so small that processors are slow with it, in every
/// format: whatever part of a block is its scale.
struct AnyWeights(Vec<u8>);

impl AnyWeights {
    fn new() -> Self {
        let word = |i: u32| i.wrapping_mul(2_654_435_769) & 0x03ff_03ff | 0x3400_3400;
        Self((0..1 << 18).flat_map(|i| word(i).to_le_bytes()).collect())
    }
}

impl WeightSource for AnyWeights {
    fn read(&self, tensor: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        let mut left = rows.len() * tensor.row_bytes();
        while left > 0 {
            let n = left.min(self.0.len());
            out.extend_from_slice(&self.0[..n]);
            left -= n;
        }
        Ok(())
    }
}

impl Case {
    /// The candidates whose kernels differ on such a device, and the device with each; only the default
    /// where the choice is another device's.
    fn contenders(&self, gpu: &Gpu) -> Vec<(usize, Gpu)> {
        let mut contenders = vec![];
        let mut told = vec![];
        for candidate in 0..self.choice.candidates().len() {
            let tuning = Tuning::DEFAULT.with(self.choice, candidate);
            let limits = Limits { tuning, ..gpu.limits };
            let kernels: Vec<_> = self.graph.nodes()[self.nodes.clone()]
                .iter()
                .flat_map(|node| node.op.kernels(&self.graph, &limits))
                .map(|k| (k.shader, k.flags, k.consts, k.params, (k.grid)(self.graph.max)))
                .collect();
            if !told.contains(&kernels) {
                told.push(kernels);
                let mut gpu = gpu.clone();
                gpu.limits = limits;
                contenders.push((candidate, gpu));
            }
        }
        contenders
    }
}

/// Measures all choices of `cases` that are this device's, within about `budget` and what it takes to
/// compile. `progress` is told how many are done and how many there are.
///
/// # Errors
/// If the device fails.
pub fn tune(
    gpu: &Gpu,
    cases: Vec<Case>,
    budget: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Measured>> {
    let mut in_f16 = gpu.clone();
    in_f16.multiply_matrices(true);
    let device = |case: &Case| match case.choice {
        Choice::MatmulMatrices { half: true, .. } | Choice::ExpertMatrices { half: true } => {
            &in_f16
        }
        _ => gpu,
    };
    let cases = cases.into_iter().map(|case| (case.contenders(device(&case)), case));
    let cases: Vec<_> = cases.filter(|(contenders, _)| contenders.len() > 1).collect();
    let all = cases.len();
    let share = budget / all.max(1) as u32;
    let source = AnyWeights::new();
    let mut measured = Vec::with_capacity(all);
    for cases in cases.chunks(TOGETHER) {
        progress(measured.len() as u64, all as u64);
        let mut store = GpuStore::default();
        store.compile(
            cases.iter().flat_map(|(contenders, case)| {
                contenders.iter().map(|(_, gpu)| (gpu, &*case.graph))
            }),
        );
        let mut ready = vec![];
        for (contenders, case) in cases {
            store.add(gpu, &case.graph, &source, &mut |_| {})?;
            let graphs = contenders.iter().map(|(candidate, gpu)| {
                Ok((*candidate, GpuGraph::new(gpu, Arc::clone(&case.graph), &mut store)?))
            });
            ready.push((case, graphs.collect::<Result<Vec<_>>>()?));
        }
        let graphs: Vec<_> = ready.iter().flat_map(|(_, g)| g.iter().map(|g| &g.1)).collect();
        warm(gpu, &graphs, &mut |_, _| ())?;
        for (case, graphs) in &ready {
            measured.push(measure(gpu, case, graphs, share)?);
            progress(measured.len() as u64, all as u64);
        }
    }
    Ok(measured)
}

fn measure(
    gpu: &Gpu,
    case: &Case,
    graphs: &[(usize, GpuGraph)],
    share: Duration,
) -> Result<Measured> {
    let step = case.graph.max;
    let mut once = f64::INFINITY;
    for (_, graph) in graphs {
        graph.begin(step, &case.inputs);
        graph.submit(step, 0..case.nodes.end);
        gpu.wait()?;
        once = once.min(seconds(gpu, graph, case, 1)?);
    }
    let samples = graphs.len() * ROUNDS + 2 * LAST_ROUNDS;
    let long = share.as_secs_f64() / samples as f64;
    let times = (long / once.max(1e-9)).ceil().clamp(1.0, MOST_TIMES) as u32;

    let start = Instant::now();
    let mut best = vec![f64::INFINITY; graphs.len()];
    for round in 0..ROUNDS {
        if round > 0 && start.elapsed() > share {
            break;
        }
        for ((_, graph), best) in graphs.iter().zip(&mut best) {
            *best = best.min(seconds(gpu, graph, case, times)?);
        }
    }
    let fastest = (0..best.len()).min_by(|&a, &b| best[a].total_cmp(&best[b])).unwrap_or(0);
    let mut taken = 0;
    if fastest != 0 {
        let mut ratios = vec![];
        for round in 0..LAST_ROUNDS {
            if round > 2 && start.elapsed() > 2 * share {
                break;
            }
            // Either is first as often as the other.
            let turns = if round % 2 == 0 { [0, fastest] } else { [fastest, 0] };
            let mut took = [0.0; 2];
            for at in turns {
                let seconds = seconds(gpu, &graphs[at].1, case, times)?;
                best[at] = best[at].min(seconds);
                took[usize::from(at == fastest)] = seconds;
            }
            ratios.push(took[0] / took[1].max(1e-12));
        }
        ratios.sort_by(f64::total_cmp);
        // Where other work slows samples down, the two don't agree.
        let (median, at_best) = (ratios[ratios.len() / 2], best[0] / best[fastest]);
        if median.min(at_best) >= MARGIN {
            taken = fastest;
        }
    }
    let words = case.choice.candidates();
    let timed = |((candidate, _), best): (&(usize, GpuGraph), &f64)| Timed {
        candidate: words[*candidate].clone(),
        microseconds: best * 1e6,
    };
    let taken = graphs[taken].0;
    Ok(Measured {
        choice: case.choice,
        taken,
        kernel: case.choice.kernel(),
        class: case.choice.class(),
        shape: case.shape.clone(),
        candidates: graphs.iter().zip(&best).map(timed).collect(),
        chosen: words[taken].clone(),
    })
}

/// How long one of a case's measured nodes takes, of so many rounds of them.
fn seconds(gpu: &Gpu, graph: &GpuGraph, case: &Case, times: u32) -> Result<f64> {
    let start = Instant::now();
    graph.repeat(case.graph.max, case.nodes.clone(), times);
    gpu.wait()?;
    Ok(start.elapsed().as_secs_f64() / (f64::from(times) * case.nodes.len() as f64))
}
