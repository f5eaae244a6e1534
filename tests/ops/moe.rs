//! Routing and the experts' bookkeeping.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops;

use crate::common::{Case, Random, gpu};

/// sqrt(ln(1 + e^x)) in double precision.
fn score(x: f32) -> f64 {
    f64::from(x).exp().ln_1p().sqrt()
}

/// Logits whose `k + 1` largest selection scores lie so far apart that rounding cannot swap them.
fn clear_logits(random: &mut Random, bias: &[f32], k: usize, spread: f32, shift: f32) -> Vec<f32> {
    loop {
        let logits: Vec<f32> = bias.iter().map(|_| random.float() * spread + shift).collect();
        let mut s: Vec<f64> =
            logits.iter().zip(bias).map(|(&x, &b)| score(x) + f64::from(b)).collect();
        s.sort_by(|a, b| b.total_cmp(a));
        let size = s[0].abs();
        if s.windows(2).take(k).all(|w| w[0] - w[1] > 2e-6 * size) {
            return logits;
        }
    }
}

#[test]
fn route() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(30);
    for seed in 0..12 {
        let experts = if seed == 0 { 512 } else { random.int(1..400) };
        let k = random.int(1..experts.min(16) + 1);
        let (n, vocab) = (random.int(1..20), 50);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let bias = random.floats(experts);
        let image_bias = random.floats(experts);
        let has_bias = seed % 2 == 0;
        let has_image_bias = seed % 3 == 0;
        let has_hash = seed % 4 >= 2;
        let zero = vec![0.0; experts];
        let plain = if has_bias { &bias } else { &zero };
        // Moderate scores, large ones, and ones that vanish next to 1 (then without a bias, which
        // would drown them).
        let (spread, shift) = match seed {
            1 | 7 => (30.0, -45.0),
            _ => random.pick(&[(3.0, 0.0), (100.0, 50.0), (8.0, -3.0)]),
        };
        let (mut words, mut logits) = (vec![], vec![]);
        for t in 0..n {
            let kind = if t % 3 == 2 { 1 + random.int(0..5) } else { 0 };
            words.extend([0, t, random.int(0..vocab), kind, 0, 0, 0, 0].map(|w| w as u32));
            let used = if kind != 0 && has_image_bias { &image_bias } else { plain };
            logits.extend(clear_logits(&mut random, used, k, spread, shift));
        }
        let g = &mut case.graph;
        let r = ops::Route {
            rows: g.input("rows", Elem::U32, Extent::ROWS, 8),
            logits: g.input("logits", Elem::F32, Extent::ROWS, experts),
            bias: has_bias.then(|| g.weight("bias", Elem::F32, 1, experts)),
            image_bias: has_image_bias.then(|| g.weight("image", Elem::F32, 1, experts)),
            hash: has_hash.then(|| g.weight("hash", Elem::U32, vocab, k)),
            k,
            scale: random.pick(&[1.0, 2.5]),
        };
        ops::route(g, r);
        case.set(r.rows, Data::U32(words));
        case.set(r.logits, Data::F32(logits));
        for (id, data) in [(r.bias, bias), (r.image_bias, image_bias)] {
            if let Some(id) = id {
                case.set(id, Data::F32(data));
            }
        }
        if let Some(id) = r.hash {
            case.set(id, Data::U32(random.ints(vocab * k, 0..experts)));
        }
        // e^x is only good to (3 + 2 |x|) units in the last place by WGSL's rules.
        case.check(&gpu, if shift < -40.0 { 1e-4 } else { 1e-5 });
    }
}

#[test]
fn route_takes_the_lower_of_equals_and_survives_vanishing_scores() {
    let Some(gpu) = gpu() else { return };
    for (seed, logit) in [(0, 0.7), (1, -500.0)] {
        let mut case = Case::new(seed, StepSize { rows: 3, outs: 1 });
        let g = &mut case.graph;
        let r = ops::Route {
            rows: g.input("rows", Elem::U32, Extent::ROWS, 8),
            logits: g.input("logits", Elem::F32, Extent::ROWS, 300),
            bias: None,
            image_bias: None,
            hash: None,
            k: 6,
            scale: 1.5,
        };
        ops::route(g, r);
        case.set(r.logits, Data::F32(vec![logit; 900]));
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn expert_tiles() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(31);
    for seed in 0..10 {
        let (experts, k) = (random.pick(&[1, 5, 256, 384, 512, 300]), random.int(1..9));
        let n = if seed < 2 { [1, 600][seed as usize] } else { random.int(1..130) };
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let ids = case.graph.input("ids", Elem::U32, Extent::ROWS, k);
        // Now and then all for a few experts.
        let few = random.int(1..experts + 1);
        let used = if seed % 3 == 0 { few } else { experts };
        case.set(ids, Data::U32(random.ints(n * k, experts - used..experts)));
        ops::expert_tiles(&mut case.graph, ids, experts, random.pick(&[1, 4, 8, 16, 17]));
        case.check(&gpu, 0.0);
    }
}

#[test]
fn combine() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(32);
    for seed in 0..6 {
        let (n, k, cols) = (random.int(1..20), random.int(1..9), random.int(1..700));
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let experts = case.input("experts", Extent::rows(k), cols);
        let shared = (seed % 2 == 0).then(|| case.input("shared", Extent::ROWS, cols));
        ops::combine(&mut case.graph, experts, k, shared);
        case.check(&gpu, 1e-6);
    }
}
