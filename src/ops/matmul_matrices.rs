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

    /// What a workgroup makes: what was chosen, or the default where these matrices don't make that.
    pub fn block(self, work: Work, tuning: &Tuning) -> MatrixBlock {
        self.or_default(1, tuning, |tuning| tuning.matrix_block(self.0.half, work))
    }

    /// What a workgroup makes of `rows` rows of an expert, of `weights` weights at once, likewise.
    pub fn expert_block(self, rows: usize, weights: usize, tuning: &Tuning) -> MatrixBlock {
        let of = |tuning: &Tuning| {
            let outputs = tuning.expert_matrix_outputs(self.0.half);
            MatrixBlock { rows, outputs }
        };
        self.or_default(weights, tuning, of)
    }

    fn or_default(
        self,
        weights: usize,
        tuning: &Tuning,
        of: impl Fn(&Tuning) -> MatrixBlock,
    ) -> MatrixBlock {
        let chosen = of(tuning);
        if self.depth(chosen, weights).is_some() { chosen } else { of(&Tuning::DEFAULT) }
    }

    /// Matrices of such a block that are a subgroup's, one below the other and side by side: its part is as
    /// square as it can be.
    fn part(self, block: MatrixBlock) -> [usize; 2] {
        let size = self.0.size as usize;
        let down = if block.rows < 32 { 1 } else { 2 };
        [block.rows / down / size, block.outputs / (WAVES / down) / size]
    }

    /// Numbers along the inner length, of `weights` weights, that workgroup memory has room for at once: 64
    /// bytes of each row and output, or half of that, or it is too small for such a block. Nor is there any
    /// where a subgroup has no whole matrix.
    fn depth(self, block: MatrixBlock, weights: usize) -> Option<usize> {
        if self.part(block).contains(&0) {
            return None;
        }
        let Matrices { size, half, .. } = self.0;
        let number = if half { 2 } else { 4 };
        let lines = block.rows + weights * block.outputs;
        let sums = 4 * weights * WAVES * (size * size) as usize;
        let fits = |&d: &usize| number * lines * (d + PADDING) + sums <= WORKGROUP_BYTES;
        [64 / number, 32 / number].into_iter().find(fits)
    }

    /// `kernel`, for such blocks, or those of experts, of `weights` weights at once.
    pub fn set(self, kernel: Kernel, block: MatrixBlock, weights: usize) -> Kernel {
        let [matrices_down, matrices_across] = self.part(block);
        // The defaults fit in, which is what there is else: see the test below.
        let depth = self.depth(block, weights).expect("a block fits in workgroup memory");
        let consts = [
            ("BM", block.rows),
            ("BN", block.outputs),
            ("MS", matrices_down),
            ("NS", matrices_across),
            ("DEPTH", depth),
            ("LANES", self.0.lanes as usize),
        ];
        self.0.flags().fold(kernel.constants(consts), Kernel::flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::EXPERT_TILES;

    #[test]
    fn workgroup_memory_has_room_for_all_blocks() {
        for (size, half) in [(8, false), (8, true), (16, true)] {
            let tiles = Tiles(Matrices { size, half, lanes: 32 });
            for work in [Work::Small, Work::Narrow, Work::Wide] {
                for tuning in Tuning::all() {
                    let block = tiles.block(work, &tuning);
                    assert!(tiles.depth(block, 1).is_some(), "{size} {half} {block}");
                }
            }
            for (tuning, weights) in Tuning::all().flat_map(|t| [(t, 1), (t, 2)]) {
                for rows in [EXPERT_TILES.small, EXPERT_TILES.large] {
                    let block = tiles.expert_block(rows, weights, &tuning);
                    let fits = tiles.depth(block, weights).is_some();
                    assert!(fits, "{size} {half} {weights} {block}");
                }
            }
        }
    }
}
