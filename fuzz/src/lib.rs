//! Fathom's readers by themselves, so that fuzzing them builds in a minute: the same source files as
//! in the program, which depend on nothing else of it. Also what the targets do with what was read.

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/formats/mod.rs"]
pub mod formats;
#[cfg(feature = "text")]
// The program uses more of it.
#[allow(dead_code, unused_imports)]
#[path = "../../src/text/mod.rs"]
pub mod text;

pub use error::{Error, Result};

use formats::{Checkpoint, Inventory, ModelConfig, Weights};
#[cfg(feature = "text")]
use text::Vocabulary;

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

/// A vocabulary of single bytes, in the symbols that byte-level tokenizers write them in: Latin-1
/// where that can be seen, and what follows it for the others.
#[cfg(feature = "text")]
pub fn bytes() -> Vocabulary {
    let mut unseen = '\u{100}'..;
    let symbols = (0..=255u8).map(|byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => unseen.next().expect("more characters than bytes"),
    });
    let tokens = symbols.map(String::from).collect();
    Vocabulary { model: "gpt2".into(), pre: Some("gpt-2".into()), tokens, ..Vocabulary::default() }
}

/// Demands one line of an error that ends up before a user's eyes.
pub fn one_line(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}
