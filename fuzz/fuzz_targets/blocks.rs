//! Rows of blocks: the format's number, the row's width, and then its bytes. Also DeepSeek's codes
//! and scales, from the same bytes.
#![no_main]

use fathom_fuzz::formats::{BlockFormat, fp4_row, fp8_row};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u16, Vec<u8>)| {
    let (number, columns, bytes) = input;
    let formats: Vec<_> = BlockFormat::all().collect();
    let format = formats[number as usize % formats.len()];
    let columns = columns as usize % 2048;
    if bytes.len() >= format.stored_bytes(columns) {
        let mut numbers = vec![0.0; columns];
        format.dequantize(&bytes, &mut numbers);
        let mut packed = vec![];
        format.pack_row(&bytes, columns, &mut packed);
        assert_eq!(packed.len(), 4 * format.packed_words(columns));
    }
    let (scales, codes) = bytes.split_at(bytes.len() / 8);
    let group = 32 * (1 + columns % 8);
    let mut rows = vec![];
    if fp8_row(codes, scales, group, &mut rows).is_ok() {
        assert_eq!(rows.len(), BlockFormat::FP8.stored_bytes(codes.len()));
    }
    rows.clear();
    if fp4_row(codes, scales, &mut rows).is_ok() {
        assert_eq!(rows.len(), BlockFormat::MXFP4.stored_bytes(2 * codes.len()));
    }
});
