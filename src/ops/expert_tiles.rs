//! Sorts the (token, choice) slots of a step by expert and cuts each expert's into tiles, so that a
//! matrix product may read an expert's weights once for many tokens.
//!
//! Slot `s = t * k + j` is choice `j` of row `t`. The sort is stable (a counting sort), so the result
//! is a function of the ids alone.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Of the ids `[T, k]`, each below `experts`: (the slots sorted by expert `[T * k, 1]`, the tiles
/// `[1 + T * k, 4]`). The first row of the tiles is `(number of tiles, 0, 0, 0)`; then comes for each
/// tile `(expert, first index in sorted, how many slots (at most tile), 0)`, in order of expert;
/// then zeros. An expert without slots has no tile.
pub fn expert_tiles(
    g: &mut Graph,
    ids: TensorId,
    experts: usize,
    tile: usize,
) -> (TensorId, TensorId) {
    let k = g.tensor(ids).cols;
    let sorted = g.scratch("sorted", Elem::U32, Extent::rows(k), 1);
    let rows = Extent { per_row: k, fixed: 1, per_out: 0 };
    let tiles = g.scratch("tiles", Elem::U32, rows, 4);
    g.push("expert_tiles", ExpertTiles { ids, sorted, tiles, experts, tile });
    (sorted, tiles)
}

#[derive(Debug)]
struct ExpertTiles {
    ids: TensorId,
    sorted: TensorId,
    tiles: TensorId,
    experts: usize,
    tile: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    k: u32,
    tile: u32,
    pad: [u32; 2],
}

impl Op for ExpertTiles {
    fn name(&self) -> &'static str {
        "expert_tiles"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.ids.read(), self.sorted.write(), self.tiles.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let ids = host.u32(self.ids);
        let (mut sorted, mut tiles) = (host.u32_mut(self.sorted), host.u32_mut(self.tiles));
        tiles.fill(0);
        let (mut done, mut count) = (0, 0);
        for expert in 0..self.experts as u32 {
            let slots: Vec<u32> =
                (0..ids.len() as u32).filter(|&s| ids[s as usize] == expert).collect();
            for slots in slots.chunks(self.tile) {
                sorted[done..done + slots.len()].copy_from_slice(slots);
                count += 1;
                tiles[4 * count..][..3].copy_from_slice(&[expert, done as u32, slots.len() as u32]);
                done += slots.len();
            }
        }
        tiles[0] = count as u32;
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let params =
            Params { k: graph.tensor(self.ids).cols as u32, tile: self.tile as u32, pad: [0; 2] };
        vec![
            Kernel::new("expert_tiles", params, self.uses(), |_| [1, 1, 1])
                .constant("EXPERTS", self.experts as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let slots = (step.rows * graph.tensor(self.ids).cols) as u64;
        Cost { bytes: 4 * slots + 4 * slots + 16 * (slots + 1), flops: 0 }
    }
}
