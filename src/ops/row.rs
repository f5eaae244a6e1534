//! A token row as the reference functions see it, and parts of a step's rows.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::graph::{Extent, StepSize, TensorId, Use};

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
        visible(self.position as usize, ratio)
    }
}

/// Compressed entries that a row at `position` sees.
pub(super) fn visible(position: usize, ratio: usize) -> usize {
    (position + 1) / ratio
}

/// Some of a step's rows, for what needs too much memory to be done for all at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The first row.
    pub first: usize,
    /// The most rows; `None` is all.
    pub most: Option<usize>,
}

impl Part {
    /// All rows of a step.
    pub const ALL: Self = Self { first: 0, most: None };

    /// The rows of a step that are in this part.
    pub fn rows(self, step: StepSize) -> Range<usize> {
        let end = self.most.map_or(step.rows, |most| step.rows.min(self.first + most));
        self.first.min(end)..end
    }

    /// Compressed entries that these rows see, each row's counted, if the step begins at `depth`.
    pub fn visible(self, step: StepSize, depth: usize, ratio: usize) -> usize {
        self.rows(step).map(|t| visible(depth + t, ratio)).sum()
    }

    /// The size of a matrix that holds a row for each.
    pub fn extent(self) -> Extent {
        self.most.map_or(Extent::ROWS, Extent::fixed)
    }

    /// The part as shaders take it: first row, most rows.
    pub fn params(self) -> [u32; 2] {
        [self.first as u32, self.most.map_or(u32::MAX, |most| most as u32)]
    }

    /// How a node that works on this part uses what all parts write to.
    pub fn writes(self, tensor: TensorId) -> Use {
        if self.most.is_some() { tensor.update() } else { tensor.write() }
    }
}
