//! Clips made in the tests: animations put together from still pictures, and damage to them.

use std::path::PathBuf;

use image::codecs::gif::GifEncoder;
use image::{Delay, DynamicImage, ImageFormat, Rgb, RgbImage};

use super::*;

/// A frame whose red channel tells its number.
fn numbered(i: u8) -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| Rgb([i * 10, x as u8 * 8, y as u8 * 8]))
}

fn still(i: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(numbered(i)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gif(delays_ms: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for (i, &ms) in delays_ms.iter().enumerate() {
        let picture = DynamicImage::from(numbered(i as u8)).into_rgba8();
        let delay = Delay::from_numer_denom_ms(ms, 1);
        encoder.encode_frame(image::Frame::from_parts(picture, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}

/// Wraps the bitstreams of still WebP files in animation chunks.
fn webp(delays_ms: &[u32]) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let mut chunk = name.to_vec();
        chunk.extend((body.len() as u32).to_le_bytes());
        chunk.extend(body);
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let size = [23, 0, 0, 15, 0, 0];
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(b"VP8X", &[&[2, 0, 0, 0][..], &size].concat()));
    body.extend(chunk(b"ANIM", &[0; 6]));
    for (i, &ms) in delays_ms.iter().enumerate() {
        let [a, b, c, _] = ms.to_le_bytes();
        let header = [&[0; 6][..], &size, &[a, b, c, 0]].concat();
        let bitstream = &still(i as u8, ImageFormat::WebP)[12..];
        body.extend(chunk(b"ANMF", &[&header, bitstream].concat()));
    }
    chunk(b"RIFF", &body)
}

/// Wraps the data of still PNG files in animation chunks.
fn apng(delays_ms: &[u32]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| {
                (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg())
            })
        })
    };
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [name, body].concat();
        [&(body.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
    };
    let data = |i: u8| {
        let file = still(i, ImageFormat::Png);
        let at = file.windows(4).position(|w| w == b"IDAT").unwrap();
        let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
        file[at + 4..at + 4 + length].to_vec()
    };
    let mut file = still(0, ImageFormat::Png)[..33].to_vec();
    let count = delays_ms.len() as u32;
    file.extend(chunk(b"acTL", &[count.to_be_bytes(), [0; 4]].concat()));
    let mut sequence = 0u32;
    for (i, &ms) in delays_ms.iter().enumerate() {
        let words = [sequence, 24, 16, 0, 0].map(u32::to_be_bytes).concat();
        let [delay, per] = [ms as u16, 1000].map(u16::to_be_bytes);
        file.extend(chunk(b"fcTL", &[&words[..], &delay, &per, &[0, 0]].concat()));
        sequence += 1;
        if i == 0 {
            file.extend(chunk(b"IDAT", &data(0)));
        } else {
            let body = [&sequence.to_be_bytes()[..], &data(i as u8)].concat();
            file.extend(chunk(b"fdAT", &body));
            sequence += 1;
        }
    }
    file.extend(chunk(b"IEND", &[]));
    file
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn options(fps: f64, max_frames: usize) -> ClipOptions {
    ClipOptions { fps, max_frames, ..ClipOptions::default() }
}

/// Every animation, by name: frames of 0.5, 0.25, 0.25 and 1 second.
fn animations() -> [(&'static str, Vec<u8>); 3] {
    let delays = [500, 250, 250, 1000];
    [("a.gif", gif(&delays)), ("a.webp", webp(&delays)), ("a.png", apng(&delays))]
}

#[test]
fn animations_give_their_frames() {
    let dir = Dir::new();
    for (name, bytes) in animations() {
        let clip = open(dir.file(name, &bytes), &options(4.0, 9)).unwrap();
        let info = clip.info().clone();
        assert_eq!((info.width, info.height, info.frame_count), (24, 16, 4), "{name}");
        assert_eq!(info.duration_s, 2.0, "{name}");
        assert_eq!(info.sampled, [0.0, 0.5, 0.75, 1.0], "{name}");
        for (i, frame) in clip.enumerate() {
            let frame = frame.unwrap();
            assert_eq!(frame.time_s, info.sampled[i]);
            let red = frame.image.get_pixel(5, 5).0[0];
            assert!(red.abs_diff(i as u8 * 10) <= 4, "{name}: frame {i} has red {red}");
        }
    }
}

#[test]
fn frames_between_samples_are_skipped() {
    let dir = Dir::new();
    for (name, bytes) in animations() {
        let mut clip = open(dir.file(name, &bytes), &options(1.0, 9)).unwrap();
        assert_eq!(clip.info().sampled, [0.0, 1.0]);
        assert!(clip.next_frame().unwrap().is_some());
        let frame = clip.next_frame().unwrap().unwrap();
        assert!(frame.image.get_pixel(5, 5).0[0].abs_diff(30) <= 4, "{name}");
        assert_eq!(frame.timestamp(), "<1.0 seconds>");
        assert!(clip.next_frame().unwrap().is_none());
        assert!(clip.next_frame().unwrap().is_none());
    }
}

#[test]
fn hasty_delays_are_a_tenth() {
    let dir = Dir::new();
    let clip = open(dir.file("a.gif", &gif(&[0, 10, 20])), &options(100.0, 9)).unwrap();
    assert!((clip.info().duration_s - 0.22).abs() < 1e-9);
}

#[test]
fn not_clips() {
    let dir = Dir::new();
    let error = |name: &str, bytes: &[u8]| {
        open(dir.file(name, bytes), &options(2.0, 9)).unwrap_err().to_string()
    };
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        assert!(error("still", &still(1, format)).contains("still picture"), "{format:?}");
    }
    assert!(error("empty", &[]).contains("is empty"));
    let no_frames = [b"GIF89a\x08\0\x08\0\0\0\0".as_slice(), b";"].concat();
    assert!(error("none.gif", &no_frames).contains("no frames"));
    assert!(error("none.mp4", b"\0\0\0\x08ftyp").contains("moov"));
    assert!(open(dir.0.path().join("nowhere"), &options(2.0, 9)).is_err());
    let gif = dir.file("a.gif", &gif(&[100]));
    for bad in [options(0.0, 9), options(f64::NAN, 9), options(2.0, 0)] {
        assert!(matches!(open(&gif, &bad), Err(Error::Request(_))));
    }
}

/// Reads the clip to its end or first error; an error must be one line.
fn drain(path: &Path) {
    let error = match open(path, &options(50.0, 99)) {
        Ok(mut clip) => loop {
            match clip.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(e) => break e,
            }
        },
        Err(e) => e,
    };
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn damaged_animations_do_not_panic() {
    let dir = Dir::new();
    for (name, bytes) in animations() {
        for cut in (16..bytes.len() - 1).step_by(19) {
            drain(&dir.file(name, &bytes[..cut]));
        }
        // The signature stays: other files are other readers' business.
        for at in (16..bytes.len()).step_by(3) {
            let mut bad = bytes.clone();
            bad[at] ^= 0xa5;
            drain(&dir.file(name, &bad));
        }
    }
}

#[test]
fn cut_animations_are_reported_at_once() {
    let dir = Dir::new();
    for (name, bytes) in animations() {
        for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 8] {
            let path = dir.file(name, &bytes[..cut]);
            let error = open(path, &options(2.0, 9)).unwrap_err().to_string();
            assert!(error.contains("cut short"), "{name}: {error}");
        }
    }
}

#[test]
fn a_gif_may_lack_its_end_mark() {
    let dir = Dir::new();
    let bytes = gif(&[500, 500]);
    let clip = open(dir.file("a.gif", &bytes[..bytes.len() - 1]), &options(2.0, 9)).unwrap();
    assert_eq!(clip.map(|frame| frame.unwrap().time_s).collect::<Vec<_>>(), [0.0, 0.5]);
}

#[test]
fn a_huge_canvas_is_refused() {
    let dir = Dir::new();
    let mut bytes = gif(&[100; 2]);
    bytes[6..10].fill(0xff);
    let error = open(dir.file("huge.gif", &bytes), &options(2.0, 9)).unwrap_err().to_string();
    assert!(error.contains("65535x65535"), "{error}");
}

#[test]
fn estimates_add_up() {
    let info = ClipInfo {
        container: String::new(),
        width: 1920,
        height: 1080,
        duration_s: 30.0,
        frame_count: 900,
        sampled: (0..60).map(|i| f64::from(i) / 2.0).collect(),
    };
    let whole = estimate(&info, &PlanConfig::default()).unwrap();
    assert_eq!(whole.tokens_per_frame, 369);
    assert_eq!(whole.tokens, 60 * (369 + TIMESTAMP_TOKENS));
    assert_eq!(whole.patches, 60 * 74 * 42);
    let lower = ClipOptions { max_tokens_per_frame: Some(120), ..ClipOptions::default() };
    let cfg = lower.plan_config(&PlanConfig::default());
    assert_eq!(cfg.max_n_token, 120);
    assert!(estimate(&info, &cfg).unwrap().tokens_per_frame <= 120);
    let higher = ClipOptions { max_tokens_per_frame: Some(9999), ..lower };
    assert_eq!(higher.plan_config(&PlanConfig::default()), PlanConfig::default());
}

#[test]
fn timestamps() {
    assert_eq!(timestamp(12.0), "<12.0 seconds>");
    assert_eq!(timestamp(0.5), "<0.5 seconds>");
}
