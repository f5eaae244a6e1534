//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod matmul;
mod rms_norm;

pub use matmul::{
    Chosen, EXPERT_TILE, Extra, FEW_ROWS, expert_down, expert_gate_up, matmul, matmul_with,
};
pub use rms_norm::rms_norm;
