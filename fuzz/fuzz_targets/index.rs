//! A safetensors index, in a folder of two shards: `a.safetensors` has tensor `x`, `b.safetensors`
//! has `y`.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use fathom_fuzz::formats::Checkpoint;
use fathom_fuzz::{one_line, walk};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let shard = |name: &str| {
        let header =
            format!("{{\"{name}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}}}");
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0]].concat()
    };
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).expect("a file");
    };
    write("config.json", b"{}");
    write("a.safetensors", &shard("x"));
    write("b.safetensors", &shard("y"));
    folder
});

fuzz_target!(|index: &[u8]| {
    let folder = FOLDER.path();
    fs::write(folder.join("model.safetensors.index.json"), index).expect("a file");
    match Checkpoint::open(folder) {
        Ok(checkpoint) => walk(&checkpoint),
        Err(error) => one_line(&error),
    }
});
