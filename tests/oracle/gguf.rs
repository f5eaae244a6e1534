//! Quantised GGUF files as llama.cpp's converter makes them, against Transformers on the numbers that
//! they mean (see `scripts/fixtures/oracle_gguf.py`).

use std::path::Path;

use fathom::formats::Checkpoint;

use crate::{check_checkpoint, read};

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle_gguf");
    let checkpoint = Checkpoint::open(folder.join(name).with_extension("gguf")).unwrap();
    let expected = read(&folder.join(name).with_extension("safetensors"));
    check_checkpoint(name, &checkpoint, &expected);
}

/// Q4_1; permuted rows, factors of frequencies.
#[test]
fn llama() {
    check("llama");
}

/// Q5_0; tied embeddings.
#[test]
fn qwen2() {
    check("qwen2");
}

/// Q5_1; `kv_b_proj` whole.
#[test]
fn v2_lite() {
    check("v2_lite");
}

/// Q8_0; `kv_b_proj` in its halves.
#[test]
fn v3() {
    check("v3");
}
