//! Puts each token row into its sequence's ring: `ring[slot * cap + p % cap] = src` with `slot` and `p`
//! the row's sequence and position.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Writes `src` `[T, C]` into the state `ring` `[slots * cap, C]`.
///
/// A step must not hold more than `cap` rows of one sequence: which of two rows that share a place
/// wins would be left to chance.
pub fn ring_write(g: &mut Graph, rows: TensorId, src: TensorId, ring: TensorId, cap: usize) {
    assert_eq!(g.tensor(src).cols, g.tensor(ring).cols, "ring_write: columns");
    g.push("ring_write", RingWrite { rows, src, ring, cap });
}

#[derive(Debug)]
struct RingWrite {
    rows: TensorId,
    src: TensorId,
    ring: TensorId,
    cap: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    cap: u32,
    pad: [u32; 2],
}

impl Op for RingWrite {
    fn name(&self) -> &'static str {
        "ring_write"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.rows.read(), self.src.read(), self.ring.update()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, src, mut ring) =
            (host.u32(self.rows), host.f32(self.src), host.f32_mut(self.ring));
        let cols = host.cols(self.src);
        for (row, src) in Row::all(&rows).iter().zip(src.chunks_exact(cols)) {
            let (slot, p) = (row.slot as usize, row.position as usize);
            let at = (slot * self.cap + p % self.cap) * cols;
            ring[at..at + cols].copy_from_slice(src);
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let cols = graph.tensor(self.src).cols as u32;
        let params = Params { cols, cap: self.cap as u32, pad: [0; 2] };
        let kernel = Kernel::new("ring_write", params, self.uses(), |s| grid(s.rows));
        vec![kernel.one_subgroup(limits)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (step.rows * graph.tensor(self.src).cols) as u64;
        Cost { bytes: 8 * n, flops: 0 }
    }
}
