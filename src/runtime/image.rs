//! Pictures through the vision tower, cached by content.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Part, Prepared};
use crate::formats::VisionConfig;
use crate::graph::StepSize;
use crate::graph::reference::Data;
use crate::media::{Patches, Plan};
use crate::models::deepseek_v4_vision::{VisionTensors, rope_table};

/// What the tower made of a picture.
#[derive(Debug, PartialEq)]
pub struct Encoded {
    /// How the picture was cut.
    pub plan: Plan,
    /// [`crate::media::picture::content_hash`].
    pub hash: u128,
    /// `[grid_h * grid_w, D]`, in the grid's reading order.
    pub tokens: Vec<f32>,
}

/// The tower's last results, newest at the back.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: VecDeque<Arc<Encoded>>,
}

/// Bytes of results that are kept.
const CACHE_BYTES: usize = 256 << 20;

impl Cache {
    /// Whether no picture was encoded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&mut self, hash: u128) -> Option<Arc<Encoded>> {
        let at = self.entries.iter().position(|e| e.hash == hash)?;
        let found = self.entries.remove(at)?;
        self.entries.push_back(Arc::clone(&found));
        Some(found)
    }

    pub(super) fn put(&mut self, encoded: Arc<Encoded>) {
        self.entries.push_back(encoded);
        let bytes = |e: &Arc<Encoded>| e.tokens.len() * size_of::<f32>();
        let mut total: usize = self.entries.iter().map(bytes).sum();
        while total > CACHE_BYTES && self.entries.len() > 1 {
            if let Some(oldest) = self.entries.pop_front() {
                total -= bytes(&oldest);
            }
        }
    }
}

/// The tower's graph and inputs for one picture.
pub(super) fn prepare(
    part: &Part<VisionTensors>,
    vision: &VisionConfig,
    picture: Patches,
) -> Prepared {
    let plan = picture.plan;
    let (w, h) = (picture.patches_w as u32, picture.patches_h as u32);
    let n = w * h;
    let grid = (0..h).flat_map(|row| (0..w).map(move |col| (row, col)));
    let patches = grid.clone().flat_map(|(row, col)| [row, col, 0, n]).collect();
    let f = vision.downsample as u32;
    let blocks = (0..plan.grid_h as u32).flat_map(|y| (0..plan.grid_w as u32).map(move |x| (y, x)));
    let blocks = blocks.flat_map(|(y, x)| {
        let (top, left) = (y * f, x * f);
        [top * w + left, f.min(w - left), f.min(h - top), w]
    });
    let t = &part.tensors;
    let inputs = vec![
        (t.pixels, Data::F32(picture.data)),
        (t.patches, Data::U32(patches)),
        (t.rope, Data::F32(rope_table(vision, grid))),
        (t.blocks, Data::U32(blocks.collect())),
    ];
    let step = StepSize { rows: n as usize, outs: plan.grid_w * plan.grid_h };
    Prepared { graph: part.graph, step, inputs }
}
