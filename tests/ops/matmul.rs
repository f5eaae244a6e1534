//! Matrix products, dense and by expert.

use fathom::gpu::Limits;
use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops::{self, Chosen, EXPERT_TILE, Extra};

use crate::common::{Case, Random, gpu};

const FORMATS: [Elem; 3] = [Elem::F32, Elem::F16, Elem::BF16];

#[test]
fn dense() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(1);
    for seed in 0..24 {
        let rows = random.pick(&[1, 2, 3, 7, 8, 9, 33, 70]);
        let groups = random.pick(&[1, 1, 2, 3]);
        let k = random.pick(&[1, 5, 8, 31, 40, 128, 200]);
        let n = groups * random.int(1..90);
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        let g = &mut case.graph;
        let x = g.input("x", Elem::F32, Extent::ROWS, groups * k);
        let w = g.weight("w", random.pick(&FORMATS), n, k);
        let bias = (seed % 2 == 0).then(|| g.weight("bias", Elem::F32, 1, n));
        let residual = (seed % 3 == 0).then(|| g.input("residual", Elem::F32, Extent::ROWS, n));
        ops::matmul_with(g, x, w, Extra { groups, bias, residual, output: None });
        case.check(&gpu, 1e-5);
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

/// Both halves of the experts: decode with a row-wise kernel, prefill by tiles, whole or in parts.
#[test]
fn experts() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    for seed in 0..16 {
        let rows = random.pick(&[1, 3, 9, 40, 130]);
        let experts = random.int(2..12);
        let k = random.int(1..experts.min(4) + 1);
        let (d, i) = (random.pick(&[8, 24, 33]), random.pick(&[5, 16, 70]));
        let mut case = Case::new(seed, StepSize { rows, outs: 1 });
        let g = &mut case.graph;
        let elem = random.pick(&FORMATS);
        let x = g.input("x", Elem::F32, Extent::ROWS, d);
        let w1 = g.bank("w1", elem, experts * i, d, i);
        let w3 = g.bank("w3", elem, experts * i, d, i);
        let w2 = g.bank("w2", elem, experts * d, i, d);
        let ids = g.input("ids", Elem::U32, Extent::ROWS, k);
        let weights = g.input("weights", Elem::F32, Extent::ROWS, k);
        let pages = g.weight("pages", Elem::U32, 1, experts);
        let sorted = g.input("sorted", Elem::U32, Extent::rows(k), 1);
        let tiles = g.input("tiles", Elem::U32, Extent { per_row: k, per_out: 0, fixed: 1 }, 4);
        let chosen = Chosen { ids, weights, pages, tiles: (rows > 8).then_some((sorted, tiles)) };
        let h = ops::expert_gate_up(g, x, w1, w3, chosen, 0.5);
        ops::expert_down(g, h, w2, chosen);

        // Some experts get nothing, so that empty ones are met.
        let of_slot = random.ints(rows * k, 0..experts.div_ceil(2));
        let mut by_expert: Vec<u32> = (0..(rows * k) as u32).collect();
        by_expert.sort_by_key(|&s| of_slot[s as usize]);
        let mut list = vec![[0; 4]; rows * k + 1];
        let mut count = 0;
        for e in 0..experts as u32 {
            let first = by_expert.partition_point(|&s| of_slot[s as usize] < e);
            let end = by_expert.partition_point(|&s| of_slot[s as usize] <= e);
            for at in (first..end).step_by(EXPERT_TILE) {
                count += 1;
                list[count] = [e, at as u32, (end - at).min(EXPERT_TILE) as u32, 0];
            }
        }
        list[0][0] = count as u32;
        let page_of: Vec<u32> = (0..experts as u32).rev().collect();
        case.set(ids, Data::U32(of_slot));
        case.set(pages, Data::U32(page_of));
        case.set(sorted, Data::U32(by_expert));
        case.set(tiles, Data::U32(list.concat()));
        // Two experts a part.
        let limits = Limits { max_binding_bytes: (2 * i.max(d) * 80 * 4) as u64, ..gpu.limits };
        if seed % 2 == 0 {
            case.check(&gpu, 2e-5);
        } else {
            case.check_with(&gpu, &[limits], 2e-5);
        }
    }
}
