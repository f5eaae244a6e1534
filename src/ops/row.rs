//! A token row as the reference functions see it.

use bytemuck::{Pod, Zeroable};

/// The same words as `struct Row` in `shaders/lib/step.wgsl`, which explains them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Row {
    pub slot: u32,
    pub position: u32,
    pub token: u32,
    pub kind: u32,
    pub image: u32,
    pub first: u32,
    pub last: u32,
    pub spare: u32,
}

impl Row {
    /// The rows held by a `[T, 8]` integer tensor.
    pub fn all(words: &[u32]) -> &[Self] {
        bytemuck::cast_slice(words)
    }

    /// Compressed entries the row sees when one is made of every `ratio` positions.
    pub fn visible(&self, ratio: usize) -> usize {
        (self.position as usize + 1) / ratio
    }
}
