//! Rings, compression and attention.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize, TensorId};
use fathom::ops;

use crate::common::{Case, Random, gpu};
use crate::streams::angles;

/// Token rows: for each sequence its slot, its first position in the step and its rows.
pub fn rows(case: &mut Case, sequences: &[(usize, usize, usize)], window: usize) -> TensorId {
    let mut words = vec![];
    for &(slot, start, n) in sequences {
        for p in start..start + n {
            let first = (p + 1).saturating_sub(window);
            words.extend([slot, p, 0, 0, 0, first, p, 0].map(|w| w as u32));
        }
    }
    let id = case.graph.input("rows", Elem::U32, Extent::ROWS, 8);
    case.set(id, Data::U32(words));
    id
}

/// One to three sequences in slots of their own, each with up to `most` rows.
pub fn sequences(
    random: &mut Random,
    slots: usize,
    most: usize,
    positions: usize,
) -> Vec<(usize, usize, usize)> {
    let mut free: Vec<usize> = (0..slots).collect();
    (0..random.int(1..slots.min(3) + 1))
        .map(|_| {
            let slot = free.remove(random.int(0..free.len()));
            let n = random.int(1..most + 1);
            (slot, random.int(0..positions - n + 1), n)
        })
        .collect()
}

pub fn total(sequences: &[(usize, usize, usize)]) -> usize {
    sequences.iter().map(|s| s.2).sum()
}

pub fn scaled(random: &mut Random, n: usize, by: f32) -> Data {
    Data::F32((0..n).map(|_| random.float() * by).collect())
}

#[test]
fn ring_write() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(10);
    for seed in 0..8 {
        let (slots, cols, cap) = (random.int(1..5), random.int(1..300), random.int(1..40));
        let of = sequences(&mut random, slots, cap, 1000);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let rows = rows(&mut case, &of, 1);
        let src = case.input("src", Extent::ROWS, cols);
        let ring = case.graph.state("ring", slots * cap, cols);
        ops::ring_write(&mut case.graph, rows, src, ring, cap);
        case.check(&gpu, 0.0);
    }
}

#[test]
fn latent_keep() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(16);
    for seed in 0..10 {
        let (slots, cap) = (random.int(1..4), random.int(9..40));
        let (heads, index_heads) = (random.pick(&[1, 3, 8]), random.pick(&[0, 1, 5]));
        let rope = 2 * random.int(1..40);
        let (dims, index_dims) = (rope + random.pick(&[0, 1, 448]), rope + random.int(0..70));
        let of = sequences(&mut random, slots, 9, 1000);
        let n = total(&of);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let latent_at = random.pick(&[0, 3, 64]);
        let latent = case.input("latent", Extent::ROWS, latent_at + dims + random.int(0..9));
        let table = case.input("table", Extent::ROWS, rope);
        case.set(table, angles(&mut random, n, rope));
        let l = ops::LatentKeep {
            rows: rows(&mut case, &of, 1),
            q: case.input("q", Extent::ROWS, heads * dims + index_heads * index_dims),
            heads,
            index_heads,
            latent: ops::Columns { of: latent, at: latent_at },
            norm: case.graph.weight("norm", Elem::F32, 1, dims),
            table,
            ring: case.graph.state("ring", slots * cap, dims),
            cap,
            eps: random.pick(&[1e-6, 1e-20]),
        };
        ops::latent_keep(&mut case.graph, l);
        case.check(&gpu, 1e-5);
    }
}

#[test]
fn rope_keep() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(19);
    for seed in 0..8 {
        let (slots, context) = (random.int(1..4), random.int(10..60));
        let (groups, share) = (random.int(1..4), random.pick(&[1, 3, 8]));
        let dims = random.pick(&[2, 6, 64, 128]);
        let rope = random.pick(&[dims, dims, 2]);
        let of = sequences(&mut random, slots, 9, context);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let heads = groups * share;
        let r = ops::RopeKeep {
            rows: rows(&mut case, &of, 1),
            qkv: case.input("qkv", Extent::ROWS, (heads + 2 * groups) * dims),
            table: case.input("table", Extent::ROWS, rope),
            keys: case.graph.state("keys", slots * context, groups * dims),
            values: case.graph.state("values", slots * context, groups * dims),
            heads,
            groups,
            context,
            pairs: random.pick(&[ops::Pairs::Interleaved, ops::Pairs::Halves]),
        };
        ops::rope_keep(&mut case.graph, r);
        case.check(&gpu, 1e-6);
    }
}

#[test]
fn compress() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(11);
    for seed in 0..12 {
        let ratio = [4, 128, 1, 2, 3, 16][seed as usize % 6];
        let overlap = seed % 4 == 0 || seed == 7;
        let (slots, most) = (random.int(1..4), 2 * ratio + random.int(1..9));
        let pools = 1 + seed as usize / 2 % 2;
        let dims = [if seed == 0 { 512 } else { random.int(2..200) }, random.int(2..200)];
        let dims = &dims[..pools];
        // A table needs a column; rotating nothing is not an op anyone builds.
        let rd = 2 * random.int(1..dims.iter().min().unwrap() / 2 + 1);
        // Some start at position 0, so that the first window is among those closed.
        let mut of = sequences(&mut random, slots, most, 10 * ratio + most);
        if seed % 3 == 0 {
            of[0].1 = 0;
        }
        let (cap, entries) = (2 * ratio + most, 13 + most);
        let n = total(&of);
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let series = if overlap { 2 } else { 1 };
        let columns = dims.iter().map(|d| 2 * series * d).sum();
        let weights = dims.iter().map(|d| (ratio * series + 1) * d).sum();
        let spread = random.pick(&[1.0, 10.0, 300.0]);
        let at = random.int(0..9);
        let x = case.input("x", Extent::ROWS, at + columns + random.int(0..9));
        let len = n * case.graph.tensor(x).cols;
        case.set(x, scaled(&mut random, len, spread));
        let ring = case.graph.state("ring", slots * cap, columns);
        case.set(ring, scaled(&mut random, slots * cap * columns, spread));
        let cache =
            |(i, d): (usize, &usize)| case.graph.state(format!("cache {i}"), slots * entries, *d);
        let caches = dims.iter().enumerate().map(cache).collect();
        let c = ops::Compress {
            rows: rows(&mut case, &of, 1),
            x: ops::Columns { of: x, at },
            weights: case.graph.weight("weights", Elem::F32, 1, weights),
            table: case.input("table", Extent::ROWS, rd),
            ring,
            caches,
            cap,
            entries,
            ratio,
            overlap,
            eps: random.pick(&[1e-6, 1e-20]),
        };
        ops::compress(&mut case.graph, c);
        case.check(&gpu, 1e-5);
    }
}

/// Positions that leave more than 512 keys.
const MANY_KEYS: usize = 2100;

/// What a case attends to beside the window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beside {
    Nothing,
    AllEntries,
    Selected,
}

fn attention_case(seed: u64, d: usize, heads: usize, window: usize, reach: usize, beside: Beside) {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(seed);
    let slots = random.int(1..4);
    // Of few rows, many keys are gone through in parts.
    let most_rows = if reach > MANY_KEYS { 2 } else { 5 };
    let mut of = sequences(&mut random, slots, most_rows, reach + 5);
    // The last position there may be, so that the longest key list occurs.
    of[0].1 = reach;
    let rows_n = total(&of);
    let cap = window + 5 + random.int(0..7);
    let ratio = random.pick(&[1, 2, 4]);
    let entries = (reach + 10) / ratio + 1;
    let mut case = Case::new(seed, StepSize { rows: rows_n, outs: 1 });
    let rows_id = rows(&mut case, &of, window);
    // Beside them there may be others.
    let q_cols = heads * d + random.pick(&[0, 0, 1, 12]);
    let q = case.input("q", Extent::ROWS, q_cols);
    let spread = random.pick(&[1.0, 20.0]);
    case.set(q, scaled(&mut random, rows_n * q_cols, spread));
    let rope = 2 * random.int(1..d / 2 + 1);
    let table = case.input("table", Extent::ROWS, rope);
    case.set(table, angles(&mut random, rows_n, rope));
    let sinks = case.graph.weight("sinks", Elem::F32, 1, heads);
    case.set(sinks, scaled(&mut random, heads, random_sink(seed)));
    let compressed = (beside != Beside::Nothing).then(|| {
        let cache = case.graph.state("cache", slots * entries, d);
        let k = if reach > MANY_KEYS { 600 } else { random.int(1..70) };
        let select = (beside == Beside::Selected).then(|| {
            let id = case.graph.input("select", Elem::U32, Extent::ROWS, 1 + k);
            let mut words = vec![];
            for &(_, start, n) in &of {
                for p in start..start + n {
                    let seen = (p + 1) / ratio;
                    let count = k.min(seen);
                    let mut list = vec![count as u32];
                    list.extend((0..count).map(|i| (i * seen / count) as u32));
                    list.resize(1 + k, 0);
                    words.extend(list);
                }
            }
            case.set(id, Data::U32(words));
            id
        });
        ops::Compressed { cache, entries, ratio, select }
    });
    let a = ops::Attention {
        rows: rows_id,
        q,
        table,
        ring: case.graph.state("ring", slots * cap, d),
        cap,
        window,
        compressed,
        sinks,
        heads,
        scale: (d as f32).sqrt().recip(),
    };
    ops::attention(&mut case.graph, a);
    case.check(&gpu, 1e-5);
}

/// Sinks that hardly count, that count, and that swallow everything.
fn random_sink(seed: u64) -> f32 {
    [1.0, 0.0, 1e4][seed as usize % 3]
}

#[test]
fn attention_over_a_window() {
    let mut random = Random::new(12);
    for seed in 0..6 {
        let (d, heads) = (2 * random.int(1..75), random.int(1..20));
        let (window, reach) = (random.int(1..150), random.int(0..200));
        attention_case(seed, d, heads, window, reach, Beside::Nothing);
    }
}

#[test]
fn attention_over_a_window_and_entries() {
    let mut random = Random::new(13);
    for seed in 0..8 {
        let beside = if seed % 2 == 0 { Beside::AllEntries } else { Beside::Selected };
        let (d, heads) = (2 * random.int(1..75), random.pick(&[1, 3, 8, 13]));
        attention_case(seed, d, heads, random.int(1..40), random.int(0..300), beside);
    }
}

/// The rows of earlier positions have no keys in the last parts.
#[test]
fn attention_in_parts() {
    let mut random = Random::new(18);
    for seed in 0..6 {
        let beside = if seed % 2 == 0 { Beside::AllEntries } else { Beside::Selected };
        let (d, heads) = (random.pick(&[24, 64, 6]), random.pick(&[1, 5, 20]));
        let (window, reach) = (random.int(1..150), random.int(MANY_KEYS + 1..3000));
        attention_case(seed, d, heads, window, reach, beside);
    }
}

#[test]
fn attention_at_full_size() {
    attention_case(20, 512, 13, 128, 200, Beside::Selected);
    attention_case(21, 512, 13, 128, 3000, Beside::Selected);
    // Thousands of keys of many rows.
    attention_case(22, 64, 8, 3000, MANY_KEYS, Beside::AllEntries);
}

#[test]
fn topk() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(14);
    for seed in 0..10 {
        let reach = random.int(1..3000);
        let of = sequences(&mut random, 3, reach.min(9), reach);
        let (n, ratio) = (total(&of), random.pick(&[1, 2, 4]));
        let entries = (reach / ratio).max(1).next_multiple_of(random.pick(&[1, 4]));
        let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
        let rows = rows(&mut case, &of, 1);
        let scores = case.input("scores", Extent::ROWS, entries);
        let mut values = random.floats(n * entries);
        match seed % 4 {
            // Many ties, zeros of both signs among them.
            1 => {
                values.iter_mut().for_each(|v| *v = (*v * 3.0).round() * random.pick(&[0.5, -0.5]))
            }
            // All alike.
            2 => values.fill(-0.25),
            // Over many powers of two.
            3 => values.iter_mut().for_each(|v| *v = *v * (*v * 60.0).exp()),
            _ => {}
        }
        case.set(scores, Data::F32(values));
        let k = random.pick(&[1, 5, 64, 512, 33]);
        ops::topk(&mut case.graph, rows, scores, ratio, k);
        case.check(&gpu, 0.0);
    }
}

/// Among many scores, with and without what makes a guess wrong.
#[test]
fn topk_of_many() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(18);
    let near = |random: &mut Random, n: usize| n - random.int(0..5);
    for (seed, k) in
        [512, 1, 64, 1000, 1024, 1025, 2048, 512, 512, 512, 512, 512].iter().enumerate()
    {
        let entries = near(&mut random, if *k > 512 { 16_500 } else { 9000 });
        // Rows that see all of them, fewer than are many, and about as many.
        let reach = [entries, near(&mut random, 4000), near(&mut random, 4098)];
        let of: Vec<_> = reach.iter().enumerate().map(|(slot, &n)| (slot, n - 1, 1)).collect();
        let mut case = Case::new(seed as u64, StepSize { rows: of.len(), outs: 1 });
        let rows = rows(&mut case, &of, 1);
        let scores = case.input("scores", Extent::ROWS, entries);
        let mut values = random.floats(of.len() * entries);
        for (i, v) in values.iter_mut().enumerate() {
            let place = i % entries;
            match seed {
                // Few different numbers: too many are as large as the guess.
                7 => *v = (*v * 2.0).round(),
                // All that are large are in the sample, which has more of them than there are elsewhere.
                8 if place % 64 < 4 => *v += 10.0,
                // None are.
                9 if place % 64 >= 4 => *v += 10.0,
                // Side by side, at the end.
                10 if place > 3400 => *v += 10.0,
                // Rising, with ties.
                11 => *v = (place / 3) as f32,
                _ => {}
            }
        }
        case.set(scores, Data::F32(values));
        ops::topk(&mut case.graph, rows, scores, 1, *k);
        case.check(&gpu, 0.0);
    }
}

#[test]
fn index_scores() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(15);
    for seed in 0..7 {
        let (heads, dim) =
            if seed == 0 { (64, 128) } else { (random.int(1..20), random.int(1..90)) };
        let reach = random.int(1..500);
        let of = sequences(&mut random, 3, reach.min(4), reach);
        let ratio = random.pick(&[1, 2, 4]);
        let entries = (reach / ratio).max(1) + random.int(0..80);
        let q_at = random.pick(&[0, 4, 5]);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let i = ops::IndexScores {
            rows: rows(&mut case, &of, 1),
            q: ops::Columns { of: case.input("q", Extent::ROWS, q_at + heads * dim), at: q_at },
            weights: ops::Columns { of: case.input("weights", Extent::ROWS, 5 + heads), at: 2 },
            heads,
            keys: case.graph.state("keys", 3 * entries, dim),
            entries,
            ratio,
            scale: ((dim * heads) as f32).sqrt().recip(),
        };
        ops::index_scores(&mut case.graph, i);
        // Sums of up to 8,192 products, most of which cancel, in another order.
        case.check(&gpu, 2e-5);
    }
}

/// As many rows at a time as there is memory for: the same lists.
#[test]
fn index_topk_in_parts() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(17);
    for seed in 0..4 {
        let (heads, dim, ratio) = (20, 16, random.pick(&[1, 4]));
        let of = sequences(&mut random, 3, 20, 300);
        let entries = 300 / ratio + random.int(0..20);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let i = ops::IndexScores {
            rows: rows(&mut case, &of, 1),
            q: case.input("q", Extent::ROWS, heads * dim).into(),
            weights: case.input("weights", Extent::ROWS, heads).into(),
            heads,
            keys: case.graph.state("keys", 3 * entries, dim),
            entries,
            ratio,
            scale: 0.125,
        };
        // Numbers of few bits, so that the sums are exact and the lists the same.
        let few = |random: &mut Random, n: usize| {
            Data::F32((0..n).map(|_| (random.float() * 8.0).round()).collect())
        };
        case.set(i.q.of, few(&mut random, total(&of) * heads * dim));
        case.set(i.weights.of, few(&mut random, total(&of) * heads));
        case.set(i.keys, few(&mut random, 3 * entries * dim));
        let at_once = random.int(1..total(&of) + 2);
        ops::index_topk_in(&mut case.graph, i, random.int(1..70), 4 * entries * at_once);
        case.check(&gpu, 1e-5);
    }
}
