//! The GPU side: adapter choice, feature tiers, shaders, buffers, and the executor of a
//! [`crate::graph::Graph`] on wgpu.

mod chain;
mod device;
mod disk_cache;
mod exec;
mod kernel;
mod matrices;
mod pipeline;
pub mod probe;
mod processors;
pub mod shader;
mod store;
pub mod tuning;
mod tuning_file;
mod warm;

pub use device::{AdapterReport, Gpu, Tier, adapters};
pub use exec::GpuGraph;
pub use kernel::{Binding, Kernel, Limits, Told, grid};
pub use matrices::Matrices;
pub use store::{GpuStore, WeightSource};
pub use tuning::{Choice, Tuning};
pub use tuning_file::{Chosen, TuningFile};
pub use warm::warm;
