//! The codec of block formats against implementations nobody here wrote. The fixtures are made by
//! `scripts/fixtures/blocks.py`.

mod common;

use std::path::Path;

use fathom::formats::{BlockFormat, E2M1, IQ4, ROW_ALIGN, fp4_row, fp8_f32_row, fp8_row};
use half::f16;
use safetensors::SafeTensors;
use xxhash_rust::xxh3::xxh3_64;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/blocks");
    std::fs::read(folder.join(name)).unwrap()
}

/// The 256 stored blocks of a format that the fixture's rule makes.
fn blocks(fixture: &SafeTensors<'_>, format: BlockFormat) -> Vec<u8> {
    let rule = fixture.tensor(&format!("{format}.rule")).unwrap();
    assert_eq!(rule.shape(), [format.block_bytes(), 2]);
    let of = |block: u8| {
        let rule = rule.data().chunks_exact(2);
        rule.map(move |r| block.wrapping_mul(r[0]).wrapping_add(r[1]))
    };
    (0..=255).flat_map(of).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Bits to compare: every NaN counts as the same.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() }).collect()
}

#[test]
fn blocks_mean_what_gguf_and_torch_say() {
    let file = fixture("decode.safetensors");
    let file = SafeTensors::deserialize(&file).unwrap();
    for format in BlockFormat::all() {
        let stored = blocks(&file, format);
        let mut values = vec![0.0; 256 * format.block()];
        format.dequantize(&stored, &mut values);
        let shown = file.tensor(&format!("{format}.block")).unwrap();
        let shown = floats(shown.data());
        assert_eq!(bits(&values[format.block()..][..format.block()]), bits(&shown), "{format}");
        let hashes = file.tensor(&format!("{format}.hash")).unwrap();
        let hashes =
            hashes.data().chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        assert_eq!(hashes.len(), 256);
        for (i, (block, hash)) in values.chunks_exact(format.block()).zip(hashes).enumerate() {
            let bits: Vec<u8> = bits(block).iter().flat_map(|b| b.to_le_bytes()).collect();
            assert_eq!(xxh3_64(&bits), hash, "{format}: block {i}");
        }
        let mut part = vec![0.0; format.block() + 3];
        format.dequantize(&stored, &mut part);
        assert_eq!(bits(&part), bits(&values[..part.len()]), "{format}");
    }
}

/// A packed row, read one bit at a time.
struct Packed {
    bytes: Vec<u8>,
    /// Bits of an item and the elements it is for, plane by plane.
    planes: &'static [(usize, usize)],
    cols: usize,
}

impl Packed {
    /// The item of plane `plane` for element `i`.
    fn item(&self, plane: usize, i: usize) -> u32 {
        let mut word = 0;
        for &(bits, each) in &self.planes[..plane] {
            word += (self.cols / each * bits).div_ceil(32);
        }
        let (bits, each) = self.planes[plane];
        let first = 32 * word + i / each * bits;
        (0..bits)
            .map(|b| (first + b, b))
            .fold(0, |item, (at, b)| item | u32::from(self.bytes[at / 8] >> (at % 8) & 1) << b)
    }

    fn words(&self) -> usize {
        let words = |&(bits, each): &(usize, usize)| (self.cols / each * bits).div_ceil(32);
        self.planes.iter().map(words).sum::<usize>().next_multiple_of(ROW_ALIGN)
    }
}

fn planes(format: BlockFormat) -> &'static [(usize, usize)] {
    use BlockFormat::*;
    match format {
        Q4_0 | IQ4NL => &[(4, 1), (16, 32)],
        Q4_1 => &[(4, 1), (32, 32)],
        Q5_0 => &[(4, 1), (1, 1), (16, 32)],
        Q5_1 => &[(4, 1), (1, 1), (32, 32)],
        Q8_0 => &[(8, 1), (16, 32)],
        Q2K => &[(2, 1), (8, 16), (32, 256)],
        Q3K => &[(2, 1), (1, 1), (8, 16), (16, 256)],
        Q4K => &[(4, 1), (16, 32), (32, 256)],
        Q5K => &[(4, 1), (1, 1), (16, 32), (32, 256)],
        Q6K => &[(4, 1), (2, 1), (8, 16), (16, 256)],
        IQ4XS => &[(4, 1), (8, 32), (16, 256)],
        MXFP4 => &[(4, 1), (8, 32)],
        FP8 => &[(8, 1), (8, 32)],
        FP8F32 => &[(8, 1), (32, 128)],
    }
}

/// An e4m3 code's number, by its definition.
fn e4m3(code: u32) -> f64 {
    let (exponent, fraction) = ((code >> 3 & 15) as i32, f64::from(code & 7) / 8.0);
    let size = match exponent {
        15 if code & 7 == 7 => f64::NAN,
        0 => fraction * 2f64.powi(-6),
        _ => (1.0 + fraction) * 2f64.powi(exponent - 7),
    };
    if code >> 7 == 1 { -size } else { size }
}

/// Element `i` of a packed row. Exact products and one rounding: what the f32 formulas give.
fn element(format: BlockFormat, row: &Packed, i: usize) -> f32 {
    use BlockFormat::*;
    let item = |plane: usize| row.item(plane, i);
    let half = |bits: u32| f16::from_bits(bits as u16).to_f64();
    let both = |bits: u32| (half(bits & 0xffff), half(bits >> 16));
    let signed = |bits: u32| f64::from(bits as u8 as i8);
    let number = |bits: u32| f64::from(bits);
    let power = |byte: u32, bias: i32| 2f64.powi(byte as i32 - bias);
    let value = match format {
        Q4_0 => half(item(1)) * (number(item(0)) - 8.0),
        Q4_1 => both(item(1)).0 * number(item(0)) + both(item(1)).1,
        Q5_0 => half(item(2)) * (number(item(0) | item(1) << 4) - 16.0),
        Q5_1 => both(item(2)).0 * number(item(0) | item(1) << 4) + both(item(2)).1,
        Q8_0 => half(item(1)) * signed(item(0)),
        Q2K => {
            let ((d, m), g) = (both(item(2)), item(1));
            d * number(g & 15) * number(item(0)) - m * number(g >> 4)
        }
        Q3K => half(item(3)) * signed(item(2)) * (number(item(0) | item(1) << 2) - 4.0),
        Q4K => {
            let ((d, m), g) = (both(item(2)), item(1));
            d * number(g & 255) * number(item(0)) - m * number(g >> 8)
        }
        Q5K => {
            let ((d, m), g) = (both(item(3)), item(2));
            d * number(g & 255) * number(item(0) | item(1) << 4) - m * number(g >> 8)
        }
        Q6K => half(item(3)) * signed(item(2)) * (number(item(0) | item(1) << 4) - 32.0),
        IQ4NL => half(item(1)) * f64::from(IQ4[item(0) as usize]),
        IQ4XS => half(item(2)) * signed(item(1)) * f64::from(IQ4[item(0) as usize]),
        MXFP4 => power(item(1), 128) * f64::from(E2M1[item(0) as usize]),
        FP8 if item(1) == 255 => f64::NAN,
        FP8 => power(item(1), 127) * e4m3(item(0)),
        FP8F32 => f64::from(f32::from_bits(item(1))) * e4m3(item(0)),
    };
    value as f32
}

#[test]
fn packed_rows_mean_what_stored_ones_do() {
    let file = fixture("decode.safetensors");
    let file = SafeTensors::deserialize(&file).unwrap();
    for format in BlockFormat::all() {
        // Every block, the last one ragged.
        let (stored, cols) = (blocks(&file, format), 256 * format.block() - 5);
        let mut values = vec![0.0; 256 * format.block()];
        format.dequantize(&stored, &mut values);
        let mut bytes = vec![7];
        format.pack_row(&stored, cols, &mut bytes);
        assert_eq!(bytes.remove(0), 7, "a row is appended");
        let row = Packed { bytes, planes: planes(format), cols: 256 * format.block() };
        assert_eq!(row.bytes.len(), 4 * row.words(), "{format}");
        assert_eq!(format.packed_words(cols), row.words(), "{format}");
        let read: Vec<f32> = (0..values.len()).map(|i| element(format, &row, i)).collect();
        assert_eq!(bits(&read), bits(&values), "{format}");
    }
}

#[test]
fn short_packed_rows_are_padded_with_zeros() {
    for format in BlockFormat::all() {
        let stored = vec![0xff; format.block_bytes()];
        let mut bytes = vec![];
        format.pack_row(&stored, 1, &mut bytes);
        let used: usize =
            planes(format).iter().map(|(b, each)| format.block() / each * b / 8).sum();
        assert_eq!(bytes.len(), 4 * format.packed_words(1));
        let zeros = bytes.iter().filter(|&&b| b == 0).count();
        // Taking 32 off 63 leaves 31, a byte that is neither; the rest are ones.
        assert_eq!(zeros, bytes.len() - used, "{format}");
    }
}

#[test]
fn rows_of_deepseek_checkpoints_become_blocks() {
    let codes: Vec<u8> = (0..300u32).map(|i| (i * 37 % 254) as u8).collect();
    let power = |byte: u8| 2f64.powi(i32::from(byte) - 127);
    for columns in [32, 128] {
        let scales: Vec<u8> = (0..300_usize.div_ceil(columns)).map(|i| 120 + i as u8).collect();
        let mut row = vec![];
        fp8_row(&codes, &scales, columns, &mut row).unwrap();
        assert_eq!(row.len(), BlockFormat::FP8.stored_bytes(300));
        let mut values = vec![0.0; 320];
        BlockFormat::FP8.dequantize(&row, &mut values);
        for (i, &code) in codes.iter().enumerate() {
            let wanted = e4m3(code.into()) * power(scales[i / columns]);
            // Code 127 is not a number.
            assert_eq!(bits(&values[i..=i]), bits(&[wanted as f32]), "{i}");
        }
        assert!(values[300..].iter().all(|&v| v == 0.0));
    }
    let scales = [0.3, -2.0, 1e-3];
    let mut row = vec![];
    fp8_f32_row(&codes, &scales, 128, &mut row).unwrap();
    let mut values = vec![0.0; 300];
    BlockFormat::FP8F32.dequantize(&row, &mut values);
    for (i, &code) in codes.iter().enumerate() {
        let wanted = e4m3(code.into()) * f64::from(scales[i / 128]);
        assert_eq!(bits(&values[i..=i]), bits(&[wanted as f32]), "{i}");
    }
}

#[test]
fn fp4_rows_have_even_columns_in_low_halves() {
    const NUMBERS: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let codes: Vec<u8> = (0..50u32).map(|i| (i * 91 % 256) as u8).collect();
    let scales = [127, 3, 200, 129];
    let mut row = vec![];
    fp4_row(&codes, &scales, &mut row).unwrap();
    assert_eq!(row.len(), BlockFormat::MXFP4.stored_bytes(100));
    let mut values = vec![1.0; 128];
    BlockFormat::MXFP4.dequantize(&row, &mut values);
    for (i, &value) in values[..100].iter().enumerate() {
        let code = codes[i / 2] >> (i % 2 * 4) & 15;
        let size = NUMBERS[usize::from(code & 7)] * 2f64.powi(i32::from(scales[i / 32]) - 127);
        let wanted = if code > 7 { -size } else { size };
        assert_eq!(f64::from(value), wanted, "{i}");
    }
    assert!(values[100..].iter().all(|&v| v == 0.0));
}

#[test]
fn bad_scales_of_a_row_are_told() {
    let mut out = vec![];
    let mut fp8 = |scales: &[u8], columns| fp8_row(&[0; 100], scales, columns, &mut out);
    assert_eq!(fp8(&[1; 3], 32).unwrap_err(), "3 scales for a row of 100, which needs 4");
    assert_eq!(
        fp8(&[1; 3], 48).unwrap_err(),
        "one scale for 48 columns, which is no multiple of 32"
    );
    assert_eq!(fp8(&[1; 3], 0).unwrap_err(), "one scale for 0 columns, which is no multiple of 32");
    assert_eq!(fp8(&[1, 2, 255, 3], 32).unwrap_err(), "the scale of columns 64.. is not a number");
    let nan = fp8_f32_row(&[0; 200], &[1.0, f32::NAN], 128, &mut out).unwrap_err();
    assert_eq!(nan, "the scale of columns 128.. is not a number");
    let nan = fp4_row(&[0; 32], &[0, 255], &mut out).unwrap_err();
    assert_eq!(nan, "the scale of columns 32.. is not a number");
}

#[test]
fn rows_are_quantized_as_gguf_does() {
    let file = fixture("quantize.safetensors");
    let file = SafeTensors::deserialize(&file).unwrap();
    let values = floats(file.tensor("values").unwrap().data());
    let mut seen = 0;
    for format in BlockFormat::all() {
        let Ok(wanted) = file.tensor(&format.to_string()) else { continue };
        let mut made = vec![];
        format.quantize(&values, &mut made).unwrap();
        let bytes = format.block_bytes();
        let pairs = made.chunks_exact(bytes).zip(wanted.data().chunks_exact(bytes));
        for (i, (made, wanted)) in pairs.enumerate() {
            assert_eq!(made, wanted, "{format}: block {i}, {:?}", &values[32 * i..][..32]);
        }
        assert_eq!(made.len(), wanted.data().len());
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// About normally distributed, of unit variance.
fn normal(random: &mut common::Random) -> f32 {
    random.floats(12).iter().sum::<f32>() / 2.0
}

/// Rows of unlike kinds, 256 numbers each.
fn rows() -> Vec<Vec<f32>> {
    let mut random = common::Random::new(5);
    let mut rows = vec![];
    for size in [1e-5, 0.02, 1.0, 300.0] {
        rows.push((0..256).map(|_| normal(&mut random) * size).collect());
        rows.push((0..256).map(|_| (normal(&mut random) + 1.5) * size).collect());
        rows.push((0..256).map(|_| -normal(&mut random).abs() * size).collect());
        // Groups of different sizes, and a value far from the others.
        rows.push((0..256).map(|i| normal(&mut random) * size * (1 + i / 32) as f32).collect());
        rows.push(
            (0..256).map(|i| normal(&mut random) * size * (1 + i / 255 * 8) as f32).collect(),
        );
    }
    rows
}

fn squared_error(format: BlockFormat, values: &[f32]) -> f64 {
    let (mut stored, mut back) = (vec![], vec![0.0; values.len()]);
    format.quantize(values, &mut stored).unwrap();
    assert_eq!(stored.len(), format.stored_bytes(values.len()));
    format.dequantize(&stored, &mut back);
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    values.iter().zip(&back).map(square).sum()
}

/// The least squared error of `scale q - minimum`, `q` from `low` to `high`, over a fine grid of
/// scales and minima: what no choice of rounded scales can do much better than.
fn grid_error(values: &[f32], [low, high]: [f32; 2], minima: usize) -> f64 {
    let least = values.iter().copied().fold(0.0, f32::min);
    let most = values.iter().copied().fold(0.0, f32::max);
    let widest = if minima > 1 { (most - least) / high } else { most.max(-least) / high };
    let mut best = f64::INFINITY;
    for step in 0..120 {
        for sign in if minima > 1 { &[1.0][..] } else { &[1.0, -1.0] } {
            let scale = sign * widest * (0.6 + step as f32 * 0.004);
            for m in 0..minima {
                let minimum =
                    if minima > 1 { -least * (1.1 * m as f32 / (minima - 1) as f32) } else { 0.0 };
                let of = |&v: &f32| {
                    let q = ((v + minimum) / scale).round().clamp(low, high);
                    f64::from(scale * q - minimum - v).powi(2)
                };
                best = best.min(values.iter().map(of).sum());
            }
        }
    }
    best
}

#[test]
fn k_quants_come_near_the_least_error() {
    for (i, row) in rows().iter().enumerate() {
        let best: f64 = row.chunks(32).map(|g| grid_error(g, [0.0, 15.0], 60)).sum();
        let made = squared_error(BlockFormat::Q4K, row);
        // Beside a value far out the scales of the other groups are rounded coarsely.
        let slack = if i % 5 == 4 { 1.5 } else { 1.12 };
        assert!(made < slack * best, "Q4_K, row {i}: {made}, {best} is possible");
        for simple in [BlockFormat::Q4_0, BlockFormat::Q4_1] {
            assert!(made < 0.95 * squared_error(simple, row), "Q4_K, row {i}: {simple} is better");
        }
        let best: f64 = row.chunks(16).map(|g| grid_error(g, [-32.0, 31.0], 1)).sum();
        let made = squared_error(BlockFormat::Q6K, row);
        // The smallest numbers have block scales that are subnormal in f16.
        let slack = if i < 5 { 1.5 } else { 1.25 };
        assert!(made < slack * best, "Q6_K, row {i}: {made}, {best} is possible");
        let simple = squared_error(BlockFormat::Q5_0, row);
        assert!(made < 0.25 * simple, "Q6_K, row {i}: hardly better than Q5_0");
    }
}

#[test]
fn what_a_k_quant_can_hold_it_holds() {
    for (format, low, step) in [(BlockFormat::Q4K, 0.0, 1.0), (BlockFormat::Q6K, -32.0, 4.0)] {
        assert_eq!(squared_error(format, &[0.0; 256]), 0.0);
        let codes = (0..256).map(|i| low + step * (i % 16) as f32);
        let held: Vec<f32> = codes.map(|c| c * 63.0 / 64.0).collect();
        assert_eq!(squared_error(format, &held), 0.0, "{format}");
        // All that is lost is what the f16 of the block loses.
        let lost = 256.0 * (5.25_f64 / 2048.0).powi(2);
        assert!(squared_error(format, &[-5.25; 256]) < lost, "{format}");
    }
}

#[test]
fn what_cannot_be_quantized_is_told() {
    let fault =
        |format: BlockFormat, values: &[f32]| format.quantize(values, &mut vec![]).unwrap_err();
    let with = |value: f32| {
        let mut values = vec![1.0; 256];
        values[200] = value;
        values
    };
    for format in BlockFormat::all().filter(|f| f.can_quantize()) {
        assert_eq!(fault(format, &with(f32::NAN)), "element 200 of a row is NaN");
        assert_eq!(fault(format, &with(f32::NEG_INFINITY)), "element 200 of a row is -inf");
        let block = format.block();
        assert_eq!(
            fault(format, &[0.0; 300]),
            format!("a row of 300 is no multiple of the {block} of a {format} block")
        );
        if format != BlockFormat::MXFP4 {
            let fault = fault(format, &with(-1e30));
            assert!(
                fault.ends_with(&format!("is too large for the scales of {format}")),
                "{fault}"
            );
        }
    }
    assert_eq!(fault(BlockFormat::IQ4XS, &[0.0; 256]), "IQ4_XS can be read, not made");
}
