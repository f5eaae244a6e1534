//! Norms.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops;

use crate::common::{Case, Random, gpu};

#[test]
fn rms_norm() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(1);
    for seed in 0..8 {
        let (rows, cols, per) = (random.int(1..40), random.int(1..600), random.int(1..4));
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        // All columns, or some of them.
        let (at, more) = random.pick(&[(0, 0), (0, 9), (32, 0), (7, 5)]);
        let of = case.input("x", Extent::rows(per), at + cols + more);
        let w = case.graph.weight("w", Elem::F32, 1, cols);
        let x = ops::Columns { of, at };
        ops::rms_norm(&mut case.graph, x, w, random.pick(&[1e-6, 1e-20]));
        case.check(&gpu, 1e-5);
    }
}

/// With its result in 8 bits, alone or beside the numbers, which another op reads.
#[test]
fn rms_norm_in_eight_bits() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(4);
    for seed in 0..8 {
        let (rows, cols, per) = (random.int(1..40), 32 * random.int(1..40), random.int(1..3));
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::rows(per), cols);
        let w = case.graph.weight("w", Elem::F32, 1, cols);
        let y = ops::rms_norm(&mut case.graph, x, w, random.pick(&[1e-6, 1e-20]));
        case.check_in_eight_bits(&gpu, y, seed % 2 == 0, 1e-5);
    }
}

#[test]
fn rms_norm_of_the_first_columns() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(2);
    for seed in 0..8 {
        let (rows, cols, more) = (random.int(1..40), random.int(1..600), random.int(0..70));
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let x = case.input("x", extent, cols + more);
        let w = case.graph.weight("w", Elem::F32, 1, cols);
        ops::rms_norm_part(&mut case.graph, x, w, random.pick(&[1e-6, 1e-20]), cols);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn layer_norm() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    for seed in 0..8 {
        let (rows, cols) = (random.int(1..40), random.int(2..600));
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS]);
        let mut case = Case::new(seed, StepSize { rows, outs: rows });
        let x = case.input("x", extent, cols);
        // Far from zero, too, where the square of the mean dwarfs the variance.
        let shift = random.pick(&[0.0, 10.0]);
        let n = extent.at(case.step) * cols;
        case.set(x, Data::F32(random.floats(n).iter().map(|v| v + shift).collect()));
        let [w, b] = ["w", "b"].map(|name| case.graph.weight(name, Elem::F32, 1, cols));
        ops::layer_norm(&mut case.graph, x, w, b, 1e-6);
        // There plain sums of the values lose digits that their differences need.
        case.check(&gpu, if shift > 0.0 { 1e-4 } else { 1e-5 });
    }
}
