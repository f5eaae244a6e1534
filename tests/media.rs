//! The planner, the block layout and the pixels, held against mlx-vlm and Pillow through
//! `tests/fixtures/media/reference.json` (made by `scripts/fixtures/media.py`).

use fathom::media::{ImageBlock, PlanConfig, plan, prepare, resize};
use image::{Rgb, RgbImage};
use serde_json::Value;

fn reference(key: &str) -> Value {
    let text = include_str!("fixtures/media/reference.json");
    let mut all: Value = serde_json::from_str(text).unwrap();
    all[key].take()
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

fn configs() -> Vec<PlanConfig> {
    let all = reference("configs");
    all.as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let n = numbers(row);
            PlanConfig {
                patch_size: n[0],
                downsample_ratio: n[1],
                max_n_token: n[2],
                min_pixels: n[3],
                max_wh_ratio: (n[4] > 0).then_some(f64::from(n[4])),
            }
        })
        .collect()
}

/// A test picture, the same as `pattern` in the fixture script: noise with edges and ramps.
fn pattern(width: u32, height: u32, seed: u64) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (u64::from(x), u64::from(y));
        Rgb(std::array::from_fn(|c| {
            let c = c as u64;
            let v = x * 2_654_435_761 + y * 40_503 + seed * 97 + c * 131;
            let noise = (v ^ (v >> 7)).wrapping_mul(2_246_822_519) >> 13;
            let ramp = x * 3 + y * (5 + c);
            let edge = ((x / 9 + y / 5) & 1) * 255;
            [noise, ramp, edge][((x / 16 + y / 16 + seed) % 3) as usize] as u8
        }))
    })
}

/// CRC-32 as zlib computes it.
fn crc(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn plans_equal_the_reference() {
    let mut count = 0;
    for (cfg, rows) in configs().iter().zip(reference("plans").as_array().unwrap()) {
        for row in numbers(rows).chunks_exact(8) {
            let [w, h, pw, ph, lw, lh, stretch, tokens] = row.try_into().unwrap();
            let got = plan(w, h, cfg).map_or([0; 6], |p| {
                let grid = [p.patches_w, p.patches_h, p.grid_w, p.grid_h].map(|n| n as u32);
                assert_eq!(p.target_w, grid[0] * cfg.patch_size);
                assert_eq!(p.target_h, grid[1] * cfg.patch_size);
                let [a, b, c, d] = grid;
                [a, b, c, d, u32::from(p.stretch), p.span_tokens() as u32]
            });
            assert_eq!(got, [pw, ph, lw, lh, stretch, tokens], "{w}x{h} under {cfg:?}");
            count += 1;
        }
    }
    assert!(count >= 4000);
}

#[test]
fn blocks_equal_the_reference() {
    for row in reference("blocks").as_array().unwrap() {
        let [h, w, s] = [0, 1, 2].map(|i| row[i].as_u64().unwrap() as usize);
        let block = ImageBlock::new(h, w, s);
        let kinds: String = block.kinds.iter().map(|&k| char::from(b'0' + k as u8)).collect();
        assert_eq!(kinds, row[3].as_str().unwrap(), "{h}x{w} at {s}");
        assert_eq!(block.image_index, numbers(&row[4]), "{h}x{w} at {s}");
    }
}

#[test]
fn resizing_equals_pillow() {
    for row in reference("resizes").as_array().unwrap() {
        let [w, h, to_w, to_h, seed, sum] = numbers(row).try_into().unwrap();
        let out = resize(&pattern(w, h, seed.into()), to_w, to_h);
        assert_eq!(crc(out.into_raw()), sum, "{w}x{h} to {to_w}x{to_h}");
    }
}

#[test]
fn patches_equal_the_reference() {
    let configs = configs();
    for row in reference("pictures").as_array().unwrap() {
        let [w, h, seed, config, pw, ph, sum] = numbers(row).try_into().unwrap();
        let patches = prepare(&pattern(w, h, seed.into()), &configs[config as usize]).unwrap();
        assert_eq!((patches.patches_w, patches.patches_h), (pw as usize, ph as usize));
        let bytes = patches.data.iter().flat_map(|v| v.to_le_bytes());
        assert_eq!(crc(bytes), sum, "{w}x{h} under config {config}");
    }
}
