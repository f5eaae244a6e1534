//! GGUF files for tests, sound or broken in one way.

use super::Value;
use super::write::encode;

/// A file in the making.
#[derive(Clone)]
pub(in crate::formats) struct File {
    pub version: u32,
    pub tensors: u64,
    pub entries: u64,
    pub metadata: Vec<u8>,
    pub infos: Vec<u8>,
    pub data: usize,
}

/// A text as GGUF files have it.
pub(in crate::formats) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl File {
    /// One without metadata and tensors.
    pub fn new() -> Self {
        Self { version: 3, tensors: 0, entries: 0, metadata: vec![], infos: vec![], data: 0 }
    }

    /// One of an architecture.
    pub fn of(architecture: &str) -> Self {
        Self::new().with("general.architecture", Value::Str(architecture.into()))
    }

    /// Adds a metadata entry whose bytes after the key are `value`.
    pub fn raw(mut self, key: &str, value: &[u8]) -> Self {
        self.metadata.extend(text(key));
        self.metadata.extend(value);
        self.entries += 1;
        self
    }

    /// Adds a metadata entry.
    pub fn with(self, key: &str, value: Value) -> Self {
        let mut bytes = vec![];
        encode(&value, &mut bytes);
        self.raw(key, &bytes)
    }

    /// Adds a tensor whose dimensions are `sizes`, innermost first, at an offset of the data.
    pub fn tensor_at(mut self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> Self {
        self.infos.extend(text(name));
        self.infos.extend((sizes.len() as u32).to_le_bytes());
        sizes.iter().for_each(|size| self.infos.extend(size.to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    /// Adds a tensor of so many bytes behind those before it.
    pub fn tensor(self, name: &str, sizes: &[u64], kind: u32, bytes: usize) -> Self {
        let offset = self.data;
        let data = (offset + bytes).next_multiple_of(32);
        Self { data, ..self.tensor_at(name, sizes, kind, offset as u64) }
    }

    /// The file with this much data; byte i of it is i.
    pub fn with_data(&self, bytes: usize) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensors.to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(&self.metadata);
        file.extend(&self.infos);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend((0..bytes).map(|i| i as u8));
        file
    }

    /// The file with the data its tensors need.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_data(self.data)
    }
}
