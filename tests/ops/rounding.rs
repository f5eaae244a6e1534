//! Rounding activations to narrow formats: exact, or not at all.

use std::path::Path;

use fathom::graph::reference::{Data, Host, Store};
use fathom::graph::{Elem, Extent, Graph, StepSize};
use fathom::ops::{self, ActRound, Closed, Narrow};
use safetensors::SafeTensors;

use crate::attention::{rows, sequences, total};
use crate::common::{Case, Random, gpu};

/// Numbers of very different sizes in rows of `cols`: some rows full of ties, some of subnormals,
/// some of zeros of both signs.
fn numbers(random: &mut Random, rows: usize, cols: usize) -> Vec<f32> {
    let mut all = vec![];
    for row in 0..rows {
        let size = 2f32.powi(random.int(0..50) as i32 - 30);
        for _ in 0..cols {
            let v = random.float();
            all.push(match row % 5 {
                0 => (v * 40.0).round() * size,
                1 => v * size * (10.0 * v).exp(),
                2 if random.int(0..40) > 0 => v * 1e-38,
                3 if row % 2 == 0 => v * 0.0,
                _ => v * size,
            });
        }
    }
    all
}

#[test]
fn act_round() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(40);
    for seed in 0..12 {
        let (n, heads) = (random.int(1..9), random.pick(&[1, 1, 3]));
        let dims = random.pick(&[1, 24, 128, 512, 1300]);
        let group = random.pick(&[1, 32, 64, 128, 24, 512]);
        let to = random.pick(&[Narrow::E4m3, Narrow::E2m1]);
        let extent = random.pick(&[Extent::ROWS, Extent::OUTS, Extent::rows(2)]);
        let mut case = Case::new(seed, StepSize { rows: n, outs: n });
        let x = case.input("x", extent, heads * dims);
        case.set(x, Data::F32(numbers(&mut random, extent.at(case.step) * heads, dims)));
        if seed % 2 == 0 {
            let cols = random.int(1..dims + 1);
            let r = ActRound { heads, cols, group, to, rotate: false };
            ops::act_round_in_place(&mut case.graph, x, r);
        } else {
            let r = ActRound { heads, cols: dims, group, to, rotate: false };
            ops::act_round(&mut case.graph, x, r);
        }
        case.check(&gpu, 0.0);
    }
}

#[test]
fn act_round_after_rotation() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(41);
    for seed in 0..8 {
        let (n, heads) = (random.int(1..9), random.pick(&[1, 5]));
        let dims = [128, 512, 1, 2, 16, 64, 128, 256][seed as usize];
        let to = random.pick(&[Narrow::E4m3, Narrow::E2m1]);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let x = case.input("x", Extent::ROWS, heads * dims);
        let r = ActRound { heads, cols: dims, group: 32, to, rotate: true };
        match seed % 2 {
            0 => ops::act_round_in_place(&mut case.graph, x, r),
            _ => _ = ops::act_round(&mut case.graph, x, r),
        }
        // Sums in the same order, and no product to fuse with them: the same bits.
        case.check(&gpu, 0.0);
    }
}

#[test]
fn act_round_of_closed_entries() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(42);
    for seed in 0..6 {
        let (ratio, dims) = (random.pick(&[1, 2, 4, 128]), random.pick(&[16, 128]));
        let of = sequences(&mut random, 3, 2 * ratio + 3, 10 * ratio);
        let entries = 10 + random.int(0..9);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let closed = Closed { rows: rows(&mut case, &of, 1), entries, ratio };
        let cache = case.graph.state("cache", 3 * entries, dims);
        let (rotate, cols) = (seed % 2 == 0, dims - if seed % 2 == 0 { 0 } else { 8 });
        let r = ActRound { heads: 1, cols, group: 32, to: Narrow::E2m1, rotate };
        ops::act_round_closed(&mut case.graph, cache, closed, r);
        case.check(&gpu, 0.0);
    }
}

/// Places of a ring are entries of one position each.
#[test]
fn act_round_in_a_ring() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(43);
    for seed in 0..4 {
        let (cap, dims) = (random.int(5..20), random.pick(&[16, 128]));
        let of = sequences(&mut random, 3, 5, 100);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let closed = Closed { rows: rows(&mut case, &of, 1), entries: cap, ratio: 1 };
        let ring = case.graph.state("ring", 3 * cap, dims);
        let r = ActRound { heads: 1, cols: dims, group: 64, to: Narrow::E4m3, rotate: false };
        ops::act_round_closed(&mut case.graph, ring, closed, r);
        case.check(&gpu, 0.0);
    }
}

/// What the reference functions make of `x` `[n, cols]`.
fn rounded(x: &[f32], cols: usize, r: ActRound) -> Vec<f32> {
    let step = StepSize { rows: x.len() / cols, outs: 1 };
    let mut g = Graph::new("rounding", step);
    let input = g.input("x", Elem::F32, Extent::ROWS, cols);
    let y = ops::act_round(&mut g, input, r);
    let store = Store::default();
    let host = Host::new(&g, &store, step, [(input, Data::F32(x.to_vec()))]);
    host.run();
    host.f32(y).to_vec()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn fp8_is_rounded_as_torch_rounds_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/act_round");
    let bytes = std::fs::read(path.join("e4m3.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats =
        |name| -> Vec<f32> { bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data()) };
    let r = ActRound { heads: 1, cols: 64, group: 64, to: Narrow::E4m3, rotate: false };
    assert_eq!(bits(&rounded(&floats("x"), 64, r)), bits(&floats("y")));
}

/// Against a search among all 16 numbers of the format, in double precision.
#[test]
fn fp4_is_rounded_to_the_nearest_even() {
    // By their codes: neighbours have codes of different parity.
    let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let mut random = Random::new(43);
    let x = numbers(&mut random, 500, 32);
    let r = ActRound { heads: 1, cols: 32, group: 32, to: Narrow::E2m1, rotate: false };
    let got = rounded(&x, 32, r);
    for (x, got) in x.chunks(32).zip(got.chunks(32)) {
        let top = x.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
        let scale = (top.max(6.0 * 2f64.powi(-126)) / 6.0).log2().ceil().exp2();
        for (&x, &got) in x.iter().zip(got) {
            let size = f64::from(x.abs()) / scale;
            let apart = |code: &usize| ((values[*code] - size).abs(), code % 2);
            let best = (0..8).min_by(|a, b| apart(a).partial_cmp(&apart(b)).unwrap()).unwrap();
            let expected = (values[best] * scale) as f32;
            assert_eq!(got.to_bits(), expected.copysign(x).to_bits(), "{x:e} under {scale:e}");
        }
    }
}

/// Against the matrix itself, in double precision, wherever that is not too near a tie.
#[test]
fn a_head_is_rotated_before() {
    let mut random = Random::new(44);
    for dims in [1, 2, 64, 128, 512] {
        let x = random.floats(dims);
        let r = ActRound { heads: 1, cols: dims, group: 32, to: Narrow::E4m3, rotate: true };
        let got = rounded(&x, dims, r);
        let sign = |i: usize, j: usize| 1.0 - 2.0 * f64::from((i & j).count_ones() % 2);
        let row = |i| (0..dims).map(|j| sign(i, j) * f64::from(x[j])).sum::<f64>();
        let product: Vec<f64> = (0..dims).map(|i| row(i) / (dims as f64).sqrt()).collect();
        let [below, above] = [-1e-5, 1e-5].map(|by| {
            let moved: Vec<f32> = product.iter().map(|v| (v * (1.0 + by)) as f32).collect();
            rounded(&moved, dims, ActRound { rotate: false, ..r })
        });
        let mut compared = 0;
        for ((got, a), b) in got.iter().zip(&below).zip(&above) {
            if a == b {
                assert_eq!(got, a);
                compared += 1;
            }
        }
        assert!(compared * 10 >= dims * 9, "{compared} of {dims}");
    }
}
