//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod matmul;
mod compress;
mod ring_write;
mod rms_norm;
mod row;

pub use matmul::{
    Chosen, EXPERT_TILE, Extra, FEW_ROWS, expert_down, expert_gate_up, matmul, matmul_with,
};
mod embed;
mod gather;
mod head_rope;
mod mhc_head;
mod mhc_post;
mod mhc_pre;
mod rms_norm;
mod swiglu;

pub use embed::{EmbedVision, embed};
pub use gather::gather;
pub use head_rope::head_rope;
pub use compress::{Compress, compress};
pub use ring_write::ring_write;
pub use mhc_head::{MhcHead, mhc_head};
pub use mhc_post::mhc_post;
pub use mhc_pre::{MhcPre, mhc_pre};
pub use rms_norm::rms_norm;
pub use swiglu::swiglu;
