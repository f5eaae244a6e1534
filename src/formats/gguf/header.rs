//! The header of one GGUF file, read with nothing in it trusted: every count and length is held
//! against the bytes that are there before anything is allocated for it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::super::DType;
use super::super::shard::Entry;
use super::{Array, Strings, Value};

/// What went wrong, without the file's name.
type Result<T> = std::result::Result<T, String>;

const MAGIC: &[u8; 4] = b"GGUF";
/// Tensor data begins at a multiple of so many bytes unless the metadata says otherwise.
const ALIGNMENT: u32 = 32;
/// ggml's tensors have no more dimensions.
const MOST_DIMENSIONS: u32 = 4;
/// Arrays in arrays, deeper than any file needs.
const DEEPEST: usize = 8;
/// The fewest bytes a metadata entry takes: a key of none, a type, a value of one.
const LEAST_ENTRY: usize = 8 + 4 + 1;
/// The fewest bytes a tensor takes: a name of none, no dimension, a type, an offset.
const LEAST_TENSOR: usize = 8 + 4 + 4 + 8;

/// What the header of a GGUF file says.
pub(super) struct Header {
    /// Its metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Its tensors in the file's order.
    pub tensors: Vec<(String, Entry)>,
}

/// Reads the header of the file whose bytes are `file`. Only the header is looked at.
pub(super) fn read(file: &[u8]) -> Result<Header> {
    let mut c = Cursor { bytes: file, at: 0 };
    if c.take(4).ok() != Some(MAGIC) {
        return Err("not a GGUF file: it does not begin with `GGUF`".into());
    }
    match u32::from_le_bytes(c.number()?) {
        2 | 3 => {}
        version if version.swap_bytes() <= 0xffff => {
            return Err("a big-endian GGUF file; only little-endian ones can be read".into());
        }
        version => return Err(format!("GGUF version {version}; only 2 and 3 can be read")),
    }
    let tensor_count = c.count("tensors", LEAST_TENSOR)?;
    let entry_count = c.count("metadata entries", LEAST_ENTRY)?;

    let mut metadata = BTreeMap::new();
    for i in 0..entry_count {
        let key = c.string().map_err(|e| format!("key of metadata entry {i}: {e}"))?.to_owned();
        let value = c.value().map_err(|e| format!("metadata `{key}`: {e}"))?;
        if metadata.contains_key(&key) {
            return Err(format!("metadata `{key}`: is there twice"));
        }
        metadata.insert(key, value);
    }
    let alignment = alignment(&metadata)?;

    let mut names = HashSet::new();
    let mut infos = Vec::new();
    for i in 0..tensor_count {
        let name = c.string().map_err(|e| format!("name of tensor {i}: {e}"))?;
        let info = c.tensor(alignment).map_err(|e| format!("tensor `{name}`: {e}"))?;
        if !names.insert(name) {
            return Err(format!("tensor `{name}`: is there twice"));
        }
        infos.push((name, info));
    }
    // Cannot overflow: `at` is within a file and the alignment a u32.
    let data = c.at.next_multiple_of(alignment as usize);
    let tensors = place(infos, data, file.len())?;
    Ok(Header { metadata, tensors })
}

/// The alignment the metadata asks for.
fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u32> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let found = value.as_u32().filter(|n| n.is_power_of_two());
    found.ok_or_else(|| "metadata `general.alignment`: not a power of two".into())
}

/// A tensor as its header entry has it.
struct Info {
    dtype: DType,
    shape: Vec<usize>,
    bytes: usize,
    /// From the beginning of the data.
    offset: usize,
}

/// Gives each tensor its place in a file of `len` bytes, whose data begin at `data`, and holds
/// these places against the file and each other.
fn place(infos: Vec<(&str, Info)>, data: usize, len: usize) -> Result<Vec<(String, Entry)>> {
    let mut tensors = Vec::with_capacity(infos.len());
    let mut spans: Vec<(Range<usize>, &str)> = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let start = data.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.bytes));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= len)) else {
            return Err(format!(
                "tensor `{name}`: {} bytes at offset {} of the data reach past the end of the \
                 file, which has {} bytes of data",
                info.bytes,
                info.offset,
                len.saturating_sub(data)
            ));
        };
        let range = start..end;
        spans.push((range.clone(), name));
        tensors.push((name.to_owned(), Entry { dtype: info.dtype, shape: info.shape, range }));
    }
    spans.sort_unstable_by_key(|(range, _)| (range.start, range.end));
    for pair in spans.windows(2) {
        let [(before, first), (after, second)] = pair else { continue };
        if after.start < before.end {
            return Err(format!("tensor `{second}`: overlaps tensor `{first}`"));
        }
    }
    Ok(tensors)
}

/// Reads a file from front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.rest() {
            return Err(format!(
                "truncated: {count} bytes expected at byte {}, {} are there",
                self.at,
                self.rest()
            ));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    /// A number of things of at least `least` bytes each, for all of which there is room.
    fn count(&mut self, things: &str, least: usize) -> Result<usize> {
        let count = u64::from_le_bytes(self.number()?);
        let most = self.rest() / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!("{count} {things} are announced, the file has room for {most}")),
        }
    }

    fn string(&mut self) -> Result<&'a str> {
        let length = self.count("bytes of text", 1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| "text that is not UTF-8".into())
    }

    fn value(&mut self) -> Result<Value> {
        Ok(match u32::from_le_bytes(self.number()?) {
            0 => Value::U8(u8::from_le_bytes(self.number()?)),
            1 => Value::I8(i8::from_le_bytes(self.number()?)),
            2 => Value::U16(u16::from_le_bytes(self.number()?)),
            3 => Value::I16(i16::from_le_bytes(self.number()?)),
            4 => Value::U32(u32::from_le_bytes(self.number()?)),
            5 => Value::I32(i32::from_le_bytes(self.number()?)),
            6 => Value::F32(f32::from_le_bytes(self.number()?)),
            7 => Value::Bool(self.number::<1>()? != [0]),
            8 => Value::Str(self.string()?.to_owned()),
            9 => Value::Array(self.array(DEEPEST)?),
            10 => Value::U64(u64::from_le_bytes(self.number()?)),
            11 => Value::I64(i64::from_le_bytes(self.number()?)),
            12 => Value::F64(f64::from_le_bytes(self.number()?)),
            other => return Err(format!("value of the unknown type {other}")),
        })
    }

    /// An array with up to `depth` levels.
    fn array(&mut self, depth: usize) -> Result<Array> {
        Ok(match u32::from_le_bytes(self.number()?) {
            0 => Array::U8(self.numbers(u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(f32::from_le_bytes)?),
            7 => Array::Bool(self.numbers(|b: [u8; 1]| b != [0])?),
            8 => {
                let count = self.count("texts", 8)?;
                let mut strings = Strings::default();
                for _ in 0..count {
                    strings.push(self.string()?);
                }
                Array::Str(strings)
            }
            9 if depth == 1 => return Err(format!("more than {DEEPEST} arrays in each other")),
            9 => {
                let count = self.count("arrays", 4 + 8)?;
                Array::Array((0..count).map(|_| self.array(depth - 1)).collect::<Result<_>>()?)
            }
            10 => Array::U64(self.numbers(u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(f64::from_le_bytes)?),
            other => return Err(format!("array of the unknown type {other}")),
        })
    }

    fn numbers<const N: usize, T>(&mut self, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let count = self.count("numbers", N)?;
        Ok(self.take(count * N)?.as_chunks::<N>().0.iter().map(|&b| read(b)).collect())
    }

    /// A tensor's entry after its name.
    fn tensor(&mut self, alignment: u32) -> Result<Info> {
        let dimensions = u32::from_le_bytes(self.number()?);
        if dimensions > MOST_DIMENSIONS {
            return Err(format!("{dimensions} dimensions, expected up to {MOST_DIMENSIONS}"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = u64::from_le_bytes(self.number()?);
            shape.push(usize::try_from(size).map_err(|_| format!("a dimension of {size}"))?);
        }
        // GGUF lists the innermost dimension first.
        shape.reverse();
        let number = u32::from_le_bytes(self.number()?);
        let dtype =
            DType::from_ggml(number).ok_or_else(|| format!("its type {number} is unknown"))?;
        let offset = u64::from_le_bytes(self.number()?);
        if !offset.is_multiple_of(alignment.into()) {
            return Err(format!("its offset {offset} is not a multiple of {alignment}"));
        }
        let offset = usize::try_from(offset).map_err(|_| format!("an offset of {offset}"))?;
        let columns = shape.last().copied().unwrap_or(1);
        if let DType::Block(format) = dtype
            && !columns.is_multiple_of(format.block())
        {
            let block = format.block();
            return Err(format!("rows of {columns} do not divide into {dtype} blocks of {block}"));
        }
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = elements.and_then(|n| dtype.byte_len(n));
        let bytes = bytes.ok_or_else(|| format!("its shape {shape:?} is too large"))?;
        Ok(Info { dtype, shape, bytes, offset })
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
