//! What becomes of a GGUF file: the same metadata, the same tensors.

use super::Plan;
use super::kind::{Context, Kind};
use super::source::Planned;
use crate::Result;
use crate::formats::{Checkpoint, Gguf, Value};

/// Metadata that say how a file is laid out or was made, which will not be true of the new one.
const DROPPED: [&str; 3] = ["general.alignment", "split.", "quantize.imatrix."];

/// Plans the new file.
pub(super) fn plan(checkpoint: &Checkpoint, gguf: &Gguf, kind: Kind) -> Result<Plan> {
    let architecture = gguf.str("general.architecture")?.unwrap_or_default();
    let mut metadata: Vec<(String, Value)> = gguf
        .metadata()
        .filter(|(key, _)| !DROPPED.iter().any(|dropped| key.starts_with(dropped)))
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    set(&mut metadata, "general.file_type", Value::U32(kind.file_type()));
    set(&mut metadata, "general.quantization_version", Value::U32(2));
    // Readers look for this one first.
    metadata.sort_by_key(|(key, _)| key != "general.architecture");

    let mut views: Vec<_> = checkpoint.names().filter_map(|name| checkpoint.get(name)).collect();
    views.sort_by_key(|view| (view.file, view.bytes.as_ptr()));
    let tensors = views.into_iter().map(|view| {
        let parts = vec![view.name.clone()];
        Planned::plain(view.name, view.shape, parts)
    });
    let number = |key: &str| gguf.u32(&format!("{architecture}.{key}"));
    let context = Context {
        kind,
        layers: number("block_count")?.unwrap_or_default() as usize,
        tied: !checkpoint.contains("output.weight"),
        experts: number("expert_count")?.is_some_and(|n| n > 0),
    };
    Ok(Plan { metadata, tensors: tensors.collect(), left_out: 0, context })
}

fn set(metadata: &mut Vec<(String, Value)>, key: &str, value: Value) {
    metadata.retain(|(other, _)| other != key);
    metadata.push((key.to_owned(), value));
}
