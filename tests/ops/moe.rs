//! Routing and the experts' bookkeeping.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize, TensorId};
use fathom::ops::{self, TileSizes};

use crate::common::{Case, Random, gpu};

/// Scores in double precision.
fn scores(score: ops::Score, logits: &[f32]) -> Vec<f64> {
    let exp = |x: &f32| f64::from(*x).exp();
    let each: Vec<f64> = match score {
        ops::Score::SqrtSoftplus => logits.iter().map(|x| exp(x).ln_1p().sqrt()).collect(),
        ops::Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + 1.0 / exp(x))).collect(),
        ops::Score::Softmax => logits.iter().map(exp).collect(),
    };
    let sum = if score == ops::Score::Softmax { each.iter().sum() } else { 1.0 };
    each.into_iter().map(|s| s / sum).collect()
}

/// Whether the `n` largest of `values` lie so far apart, and from the rest, that rounding cannot
/// swap them. With `among`, they may be swapped among themselves.
fn clear(values: &[f64], n: usize, among: bool) -> bool {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let size = sorted[0].abs();
    let first = if among { n - 1 } else { 0 };
    sorted.windows(2).take(n).skip(first).all(|w| w[0] - w[1] > 2e-6 * size)
}

/// Logits of which rounding does not decide what is chosen.
fn clear_logits(random: &mut Random, r: &ops::Route, bias: &[f32], scale: (f32, f32)) -> Vec<f32> {
    loop {
        let logits: Vec<f32> = bias.iter().map(|_| random.float() * scale.0 + scale.1).collect();
        let s = scores(r.score, &logits);
        let mut keys: Vec<f64> = s.iter().zip(bias).map(|(s, &b)| s + f64::from(b)).collect();
        if let Some(groups) = r.groups {
            let each = keys.len() / groups.n;
            let worth = |g: &[f64]| {
                let mut g = g.to_vec();
                g.sort_by(|a, b| b.total_cmp(a));
                let count = if groups.rank == ops::GroupRank::Max { 1 } else { 2 };
                g.iter().take(count).sum::<f64>()
            };
            let worths: Vec<f64> = keys.chunks(each).map(worth).collect();
            if !clear(&worths, groups.top, true) {
                continue;
            }
            let mut order: Vec<usize> = (0..groups.n).collect();
            order.sort_by(|&a, &b| worths[b].total_cmp(&worths[a]));
            keys = order[..groups.top]
                .iter()
                .flat_map(|g| keys[g * each..(g + 1) * each].to_vec())
                .collect();
        }
        if clear(&keys, r.k, false) {
            return logits;
        }
    }
}

/// Six experts by V4's rule.
fn plain(rows: TensorId, logits: TensorId) -> ops::Route {
    ops::Route {
        rows,
        logits,
        bias: None,
        image_bias: None,
        hash: None,
        k: 6,
        score: ops::Score::SqrtSoftplus,
        groups: None,
        normalise: true,
        scale: 1.5,
    }
}

#[test]
fn route() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(30);
    for seed in 0..12 {
        let experts = if seed == 0 { 512 } else { random.int(1..400) };
        let (n, vocab) = (random.int(1..20), 50);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let bias = random.floats(experts);
        let image_bias = random.floats(experts);
        let has_bias = seed % 2 == 0;
        let has_image_bias = seed % 3 == 0;
        let has_hash = seed % 4 >= 2;
        let zero = vec![0.0; experts];
        let usual = if has_bias { &bias } else { &zero };
        // Moderate scores, large ones, and ones that vanish next to 1 (then without a bias, which
        // would drown them).
        let scale = match seed {
            1 | 7 => (30.0, -45.0),
            _ => random.pick(&[(3.0, 0.0), (100.0, 50.0), (8.0, -3.0)]),
        };
        let g = &mut case.graph;
        let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
        let logits = g.input("logits", Elem::F32, Extent::ROWS, experts);
        let k = random.int(1..experts.min(16) + 1);
        let r = ops::Route {
            bias: has_bias.then(|| g.weight("bias", Elem::F32, 1, experts)),
            image_bias: has_image_bias.then(|| g.weight("image", Elem::F32, 1, experts)),
            hash: has_hash.then(|| g.weight("hash", Elem::U32, vocab, k)),
            k,
            scale: random.pick(&[1.0, 2.5]),
            ..plain(rows, logits)
        };
        ops::route(g, r);
        let (mut words, mut logits) = (vec![], vec![]);
        for t in 0..n {
            let kind = if t % 3 == 2 { 1 + random.int(0..5) } else { 0 };
            words.extend([0, t, random.int(0..vocab), kind, 0, 0, 0, 0].map(|w| w as u32));
            let used = if kind != 0 && has_image_bias { &image_bias } else { usual };
            logits.extend(clear_logits(&mut random, &r, used, scale));
        }
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
        case.check(&gpu, if scale.1 < -40.0 { 1e-4 } else { 1e-5 });
    }
}

#[test]
fn route_of_other_scores_and_groups() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(33);
    for seed in 0..12 {
        let score = [ops::Score::Sigmoid, ops::Score::Softmax][seed as usize % 2];
        let rank = if seed % 4 < 2 { ops::GroupRank::TopTwo } else { ops::GroupRank::Max };
        // Those of V3 and V2; then groups of one expert too.
        let (of, each) = match seed {
            0 => (8, 32),
            1 => (8, 20),
            _ => (random.int(1..9), random.int(1..30)),
        };
        let (experts, top) = (of * each, random.int(1..of + 1));
        let groups = (seed < 8).then_some(ops::Groups { n: of, top, rank });
        let most = if groups.is_some() { top * each } else { experts };
        let k = random.int(1..most.min(16) + 1);
        let n = random.int(1..20);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let g = &mut case.graph;
        let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
        let logits = g.input("logits", Elem::F32, Extent::ROWS, experts);
        let bias = (seed % 3 > 0).then(|| g.weight("bias", Elem::F32, 1, experts));
        let (normalise, scale) = (random.int(0..2) == 1, random.pick(&[1.0, 2.5]));
        let r = ops::Route { bias, k, score, groups, normalise, scale, ..plain(rows, logits) };
        ops::route(g, r);
        // Below zero now and then: what is dropped must stay behind that.
        let below = random.pick(&[0.0, 1.5]);
        let values: Vec<f32> = match bias {
            Some(_) => random.floats(experts).into_iter().map(|b| b - below).collect(),
            None => vec![0.0; experts],
        };
        let spread = random.pick(&[(2.0, 0.0), (8.0, -3.0)]);
        let all = (0..n).flat_map(|_| clear_logits(&mut random, &r, &values, spread)).collect();
        case.set(logits, Data::F32(all));
        if let Some(id) = bias {
            case.set(id, Data::F32(values));
        }
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn route_takes_the_lower_of_equals_and_survives_vanishing_scores() {
    let Some(gpu) = gpu() else { return };
    for (seed, logit) in [(0, 0.7), (1, -500.0)] {
        let mut case = Case::new(seed, StepSize { rows: 3, outs: 1 });
        let g = &mut case.graph;
        let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
        let logits = g.input("logits", Elem::F32, Extent::ROWS, 300);
        ops::route(g, plain(rows, logits));
        let rank = ops::GroupRank::TopTwo;
        let groups = Some(ops::Groups { n: 10, top: 2, rank });
        let score = ops::Score::Sigmoid;
        ops::route(g, ops::Route { score, groups, ..plain(rows, logits) });
        case.set(logits, Data::F32(vec![logit; 900]));
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
        let small = random.pick(&[1, 4, 8, 16, 17]);
        let large = small * random.pick(&[1, 2, 3, 4]);
        ops::expert_tiles(&mut case.graph, ids, experts, TileSizes { small, large });
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
