//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod embed;
mod gather;
mod gelu;
mod head_rope;
mod mhc_head;
mod mhc_post;
mod mhc_pre;
mod rms_norm;
mod swiglu;
mod unfold;
mod vit_attention;
mod vit_rope;

pub use embed::{EmbedVision, embed};
pub use gather::gather;
pub use gelu::gelu;
pub use head_rope::head_rope;
pub use mhc_head::{MhcHead, mhc_head};
pub use mhc_post::mhc_post;
pub use mhc_pre::{MhcPre, mhc_pre};
pub use rms_norm::rms_norm;
pub use swiglu::swiglu;
pub use unfold::unfold;
pub use vit_attention::vit_attention;
pub use vit_rope::vit_rope;
