//! Pictures and clips that are none.

use std::path::Path;

use super::{Fathom, file, on_cpu, repository};

fn picture(path: &Path) -> Fathom {
    on_cpu("run -p hello --max-tokens 1 --image").arg(path)
}

fn clip(path: &Path) -> Fathom {
    on_cpu("run -p hello --max-tokens 1 --video").arg(path)
}

fn sample(path: &str) -> Vec<u8> {
    std::fs::read(repository(path)).unwrap()
}

/// A picture with detail all over, as bytes of a file of that format.
fn drawn(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    let pixel = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8]);
    image::RgbImage::from_fn(90, 60, pixel).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn whole_files_are_read() {
    picture(&repository("samples/scene.png")).succeeds();
    clip(&repository("samples/clip.gif")).succeeds();
    clip(&repository("tests/fixtures/media/reordered.mp4")).succeeds();
    let (_folder, path) = file("drawn.jpg", drawn(image::ImageFormat::Jpeg));
    picture(&path).succeeds();
}

#[test]
fn pictures_that_are_none() {
    picture(Path::new("no/such.png")).fails(&["no/such.png", "(os error"]);
    picture(&repository("samples")).fails(&["samples", "is a folder, not a picture"]);
    for (name, bytes, part) in [
        ("empty.png", &b""[..], ""),
        ("empty", b"", "not a picture"),
        ("notes.txt", b"These are words.", "not a picture of a known format"),
        ("words.png", b"These are words.", ""),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ] {
        let (_folder, path) = file(name, bytes);
        picture(&path).fails(&[name, part]);
    }
}

#[test]
fn pictures_that_are_damaged() {
    let png = drawn(image::ImageFormat::Png);
    for cut in [9, 20, 40, png.len() / 2, png.len() * 9 / 10] {
        let (_folder, path) = file("cut.png", &png[..cut]);
        picture(&path).fails(&["cut.png: "]);
    }
    let jpeg = drawn(image::ImageFormat::Jpeg);
    for cut in [4, 100, 300] {
        let (_folder, path) = file("cut.jpg", &jpeg[..cut]);
        picture(&path).fails(&["cut.jpg: "]);
    }
    let mut noise = png.clone();
    noise[60..].iter_mut().enumerate().for_each(|(i, byte)| *byte ^= (i * 31) as u8);
    let (_folder, path) = file("noise.png", noise);
    picture(&path).fails(&["noise.png: "]);
}

/// A header that promises more pixels than any memory holds.
#[test]
fn a_picture_of_fifty_thousand_squared() {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [
        (b"IHDR", &[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50, 8, 2, 0, 0, 0][..]),
        (b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]),
        (b"IEND", &[]),
    ] {
        png.extend((data.len() as u32).to_be_bytes());
        let chunk = [name, data].concat();
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    let (_folder, path) = file("huge.png", png);
    picture(&path).fails(&["huge.png", "50000x50000 pixels is too large"]);
}

/// The checksum of PNG's chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn clips_that_are_none() {
    clip(Path::new("no/such.gif")).fails(&["no/such.gif", "(os error"]);
    clip(&repository("samples/scene.png")).fails(&["scene.png", "still picture, not a clip"]);
    let empty = tempfile::tempdir().unwrap();
    clip(empty.path()).fails(&[empty.path().to_str().unwrap()]);
    let gif = sample("samples/clip.gif");
    for (name, bytes) in [
        ("empty.gif", &b""[..]),
        ("frameless.gif", b"GIF89a\x10\0\x10\0\0\0\0;"),
        ("words.gif", b"These are words."),
        ("empty.mp4", b""),
        ("words.mp4", b"These are words."),
        ("header.gif", &gif[..13]),
        ("half.gif", &gif[..gif.len() / 2]),
    ] {
        let (_folder, path) = file(name, bytes);
        clip(&path).fails(&[name]);
    }
    let (folder, _) = file("0001.txt", "no picture");
    clip(folder.path()).fails(&[folder.path().to_str().unwrap()]);
}

#[test]
fn clips_that_end_early() {
    for name in ["fragmented", "reordered", "turned"] {
        let mp4 = sample(&format!("tests/fixtures/media/{name}.mp4"));
        // Not at the end of a fragment, where a recording may end.
        for cut in [8, 40, mp4.len() / 4, mp4.len() / 2, mp4.len() * 5 / 8] {
            let (_folder, path) = file("cut.mp4", &mp4[..cut]);
            clip(&path).fails(&["cut.mp4"]);
        }
    }
    // A folder whose second picture is damaged.
    let (folder, _) = file("1.png", drawn(image::ImageFormat::Png));
    std::fs::write(folder.path().join("2.png"), &drawn(image::ImageFormat::Png)[..200]).unwrap();
    clip(folder.path()).fails(&["2.png"]);
}

#[test]
fn clip_options_are_checked() {
    let with =
        |option: &str, value: &str| clip(&repository("samples/clip.gif")).arg(option).arg(value);
    for fps in ["0", "-1", "nan", "inf", "1e300", "1001"] {
        with("--fps", fps).fails(&["fps must lie above 0"]);
    }
    with("--fps", "1e-300").succeeds();
    with("--fps", "often").misused("--fps");
    with("--fps", "1000").succeeds();
    with("--max-frames", "0").misused("--max-frames");
    with("--max-frames", "1000000000").succeeds();
    with("--frame-tokens", "0").fails(&["token budget of 0 is too small"]);
    with("--frame-tokens", "18446744073709551615").succeeds();
    with("--context", "64").fails(&["clip.gif", "--max-frames"]);
}

/// A model without eyes says so.
#[test]
fn a_model_that_takes_no_pictures() {
    let copy = super::copy_of("tests/fixtures/oracle/text_official");
    let tokenizer = repository("weights/minnow/tokenizer.json");
    std::fs::copy(tokenizer, copy.path().join("tokenizer.json")).unwrap();
    picture(&repository("samples/scene.png")).arg(copy.path()).fails(&["takes no pictures"]);
    clip(&repository("samples/clip.gif")).arg(copy.path()).fails(&["takes no pictures"]);
}
