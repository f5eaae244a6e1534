//! Animated GIF, WebP and PNG files.
//!
//! A first pass over the file's blocks gives every frame's time without decoding pixels; the
//! second, lazy, decodes frame by frame, since a frame builds on the ones before it.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageResult, Limits};

use super::samples::in_sequence;
use super::{MAX_FRAME_PIXELS, Pictures, Probe};
use crate::media::picture::{check_size, describe};
use crate::{Error, Result};

/// A container with an animation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gif,
    WebP,
    Png,
}

impl Kind {
    /// The kind of the file that starts with `head` (16 bytes, or all there are).
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"GIF8") {
            Some(Self::Gif)
        } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gif => "GIF",
            Self::WebP => "animated WebP",
            Self::Png => "animated PNG",
        }
    }
}

/// What the first pass finds.
#[derive(Debug, Default, PartialEq)]
struct Headers {
    width: u32,
    height: u32,
    /// How long each frame is shown, in seconds.
    durations: Vec<f64>,
}

pub(super) fn probe(path: &Path, kind: Kind) -> Result<Probe> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut reader = BufReader::new(file);
    let headers = match kind {
        Kind::Gif => gif_headers(&mut reader),
        Kind::WebP => webp_headers(&mut reader),
        Kind::Png => png_headers(&mut reader),
    };
    let headers = headers.map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => Error::media(path, "is cut short"),
        ErrorKind::InvalidData => Error::media(path, format!("is damaged: {e}")),
        _ => Error::io(path, e),
    })?;
    check_size(path, headers.width, headers.height, MAX_FRAME_PIXELS)?;
    if headers.durations.is_empty() {
        let what =
            if kind == Kind::Gif { "has no frames" } else { "is a still picture, not a clip" };
        return Err(Error::media(path, what));
    }
    let durations = headers.durations.into_iter().map(|seconds| {
        // Browsers show a frame of no or one hundredth for a tenth; animations are made for that.
        if seconds <= 0.010 { 0.1 } else { seconds }
    });
    let path = path.to_owned();
    Ok(Probe {
        container: kind.name().to_owned(),
        width: headers.width,
        height: headers.height,
        timeline: in_sequence(durations),
        start: Box::new(move |indices| pictures(path, kind, indices)),
    })
}

/// Decodes the file from its first frame on, giving those with the wanted indices.
fn pictures(path: PathBuf, kind: Kind, indices: Vec<usize>) -> Result<Pictures> {
    let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
    let mut frames = decoder(BufReader::new(file), kind)
        .map_err(|e| Error::media(&path, describe(&e)))?
        .enumerate();
    Ok(Box::new(indices.into_iter().map(move |wanted| {
        loop {
            let (index, frame) = frames
                .next()
                .ok_or_else(|| Error::media(&path, "has fewer frames than it says"))?;
            let frame = frame.map_err(|e| Error::media(&path, describe(&e)))?;
            if index == wanted {
                return Ok(DynamicImage::from(frame.into_buffer()).into_rgb8());
            }
        }
    })))
}

fn decoder(reader: BufReader<File>, kind: Kind) -> ImageResult<Frames<'static>> {
    let mut limits = Limits::no_limits();
    // The canvas, the frame, the one before and scratch space, four bytes a pixel each.
    limits.max_alloc = Some(4 * 4 * MAX_FRAME_PIXELS);
    Ok(match kind {
        Kind::Gif => {
            let mut decoder = GifDecoder::new(reader)?;
            decoder.set_limits(limits)?;
            decoder.into_frames()
        }
        Kind::WebP => {
            let decoder = WebPDecoder::new(reader)?;
            if !decoder.has_animation() {
                return Ok(Frames::new(Box::new(std::iter::empty())));
            }
            decoder.into_frames()
        }
        Kind::Png => PngDecoder::with_limits(reader, limits)?.apng()?.into_frames(),
    })
}

fn damaged(what: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn bytes<const N: usize>(reader: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Skips `count` bytes, all of which must be there.
fn skip(reader: &mut (impl BufRead + Seek), count: u64) -> std::io::Result<()> {
    if count > 0 {
        // A seek may pass the end unnoticed; the last byte is read to make sure that it is there.
        reader.seek_relative(count as i64 - 1)?;
        bytes::<1>(reader)?;
    }
    Ok(())
}

fn gif_headers(reader: &mut (impl BufRead + Seek)) -> std::io::Result<Headers> {
    let head = bytes::<13>(reader)?;
    let mut found = Headers {
        width: u16::from_le_bytes([head[6], head[7]]).into(),
        height: u16::from_le_bytes([head[8], head[9]]).into(),
        durations: Vec::new(),
    };
    skip_palette(reader, head[10])?;
    let mut delay = 0;
    loop {
        let mut block = [0];
        if reader.read(&mut block)? == 0 {
            // Only the end mark is missing; some writers leave it out.
            return Ok(found);
        }
        match block[0] {
            0x21 => {
                let [label, size] = bytes(reader)?;
                if label == 0xf9 && size == 4 {
                    // A graphic control extension: flags, delay in hundredths, transparent colour.
                    let [_, low, high, _] = bytes(reader)?;
                    delay = u16::from_le_bytes([low, high]);
                } else {
                    skip(reader, size.into())?;
                    if size == 0 {
                        continue;
                    }
                }
                skip_sub_blocks(reader)?;
            }
            0x2c => {
                let descriptor = bytes::<9>(reader)?;
                skip_palette(reader, descriptor[8])?;
                skip(reader, 1)?;
                skip_sub_blocks(reader)?;
                found.durations.push(f64::from(delay) / 100.0);
                delay = 0;
            }
            0x3b => return Ok(found),
            // Some writers leave stray zero bytes between blocks.
            0 => {}
            _ => return Err(damaged("an unknown block")),
        }
    }
}

/// Skips the palette that `flags` announces, three bytes a colour.
fn skip_palette(reader: &mut (impl BufRead + Seek), flags: u8) -> std::io::Result<()> {
    let colours = if flags & 0x80 == 0 { 0 } else { 2 << (flags & 7) };
    skip(reader, 3 * colours)
}

fn skip_sub_blocks(reader: &mut (impl BufRead + Seek)) -> std::io::Result<()> {
    loop {
        let [size] = bytes(reader)?;
        if size == 0 {
            return Ok(());
        }
        skip(reader, size.into())?;
    }
}

fn webp_headers(reader: &mut (impl BufRead + Seek)) -> std::io::Result<Headers> {
    let mut found = Headers { width: 1, height: 1, durations: Vec::new() };
    let u24 = |b: &[u8]| u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16;
    let [_, _, _, _, size @ .., _, _, _, _] = bytes::<12>(reader)?;
    let end = u64::from(u32::from_le_bytes(size)) + 8;
    while reader.stream_position()? < end {
        let name = bytes::<4>(reader)?;
        let size = u32::from_le_bytes(bytes(reader)?);
        // Chunks are padded to an even size.
        let mut rest = u64::from(size) + u64::from(size & 1);
        match &name {
            b"VP8X" if size >= 10 => {
                let body = bytes::<10>(reader)?;
                rest -= 10;
                (found.width, found.height) = (u24(&body[4..]) + 1, u24(&body[7..]) + 1);
            }
            b"ANMF" if size >= 16 => {
                let body = bytes::<16>(reader)?;
                rest -= 16;
                found.durations.push(f64::from(u24(&body[12..])) / 1000.0);
            }
            _ => {}
        }
        skip(reader, rest)?;
    }
    Ok(found)
}

fn png_headers(reader: &mut (impl BufRead + Seek)) -> std::io::Result<Headers> {
    let mut found = Headers::default();
    let mut animated = false;
    skip(reader, 8)?;
    loop {
        let size = u32::from_be_bytes(bytes(reader)?);
        let name = bytes::<4>(reader)?;
        // After the body, a checksum.
        let mut rest = u64::from(size) + 4;
        match &name {
            b"IHDR" if size == 13 => {
                let [w0, w1, w2, w3, h0, h1, h2, h3] = bytes(reader)?;
                rest -= 8;
                found.width = u32::from_be_bytes([w0, w1, w2, w3]);
                found.height = u32::from_be_bytes([h0, h1, h2, h3]);
            }
            b"acTL" => animated = true,
            b"fcTL" if size == 26 => {
                let body = bytes::<26>(reader)?;
                rest -= 26;
                let [delay, per] = [20, 22].map(|i| u16::from_be_bytes([body[i], body[i + 1]]));
                let per = if per == 0 { 100 } else { per };
                found.durations.push(f64::from(delay) / f64::from(per));
            }
            b"IEND" => {
                skip(reader, rest)?;
                if !animated {
                    found.durations.clear();
                }
                return Ok(found);
            }
            _ => {}
        }
        skip(reader, rest)?;
    }
}
