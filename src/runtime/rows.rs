//! What the host uploads for each token row and each output row of a step.

use bytemuck::{Pod, Zeroable};

/// One token row, as `Row` of `shaders/lib/step.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Which sequence's state it belongs to.
    pub slot: u32,
    /// Its position in that sequence.
    pub position: u32,
    /// Its token id; 0 for image rows.
    pub token: u32,
    /// 0 for text, else 1 + the image type code.
    pub kind: u32,
    /// Row of the uploaded image embeddings, for IMAGE rows.
    pub image: u32,
    /// First position seen through the sliding window.
    pub first: u32,
    /// Last position seen through it.
    pub last: u32,
    /// Unused.
    pub spare: u32,
}

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest tokens that together have this much of the mass; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Same seed, prompt and options: same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// One output row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Out {
    /// Which token row of the step it is.
    pub row: u32,
    /// See [`Sampling`].
    pub top_k: u32,
    /// Bits of an f32.
    pub temperature: u32,
    /// Bits of an f32.
    pub top_p: u32,
    /// Bits of an f32.
    pub min_p: u32,
    /// Low half.
    pub seed_lo: u32,
    /// High half.
    pub seed_hi: u32,
    /// Where in the random stream: the position of the row.
    pub counter: u32,
}

impl Out {
    /// Samples after token row `row` of the step, which is at `position`.
    pub fn new(row: usize, position: u32, s: &Sampling) -> Self {
        Self {
            row: row as u32,
            top_k: s.top_k,
            temperature: s.temperature.to_bits(),
            top_p: s.top_p.to_bits(),
            min_p: s.min_p.to_bits(),
            seed_lo: s.seed as u32,
            seed_hi: (s.seed >> 32) as u32,
            counter: position,
        }
    }
}
