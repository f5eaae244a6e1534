//! The architectures: one file each, from `config.json` to the weights it wants and the graph it
//! builds. A file reads in the order the data flows.

pub mod deepseek_v4;
pub mod deepseek_v4_vision;
mod rope;
mod weights;

pub use rope::{RopeTable, frequencies};
pub use weights::ModelWeights;
