//! Every candidate of every choice, against the references.

use std::collections::HashSet;
use std::time::Duration;

use fathom::formats::BlockFormat;
use fathom::gpu::{Choice, Gpu, Limits, Tuning};
use fathom::graph::{Elem, Extent, StepSize, fuse};
use fathom::ops::{self, CausalAttention, CodeOrder, Extra, Slice, Slices};
use fathom::runtime::tune::{tune, usual_cases};

use crate::attention::rows;
use crate::common::{Case, Random, gpu, with_matrices};
use crate::matmul::Experts;

/// Checks `case` with all kernels that tunings make of it, this device's own and those of the core tier.
fn check(case: Case, gpu: &Gpu, tolerance: f64) {
    let core = Limits { max_binding_bytes: gpu.limits.max_binding_bytes, ..Limits::CORE };
    let mut seen = HashSet::new();
    let mut tiers = vec![];
    for limits in [gpu.limits, core] {
        for tuning in Tuning::all() {
            let limits = Limits { tuning, ..limits };
            let kernels =
                case.graph.nodes().iter().flat_map(|n| n.op.kernels(&case.graph, &limits));
            if seen.insert(kernels.map(|k| format!("{k:?} {:?}", k.params)).collect::<Vec<_>>()) {
                tiers.push(limits);
            }
        }
    }
    assert!(tiers.len() > 1, "nothing to choose");
    case.check_with(gpu, &tiers, tolerance);
}

/// Formats that are read in different ways.
const FORMATS: [Elem; 4] =
    [Elem::F32, Elem::BF16, Elem::Block(BlockFormat::Q4_1), Elem::Block(BlockFormat::Q6K)];

#[test]
fn products() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(31);
    // By few rows, and by many: steps that are small too.
    for (most, rows) in [(1, 1), (8, 5), (40, 37), (40, 13)] {
        let elem = random.pick(&FORMATS);
        let large = most > 8;
        let inner = random.cols(elem, if large { &[256, 300] } else { &[33, 96, 200] });
        let outputs = if large { random.int(257..310) } else { random.int(1..90) };
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        case.graph.max.rows = most;
        let bias = case.graph.weight("bias", Elem::F32, 1, outputs);
        let w = case.graph.weight("w", elem, outputs, inner);
        let x = case.input("x", Extent::ROWS, inner);
        let residual = Some(case.input("residual", Extent::ROWS, outputs));
        let extra = Extra { bias: Some(bias), residual, ..Extra::default() };
        ops::matmul_with(&mut case.graph, x, w, extra);
        check(case, &gpu, 1e-5);
    }
}

/// Each format's class, by few rows and by many.
#[test]
fn products_of_all_classes() {
    let Some(gpu) = gpu() else { return };
    for (seed, (format, eight_bits)) in
        [(None, false), (Some(BlockFormat::Q4_0), false), (Some(BlockFormat::Q8_0), true)]
            .into_iter()
            .enumerate()
    {
        let elem = format.map_or(Elem::F16, Elem::Block);
        // Large tiles are slow to compile, and differ in their sizes alone.
        let last = if eight_bits { 3 } else { 2 };
        for &(rows, outputs, inner) in &[(2, 2050, 32), (1, 16_390, 32), (33, 2050, 256)][..last] {
            let mut case = Case::new(seed as u64, StepSize { rows, outs: 1 });
            let w = case.graph.weight("w", elem, outputs, inner);
            let mut x = case.input("x", Extent::ROWS, inner);
            if let Some(order) = CodeOrder::of(elem).filter(|_| eight_bits) {
                x = ops::quantize_activations(&mut case.graph, x, order);
            }
            ops::matmul(&mut case.graph, x, w);
            check(case, &gpu, 1e-5);
        }
    }
}

/// Of floats, of blocks and in 8 bits, with experts that have large tiles, small ones and none.
#[test]
fn products_of_experts() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(7);
    let formats = [
        (Elem::BF16, false),
        (Elem::Block(BlockFormat::Q4K), false),
        (Elem::Block(BlockFormat::Q4K), true),
        (Elem::Block(BlockFormat::Q8_0), true),
    ];
    for (elem, eight_bits) in formats {
        let sides = [256, 512].map(|n| if elem == Elem::BF16 { n + 36 } else { n });
        let of = Experts { elem, eight_bits, rows: 90, most: 90, experts: 6, k: 2, sides };
        check(of.case(&mut random), &gpu, 2e-5);
    }
}

/// Tiles of cooperative matrices are chosen for those in f16 too, which are not used unasked.
#[test]
fn matrices_are_tuned() {
    let Some(mut gpu) = gpu() else { return };
    if with_matrices(&gpu, gpu.limits).is_none() {
        return;
    }
    // Software adapters have other kernels.
    gpu.limits = gpu.limits.of_hardware();
    let choices = Choice::all().filter(|c| c.kernel() == "matmul_matrices");
    let measured = tune(&gpu, usual_cases(choices, true), Duration::ZERO, &mut |_, _| ()).unwrap();
    let classes: Vec<_> = measured.iter().map(|m| (&*m.class, m.candidates.len())).collect();
    let wanted = [
        ("f16, few rows or small", 4),
        ("f16, below 2048 outputs", 5),
        ("f16, 2048 outputs or more", 5),
        ("experts, f16", 3),
    ];
    assert_eq!(classes, wanted);
}

/// With the norm before them and the gate after them.
#[test]
fn gated_products() {
    let Some(gpu) = gpu() else { return };
    for (rows, elem) in [(1, Elem::BF16), (4, Elem::Block(BlockFormat::Q5_1))] {
        let (inner, half) = (288, 301);
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, inner);
        let g = &mut case.graph;
        let (norm, w) =
            (g.weight("norm", Elem::F32, 1, inner), g.weight("w", elem, 2 * half, inner));
        let n = ops::rms_norm(g, x, norm, 1e-2);
        let both = ops::matmul(g, n, w);
        ops::swiglu(g, both, None, 0.5);
        fuse(g);
        assert_eq!(g.nodes().len(), 1);
        check(case, &gpu, 2e-5);
    }
}

#[test]
fn transposed_products() {
    let Some(gpu) = gpu() else { return };
    for (rows, columns, elem) in [(1, 70, Elem::F32), (3, 544, Elem::Block(BlockFormat::Q8_0))] {
        let (groups, inner) = (3, 21);
        let mut case = Case::new(rows as u64, StepSize { rows, outs: 1 });
        let x = case.input("x", Extent::ROWS, groups * inner);
        let w = case.graph.weight("w", elem, groups * inner, columns);
        let of = |step| Slice { step, at: 0 };
        let slices = Slices { x: of(inner), w: of(inner), y: of(columns), outputs: columns };
        ops::matmul_transposed(&mut case.graph, x, w, groups, inner, slices, None);
        check(case, &gpu, 1e-5);
    }
}

/// So many keys that they are gone through in parts: of two sequences, one of them short.
#[test]
fn attention_in_parts() {
    let Some(gpu) = gpu() else { return };
    let (heads, dim, context) = (6, 40, 1100);
    let mut case = Case::new(5, StepSize { rows: 2, outs: 1 });
    let of = [(0, 1090, 1), (1, 3, 1)];
    let q = case.input("q", Extent::ROWS, heads * dim);
    let [keys, values] =
        ["keys", "values"].map(|name| case.graph.state(name, 2 * context, 2 * dim));
    let a = CausalAttention {
        rows: rows(&mut case, &of, 1),
        q,
        keys,
        values: Some(values),
        value_dim: dim,
        heads,
        groups: 2,
        context,
        scale: (dim as f32).sqrt().recip(),
        select: None,
    };
    ops::causal_attention(&mut case.graph, a);
    check(case, &gpu, 1e-5);

    let (heads, dim, window) = (5, 72, 700);
    let mut case = Case::new(6, StepSize { rows: 2, outs: 1 });
    let a = ops::Attention {
        rows: rows(&mut case, &of, window),
        q: case.input("q", Extent::ROWS, heads * dim),
        table: case.input("table", Extent::ROWS, 24),
        ring: case.graph.state("ring", 2 * window, dim),
        cap: window,
        window,
        compressed: None,
        sinks: case.graph.weight("sinks", Elem::F32, 1, heads),
        heads,
        scale: (dim as f32).sqrt().recip(),
    };
    ops::attention(&mut case.graph, a);
    check(case, &gpu, 1e-5);
}
