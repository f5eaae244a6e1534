use super::super::builder::{File, text};
use super::*;
use proptest::prelude::*;

fn fault(bytes: &[u8]) -> String {
    read(bytes).err().expect("a bad file")
}

#[test]
fn a_good_file() {
    let file = File::of("llama").tensor("a", &[3, 2], 0, 24).tensor("b", &[64], 2, 36);
    let bytes = file.bytes();
    let header = read(&bytes).unwrap();
    assert_eq!(header.metadata["general.architecture"], Value::Str("llama".into()));
    let [(a, first), (b, second)] = header.tensors.as_slice() else { panic!("two tensors") };
    assert_eq!((a.as_str(), &first.shape, first.dtype), ("a", &vec![2, 3], DType::F32));
    assert_eq!((b.as_str(), second.dtype), ("b", DType::Block(crate::formats::BlockFormat::Q4_0)));
    let data = bytes.len() - 32 - 64;
    assert_eq!(first.range, data..data + 24);
    assert_eq!(second.range, data + 32..data + 68);
    assert_eq!(read(&File { version: 2, ..file }.bytes()).unwrap().tensors.len(), 2);
}

#[test]
fn files_of_other_kinds() {
    assert!(fault(b"").contains("does not begin with `GGUF`"));
    assert!(fault(b"GGML\x03\0\0\0").contains("does not begin with `GGUF`"));
    let version = |version| fault(&File { version, ..File::new() }.bytes());
    assert_eq!(version(1), "GGUF version 1; only 2 and 3 can be read");
    assert_eq!(version(4), "GGUF version 4; only 2 and 3 can be read");
    let big = "a big-endian GGUF file; only little-endian ones can be read";
    assert_eq!(version(3u32.swap_bytes()), big);
}

/// Counts far beyond the file are refused before anything is allocated for them.
#[test]
fn huge_counts() {
    for (tensors, entries, part) in [
        (u64::MAX, 0, "18446744073709551615 tensors are announced, the file has room for 1"),
        (1 << 40, 0, "1099511627776 tensors are announced"),
        (0, u64::MAX, "18446744073709551615 metadata entries are announced"),
        (0, 1 << 32, "4294967296 metadata entries are announced, the file has room for"),
    ] {
        let file = File { tensors, entries, ..File::new() }.with_data(16);
        assert!(fault(&file).starts_with(part), "{}", fault(&file));
    }
}

#[test]
fn faults_of_metadata() {
    let value = |kind: u32, bytes: &[u8]| {
        let file = File::new().raw("k", &[&kind.to_le_bytes()[..], bytes].concat());
        fault(&file.bytes())
    };
    let long = (1u64 << 63).to_le_bytes();
    assert!(value(8, &long).starts_with("metadata `k`: 9223372036854775808 bytes of text are"));
    let array = |kind: u32| [&kind.to_le_bytes()[..], &long].concat();
    assert!(value(9, &array(6)).starts_with("metadata `k`: 9223372036854775808 numbers are"));
    assert!(value(9, &array(8)).starts_with("metadata `k`: 9223372036854775808 texts are"));
    assert!(value(9, &array(9)).starts_with("metadata `k`: 9223372036854775808 arrays are"));
    assert_eq!(value(9, &array(13)), "metadata `k`: array of the unknown type 13");
    assert_eq!(value(13, &[]), "metadata `k`: value of the unknown type 13");
    let latin = [&1u64.to_le_bytes()[..], &[0xff]].concat();
    assert_eq!(value(8, &latin), "metadata `k`: text that is not UTF-8");
    // Arrays in arrays, without end.
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(1000);
    assert_eq!(value(9, &nested), "metadata `k`: more than 8 arrays in each other");

    let twice = File::of("a").with("general.architecture", Value::Bool(true));
    assert_eq!(fault(&twice.bytes()), "metadata `general.architecture`: is there twice");
    for alignment in [Value::U32(0), Value::U32(48), Value::Str("32".into())] {
        let file = File::new().with("general.alignment", alignment);
        assert_eq!(fault(&file.bytes()), "metadata `general.alignment`: not a power of two");
    }
}

#[test]
fn faults_of_tensors() {
    let one = |sizes: &[u64], kind, offset| {
        fault(&File::new().tensor_at("t", sizes, kind, offset).with_data(64))
    };
    assert_eq!(one(&[1], 16, 0), "tensor `t`: its type 16 is unknown");
    assert_eq!(one(&[1; 5], 0, 0), "tensor `t`: 5 dimensions, expected up to 4");
    let (half, largest) = (1 << 32, 1 << 63);
    assert!(one(&[half, half], 0, 0).contains("its shape [4294967296, 4294967296] is too large"));
    assert!(one(&[largest], 1, 0).contains("is too large"));
    assert!(one(&[0, half, half], 0, 0).contains("is too large"));
    assert_eq!(one(&[33], 2, 0), "tensor `t`: rows of 33 do not divide into Q4_0 blocks of 32");
    assert_eq!(one(&[16, 2], 2, 0), "tensor `t`: rows of 16 do not divide into Q4_0 blocks of 32");
    assert_eq!(one(&[1], 0, 8), "tensor `t`: its offset 8 is not a multiple of 32");
    assert_eq!(
        one(&[16], 0, 32),
        "tensor `t`: 64 bytes at offset 32 of the data reach past the end of the file, which has \
         64 bytes of data"
    );
    assert!(one(&[1], 0, u64::MAX - 31).contains("reach past the end"));

    let overlap = File::new().tensor_at("a", &[9], 0, 0).tensor_at("b", &[1], 0, 32);
    assert_eq!(fault(&overlap.with_data(64)), "tensor `b`: overlaps tensor `a`");
    let same = File::new().tensor_at("a", &[1], 0, 0).tensor_at("a", &[1], 0, 32);
    assert_eq!(fault(&same.with_data(64)), "tensor `a`: is there twice");
}

#[test]
fn truncated_anywhere() {
    let file = File::of("llama")
        .with("a", Value::Array(Array::Str(["x", "yz"].into_iter().collect())))
        .with("b", Value::Array(Array::U32(vec![1, 2])))
        .tensor("t", &[3, 2], 0, 24)
        .bytes();
    // What follows the tensor is padding.
    let needed = file.len() - 8;
    assert!(read(&file[..needed]).is_ok());
    for end in 0..needed {
        let what = fault(&file[..end]);
        assert!(!what.is_empty() && !what.contains('\n'), "{end}: {what}");
    }
    assert!(fault(&file[..7]).starts_with("truncated: 4 bytes expected at byte 4, 3 are there"));
}

proptest! {
    /// Whatever a damaged file says, it is refused in words or its tensors are where it has bytes.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..4)) {
        let file = File::of("llama")
            .with("n", Value::Array(Array::F32(vec![1.0])))
            .raw("deep", &[&9u32.to_le_bytes()[..], &9u32.to_le_bytes(), &1u64.to_le_bytes(),
                &8u32.to_le_bytes(), &1u64.to_le_bytes(), &text("x")].concat())
            .tensor("t", &[3, 2], 0, 24)
            .tensor("q", &[32, 1, 2], 8, 68);
        let mut bytes = file.bytes();
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        match read(&bytes) {
            Ok(header) => for (_, entry) in header.tensors {
                let elements = entry.shape.iter().product();
                prop_assert_eq!(entry.dtype.byte_len(elements), Some(entry.range.len()));
                prop_assert!(entry.range.end <= bytes.len());
            },
            Err(what) => prop_assert!(what.len() > 5),
        }
    }
}
