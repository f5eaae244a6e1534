//! Files on disk: safetensors folders and GGUF files, the names tensors go by in them, and
//! `config.json`.
//!
//! [`Checkpoint`] opens either and hands out typed views of its bytes without copying them;
//! [`Weights`] finds a tensor by its canonical name whichever naming the files use;
//! [`ModelConfig`] tells the architecture and its dimensions. [`Gguf`] holds the metadata of a GGUF
//! file.

mod block;
mod checkpoint;
mod config;
mod config_dense;
mod config_mla;
mod config_rope;
mod config_v4;
mod config_vision;
mod dtype;
mod fields;
mod gguf;
mod inventory;
mod names;
mod shard;
mod view;

pub use block::{BlockFormat, E2M1, IQ4, ROW_ALIGN, fp4_row, fp8_f32_row, fp8_row};
pub use checkpoint::Checkpoint;
pub use config::ModelConfig;
pub use config_dense::DenseConfig;
pub use config_mla::{IndexConfig, MlaConfig, MlaFamily};
pub use config_rope::{Llama3, Rope, RopeScaling, Yarn};
pub use config_v4::{LayerKind, Qat, V4Config};
pub use config_vision::VisionConfig;
pub use dtype::DType;
pub use gguf::{Array, Gguf, Strings, TensorInfo, Value, Writer as GgufWriter};
pub use gguf::{gguf_experts, gguf_parameters};
pub use inventory::{Inventory, LayerFormats};
pub use names::Weights;
pub use view::TensorView;
