//! Fathom's readers by themselves, so that fuzzing them builds in a minute: the same source files as
//! in the program, which depend on nothing else of it. Also what the targets do with what was read.

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/formats/mod.rs"]
pub mod formats;

pub use error::{Error, Result};

use formats::{Checkpoint, Inventory, ModelConfig, Weights};

/// Names of every family, some of experts.
const NAMES: [&str; 8] = [
    "embed.weight",
    "lm_head.weight",
    "layers.0.attn.wo_a.weight",
    "layers.0.ffn.experts.1.w1.weight",
    "layers.0.ffn.experts.0.w2.scale",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.experts.1.up_proj.weight",
    "model.layers.0.mlp.gate.e_score_correction_bias",
];

/// Looks at all there is in a checkpoint that could be opened.
pub fn walk(checkpoint: &Checkpoint) {
    for view in checkpoint.views() {
        assert_eq!(view.dtype.byte_len(view.elements()), Some(view.bytes.len()), "{}", view.name);
        let last = view.shape.first().map_or(0, |rows| rows.saturating_sub(1));
        let _ = (view.row(0), view.row(last), view.row(usize::MAX));
        // What a small file holds is small, but it may claim any number of elements of no bytes.
        if view.bytes.len() < 1 << 16 {
            let _ = (view.to_f32(), view.to_i64());
        }
    }
    let weights = Weights::new(checkpoint);
    for name in NAMES {
        assert!(weights.contains(name) || weights.get(name).is_err(), "{name}");
    }
    if let Ok(config) = ModelConfig::from_checkpoint(checkpoint)
        && config.layers() < 1 << 16
    {
        Inventory::of(checkpoint, &config);
    }
}

/// Demands one line of an error that ends up before a user's eyes.
pub fn one_line(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}
