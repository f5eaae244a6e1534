//! GGUF files, versions 2 and 3, little-endian, in one part or several: the format of llama.cpp.
//!
//! A [`Checkpoint`](super::Checkpoint) opens one like a folder of safetensors files: its tensors
//! become views, and its metadata a `config.json` in Hugging Face's spelling (see `config.rs`).
//! The tokenizer and the chat template are made from the metadata itself, which [`Gguf`] holds.

#[cfg(test)]
pub(super) mod builder;
mod config;
mod header;
mod names;
mod split;
mod value;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::shard::{Bytes, Entry, Shard};
use crate::{Error, Result};
use split::PartName;

pub(super) use config::config_text;
pub(super) use names::spellings;
pub use names::{gguf_experts, gguf_parameters};
pub(super) use split::only_model;
pub use value::{Array, Strings, Value};
pub use write::{TensorInfo, Writer};

/// The metadata of a GGUF model; of the first part, if it has several.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    metadata: BTreeMap<String, Value>,
}

/// One file of a model and the tensors in it by name.
pub(super) type Part = (Shard, Vec<(String, Entry)>);

impl Gguf {
    /// Opens the model at `path`, which may be any of its parts, or else the only part.
    ///
    /// Errors name the file, and the tensor or metadata key at fault.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Part>)> {
        let (asked, part) = Self::read(Shard::map(path)?)?;
        let count = asked.split("split.count")?.unwrap_or(1);
        if count <= 1 {
            return Ok((asked, vec![part]));
        }
        let Some(name) = PartName::parse(path).filter(|name| name.count == count) else {
            let what = format!(
                "one of the {count} parts of a model, but not named NAME-00001-of-{count:05}.gguf"
            );
            return Err(Error::file(path, what));
        };
        let mut parts = Vec::new();
        let mut first = None;
        for number in 1..=count {
            let sibling = name.sibling(path, number);
            if !sibling.is_file() {
                let what = format!("missing: part {number} of the {count} of this model");
                return Err(Error::file(sibling, what));
            }
            let (gguf, part) = Self::read(Shard::map(&sibling)?)?;
            gguf.check_part(number, count)?;
            first.get_or_insert(gguf);
            parts.push(part);
        }
        // There is a first part: the count is above 1.
        let first = first.unwrap_or(asked);
        let tensors = parts.iter().map(|(_, entries)| entries.len()).sum::<usize>();
        if let Some(announced) = first.split("split.tensors.count")?
            && announced != tensors
        {
            let what = format!("{announced} tensors are announced, its parts have {tensors}");
            return Err(Error::file(first.path, what));
        }
        Ok((first, parts))
    }

    /// Reads the header of one file.
    pub(super) fn read(shard: Shard) -> Result<(Self, Part)> {
        let header = header::read(shard.bytes()).map_err(|what| Error::file(&shard.path, what))?;
        let gguf = Self { path: shard.path.clone(), metadata: header.metadata };
        Ok((gguf, (shard, header.tensors)))
    }

    /// Reads a file held in memory, which errors will call `label`.
    pub(super) fn from_bytes(label: &str, bytes: Vec<u8>) -> Result<(Self, Vec<Part>)> {
        let (gguf, part) = Self::read(Shard::new(label.into(), Bytes::Owned(bytes)))?;
        Ok((gguf, vec![part]))
    }

    /// Whether this file says that it is part `number`, from 1, of `count`.
    fn check_part(&self, number: usize, count: usize) -> Result<()> {
        let said = (self.split("split.no")?, self.split("split.count")?);
        if said == (Some(number - 1), Some(count)) {
            return Ok(());
        }
        let what = match said {
            (Some(n), Some(c)) => format!("says it is part {} of {c}", n + 1),
            _ => "does not say which part of a model it is".to_owned(),
        };
        Err(Error::file(&self.path, format!("{what}, named as part {number} of {count}")))
    }

    /// A number that says how a model is split.
    fn split(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.u32(key)?.map(|n| n as usize))
    }

    /// The file the metadata were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// Every key with its value, sorted.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An error about the value of `key`, naming the file.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::file(&self.path, format!("metadata `{key}`: {what}"))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.error(key, format_args!("is {}, expected {expected}", value.kind()));
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A text, `None` if the key is not there; an error if it has another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A whole number of any width that fits; otherwise as [`Self::str`].
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number from 0 to 4294967295", Value::as_u32)
    }

    /// A fraction; otherwise as [`Self::str`].
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a fraction", Value::as_f32)
    }

    /// A truth value; otherwise as [`Self::str`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a truth value", Value::as_bool)
    }

    /// An array of texts; otherwise as [`Self::str`].
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.typed(key, "an array of texts", Value::as_strings)
    }

    /// An array of whole numbers of any width that fit; otherwise as [`Self::str`].
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "an array of whole numbers", Value::to_i32s)
    }

    /// An array of `f32`; otherwise as [`Self::str`].
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of fractions", Value::as_f32s)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
