//! The compressed entries a row attends to: those of the `k` largest scores among the `n` it sees,
//! `n = (p + 1) / ratio`. Ties go to the lower index.

use bytemuck::{Pod, Zeroable};

use super::flash::fours;
use super::index_scores::{IndexScores, score_part};
use super::row::{Part, Row};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Of `scores` `[T, entries]`, of which a row's first `n` count: integers `[T, 1 + k]`, how many were
/// taken (`min(n, k)`), then their indices in rising order, then zeros.
pub fn topk(g: &mut Graph, rows: TensorId, scores: TensorId, ratio: usize, k: usize) -> TensorId {
    let out = g.scratch("topk", Elem::U32, Extent::ROWS, 1 + k);
    g.push("topk", Topk { rows, scores, out, ratio, part: Part::ALL });
    out
}

/// Bytes of scores at a time: those of 64 rows at a context of 128 Ki. All of a step's would be more
/// than devices bind.
const SCORE_BYTES: usize = 32 << 20;

/// [`topk`] of [`index_scores`](super::index_scores()), for as many rows at a time as there is room
/// for.
pub fn index_topk(g: &mut Graph, i: IndexScores, k: usize) -> TensorId {
    index_topk_in(g, i, k, SCORE_BYTES)
}

/// [`index_topk`] with scores of at most so many bytes at a time, or a row's if that takes more.
pub fn index_topk_in(g: &mut Graph, i: IndexScores, k: usize, most_bytes: usize) -> TensorId {
    let most = g.max.rows;
    let at_once = (most_bytes / (4 * i.entries)).max(1);
    let parts: Vec<Part> = match at_once >= most {
        true => vec![Part::ALL],
        false => {
            let part = |first| Part { first, most: Some(at_once) };
            (0..most).step_by(at_once).map(part).collect()
        }
    };
    let scores = g.scratch("index_scores", Elem::F32, parts[0].extent(), i.entries);
    let out = g.scratch("topk", Elem::U32, Extent::ROWS, 1 + k);
    for part in parts {
        score_part(g, i, part, scores);
        g.push("topk", Topk { rows: i.rows, scores, out, ratio: i.ratio, part });
    }
    out
}

/// The largest `k` for which workgroup memory has room to list what may be among the largest.
const MOST_LISTED: usize = 1024;

#[derive(Debug)]
struct Topk {
    rows: TensorId,
    scores: TensorId,
    out: TensorId,
    ratio: usize,
    part: Part,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    entries: u32,
    pitch: u32,
    ratio: u32,
    k: u32,
    part: [u32; 2],
    pad: [u32; 2],
}

impl Op for Topk {
    fn name(&self) -> &'static str {
        "topk"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.rows.read(), self.scores.read(), self.part.writes(self.out)]
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, scores, mut out) =
            (host.u32(self.rows), host.f32(self.scores), host.u32_mut(self.out));
        let (entries, cols) = (host.cols(self.scores), host.cols(self.out));
        let part = self.part.rows(host.step);
        let outs = out[part.start * cols..part.end * cols].chunks_exact_mut(cols);
        let lists = scores.chunks_exact(entries).zip(outs);
        for (row, (scores, out)) in Row::all(&rows)[part].iter().zip(lists) {
            let mut order: Vec<usize> = (0..row.visible(self.ratio)).collect();
            // Adding zero makes one of the two zeros; the sort is stable.
            order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
            order.truncate(cols - 1);
            order.sort_unstable();
            out.fill(0);
            out[0] = order.len() as u32;
            out[1..].iter_mut().zip(order).for_each(|(o, i)| *o = i as u32);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let entries = graph.tensor(self.scores).cols;
        let whole = fours(&[entries]);
        let params = Params {
            entries: entries as u32,
            pitch: (if whole { entries / 4 } else { entries }) as u32,
            ratio: self.ratio as u32,
            k: graph.tensor(self.out).cols as u32 - 1,
            part: self.part.params(),
            pad: [0; 2],
        };
        let part = self.part;
        let mut kernel =
            Kernel::new("topk", params, self.uses(), move |s| grid(part.rows(s).len()))
                .flag_if(whole, "FOURS")
                .flag_if(whole && limits.wide_loads, "WIDE");
        if params.k as usize > MOST_LISTED {
            kernel = kernel.constants([("LIST", 1), ("DIGIT_BITS", 11)]);
        }
        vec![kernel.one_subgroup(limits).alone(false)]
    }

    /// The lists; how many scores are read depends on the rows' positions.
    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        Cost {
            bytes: 4 * (self.part.rows(step).len() * graph.tensor(self.out).cols) as u64,
            flops: 0,
        }
    }

    fn context_cost(&self, _: &Graph, step: StepSize, depth: usize) -> Cost {
        Cost { bytes: 4 * self.part.visible(step, depth, self.ratio) as u64, flops: 0 }
    }
}
