//! Fathom: a local inference engine for DeepSeek's multimodal mixture-of-experts models.
//!
//! A model file describes its layers as a dispatch graph of ops; every op is one WGSL kernel and
//! one plain-Rust reference function side by side; the same graph runs on the GPU or on the CPU.

pub mod cli;
pub mod error;
pub mod eval;
pub mod formats;
pub mod gpu;
pub mod graph;
pub mod media;
pub mod models;
pub mod ops;
pub mod quantize;
pub mod runtime;
pub mod text;

pub use error::{Error, Result};
