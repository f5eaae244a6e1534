//! The matrix products of many rows on adapters whose subgroups multiply [`Matrices`].

use crate::gpu::tuning::Work;
use crate::gpu::{Kernel, Limits, Matrices};
use crate::graph::{Elem, Tensor};

/// `matmul_matrices` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Tiles(Matrices);

/// Subgroups of a workgroup.
const WAVES: usize = 4;

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

    /// Rows and outputs a workgroup makes.
    pub fn block(self, work: Work) -> [usize; 2] {
        if work == Work::Small { [32, 64] } else { [64, 64] }
    }

    /// `kernel`, for such blocks or those of experts, which may multiply with two weights at once.
    pub fn set(self, kernel: Kernel, [rows, outputs]: [usize; 2], gated: bool) -> Kernel {
        let Matrices { size, half, lanes } = self.0;
        let size = size as usize;
        // A subgroup's part is as square as it can be.
        let down = if rows < 32 { 1 } else { 2 };
        let across = WAVES / down;
        // As much along the inner length as workgroup memory has room for.
        let depth = if half && !gated { 32 } else { 16 };
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
