//! Rings, compression and attention.

use fathom::graph::reference::Data;
use fathom::graph::{Elem, Extent, StepSize, TensorId};
use fathom::ops;

use crate::common::{Case, Random, gpu};

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

fn total(sequences: &[(usize, usize, usize)]) -> usize {
    sequences.iter().map(|s| s.2).sum()
}

fn scaled(random: &mut Random, n: usize, by: f32) -> Data {
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
        let ratio = random.pick(&[1, 4, 7, 128]);
        let add =
            (seed % 2 == 0).then(|| (case.graph.weight("ape", Elem::F32, ratio, cols), ratio));
        ops::ring_write(&mut case.graph, rows, src, ring, cap, add);
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
        let dh = if seed == 0 { 512 } else { random.int(1..200) };
        let rd = random.int(0..dh / 2 + 1) * 2;
        // A table needs a column; rotating nothing is not an op anyone builds.
        let rd = rd.max(2).min(dh / 2 * 2);
        let (dh, rd) = if rd == 0 { (2, 2) } else { (dh, rd) };
        // Some start at position 0, so that the first window is among those closed.
        let mut of = sequences(&mut random, slots, most, 10 * ratio + most);
        if seed % 3 == 0 {
            of[0].1 = 0;
        }
        let (cap, entries) = (2 * ratio + most, 13 + most);
        let mut case = Case::new(seed, StepSize { rows: total(&of), outs: 1 });
        let width = if overlap { 2 * dh } else { dh };
        let score = case.graph.state("score", slots * cap, width);
        let spread = random.pick(&[1.0, 10.0, 300.0]);
        case.set(score, scaled(&mut random, slots * cap * width, spread));
        let c = ops::Compress {
            rows: rows(&mut case, &of, 1),
            kv: case.graph.state("kv", slots * cap, width),
            score,
            norm: case.graph.weight("norm", Elem::F32, 1, dh),
            table: case.input("table", Extent::ROWS, rd),
            cache: case.graph.state("cache", slots * entries, dh),
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
