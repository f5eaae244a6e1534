//! Ops of the vision encoder and of its aligner.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops;

use crate::common::{Case, Random, gpu};
use crate::streams::angles;

#[test]
fn gelu() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(1);
    for seed in 0..8 {
        let (rows, cols) = (random.pick(&[1, 3, 50]), random.pick(&[1, 33, 700]));
        let by = random.pick(&[1.0, 5.0, 40.0]);
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let x = case.input("x", extent, cols);
        let mut contents: Vec<f32> = random.floats(rows * cols);
        contents.iter_mut().for_each(|v| *v *= by);
        // So that not all results vanish, when only relative errors of exp would be compared.
        contents[0] = by;
        case.set(x, Data::F32(contents));
        ops::gelu(&mut case.graph, x);
        case.check(&gpu, 1e-6);
    }
}

#[test]
fn vit_rope() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(2);
    for seed in 0..8 {
        let (n, heads) = (random.pick(&[1, 7, 60]), random.pick(&[1, 3, 16]));
        let dims = 2 * random.pick(&[1, 5, 32, 44]);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let qkv = case.input("qkv", Extent::ROWS, 3 * heads * dims);
        let table = case.input("angles", Extent::ROWS, dims);
        case.set(table, angles(&mut random, n, dims));
        ops::vit_rope(&mut case.graph, qkv, table, heads);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn vit_attention() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    for seed in 0..10 {
        let (heads, dims) = (random.int(1..4), random.pick(&[1, 27, 45, 64, 64, 128]));
        let mut patches = vec![];
        for _ in 0..random.pick(&[1, 1, 2, 12]) {
            let (start, n) = (patches.len() / 4, random.pick(&[1, 6, 31, 64, 129]));
            for _ in 0..n {
                patches.extend([0, 0, start as u32, (start + n) as u32]);
            }
        }
        let n = patches.len() / 4;
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let qkv = case.input("qkv", Extent::ROWS, 3 * heads * dims);
        // From nearly flat softmax to one that picks a single key.
        let by = random.pick(&[1.0, 5.0, 30.0]);
        let mut contents = random.floats(n * 3 * heads * dims);
        contents.iter_mut().for_each(|v| *v *= by);
        case.set(qkv, Data::F32(contents));
        let table = case.graph.input("patches", Elem::U32, Extent::ROWS, 4);
        case.set(table, Data::U32(patches));
        ops::vit_attention(&mut case.graph, qkv, table, heads);
        // Scores of some hundreds carry absolute errors of their own size in f32, which softmax
        // turns into relative ones.
        case.check(&gpu, 1e-5 * f64::from(by));
    }
}

#[test]
fn unfold() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(4);
    for seed in 0..8 {
        let (f, cols) = (random.int(1..5), random.pick(&[1, 7, 100]));
        let (mut blocks, mut patches) = (vec![], 0);
        for _ in 0..random.int(1..4) {
            let (height, width) = (random.int(1..12), random.int(1..12));
            for (y, x) in
                (0..height).step_by(f).flat_map(|y| (0..width).step_by(f).map(move |x| (y, x)))
            {
                let first = patches + y * width + x;
                let (right, down) = (f.min(width - x), f.min(height - y));
                blocks.extend([first, right, down, width].map(|v| v as u32));
            }
            patches += height * width;
        }
        let outs = blocks.len() / 4;
        let mut case = Case::new(seed, StepSize { rows: patches, outs });
        let x = case.input("x", Extent::ROWS, cols);
        let table = case.graph.input("blocks", Elem::U32, Extent::OUTS, 4);
        case.set(table, Data::U32(blocks));
        ops::unfold(&mut case.graph, x, table, f);
        case.check(&gpu, 0.0);
    }
}
