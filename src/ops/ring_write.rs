//! Puts each token row into its sequence's ring: `ring[slot * cap + p % cap] = src (+ add[p % ratio])`
//! with `slot` and `p` the row's sequence and position.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Writes `src` `[T, C]` into the state `ring` `[slots * cap, C]`. With `add = Some((ape, ratio))`
/// row `p % ratio` of the weight `ape` `[ratio, C]` (f32) is added to a row of position `p`.
///
/// A step must not hold more than `cap` rows of one sequence: which of two rows that share a place
/// wins would be left to chance.
pub fn ring_write(
    g: &mut Graph,
    rows: TensorId,
    src: TensorId,
    ring: TensorId,
    cap: usize,
    add: Option<(TensorId, usize)>,
) {
    assert_eq!(g.tensor(src).cols, g.tensor(ring).cols, "ring_write: columns");
    g.push("ring_write", RingWrite { rows, src, ring, cap, add });
}

#[derive(Debug)]
struct RingWrite {
    rows: TensorId,
    src: TensorId,
    ring: TensorId,
    cap: usize,
    add: Option<(TensorId, usize)>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    cap: u32,
    ratio: u32,
    add_stride: u32,
}

impl Op for RingWrite {
    fn name(&self) -> &'static str {
        "ring_write"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.rows.read(), self.src.read(), self.ring.update()];
        uses.extend(self.add.map(|(ape, _)| ape.read()));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, src, mut ring) =
            (host.u32(self.rows), host.f32(self.src), host.f32_mut(self.ring));
        let cols = host.cols(self.src);
        for (row, src) in Row::all(&rows).iter().zip(src.chunks_exact(cols)) {
            let (slot, p) = (row.slot as usize, row.position as usize);
            let at = (slot * self.cap + p % self.cap) * cols;
            let out = &mut ring[at..at + cols];
            out.copy_from_slice(src);
            if let Some((ape, ratio)) = self.add {
                let ape = host.f32(ape);
                let ape = &ape[p % ratio * cols..][..cols];
                out.iter_mut().zip(ape).for_each(|(o, a)| *o += a);
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let (ratio, add_stride) =
            self.add.map_or((1, 0), |(ape, ratio)| (ratio, graph.tensor(ape).stride()));
        let params = Params {
            cols: graph.tensor(self.src).cols as u32,
            cap: self.cap as u32,
            ratio: ratio as u32,
            add_stride: add_stride as u32,
        };
        vec![
            Kernel::new("ring_write", params, self.uses(), |s| grid(s.rows))
                .flag_if(self.add.is_some(), "ADD"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (step.rows * graph.tensor(self.src).cols) as u64;
        Cost { bytes: 8 * n, flops: if self.add.is_some() { n } else { 0 } }
    }
}
