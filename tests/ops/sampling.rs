//! Sampling.

use fathom::graph::reference::{Data, Host, Store};
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops;

use crate::common::{Case, Random, gpu};

/// What a request asks of the sampler.
#[derive(Clone, Copy, Debug)]
struct Ask {
    top_k: usize,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    seed: u64,
    counter: u32,
}

impl Ask {
    fn words(&self) -> [u32; 8] {
        let [temperature, top_p, min_p] =
            [self.temperature, self.top_p, self.min_p].map(f32::to_bits);
        let (low, high) = (self.seed as u32, (self.seed >> 32) as u32);
        [0, self.top_k as u32, temperature, top_p, min_p, low, high, self.counter]
    }
}

/// The exact probabilities of all tokens, by the definition in double precision; none if a filter's
/// decision hangs on less than 1e-4.
fn probabilities(logits: &[f32], ask: &Ask) -> Option<Vec<f64>> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
    let top = f64::from(logits[order[0]]);
    let mass = |i: usize| ((f64::from(logits[i]) - top) / f64::from(ask.temperature)).exp();
    if ask.top_k > 0 {
        order.truncate(ask.top_k);
    }
    if ask.top_p < 1.0 {
        let total: f64 = order.iter().map(|&i| mass(i)).sum();
        let (mut sum, mut keep) = (0.0, 0);
        while keep == 0 || sum < f64::from(ask.top_p) * total {
            if keep > 0 && (sum / total - f64::from(ask.top_p)).abs() < 1e-4 {
                return None;
            }
            sum += mass(order[keep]);
            keep += 1;
        }
        if (sum / total - f64::from(ask.top_p)).abs() < 1e-4 {
            return None;
        }
        order.truncate(keep);
    }
    let min_p = f64::from(ask.min_p);
    if ask.min_p > 0.0 && order.iter().any(|&i| (mass(i) - min_p).abs() < 1e-4 * min_p) {
        return None;
    }
    order.retain(|&i| mass(i) >= min_p);
    let total: f64 = order.iter().map(|&i| mass(i)).sum();
    let mut p = vec![0.0; logits.len()];
    for i in order {
        p[i] = mass(i) / total;
    }
    Some(p)
}

/// The token of these probabilities, unless `u` lies within `margin` of where another one begins.
fn token(p: &[f64], ask: &Ask, margin: f64) -> Option<u32> {
    let u = f64::from(ops::uniform(ask.seed, ask.counter));
    let mut sum = 0.0;
    for (i, &p) in p.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        let from = sum;
        sum += p;
        if u < sum {
            let inner =
                (from == 0.0 || u - from > margin) && (sum > 1.0 - 1e-9 || sum - u > margin);
            return inner.then_some(i as u32);
        }
    }
    None
}

/// Checks GPU and reference against each other over rows of (logits, what is asked, the token that
/// must come).
fn check(seed: u64, rows: &[(Vec<f32>, Ask, u32)]) {
    let Some(gpu) = gpu() else { return };
    let vocab = rows[0].0.len();
    let mut case = Case::new(seed, StepSize { rows: 1, outs: rows.len() });
    let logits = case.input("logits", Extent::OUTS, vocab);
    let outs = case.graph.input("outs", Elem::U32, Extent::OUTS, 8);
    let tokens = ops::sample(&mut case.graph, logits, outs);
    let values = Data::F32(rows.iter().flat_map(|r| r.0.clone()).collect());
    let asked = Data::U32(rows.iter().flat_map(|r| r.1.words()).collect());
    let store = Store::default();
    let inputs = [(logits, values.clone()), (outs, asked.clone())];
    let host = Host::new(&case.graph, &store, case.step, inputs);
    host.run();
    for (&got, (_, ask, expected)) in host.u32(tokens).iter().zip(rows) {
        assert_eq!(got, *expected, "reference for {ask:?}");
    }
    drop(host);
    case.set(logits, values);
    case.set(outs, asked);
    case.check(&gpu, 0.0);
}

const GREEDY: Ask = Ask { top_k: 0, temperature: 0.0, top_p: 1.0, min_p: 0.0, seed: 0, counter: 0 };

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut random = Random::new(40);
    for (seed, vocab) in [1, 2, 255, 1000, 4099].into_iter().enumerate() {
        let rows: Vec<_> = (0..random.int(1..6))
            .map(|_| {
                let mut logits = random.floats(vocab);
                let best = random.int(0..vocab);
                logits[best] = 2.0;
                // An equal one behind it.
                logits[random.int(best..vocab)] = 2.0;
                (logits, GREEDY, best as u32)
            })
            .collect();
        check(seed as u64, &rows);
    }
}

#[test]
fn sample_obeys_its_filters() {
    let mut random = Random::new(41);
    for (seed, vocab) in [7, 300, 129_280, 50, 1, 4001].into_iter().enumerate() {
        let mut rows = vec![];
        let wanted = if vocab > 100_000 { 4 } else { 24 };
        while rows.len() < wanted {
            let spread = random.pick(&[1.0, 5.0, 12.0]);
            let logits: Vec<f32> = (0..vocab)
                .map(|_| match random.int(0..3) {
                    // Many equals, at some of which a filter will cut.
                    0 => (random.float() * 4.0).round() * spread / 4.0,
                    _ => random.float() * spread,
                })
                .collect();
            let ask = Ask {
                top_k: random.pick(&[0, 0, 1, 5, 40, vocab]),
                temperature: random.pick(&[0.3, 1.0, 1.7]),
                top_p: random.pick(&[1.0, 0.95, 0.5, 0.0]),
                min_p: random.pick(&[0.0, 0.0, 0.05, 0.3]),
                seed: random.int(0..usize::MAX) as u64,
                counter: random.int(0..1000) as u32,
            };
            let Some(p) = probabilities(&logits, &ask) else { continue };
            // Wide vocabularies have no token that is far from the next.
            let margin = if vocab > 4000 { 2e-6 } else { 1e-5 };
            if let Some(token) = token(&p, &ask, margin) {
                rows.push((logits, ask, token));
            }
        }
        check(seed as u64, &rows);
    }
}

#[test]
fn sample_follows_the_distribution() {
    let logits = vec![0.5, -1.0, 2.0, 1.9, -30.0, 0.0, 0.5, 1.0];
    let ask = Ask { temperature: 0.8, top_p: 0.97, min_p: 0.01, seed: 0x1234_5678_9abc, ..GREEDY };
    let p = probabilities(&logits, &ask).unwrap();
    let n = 3000;
    let mut rows = vec![];
    let mut counts = vec![0.0; logits.len()];
    for counter in 0..n {
        let ask = Ask { counter, ..ask };
        // Draws this near a boundary (about one in a thousand) are left to chance.
        if let Some(token) = token(&p, &ask, 1e-4) {
            counts[token as usize] += 1.0;
            rows.push((logits.clone(), ask, token));
        }
    }
    check(50, &rows);
    let n = f64::from(n);
    for (i, (count, p)) in counts.iter().zip(&p).enumerate() {
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!(
            (count - n * p).abs() < 4.0 * sigma + 0.002 * n,
            "token {i}: {count} of {n}, p {p}"
        );
    }
}
