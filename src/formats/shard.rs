//! One safetensors file: its bytes, its header, and what exactly is wrong with a bad one.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value};

use super::{DType, TensorView};
use crate::{Error, Result};

/// Bytes of the little-endian header length that opens a safetensors file.
const LENGTH_BYTES: usize = 8;

/// Where a shard's bytes live.
pub(super) enum Bytes {
    /// A file mapped into memory.
    Mapped(Mmap),
    /// Part of the program itself.
    Static(&'static [u8]),
    /// Memory.
    Owned(Vec<u8>),
}

/// One tensor's entry in a shard's header.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number format.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file; checked to lie inside it.
    pub range: std::ops::Range<usize>,
}

/// A file of tensors, whose header tells where they are.
pub(super) struct Shard {
    /// The file, or a label for embedded bytes.
    pub path: PathBuf,
    bytes: Bytes,
}

impl Shard {
    /// Bytes that errors will say are of `path`.
    pub fn new(path: PathBuf, bytes: Bytes) -> Self {
        Self { path, bytes }
    }

    /// Maps the file at `path`.
    pub fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let map = map_read_only(&file).map_err(|e| Error::io(path, e))?;
        Ok(Self::new(path.to_owned(), Bytes::Mapped(map)))
    }

    /// Maps the safetensors file at `path` and reads its header: the shard and its tensors by name.
    pub fn open(path: &Path) -> Result<(Self, Vec<(String, Entry)>)> {
        Self::map(path)?.read()
    }

    /// Reads the header of a safetensors file.
    pub fn read(self) -> Result<(Self, Vec<(String, Entry)>)> {
        let shard = self;
        let all = shard.bytes();
        let (header_len, metadata) = SafeTensors::read_metadata(all)
            .map_err(|e| Error::file(&shard.path, explain(all, &e)))?;
        let data = LENGTH_BYTES + header_len;
        let mut entries = Vec::new();
        for (name, info) in metadata.tensors() {
            let Some(dtype) = DType::from_safetensors(info.dtype) else {
                let what = format!("tensor `{name}`: unknown number format {:?}", info.dtype);
                return Err(Error::file(&shard.path, what));
            };
            let (start, end) = info.data_offsets;
            entries.push((
                name,
                Entry { dtype, shape: info.shape.clone(), range: data + start..data + end },
            ));
        }
        // The crate hands them out in no particular order; errors should not depend on it.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok((shard, entries))
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Lets the system take back the memory that a mapped file was read into; what is looked at again
    /// is read again.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: nothing is lost, as the map is read-only and thus always equal to its file.
            // A failure only leaves the memory in use.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    /// The view of a tensor of this shard.
    pub fn view(&self, name: &str, entry: &Entry) -> TensorView<'_> {
        TensorView {
            name: name.to_owned(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            bytes: &self.bytes()[entry.range.clone()],
            file: &self.path,
        }
    }
}

/// Maps `file` for reading.
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private to this process and read-only, so nothing here writes through it.
    // What remains is another process changing or truncating the file meanwhile: the bytes are
    // only ever read as plain numbers, for which any bit pattern is valid, so a change gives other
    // numbers and a truncation ends the process with a bus error, as with every loader that maps
    // weights. Copying instead would double the memory of models that barely fit.
    unsafe { Mmap::map(file) }
}

/// A sentence on why a header was refused that names the tensor where there is one to name. The
/// decision was the safetensors crate's; this looks at the header again because its errors leave
/// names and sizes out.
fn explain(bytes: &[u8], error: &SafeTensorError) -> String {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return format!("not a safetensors file: only {} bytes long", bytes.len());
    };
    let header_len = u64::from_le_bytes(*length);
    let Some(header) = usize::try_from(header_len).ok().and_then(|n| rest.get(..n)) else {
        return format!(
            "truncated, or not a safetensors file: a header of {header_len} bytes is announced, \
             {} follow",
            rest.len()
        );
    };
    let header = match serde_json::from_slice::<Map<String, Value>>(header) {
        Ok(header) => header,
        Err(e) => return format!("the safetensors header is not a JSON object: {e}"),
    };
    let data_len = rest.len() - header_len as usize;
    explain_entries(&header, data_len).unwrap_or_else(|| format!("bad safetensors header: {error}"))
}

/// The first fault among a header's entries, if one of these is what is wrong; `data_len` bytes of
/// data follow the header.
fn explain_entries(header: &Map<String, Value>, data_len: usize) -> Option<String> {
    let mut spans = Vec::new();
    for (name, value) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let info: safetensors::tensor::TensorInfo = match serde_json::from_value(value.clone()) {
            Ok(info) => info,
            Err(e) => return Some(format!("tensor `{name}`: bad header entry: {e}")),
        };
        let (start, end) = info.data_offsets;
        let elements = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
        let described = format!("shape {:?} of {:?}", info.shape, info.dtype);
        match bits {
            None => return Some(format!("tensor `{name}`: {described} is too large")),
            Some(bits) if end.checked_sub(start).and_then(|n| n.checked_mul(8)) != Some(bits) => {
                return Some(format!(
                    "tensor `{name}`: {described} takes {} bytes, its data offsets are {start}..{end}",
                    bits.div_ceil(8)
                ));
            }
            Some(_) => spans.push((start, end, name)),
        }
    }
    spans.sort_unstable();
    let mut reached = 0;
    let mut previous = "the header";
    for (start, end, name) in spans {
        if start < reached {
            return Some(format!("tensor `{name}` overlaps tensor `{previous}`"));
        }
        if start > reached {
            return Some(format!("unused bytes between {previous} and tensor `{name}`"));
        }
        if end > data_len {
            return Some(format!(
                "truncated: tensor `{name}` ends at byte {end} of the data, {data_len} are there"
            ));
        }
        (reached, previous) = (end, name);
    }
    (reached < data_len).then(|| format!("{} bytes follow the last tensor", data_len - reached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<(Shard, Vec<(String, Entry)>)> {
        Shard::new("w".into(), Bytes::Owned(bytes)).read()
    }

    fn fault(bytes: Vec<u8>) -> String {
        read(bytes).err().expect("a bad file").to_string()
    }

    #[test]
    fn a_good_file_opens() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let (shard, entries) = read(file(header, 8)).unwrap();
        let view = shard.view("a", &entries[0].1);
        assert_eq!((view.bytes.len(), view.elements()), (8, 2));
    }

    #[test]
    fn each_fault_is_named() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert_eq!(fault(vec![1, 2]), "w: not a safetensors file: only 2 bytes long");
        assert!(fault(vec![255; 16]).contains("truncated, or not a safetensors file"));
        assert!(fault(file("[1]", 0)).contains("not a JSON object"));
        assert!(fault(file("{\"a\":{}}", 0)).contains("tensor `a`: bad header entry: missing"));
        assert!(fault(file(&one("F99", "[1]", "[0,4]"), 4)).contains("tensor `a`: bad header"));
        assert_eq!(
            fault(file(&one("F32", "[2]", "[0,8]"), 5)),
            "w: truncated: tensor `a` ends at byte 8 of the data, 5 are there"
        );
        assert_eq!(
            fault(file(&one("F32", "[3]", "[0,8]"), 8)),
            "w: tensor `a`: shape [3] of F32 takes 12 bytes, its data offsets are 0..8"
        );
        assert!(fault(file(&one("F32", "[2]", "[8,0]"), 8)).contains("data offsets are 8..0"));
        assert!(
            fault(file(&one("F32", "[4294967296,4294967296]", "[0,8]"), 8)).contains("too large")
        );
        assert_eq!(
            fault(file(&one("F32", "[2]", "[0,8]"), 12)),
            "w: 4 bytes follow the last tensor"
        );
        assert!(fault(file(&one("C64", "[1]", "[0,8]"), 8)).contains("unknown number format C64"));
        let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                      "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert_eq!(fault(file(two, 6)), "w: tensor `b` overlaps tensor `a`");
        let gap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert_eq!(fault(file(gap, 6)), "w: unused bytes between the header and tensor `a`");
    }

    proptest! {
        /// Whatever a damaged file says, it is refused in words or its tensors can be viewed.
        #[test]
        fn damage_never_panics(changes in prop::collection::vec((0usize..150, any::<u8>()), 1..3)) {
            let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                "b":{"dtype":"U8","shape":[1,3],"data_offsets":[8,11]}}"#;
            let mut bytes = file(header, 11);
            for (at, to) in changes {
                let at = at % bytes.len();
                bytes[at] = to;
            }
            match read(bytes) {
                Ok((shard, entries)) => for (name, entry) in entries {
                    let view = shard.view(&name, &entry);
                    prop_assert_eq!(entry.dtype.byte_len(view.elements()), Some(view.bytes.len()));
                },
                Err(e) => prop_assert!(e.to_string().len() > 5),
            }
        }
    }
}
