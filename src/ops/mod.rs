//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod attention;
mod compress;
mod ring_write;
mod rms_norm;
mod row;

pub use attention::{Attention, Compressed, attention};
pub use compress::{Compress, compress};
pub use ring_write::ring_write;
pub use rms_norm::rms_norm;
