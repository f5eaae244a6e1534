//! The architectures: one file each, from `config.json` to the weights it wants and the graph it
//! builds. A file reads in the order the data flows.

mod builder;
pub mod deepseek_v3;
pub mod deepseek_v4;
pub mod deepseek_v4_vision;
pub mod llama;
mod matrix;
mod rope;
mod weights;

pub use rope::{RopeTable, frequencies};
pub use weights::ModelWeights;

use crate::Result;
use crate::formats::ModelConfig;
use crate::graph::{Graph, StepSize, TensorId};

/// What the inputs of matrices are, while they are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// With matrices in GGUF's block formats rounded to 8 bits, with a scale for 32, as llama.cpp does: see
    /// [`crate::ops::quantize_activations`]. On software adapters only of prompts, which gain by it.
    Q8,
    /// Rounded to f16, as the matrices are, where many rows are multiplied by cooperative matrices that
    /// take such numbers: see [`crate::gpu::Matrices`]. Elsewhere as they are.
    F16,
    /// As they are.
    #[default]
    F32,
}

/// How much a graph must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences whose state is kept at a time.
    pub slots: usize,
    /// Tokens a sequence may have.
    pub context: usize,
    /// The largest number of rows of any step, of any graph that shares the state.
    pub chunk: usize,
}

impl Capacity {
    /// For one sequence of `context` tokens and prefill steps of `chunk` rows, or more where a
    /// picture needs more: its rows see each other, so they cannot be parted.
    pub fn new(config: &ModelConfig, context: usize, chunk: usize) -> Self {
        let picture = config.vision().map_or(0, |v| v.max_tokens + 3);
        Self { slots: 1, context, chunk: chunk.clamp(1, context).max(picture) }
    }
}

/// The tensors of a [`text_graph`] that the runtime feeds and reads.
#[derive(Debug)]
pub struct TextTensors {
    /// Input `[T, 8]`: a [`crate::runtime::Row`] each.
    pub rows: TensorId,
    /// Input `[O, 8]`: a [`crate::runtime::Out`] each.
    pub outs: TensorId,
    /// Input `[T, D]`: aligner rows of the step's IMAGE rows, on models that see.
    pub images: Option<TensorId>,
    /// Inputs of cosines and sines.
    pub ropes: Vec<RopeTable>,
    /// Output `[O, vocab]`.
    pub logits: TensorId,
    /// Output `[O, 1]`: the sampled tokens.
    pub tokens: TensorId,
}

/// Builds the language model's graph for steps of up to `max` rows.
///
/// # Errors
/// If a weight is missing, of the wrong shape or in a format without kernels, or a dimension is
/// larger than the kernels take.
pub fn text_graph(
    config: &ModelConfig,
    weights: &mut ModelWeights<'_>,
    capacity: Capacity,
    max: StepSize,
) -> Result<(Graph, TextTensors)> {
    match config {
        ModelConfig::V4(c) => deepseek_v4::text_graph(c, weights, capacity, max),
        ModelConfig::Mla(c) => deepseek_v3::text_graph(c, weights, capacity, max),
        ModelConfig::Dense(c) => llama::text_graph(c, weights, capacity, max),
    }
}
