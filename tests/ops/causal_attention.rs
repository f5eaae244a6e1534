//! Attention over all positions of a sequence.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize};
use fathom::ops;

use crate::attention::{rows, scaled, sequences, total};
use crate::common::{Case, Random, gpu};

/// Heads, groups, widths of keys and values, and the furthest position.
struct Shape {
    heads: usize,
    groups: usize,
    dk: usize,
    /// Without it values are a part of their keys, as wide as is given beside.
    dv: (bool, usize),
    reach: usize,
}

fn check(seed: u64, shape: Shape, most_rows: usize, selects: bool) {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(seed);
    let Shape { heads, groups, dk, dv: (own, value_dim), reach } = shape;
    let slots = random.int(1..5);
    let context = reach + most_rows + random.int(0..7);
    let mut of = sequences(&mut random, slots, most_rows, reach + most_rows);
    // The last position there may be, so that the longest key list occurs.
    of[0].1 = reach;
    let n = total(&of);
    let mut case = Case::new(seed, StepSize { rows: n, outs: 1 });
    let rows = rows(&mut case, &of, 1);
    // Queries may be part of a wider matrix.
    let q_cols = heads * dk + random.pick(&[0, 0, 8, 3]);
    let q = case.input("q", Extent::ROWS, q_cols);
    let spread = random.pick(&[1.0, 20.0]);
    case.set(q, scaled(&mut random, n * q_cols, spread));
    let keys = case.graph.state("keys", slots * context, groups * dk);
    let values = own.then(|| case.graph.state("values", slots * context, groups * value_dim));
    let select = selects.then(|| {
        let k = random.int(1..70);
        let id = case.graph.input("select", Elem::U32, Extent::ROWS, 1 + k);
        let mut words = vec![];
        for &(_, start, n) in &of {
            for p in start..start + n {
                let count = k.min(p + 1);
                words.push(count as u32);
                words.extend(
                    (0..k).map(|i| if i < count { (i * (p + 1) / count) as u32 } else { 0 }),
                );
            }
        }
        case.set(id, Data::U32(words));
        id
    });
    let scale = (dk as f32).sqrt().recip();
    let a = ops::CausalAttention {
        rows,
        q,
        keys,
        values,
        value_dim,
        heads,
        groups,
        context,
        scale,
        select,
    };
    ops::causal_attention(&mut case.graph, a);
    case.check(&gpu, 1e-5);
}

#[test]
fn causal_attention_of_grouped_queries() {
    let mut random = Random::new(16);
    for seed in 0..8 {
        let (groups, share) = (random.int(1..5), random.pick(&[1, 2, 3, 7, 8]));
        let (dk, dv) = (random.pick(&[24, 40, 64, 1]), random.pick(&[24, 40, 64, 65]));
        let reach = random.int(0..200);
        let shape = Shape { heads: groups * share, groups, dk, dv: (true, dv), reach };
        check(seed, shape, random.pick(&[1, 5, 30]), seed % 4 == 3);
    }
}

/// So many keys that a row's are gone through in parts.
#[test]
fn causal_attention_in_parts() {
    let mut random = Random::new(18);
    for seed in 0..4 {
        let (groups, share) = (random.int(1..4), random.pick(&[1, 3, 8, 20]));
        let dk = random.pick(&[24, 64, 7]);
        let reach = random.int(600..1200);
        let shape = Shape { heads: groups * share, groups, dk, dv: (true, dk), reach };
        check(seed, shape, random.pick(&[1, 2]), false);
    }
}

#[test]
fn causal_attention_over_latents() {
    let mut random = Random::new(17);
    for seed in 0..6 {
        let dk = random.pick(&[24, 40, 72]);
        let (heads, dv) = (random.int(1..20), random.int(1..dk + 1));
        let shape = Shape { heads, groups: 1, dk, dv: (false, dv), reach: random.int(0..200) };
        check(seed, shape, random.pick(&[1, 5]), seed % 2 == 1);
    }
}

#[test]
fn causal_attention_at_full_size() {
    // MLA's latents.
    let mla = || Shape { heads: 128, groups: 1, dk: 576, dv: (false, 512), reach: 70 };
    check(20, mla(), 3, false);
    check(21, mla(), 3, true);
    // Of a prompt's rows, with more heads than go together.
    let prompt = || Shape { heads: 19, reach: 150, ..mla() };
    check(23, prompt(), 40, false);
    check(24, prompt(), 40, false);
    // Thousands of keys.
    check(22, Shape { heads: 6, groups: 2, dk: 64, dv: (true, 64), reach: 3000 }, 4, false);
}
