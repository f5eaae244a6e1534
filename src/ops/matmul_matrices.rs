//! The matrix products of many rows on adapters whose subgroups multiply [`Matrices`].

use crate::gpu::tuning::{MatrixBlock, Tuning, Work};
use crate::gpu::{Kernel, Limits, Matrices};
use crate::graph::{Elem, Tensor};

/// `matmul_matrices` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Tiles(Matrices);

/// Subgroups of a workgroup.
const WAVES: usize = 4;

/// Workgroup memory that every device has.
const WORKGROUP_BYTES: usize = 16 << 10;
/// Numbers between the rows of a tile there: the shader's `PITCH` less `DEPTH`.
const PADDING: usize = 8;

impl Tiles {
    pub const SHADER: &'static str = "matmul_matrices";

    /// For a weight like `w`, if this device has matrices for it. What is stored in f32 is not rounded
    /// to f16: tables and mixing matrices, which are small.
    pub fn of(limits: &Limits, w: &Tensor) -> Option<Self> {
        limits.matrices.filter(|m| !m.half || w.elem != Elem::F32).map(Self)
    }

    /// Whether they round what they multiply to f16.
    pub fn round(self) -> bool {
        self.0.half
    }

    /// What a workgroup makes: what was chosen, or the default where that is too large for these matrices.
    pub fn block(self, work: Work, tuning: &Tuning) -> MatrixBlock {
        let chosen = tuning.matrix_block(self.0.half, work);
        match self.depth(chosen, 1) {
            Some(_) => chosen,
            None => Tuning::DEFAULT.matrix_block(self.0.half, work),
        }
    }

    /// Numbers along the inner length, of `weights` weights, that workgroup memory has room for at once: 64
    /// bytes of each row and output, or half of that, or it is too small for such a block.
    fn depth(self, block: MatrixBlock, weights: usize) -> Option<usize> {
        let Matrices { size, half, .. } = self.0;
        let number = if half { 2 } else { 4 };
        let lines = block.rows + weights * block.outputs;
        let sums = 4 * weights * WAVES * (size * size) as usize;
        let fits = |&d: &usize| number * lines * (d + PADDING) + sums <= WORKGROUP_BYTES;
        [64 / number, 32 / number].into_iter().find(fits)
    }

    /// `kernel`, for such blocks, or those of experts, of `weights` weights at once.
    pub fn set(self, kernel: Kernel, block: MatrixBlock, weights: usize) -> Kernel {
        let Matrices { size, lanes, .. } = self.0;
        let size = size as usize;
        let MatrixBlock { rows, outputs } = block;
        // A subgroup's part is as square as it can be.
        let down = if rows < 32 { 1 } else { 2 };
        let across = WAVES / down;
        // What `block` gives and what experts have fits in: see the test below.
        let depth = self.depth(block, weights).expect("a block fits in workgroup memory");
        let consts = [
            ("BM", rows),
            ("BN", outputs),
            ("MS", rows / down / size),
            ("NS", outputs / across / size),
            ("DEPTH", depth),
            ("LANES", lanes as usize),
        ];
        self.0.flags().fold(kernel.constants(consts), Kernel::flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::expert_tiles::TileSet;
    use crate::ops::matmul::expert_matrix_block;

    #[test]
    fn workgroup_memory_has_room_for_all_blocks() {
        for (size, half) in [(8, false), (8, true), (16, true)] {
            let tiles = Tiles(Matrices { size, half, lanes: 32 });
            for set in [TileSet::Small, TileSet::Large] {
                let block = expert_matrix_block(set);
                for weights in [1, 2] {
                    assert!(
                        tiles.depth(block, weights).is_some(),
                        "{size} {half} {weights} {block}"
                    );
                }
            }
            for work in [Work::Small, Work::Narrow, Work::Wide] {
                for tuning in Tuning::all() {
                    let block = tiles.block(work, &tuning);
                    assert!(tiles.depth(block, 1).is_some(), "{size} {half} {block}");
                }
            }
        }
    }
}
