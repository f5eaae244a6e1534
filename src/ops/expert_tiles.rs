//! Sorts the (token, choice) slots of a step by expert and cuts each expert's into tiles, so that a
//! matrix product may read an expert's weights once for many tokens. Tiles have two sizes, since experts
//! get unlike numbers of tokens: of many slots a workgroup makes more of each number it loads, of few it
//! would multiply what isn't there.
//!
//! Slot `s = t * k + j` is choice `j` of row `t`. The sort is stable (a counting sort), so the result
//! is a function of the ids alone. How many tiles there are is known on the device alone, which sizes the
//! grids of the products by it ([`Told`](crate::gpu::Told)).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Slots that tiles have at most. An expert's slots are in large ones as long as more than half of one is
/// left, and what is left in small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileSizes {
    /// Of small ones.
    pub small: usize,
    /// Of large ones.
    pub large: usize,
}

impl TileSizes {
    /// Slots up to which an expert has no large tile.
    pub(super) fn few(self) -> usize {
        self.large / 2
    }

    /// Large and small tiles of an expert with so many slots.
    fn of(self, slots: usize) -> [usize; 2] {
        let large = (slots + self.large - 1 - self.few()) / self.large;
        [large, slots.saturating_sub(large * self.large).div_ceil(self.small)]
    }
}

/// The tiles that a kernel makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileSet {
    Large = 1,
    Small = 2,
    All = 3,
}

impl TileSet {
    /// Slots that the largest has at most.
    pub fn slots(self, sizes: TileSizes) -> usize {
        if self == Self::Small { sizes.small } else { sizes.large }
    }
}

/// Of the ids `[T, k]`, each below `experts`: (the slots sorted by expert `[T * k, 1]`, the tiles
/// `[1 + T * k, 4]`). The first row of the tiles is `(number of large ones, of small ones, 0, 0)`; then
/// comes for each large tile `(expert, first index in sorted, how many slots, 0)`, in order of expert;
/// then for each small one; then zeros. An expert without slots has no tile.
pub fn expert_tiles(
    g: &mut Graph,
    ids: TensorId,
    experts: usize,
    sizes: TileSizes,
) -> (TensorId, TensorId) {
    let k = g.tensor(ids).cols;
    let sorted = g.scratch("sorted", Elem::U32, Extent::rows(k), 1);
    let rows = Extent { per_row: k, fixed: 1, per_out: 0 };
    let tiles = g.scratch("tiles", Elem::U32, rows, 4);
    g.push("expert_tiles", ExpertTiles { ids, sorted, tiles, experts, sizes });
    (sorted, tiles)
}

#[derive(Debug)]
struct ExpertTiles {
    ids: TensorId,
    sorted: TensorId,
    tiles: TensorId,
    experts: usize,
    sizes: TileSizes,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    k: u32,
    small: u32,
    large: u32,
    pad: u32,
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
        let by_expert: Vec<Vec<u32>> = (0..self.experts as u32)
            .map(|expert| (0..ids.len() as u32).filter(|&s| ids[s as usize] == expert).collect())
            .collect();
        sorted.copy_from_slice(&by_expert.concat());
        let [large, small] = by_expert.iter().fold([0; 2], |[large, small], slots| {
            let more = self.sizes.of(slots.len());
            [large + more[0], small + more[1]]
        });
        tiles[..2].copy_from_slice(&[large as u32, small as u32]);
        let (mut first, mut next) = (0, [1, 1 + large]);
        for (expert, slots) in by_expert.iter().enumerate() {
            let end = first + slots.len();
            let [large, _] = self.sizes.of(slots.len());
            for i in 0.. {
                let (list, most) = match i < large {
                    true => (0, self.sizes.large),
                    false => (1, self.sizes.small),
                };
                let count = most.min(end - first);
                if count == 0 {
                    break;
                }
                tiles[4 * next[list]..][..3]
                    .copy_from_slice(&[expert, first, count].map(|n| n as u32));
                next[list] += 1;
                first += count;
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let params = Params {
            k: graph.tensor(self.ids).cols as u32,
            small: self.sizes.small as u32,
            large: self.sizes.large as u32,
            pad: 0,
        };
        vec![
            Kernel::new("expert_tiles", params, self.uses(), |_| [1, 1, 1])
                .constant("EXPERTS", self.experts as u32)
                .tells(self.tiles),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let slots = (step.rows * graph.tensor(self.ids).cols) as u64;
        Cost { bytes: 4 * slots + 4 * slots + 16 * (slots + 1), flops: 0 }
    }
}
