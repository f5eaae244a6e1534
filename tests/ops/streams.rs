//! Token rows and residual streams: embedding, gathering, rotary embedding, hyper-connections and
//! the gated activation.

use fathom::gpu::Limits;
use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize, fuse};
use fathom::ops;

use crate::common::{Case, Random, formats, gpu};

/// A row table of random text and image rows.
fn rows(random: &mut Random, n: usize, vocab: usize, text_only: bool) -> Data {
    let mut words = vec![];
    for _ in 0..n {
        let kind = if text_only { 0 } else { random.int(0..6) };
        let token = if kind == 0 { random.int(0..vocab) } else { 0 };
        let image = random.int(0..n);
        words.extend([0, 0, token as u32, kind as u32, image as u32, 0, 0, 0]);
    }
    Data::U32(words)
}

#[test]
fn embed() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(1);
    for (seed, elem) in formats().chain(formats()).enumerate() {
        let (n, vocab) = (random.pick(&[1, 5, 70]), random.int(2..90));
        let (cols, streams) = (random.cols(elem, &[1, 7, 64, 300, 600]), random.int(1..5));
        let vision = random.int(0..2) == 1;
        let mut case = Case::new(seed as u64, StepSize { rows: n, outs: 1 });
        let table = case.graph.weight("table", elem, vocab, cols);
        let row_table = case.graph.input("rows", Elem::U32, Extent::ROWS, 8);
        case.set(row_table, rows(&mut random, n, vocab, !vision));
        let vision = vision.then(|| ops::EmbedVision {
            images: case.input("images", Extent::ROWS, cols),
            marks: case.graph.weight("marks", Elem::F32, 4, cols),
        });
        ops::embed(&mut case.graph, row_table, table, vision, streams);
        // The second makes parts of a few rows each, but for the marks.
        let rows = 9 * case.graph.tensor(table).row_bytes();
        let marks = 4 * 4 * cols.next_multiple_of(8);
        let parted = Limits { max_binding_bytes: rows.max(marks) as u64, ..Limits::CORE };
        // A device may round a product before it adds, or not.
        let tolerance = if matches!(elem, Elem::Block(_)) { 5e-7 } else { 0.0 };
        case.check_with(&gpu, &[Limits::CORE, parted], tolerance);
    }
}

#[test]
fn gather() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(2);
    for seed in 0..6 {
        let (n, outs) = (random.int(1..50), random.pick(&[1, 3, 70]));
        let cols = random.pick(&[1, 65, 513]);
        let mut case = Case::new(seed, StepSize { rows: n, outs });
        let x = case.input("x", Extent::ROWS, cols);
        let table = case.graph.input("outs", Elem::U32, Extent::OUTS, 8);
        case.set(table, Data::U32(random.ints(8 * outs, 0..n)));
        ops::gather(&mut case.graph, x, table);
        case.check(&gpu, 0.0);
    }
}

/// A table of cosines and sines of random angles.
pub fn angles(random: &mut Random, rows: usize, cols: usize) -> Data {
    let mut table = vec![];
    for _ in 0..rows {
        let angles: Vec<f32> = (0..cols / 2).map(|_| 10.0 * random.float()).collect();
        table.extend(angles.iter().map(|a| a.cos()));
        table.extend(angles.iter().map(|a| a.sin()));
    }
    Data::F32(table)
}

#[test]
fn head_rope() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    for seed in 0..12 {
        let (n, heads) = (random.pick(&[1, 2, 40]), random.pick(&[1, 3, 8]));
        let rope = 2 * random.pick(&[1, 16, 32, 45]);
        let dims = rope + random.pick(&[0, 1, 64, 448]);
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows: n, outs: n });
        let x = case.input("x", extent, heads * dims);
        let table = case.input("angles", extent, rope);
        case.set(table, angles(&mut random, n, rope));
        let start = random.pick(&[None, Some(0), Some((dims - rope) / 2)]);
        let pairs = random.pick(&[ops::Pairs::Interleaved, ops::Pairs::Halves]);
        let r = ops::HeadRope { x, table, heads, start, pairs };
        ops::head_rope(&mut case.graph, r);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn copy_columns() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(8);
    for seed in 0..8 {
        let (n, count, width) = (random.pick(&[1, 3, 40]), random.int(1..9), random.int(1..100));
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS, Extent::rows(2)]);
        let mut case = Case::new(seed, StepSize { rows: n, outs: n });
        // Blocks of `from` may overlap, or be one and the same.
        let (from_step, to_step) = (random.int(0..2 * width), width + random.int(0..30));
        let (from_at, to_at) = (random.int(0..20), random.int(0..20));
        let cols = |step, at| (count - 1) * step + at + width + (seed as usize) % 3;
        let from = case.input("from", extent, cols(from_step, from_at));
        let to = case.input("to", extent, cols(to_step, to_at));
        let c = ops::CopyColumns { from, from_step, from_at, to, to_step, to_at, count, width };
        ops::copy_columns(&mut case.graph, c);
        case.check(&gpu, 0.0);
    }
}

/// Scales floats up, to reach the flat ends of sigmoid and softmax.
fn scaled(random: &mut Random, n: usize, by: f32) -> Data {
    Data::F32(random.floats(n).into_iter().map(|v| v * by).collect())
}

/// Seeds and numbers of streams. Each number is a shader of its own, and software drivers take
/// seconds over those.
const STREAMS: [(u64, usize); 6] = [(0, 4), (1, 1), (2, 4), (3, 7), (4, 8), (5, 4)];

#[test]
fn mhc_pre() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(4);
    for (seed, n) in STREAMS {
        let (rows, cols) = (random.pick(&[1, 3, 50]), random.pick(&[1, 33, 256, 700]));
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let mixes = (2 + n) * n;
        // Whole, or to be summed up, with squares that are positive.
        let parts = random.pick(&[0, 0, 1, 2, 33]);
        let mix_cols = if parts == 0 { mixes } else { parts * (mixes + 1) };
        let mix = case.input("mix", extent, mix_cols);
        let mut values = random.floats(rows * mix_cols);
        if parts > 0 {
            values
                .chunks_exact_mut(mixes + 1)
                .for_each(|part| part[mixes] = part[mixes].abs() + 0.1);
        }
        case.set(mix, Data::F32(values));
        let g = &mut case.graph;
        let p = ops::MhcPre {
            streams: g.input("streams", Elem::F32, extent, n * cols),
            mix,
            base: g.weight("base", Elem::F32, 1, mixes),
            scale: g.weight("scale", Elem::F32, 1, 3),
            norm: g.weight("norm", Elem::F32, 1, cols),
            n,
            iters: random.pick(&[1, 2, 20]),
            hc_eps: 1e-6,
            eps: random.pick(&[1e-6, 1e-20]),
        };
        ops::mhc_pre(g, p);
        let by = random.pick(&[1.0, 1.0, 100.0]);
        case.set(p.scale, scaled(&mut random, 3, by));
        // Logits of some hundreds carry absolute errors of their own size in f32, which softmax
        // turns into relative ones.
        case.check(&gpu, if by > 1.0 { 1e-4 } else { 1e-5 });
    }
}

#[test]
fn mhc_post() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(5);
    for (seed, n) in STREAMS {
        let (rows, cols) = (random.pick(&[1, 3, 50]), random.pick(&[1, 33, 256, 700]));
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        let streams = case.input("streams", Extent::ROWS, n * cols);
        let coef = case.input("coef", Extent::ROWS, n + n * n);
        let block = case.input("block", Extent::ROWS, cols);
        ops::mhc_post(&mut case.graph, ops::MhcPost { streams, coef, block, n });
        case.check(&gpu, 1e-5);
    }
}

/// With the next mix of the streams, and of outputs that are yet to be added up.
#[test]
fn mhc_post_with_what_surrounds_it() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(9);
    for (seed, n) in STREAMS {
        let (rows, cols) = (random.pick(&[1, 3, 8]), random.pick(&[4, 36, 256, 700]));
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        let streams = case.input("streams", Extent::ROWS, n * cols);
        let coef = case.input("coef", Extent::ROWS, n + n * n);
        let w = case.graph.weight("w", Elem::F32, (2 + n) * n, n * cols);
        let k = random.pick(&[1, 2, 6]);
        let experts = case.input("experts", Extent::rows(k), cols);
        let shared = (seed % 2 == 0).then(|| case.input("shared", Extent::ROWS, cols));
        let block = ops::combine(&mut case.graph, experts, k, shared);
        let post = ops::MhcPost { streams, coef, block, n };
        if seed < 5 {
            ops::mhc_post_mix(&mut case.graph, post, w);
        } else {
            ops::mhc_post(&mut case.graph, post);
        }
        fuse(&mut case.graph);
        assert_eq!(case.graph.nodes().len(), 1);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn mhc_head() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(6);
    for (seed, n) in STREAMS {
        let (rows, cols) = (random.pick(&[1, 3, 50]), random.pick(&[1, 33, 256, 700]));
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let g = &mut case.graph;
        let p = ops::MhcHead {
            streams: g.input("streams", Elem::F32, extent, n * cols),
            mix: g.input("mix", Elem::F32, extent, n),
            base: g.weight("base", Elem::F32, 1, n),
            scale: g.weight("scale", Elem::F32, 1, 1),
            norm: g.weight("norm", Elem::F32, 1, cols),
            n,
            hc_eps: 1e-6,
            eps: random.pick(&[1e-6, 1e-20]),
        };
        ops::mhc_head(g, p);
        let by = random.pick(&[1.0, 1000.0]);
        case.set(p.scale, scaled(&mut random, 1, by));
        // As in mhc_pre.
        case.check(&gpu, if by > 1.0 { 1e-4 } else { 1e-5 });
    }
}

#[test]
fn swiglu() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(7);
    for seed in 0..12 {
        let (rows, cols) = (random.pick(&[1, 3, 50]), random.pick(&[1, 33, 256, 700]));
        let per = random.int(1..4);
        let (packed, limit) = (seed % 2 == 0, random.pick(&[0.5, 10.0, f32::INFINITY]));
        let by = random.pick(&[1.0, 30.0, 500.0]);
        let extent = random.pick(&[Extent::rows(per), Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let gate_cols = if packed { 2 * cols } else { cols };
        let gate = case.input("gate", extent, gate_cols);
        let mut contents = random.floats(extent.at(case.step) * gate_cols);
        contents.iter_mut().for_each(|v| *v *= by);
        // So that not all results vanish, when only relative errors of exp would be compared.
        contents[0] = 1.0;
        case.set(gate, Data::F32(contents));
        let up = (!packed).then(|| case.input("up", extent, cols));
        ops::swiglu(&mut case.graph, gate, up, limit);
        case.check(&gpu, 1e-5);
    }
}

/// With its result in 8 bits, alone or beside the numbers, which another op reads.
#[test]
fn swiglu_in_eight_bits() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(8);
    for seed in 0..8 {
        let (rows, cols) = (random.pick(&[1, 3, 50]), 32 * random.int(1..30));
        let per = random.int(1..4);
        let extent = random.pick(&[Extent::rows(per), Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let gate = case.input("gate", extent, 2 * cols);
        let y = ops::swiglu(&mut case.graph, gate, None, random.pick(&[0.5, 10.0, f32::INFINITY]));
        case.check_in_eight_bits(&gpu, y, seed % 2 == 0, 1e-5);
    }
}
