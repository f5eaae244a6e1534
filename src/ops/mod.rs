//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod attention;
mod combine;
mod compress;
mod expert_tiles;
mod index_scores;
mod ring_write;
mod rms_norm;
mod route;
mod row;
mod sample;
mod topk;

pub use attention::{Attention, Compressed, attention};
pub use combine::combine;
pub use compress::{Compress, compress};
pub use expert_tiles::expert_tiles;
pub use index_scores::{IndexScores, index_scores};
pub use ring_write::ring_write;
pub use rms_norm::rms_norm;
pub use route::{Route, route};
pub use sample::{sample, uniform};
pub use topk::topk;
