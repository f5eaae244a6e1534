//! Norms.

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
        let x = case.input("x", Extent::rows(per), cols);
        let w = case.graph.weight("w", Elem::F32, 1, cols);
        ops::rms_norm(&mut case.graph, x, w, random.pick(&[1e-6, 1e-20]));
        case.check(&gpu, 1e-5);
    }
}
