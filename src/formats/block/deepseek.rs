//! Stored blocks out of DeepSeek's checkpoints, which keep codes and scales in tensors of their own.

use super::layout::Bits;
use super::values::ue8m0;

/// Elements of a block of [`BlockFormat::FP8`](super::BlockFormat::FP8) and
/// [`BlockFormat::MXFP4`](super::BlockFormat::MXFP4).
const SMALL: usize = 32;
/// Elements of a block of [`BlockFormat::FP8F32`](super::BlockFormat::FP8F32).
const LARGE: usize = 128;

/// Appends one row as stored blocks of [`BlockFormat::FP8`](super::BlockFormat::FP8): `codes` are its
/// e4m3 bytes, `scales` its ue8m0 bytes, one for every `columns` codes, which is a multiple of 32.
/// What lacks in the last block is zeros.
///
/// # Errors
/// What is wrong with the scales, to be told with the tensor's name: another number of them than the
/// row needs, or one that is not a number.
pub fn fp8_row(
    codes: &[u8],
    scales: &[u8],
    columns: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    check(codes.len(), columns, SMALL, scales, |&s| ue8m0(s).is_finite())?;
    for (i, codes) in codes.chunks(SMALL).enumerate() {
        out.push(scales[i * SMALL / columns]);
        extend(codes, SMALL, out);
    }
    Ok(())
}

/// [`fp8_row`] with scales in f32: blocks of [`BlockFormat::FP8F32`](super::BlockFormat::FP8F32), so
/// that `columns` is a multiple of 128.
///
/// # Errors
/// As [`fp8_row`].
pub fn fp8_f32_row(
    codes: &[u8],
    scales: &[f32],
    columns: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    check(codes.len(), columns, LARGE, scales, |s| s.is_finite())?;
    for (i, codes) in codes.chunks(LARGE).enumerate() {
        out.extend(scales[i * LARGE / columns].to_le_bytes());
        extend(codes, LARGE, out);
    }
    Ok(())
}

/// Appends one row as stored blocks of [`BlockFormat::MXFP4`](super::BlockFormat::MXFP4): `codes` has
/// two e2m1 codes a byte, that of the even column in the low half, `scales` a ue8m0 byte for every 32
/// columns. What lacks in the last block is zeros.
///
/// # Errors
/// As [`fp8_row`].
pub fn fp4_row(codes: &[u8], scales: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    check(2 * codes.len(), SMALL, SMALL, scales, |&s| ue8m0(s).is_finite())?;
    for (codes, &scale) in codes.chunks(SMALL / 2).zip(scales) {
        let mut columns = [0; SMALL];
        for (pair, byte) in columns.chunks_exact_mut(2).zip(codes) {
            pair.copy_from_slice(&[byte & 15, byte >> 4]);
        }
        let mut block = [0; 1 + SMALL / 2];
        block[0] = scale;
        Bits { at: 1, run: 16, bits: 4, shift: 0 }.put(&columns, &mut block);
        out.extend(block);
    }
    Ok(())
}

fn extend(codes: &[u8], block: usize, out: &mut Vec<u8>) {
    out.extend(codes);
    out.resize(out.len() + block - codes.len(), 0);
}

fn check<S: std::fmt::Display>(
    row: usize,
    columns: usize,
    block: usize,
    scales: &[S],
    finite: impl Fn(&S) -> bool,
) -> Result<(), String> {
    if columns == 0 || !columns.is_multiple_of(block) {
        return Err(format!("one scale for {columns} columns, which is no multiple of {block}"));
    }
    let needed = row.div_ceil(columns);
    if scales.len() != needed {
        return Err(format!("{} scales for a row of {row}, which needs {needed}", scales.len()));
    }
    match scales.iter().position(|s| !finite(s)) {
        Some(i) => Err(format!("the scale of columns {}.. is not a number", i * columns)),
        None => Ok(()),
    }
}
