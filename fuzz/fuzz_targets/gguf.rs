//! A GGUF file.
#![no_main]

use fathom_fuzz::formats::Checkpoint;
use fathom_fuzz::{one_line, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| match Checkpoint::from_gguf_bytes("f.gguf", file.to_vec()) {
    Ok(checkpoint) => walk(&checkpoint),
    Err(error) => one_line(&error),
});
