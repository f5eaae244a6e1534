//! Writing GGUF files, version 3, front to back: nothing is kept but the list of tensors.

use std::io::{self, Write};

use super::super::DType;
use super::{Array, Value};

/// Tensor data and each tensor begin at multiples of so many bytes.
const ALIGNMENT: u64 = 32;

/// A tensor that a file will have.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Its dimensions, outermost first: one to four.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Bytes of its data.
    ///
    /// # Errors
    /// What is wrong with it: a format that GGUF files do not have, or rows that end inside a block.
    pub fn bytes(&self) -> Result<u64, String> {
        let wrong = |what: String| Err(format!("tensor `{}`: {what}", self.name));
        if self.dtype.ggml().is_none() {
            return wrong(format!("GGUF files do not have {}", self.dtype));
        }
        let Some((&cols, outer)) = self.shape.split_last().filter(|(_, outer)| outer.len() < 4)
        else {
            return wrong(format!("has {} dimensions, not one to four", self.shape.len()));
        };
        let row = self.dtype.byte_len(cols);
        let bytes = outer.iter().try_fold(row.unwrap_or_default(), |n, &d| n.checked_mul(d));
        match (row, bytes) {
            (Some(_), Some(bytes)) => Ok(bytes as u64),
            _ => wrong(format!("has no whole number of bytes as {} {:?}", self.dtype, self.shape)),
        }
    }
}

/// A file whose header is written and whose tensors' data follow in order.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of each tensor still to come, the last one first.
    left: Vec<u64>,
    /// Bytes of data so far.
    at: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header: metadata and tensors in the order given.
    ///
    /// # Errors
    /// If `out` cannot be written to, or a tensor's [`TensorInfo::bytes`] fails.
    pub fn begin<'a>(
        mut out: W,
        metadata: impl ExactSizeIterator<Item = (&'a str, &'a Value)>,
        tensors: &[TensorInfo],
    ) -> io::Result<Self> {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            text(key, &mut header);
            encode(value, &mut header);
        }
        let mut offset = 0_u64;
        let mut left = vec![];
        for tensor in tensors {
            let bytes = tensor.bytes().map_err(io::Error::other)?;
            text(&tensor.name, &mut header);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for &size in tensor.shape.iter().rev() {
                header.extend((size as u64).to_le_bytes());
            }
            // `bytes` made sure that the format has a number.
            header.extend(tensor.dtype.ggml().unwrap_or_default().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + bytes).next_multiple_of(ALIGNMENT);
            left.push(bytes);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        out.write_all(&header)?;
        left.reverse();
        let mut writer = Self { out, left, at: 0 };
        writer.skip_finished()?;
        Ok(writer)
    }

    /// Writes the next bytes of the data, which are of one tensor.
    ///
    /// # Errors
    /// If they cannot be written, or are more than the tensor has left.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = bytes.len() as u64;
        match self.left.last_mut() {
            Some(left) if count <= *left => *left -= count,
            _ => return Err(io::Error::other("more data than the tensor has")),
        }
        self.out.write_all(bytes)?;
        self.at += count;
        self.skip_finished()
    }

    /// Pads behind a tensor that is complete.
    fn skip_finished(&mut self) -> io::Result<()> {
        while self.left.pop_if(|left| *left == 0).is_some() {
            let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
            self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            self.at += padding;
        }
        Ok(())
    }

    /// Gives back what was written to, with everything flushed there.
    ///
    /// # Errors
    /// If that fails, or a tensor lacks data.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.left.is_empty() {
            return Err(io::Error::other(format!("{} tensors lack data", self.left.len())));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Appends a text: its length and its bytes.
fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Appends a metadata value: its type and its bytes.
pub(super) fn encode(value: &Value, out: &mut Vec<u8>) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(n) => put(0, &n.to_le_bytes()),
        Value::I8(n) => put(1, &n.to_le_bytes()),
        Value::U16(n) => put(2, &n.to_le_bytes()),
        Value::I16(n) => put(3, &n.to_le_bytes()),
        Value::U32(n) => put(4, &n.to_le_bytes()),
        Value::I32(n) => put(5, &n.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(b) => put(7, &[u8::from(*b)]),
        Value::U64(n) => put(10, &n.to_le_bytes()),
        Value::I64(n) => put(11, &n.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
        Value::Str(t) => {
            put(8, &[]);
            text(t, out);
        }
        Value::Array(a) => {
            put(9, &[]);
            array(a, out);
        }
    }
}

/// Appends an array: the type of its items, their number, and they.
fn array(array_: &Array, out: &mut Vec<u8>) {
    fn items<T: Copy, const N: usize>(
        kind: u32,
        items: &[T],
        bytes: impl Fn(T) -> [u8; N],
        out: &mut Vec<u8>,
    ) {
        begin(kind, items.len(), out);
        out.extend(items.iter().flat_map(|&item| bytes(item)));
    }
    fn begin(kind: u32, count: usize, out: &mut Vec<u8>) {
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    }
    match array_ {
        Array::U8(n) => items(0, n, u8::to_le_bytes, out),
        Array::I8(n) => items(1, n, i8::to_le_bytes, out),
        Array::U16(n) => items(2, n, u16::to_le_bytes, out),
        Array::I16(n) => items(3, n, i16::to_le_bytes, out),
        Array::U32(n) => items(4, n, u32::to_le_bytes, out),
        Array::I32(n) => items(5, n, i32::to_le_bytes, out),
        Array::F32(x) => items(6, x, f32::to_le_bytes, out),
        Array::Bool(b) => items(7, b, |b| [u8::from(b)], out),
        Array::U64(n) => items(10, n, u64::to_le_bytes, out),
        Array::I64(n) => items(11, n, i64::to_le_bytes, out),
        Array::F64(x) => items(12, x, f64::to_le_bytes, out),
        Array::Str(texts) => {
            begin(8, texts.len(), out);
            texts.iter().for_each(|t| text(t, out));
        }
        Array::Array(arrays) => {
            begin(9, arrays.len(), out);
            arrays.iter().for_each(|a| array(a, out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::*;

    fn info(name: &str, dtype: DType, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: shape.into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let texts = ["", "ß", "long enough"].into_iter().collect();
        let nested = vec![Array::U8(vec![1, 2]), Array::Str(texts), Array::Array(vec![])];
        let values = [
            Value::U8(200),
            Value::I8(-3),
            Value::U16(60_000),
            Value::I16(-300),
            Value::U32(4_000_000_000),
            Value::I32(-70_000),
            Value::F32(-0.1),
            Value::Bool(true),
            Value::Str("a\nb".into()),
            Value::U64(u64::MAX),
            Value::I64(i64::MIN),
            Value::F64(1e300),
            Value::Array(Array::Array(nested)),
            Value::Array(Array::I8(vec![-1])),
            Value::Array(Array::U16(vec![1, 65_535])),
            Value::Array(Array::I16(vec![-2])),
            Value::Array(Array::U32(vec![])),
            Value::Array(Array::I32(vec![-5, 5])),
            Value::Array(Array::F32(vec![0.5])),
            Value::Array(Array::Bool(vec![true, false])),
            Value::Array(Array::U64(vec![1 << 40])),
            Value::Array(Array::I64(vec![-1 << 40])),
            Value::Array(Array::F64(vec![0.1])),
        ];
        let keys: Vec<String> = (0..values.len()).map(|i| format!("key.{i:02}")).collect();
        let metadata = keys.iter().map(String::as_str).zip(&values);
        let q4_0 = DType::Block(crate::formats::BlockFormat::Q4_0);
        let tensors = [
            info("b", DType::F32, &[3]),
            info("none", DType::F32, &[0, 8]),
            info("a", q4_0, &[2, 1, 64]),
            info("c", DType::I32, &[1]),
        ];
        let mut writer = Writer::begin(vec![], metadata.clone(), &tensors).unwrap();
        writer.data(&[1; 5]).unwrap();
        writer.data(&[2; 7]).unwrap();
        writer.data(&[3; 72]).unwrap();
        assert!(writer.data(&[0; 5]).is_err());
        writer.data(&[4; 4]).unwrap();
        let file = writer.finish().unwrap();

        let header = header::read(&file).unwrap();
        assert!(header.metadata.iter().map(|(k, v)| (k.as_str(), v)).eq(metadata));
        let read: Vec<_> = header
            .tensors
            .iter()
            .map(|(name, entry)| {
                let dtype = entry.dtype;
                (info(name, dtype, &entry.shape), &file[entry.range.clone()])
            })
            .collect();
        assert_eq!(read[0], (tensors[0].clone(), &[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2][..]));
        assert_eq!(read[1], (tensors[1].clone(), &[][..]));
        assert_eq!(read[2], (tensors[2].clone(), &[3; 72][..]));
        assert_eq!(read[3], (tensors[3].clone(), &[4; 4][..]));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let begin = |tensor| Writer::begin(vec![], [].into_iter(), &[tensor]);
        let fault = |tensor| begin(tensor).unwrap_err().to_string();
        assert_eq!(
            fault(info("x", DType::F8E4M3, &[32])),
            "tensor `x`: GGUF files do not have F8_E4M3"
        );
        assert_eq!(
            fault(info("x", DType::F32, &[])),
            "tensor `x`: has 0 dimensions, not one to four"
        );
        assert!(fault(info("x", DType::F32, &[1; 5])).contains("5 dimensions"));
        let q6_k = DType::Block(crate::formats::BlockFormat::Q6K);
        assert_eq!(
            fault(info("x", q6_k, &[2, 128])),
            "tensor `x`: has no whole number of bytes as Q6_K [2, 128]"
        );
        let unfinished = begin(info("x", DType::F32, &[4])).unwrap().finish().unwrap_err();
        assert_eq!(unfinished.to_string(), "1 tensors lack data");
    }
}
