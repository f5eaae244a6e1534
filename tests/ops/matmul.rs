//! Matrix products, dense and by expert.

use fathom::formats::BlockFormat;
use fathom::gpu::{Gpu, Limits, Matrices, Tuning};
use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, Graph, StepSize, fuse};
use fathom::ops::{self, Chosen, CodeOrder, EXPERT_TILES, Extra, Slice, Slices};
use half::f16;

use crate::common::{Case, HALF_TOLERANCE, Random, formats, gpu, with_matrices};

/// In each format by rows and by tiles, then more of either.
#[test]
fn dense() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(1);
    for (seed, elem) in formats().chain(formats()).chain(formats().take(3)).enumerate() {
        let few = seed < formats().count();
        let rows = random.pick(if few { &[1, 2, 3, 7, 8] } else { &[9, 33, 70] });
        let groups = random.pick(&[1, 1, 2, 3]);
        let k = random.cols(elem, &[1, 5, 8, 31, 40, 128, 200, 600]);
        let n = groups * random.int(1..90);
        let mut case = Case::new(seed as u64, StepSize { rows, outs: 1 });
        let g = &mut case.graph;
        let x = g.input("x", Elem::F32, Extent::ROWS, groups * k);
        let w = g.weight("w", elem, n, k);
        let bias = (seed % 2 == 0).then(|| g.weight("bias", Elem::F32, 1, n));
        let residual = (seed % 3 == 0).then(|| g.input("residual", Elem::F32, Extent::ROWS, n));
        ops::matmul_with(g, x, w, Extra { groups, bias, residual, ..Extra::default() });
        case.check(&gpu, 1e-5);
    }
}

/// The numbers of small floats that have no exponent, by themselves: among others, an error in them would not
/// be seen.
#[test]
fn smallest_codes() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(14);
    // Codes a byte, and what of them is a sign or fraction.
    let formats = [
        (BlockFormat::MXFP4, 2, 0x99),
        (BlockFormat::FP8, 1, 0x87),
        (BlockFormat::FP8F32, 1, 0x87),
    ];
    for (format, a_byte, mask) in formats {
        for rows in [1, 9, 40] {
            let (outputs, inner) = (70, 256);
            let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
            let x = case.input("x", Extent::ROWS, inner);
            let w = case.graph.weight("w", Elem::Block(format), outputs, inner);
            ops::matmul(&mut case.graph, x, w);
            let mut stored = random.blocks(format, outputs * inner, 1.0);
            for block in stored.chunks_exact_mut(format.block_bytes()) {
                let scales = block.len() - format.block() / a_byte;
                block[scales..].iter_mut().for_each(|code| *code &= mask);
            }
            case.set_blocks("w", stored);
            case.check(&gpu, 1e-5);
        }
    }
}

/// A slice for each group, with room to either side.
fn slice(random: &mut Random, len: usize) -> Slice {
    let at = random.int(0..9);
    Slice { step: at + len + random.int(0..5), at }
}

/// Two grouped products that have every other slice of the result each; whole, and with a group or
/// two a part.
#[test]
fn groups_of_slices() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(4);
    for (seed, elem) in formats().chain(formats().step_by(3)).enumerate() {
        let transposed = seed < formats().count();
        let rows = random.pick(&[1, 3, 8, 12, 40]);
        let groups = random.pick(&[1, 2, 5]);
        let cols = random.cols(elem, &[16, 31, 96, 200]);
        let other = random.int(1..70);
        let (inner, outputs) = if transposed { (other, cols) } else { (cols, other) };
        let (from, of) = (slice(&mut random, inner), slice(&mut random, other));
        let mut case = Case::new(seed as u64, StepSize { rows, outs: 1 });
        let g = &mut case.graph;
        let x = g.input("x", Elem::F32, Extent::ROWS, groups * from.step);
        let w = g.weight("w", elem, groups * of.step, cols);
        let into = Some(g.scratch("into", Elem::F32, Extent::ROWS, 2 * groups * outputs));
        for at in [0, outputs] {
            let slices = Slices { x: from, w: of, y: Slice { step: 2 * outputs, at }, outputs };
            if transposed {
                ops::matmul_transposed(g, x, w, groups, inner, slices, into);
            } else {
                let slices = Some(slices);
                ops::matmul_with(g, x, w, Extra { groups, slices, into, ..Extra::default() });
            }
        }
        let two = 2 * g.tensor(w).bytes(of.step) as u64;
        let limits = Limits { max_binding_bytes: two, ..gpu.limits };
        case.check_with(&gpu, &[gpu.limits, limits], 1e-5);
    }
}

/// The shapes of multi-head latent attention: keys of the first rows of each head, values of the rest.
#[test]
fn latent_projections() {
    let Some(gpu) = gpu() else { return };
    let (heads, nope, value, rope, latent) = (4, 24, 16, 8, 64);
    for (rows, elem) in [(1, Elem::BF16), (5, Elem::F32), (20, Elem::Block(BlockFormat::Q8_0))] {
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        let g = &mut case.graph;
        let w = g.weight("kv_b", elem, heads * (nope + value), latent);
        let q = g.input("q", Elem::F32, Extent::ROWS, heads * (nope + rope));
        let keys = Slices {
            x: Slice { step: nope + rope, at: 0 },
            w: Slice { step: nope + value, at: 0 },
            y: Slice { step: latent, at: 0 },
            outputs: latent,
        };
        let absorbed = ops::matmul_transposed(g, q, w, heads, nope, keys, None);
        let values = Slices {
            x: Slice { step: latent, at: 0 },
            w: Slice { step: nope + value, at: nope },
            y: Slice { step: value, at: 0 },
            outputs: value,
        };
        let extra = Extra { groups: heads, slices: Some(values), ..Extra::default() };
        let y = ops::matmul_with(g, absorbed, w, extra);
        assert_eq!((g.tensor(absorbed).cols, g.tensor(y).cols), (heads * latent, heads * value));
        case.check(&gpu, 1e-5);
    }
}

/// Enough to multiply for large tiles, with ends that fill none; a step of few rows takes the small ones.
#[test]
fn dense_in_large_tiles() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(8);
    let shapes = [
        (33, 256, 256, Elem::F32),
        (70, 301, 259, Elem::BF16),
        (130, 300, 288, Elem::Block(BlockFormat::Q4_0)),
        (32, 300, 288, Elem::Block(BlockFormat::Q4_0)),
    ];
    let of = |elem| {
        let inner = random.cols(elem, &[256, 288, 320]);
        (random.int(17..50), random.int(256..600), inner, elem)
    };
    // Where weights go round the lanes, of all formats.
    let formats = formats().step_by(if gpu.limits.serial_lanes == 8 { 1 } else { 6 });
    for (rows, outputs, inner, elem) in shapes.into_iter().chain(formats.map(of)) {
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        case.graph.max.rows = 130;
        let g = &mut case.graph;
        let bias = g.weight("bias", Elem::F32, 1, outputs);
        let w = g.weight("w", elem, outputs, inner);
        let x = case.input("x", Extent::ROWS, inner);
        let residual = case.input("residual", Extent::ROWS, outputs);
        let extra = Extra { bias: Some(bias), residual: Some(residual), ..Extra::default() };
        ops::matmul_with(&mut case.graph, x, w, extra);
        case.check(&gpu, 1e-5);
    }
}

/// Numbers that are in f16 as they are: nothing but sums could differ from the reference. With all
/// candidates, and with subgroups half and twice as wide as thought.
#[test]
fn matrices_in_f16_add_up_in_f32() {
    let Some(gpu) = gpu() else { return };
    let Some(limits) = with_matrices(&gpu, gpu.limits) else { return };
    let thought = |lanes: fn(u32) -> u32| {
        let matrices = limits.matrices.map(|m| Matrices { lanes: lanes(m.lanes), ..m });
        Limits { matrices, ..limits }
    };
    let mut tiers = vec![thought(|n| 2 * n), thought(|n| n / 2)];
    tiers.extend(Tuning::all().map(|tuning| Limits { tuning, ..limits }));
    let mut random = Random::new(12);
    let shapes = [(9, 70, 33), (70, 300, 2048), (130, 257, 600), (65, 2050, 256)];
    for (rows, outputs, inner) in shapes {
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, inner);
        let w = case.graph.weight("w", Elem::F16, outputs, inner);
        ops::matmul(&mut case.graph, x, w);
        let numbers = random.floats(rows * inner);
        case.set(x, Data::F32(numbers.into_iter().map(|v| f16::from_f32(v).to_f32()).collect()));
        case.check_with(&gpu, &tiers, 1e-5);
    }
}

/// The same of experts that have large tiles and small ones.
#[test]
fn matrices_of_experts_in_f16_add_up_in_f32() {
    let Some(gpu) = gpu() else { return };
    let Some(limits) = with_matrices(&gpu, gpu.limits) else { return };
    let tiers: Vec<_> = Tuning::all().map(|tuning| Limits { tuning, ..limits }).collect();
    let mut random = Random::new(13);
    for (rows, sides) in [(90, [264, 300]), (9, [64, 70])] {
        let (elem, eight_bits) = (Elem::F16, false);
        let of = Experts { elem, eight_bits, rows, most: rows, experts: 6, k: 2, sides };
        of.case(&mut random).check_with(&gpu, &tiers, 2e-5);
    }
}

/// What is beyond the range of f16 becomes its largest number, not infinite; and what says that it is
/// exact is not rounded.
#[test]
fn matrices_in_f16_of_large_numbers() {
    let Some(gpu) = gpu() else { return };
    let Some(limits) = with_matrices(&gpu, gpu.limits) else { return };
    let (rows, inner) = (20, 64);
    for exact in [false, true] {
        let mut case = Case::new(5, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, inner);
        let w = case.graph.weight("w", Elem::F16, 70, inner);
        ops::matmul_with(&mut case.graph, x, w, Extra { exact, ..Extra::default() });
        let mut numbers = Random::new(13).floats(rows * inner);
        // The one would round to infinity, but is near enough to the largest number to be taken for it.
        numbers[7] = if exact { 1e9 } else { 65_535.0 };
        case.set(x, Data::F32(numbers));
        case.check_with(&gpu, &[limits], if exact { 1e-5 } else { HALF_TOLERANCE });
    }
}

#[test]
fn dense_over_output_rows() {
    let Some(gpu) = gpu() else { return };
    for outs in [1, 5, 20] {
        let mut case = Case::new(7, StepSize { rows: 3, outs });
        let x = case.input("x", Extent::OUTS, 24);
        let w = case.graph.weight("w", Elem::BF16, 50, 24);
        ops::matmul(&mut case.graph, x, w);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn a_weight_larger_than_one_binding() {
    let Some(gpu) = gpu() else { return };
    for rows in [1, 20] {
        let mut case = Case::new(9, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, 48);
        let w = case.graph.weight("w", Elem::F32, 301, 48);
        ops::matmul(&mut case.graph, x, w);
        let limits = Limits { max_binding_bytes: 48 * 4 * 77, ..gpu.limits };
        case.check_with(&gpu, &[limits], 1e-5);
    }
}

/// Products of experts.
pub struct Experts {
    pub elem: Elem,
    pub eight_bits: bool,
    pub rows: usize,
    /// Rows that the graph is made for.
    pub most: usize,
    pub experts: usize,
    pub k: usize,
    /// Width and inner width.
    pub sides: [usize; 2],
}

impl Experts {
    /// Both halves, of which each has numbers of its own, as what is off in the first would be more so in the
    /// second.
    pub fn case(&self, random: &mut Random) -> Case {
        let &Self { elem, rows, experts, k, sides: [d, i], .. } = self;
        let mut case = Case::new(random.int(0..1000) as u64, StepSize { rows, outs: 1 });
        case.graph.max.rows = self.most;
        let g = &mut case.graph;
        let x = g.input("x", Elem::F32, Extent::ROWS, d);
        let w1 = g.bank("w1", elem, experts * i, d, i);
        let w3 = g.bank("w3", elem, experts * i, d, i);
        let w2 = g.bank("w2", elem, experts * d, i, d);
        let ids = g.input("ids", Elem::U32, Extent::ROWS, k);
        let weights = g.input("weights", Elem::F32, Extent::ROWS, k);
        let pages = g.weight("pages", Elem::U32, 1, experts);
        let tiles = (self.most > 8).then(|| ops::expert_tiles(g, ids, experts, EXPERT_TILES));
        let chosen = Chosen { ids, weights, pages, tiles };
        let h = g.input("h", Elem::F32, Extent::rows(k), i);
        let order = CodeOrder::of(elem).filter(|_| self.eight_bits);
        let [x_in, h_in] =
            [x, h].map(|x| order.map_or(x, |order| ops::quantize_activations(g, x, order)));
        ops::expert_gate_up(g, x_in, w1, w3, chosen, 0.5);
        ops::expert_down(g, h_in, w2, chosen);

        // Some experts get nothing, so that empty ones are met.
        let of_slot = random.ints(rows * k, 0..experts.div_ceil(2));
        let page_of: Vec<u32> = (0..experts as u32).rev().collect();
        // So small that the clamp is met, but does not hide the size of the sums before it.
        let size = (d as f32).sqrt().recip();
        // In f16, so that matrices in that have the same.
        let mut halves = |n: usize, size: f32| {
            let numbers = random.floats(n);
            Data::F32(numbers.iter().map(|v| f16::from_f32(v * size).to_f32()).collect())
        };
        case.set(x, halves(rows * d, size));
        case.set(h, halves(rows * k * i, 1.0));
        case.set(ids, Data::U32(of_slot));
        case.set(pages, Data::U32(page_of));
        case
    }

    /// With `parted`, in parts of few experts.
    fn check(&self, gpu: &Gpu, random: &mut Random, parted: bool) {
        let case = self.case(random);
        if !parted {
            return case.check(gpu, 2e-5);
        }
        let banks = ["w1", "w2"].map(|name| {
            let bank = case.graph.tensors().iter().find(|t| t.name == name);
            bank.map_or(0, |t| t.bytes(self.sides[0].max(self.sides[1]))) as u64
        });
        let limits = Limits { max_binding_bytes: 2 * banks[0].max(banks[1]), ..gpu.limits };
        case.check_with(gpu, &[limits], 2e-5);
    }
}

/// Decode with a row-wise kernel, prefill by tiles, whole or in parts; of all formats.
#[test]
fn experts() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    let in_eight_bits = integer_formats().map(|elem| (elem, true));
    let all = formats().map(|elem| (elem, false)).chain(in_eight_bits);
    for (i, (elem, eight_bits)) in all.enumerate() {
        let rows = random.pick(if i % 2 == 0 { &[1, 3, 8] } else { &[9, 40, 130] });
        let experts = random.int(2..12);
        let k = random.int(1..experts.min(4) + 1);
        let sides = [random.cols(elem, &[8, 24, 33]), random.cols(elem, &[5, 16, 70])];
        let of = Experts { elem, eight_bits, rows, most: rows, experts, k, sides };
        of.check(&gpu, &mut random, i % 4 >= 2);
    }
}

/// Of weights that are large enough for other kernels, whose rows are in tiles of both sizes; in a graph for
/// more rows too.
#[test]
fn experts_with_large_weights() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(14);
    let block = Elem::Block;
    let of = [
        (Elem::BF16, false, 130),
        (block(BlockFormat::Q4_0), false, 70),
        (block(BlockFormat::Q6K), false, 130),
        (block(BlockFormat::Q8_0), true, 45),
        (block(BlockFormat::MXFP4), false, 9),
    ];
    for (i, (elem, eight_bits, rows)) in of.into_iter().enumerate() {
        let sides = [[256, 288], [320, 257]].map(|from| random.cols(elem, &from));
        let of = Experts { elem, eight_bits, rows, most: 130, experts: 5, k: 2, sides };
        of.check(&gpu, &mut random, i % 2 == 1);
    }
}

/// Formats that are multiplied as integers.
fn integer_formats() -> impl Iterator<Item = Elem> {
    formats().filter(|&elem| CodeOrder::of(elem).is_some())
}

/// Activations of all sizes, among them groups of zeros and one of very small numbers: the same bits.
#[test]
fn activations_in_eight_bits() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(6);
    for (rows, groups) in [(1, 1), (3, 7), (130, 2)] {
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, 32 * groups);
        for order in [CodeOrder::Parted, CodeOrder::Bytes] {
            ops::quantize_activations(&mut case.graph, x, order);
        }
        let sizes = [1.0, 0.0, 1e-3, 3e4, 1e-35, 1e30, 1e-28];
        let numbers: Vec<f32> = (0..rows * groups)
            .flat_map(|i| random.floats(32).into_iter().map(move |v| v * sizes[i % sizes.len()]))
            .collect();
        case.set(x, Data::F32(numbers));
        case.check(&gpu, 0.0);
    }
}

/// Norms and gates that few rows leave to products: in several formats, of any shape, with parts of
/// weights that one binding can't hold.
#[test]
fn with_norms_and_gates() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(9);
    for seed in 0..2 {
        // Not all: how they are read, the products alone show, and each takes its time to compile.
        for elem in formats().skip(seed as usize).step_by(5) {
            let rows = random.pick(&[1, 1, 2, 3, 8]);
            // Some are multiples of 8 and some large enough for more code.
            let k = random.cols(elem, &[8, 33, 288, 544]);
            let half = random.pick(&[1, 7, 40, 300]);
            let mut case = Case::new(seed, StepSize { rows, outs: 1 });
            let g = &mut case.graph;
            let x = g.input("x", Elem::F32, Extent::ROWS, k);
            let norm = g.weight("norm", Elem::F32, 1, k);
            let bias = g.weight("bias", Elem::F32, 1, half);
            let w = g.weight("w", elem, half, k);
            let both = g.weight("both", elem, 2 * half, k);
            let n = ops::rms_norm(g, x, norm, 1e-2);
            ops::matmul_with(g, n, w, Extra { bias: Some(bias), ..Extra::default() });
            let n = ops::rms_norm(g, x, norm, 1e-2);
            let gate = ops::matmul(g, n, both);
            // So low that it is met.
            ops::swiglu(g, gate, None, 0.5);
            // Of some columns of a wider tensor.
            let (at, more) = (random.pick(&[0, 8]), random.pick(&[0, 8]));
            let of = g.input("wide", Elem::F32, Extent::ROWS, at + k + more);
            let n = ops::rms_norm(g, ops::Columns { of, at }, norm, 1e-2);
            ops::matmul_with(g, n, w, Extra { bias: Some(bias), ..Extra::default() });
            fuse(g);
            let names: Vec<_> = g.nodes().iter().map(|n| n.op.name()).collect();
            assert_eq!(names, ["matmul", "matmul_gated", "matmul"]);
            let rows_of = |g: &Graph, n: usize| g.tensor(both).bytes(n) as u64;
            let limits = Limits { max_binding_bytes: rows_of(g, half + 1), ..gpu.limits };
            if seed == 0 {
                case.check(&gpu, 2e-5);
            } else {
                case.check_with(&gpu, &[limits], 2e-5);
            }
        }
    }
}

/// One quantised tensor serves all products of the same input, until that changes.
#[test]
fn activations_are_quantised_once() {
    let mut case = Case::new(1, StepSize { rows: 2, outs: 1 });
    let g = &mut case.graph;
    let (x, weight) =
        (g.scratch("x", Elem::F32, Extent::ROWS, 64), g.weight("n", Elem::F32, 1, 32));
    let of = |g: &mut Graph, order| ops::quantize_activations(g, x, order);
    let first = of(g, CodeOrder::Parted);
    let bytes = of(g, CodeOrder::Bytes);
    assert_ne!(first, bytes);
    assert_eq!((of(g, CodeOrder::Parted), of(g, CodeOrder::Bytes)), (first, bytes));
    ops::rms_norm_part(g, x, weight, 1e-6, 32);
    assert_ne!(of(g, CodeOrder::Parted), first);
}

/// In each format by rows and by tiles, large ones too; whole and in groups with slices of their own.
#[test]
fn dense_in_eight_bits() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(7);
    for seed in 0..3 {
        for elem in integer_formats() {
            let rows = random.pick([&[1, 2, 3, 8][..], &[9, 33], &[70, 100]][seed]);
            // Large tiles are slow to compile, and differ in their sizes alone.
            if seed == 2 && !matches!(elem, Elem::Block(BlockFormat::Q4_1 | BlockFormat::Q6K)) {
                continue;
            }
            let groups = random.pick(&[1, 1, 3]);
            let k = random.cols(elem, &[32, 96, 288, 544]);
            let n = random.int(if seed == 2 { 256..310 } else { 1..90 });
            let mut case = Case::new(seed as u64, StepSize { rows, outs: 1 });
            let g = &mut case.graph;
            let at = 32 * random.int(0..3);
            let x_slice = Slice { step: at + k + 32 * random.int(0..2), at };
            let x = g.input("x", Elem::F32, Extent::ROWS, groups * x_slice.step);
            let w = g.weight("w", elem, groups * n, k);
            let after = Slice { step: n, at: 0 };
            let slices = Some(Slices { x: x_slice, w: after, y: after, outputs: n });
            let bias = n.is_multiple_of(2).then(|| g.weight("bias", Elem::F32, 1, groups * n));
            let residual = n
                .is_multiple_of(3)
                .then(|| g.input("residual", Elem::F32, Extent::ROWS, groups * n));
            let x = ops::quantize_activations(g, x, CodeOrder::of(elem).unwrap());
            ops::matmul_with(g, x, w, Extra { groups, slices, bias, residual, ..Extra::default() });
            case.check(&gpu, 1e-5);
        }
    }
}
