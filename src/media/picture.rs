//! Still pictures: from a file to 8-bit RGB, then to the patches the vision tower reads.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, Pixel, Rgb, RgbImage, imageops,
};
use xxhash_rust::xxh3::Xxh3;

use super::plan::{Plan, PlanConfig, plan};
use super::resize::resize;
use crate::{Error, Result};

/// Most pixels a picture may have. Checked against the header, before any pixel is allocated.
pub const MAX_PIXELS: u64 = 200_000_000;
/// Most bytes the decoded picture may take in the file's own pixel format.
const MAX_BYTES: u64 = 1 << 30;
/// Colour of the letterbox's bars.
const BARS: Rgb<u8> = Rgb([127, 127, 127]);

/// Reads the picture at `path` as 8-bit RGB, upright by its EXIF orientation.
///
/// Reads BMP, GIF, ICO, JPEG, PNG, PNM, QOI, TGA, TIFF and WebP. An animated file gives its first
/// frame. An alpha channel is dropped, not composited, and a 16-bit channel gives its high byte, as
/// Pillow's `convert("RGB")` does for RGB and RGBA files. (Pillow itself leaves the EXIF
/// orientation to its caller, so a rotated photo differs from a pipeline that ignores it.)
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened; [`Error::Media`] if it is no picture, is damaged or
/// cut short, or is larger than [`MAX_PIXELS`] or a gigabyte of pixels.
pub fn read(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    finish(reader(path)?, path)
}

fn reader(path: &Path) -> Result<ImageReader<BufReader<File>>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(Error::media(path, "is a folder, not a picture"));
    }
    let mut reader = ImageReader::new(BufReader::new(file));
    // Formats without a signature (TGA) are known by the file's name alone.
    if let Ok(format) = image::ImageFormat::from_path(path) {
        reader.set_format(format);
    }
    Ok(reader)
}

/// Width and height in pixels, upright, of the picture at `path`, from its header alone.
pub(super) fn size(path: &Path, most_pixels: u64) -> Result<(u32, u32)> {
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let mut decoder = decoder(reader(path)?, path, most_pixels)?;
    let (width, height) = decoder.dimensions();
    let turned = [Rotate90, Rotate270, Rotate90FlipH, Rotate270FlipH];
    let is_turned = decoder.orientation().is_ok_and(|turn| turned.contains(&turn));
    Ok(if is_turned { (height, width) } else { (width, height) })
}

/// Decodes a picture held in memory, as [`read`] does. `name` stands for it in errors.
///
/// # Errors
/// [`Error::Media`], as [`read`].
pub fn decode(bytes: &[u8], name: impl AsRef<Path>) -> Result<RgbImage> {
    finish(ImageReader::new(Cursor::new(bytes)), name.as_ref())
}

fn finish<R: BufRead + Seek>(reader: ImageReader<R>, path: &Path) -> Result<RgbImage> {
    let mut decoder = decoder(reader, path, MAX_PIXELS)?;
    // Damaged EXIF data does not make the pixels unreadable.
    let orientation = decoder.orientation();
    let mut picture =
        DynamicImage::from_decoder(decoder).map_err(|e| Error::media(path, describe(&e)))?;
    if let Ok(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(to_rgb8(picture))
}

/// A decoder that has read the header and found the picture's size acceptable.
fn decoder<'a, R: BufRead + Seek + 'a>(
    reader: ImageReader<R>,
    path: &Path,
    most_pixels: u64,
) -> Result<impl ImageDecoder + use<'a, R>> {
    let mut reader = reader.with_guessed_format().map_err(|e| Error::io(path, e))?;
    if reader.format().is_none() {
        let formats = "BMP, GIF, ICO, JPEG, PNG, PNM, QOI, TGA, TIFF, WebP";
        return Err(Error::media(path, format!("is not a picture of a known format ({formats})")));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| Error::media(path, describe(&e)))?;
    let (width, height) = decoder.dimensions();
    check_size(path, width, height, most_pixels)?;
    if decoder.total_bytes() > MAX_BYTES {
        let what = format!("{width}x{height} pixels take {} MB", decoder.total_bytes() >> 20);
        return Err(Error::media(path, format!("{what}; at most {} MB", MAX_BYTES >> 20)));
    }
    Ok(decoder)
}

/// Refuses an empty picture and one of more than `most` pixels.
pub(super) fn check_size(path: &Path, width: u32, height: u32, most: u64) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::media(path, format!("is empty ({width}x{height} pixels)")));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > most {
        let what = format!("{width}x{height} pixels is too large");
        return Err(Error::media(path, format!("{what}; at most {} megapixels", most / 1_000_000)));
    }
    Ok(())
}

/// One line for a decoder's error.
pub(super) fn describe(error: &ImageError) -> String {
    let text = match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return "is cut short".to_owned();
        }
        ImageError::Limits(_) => format!("is too large: {error}"),
        _ => format!("cannot be decoded: {error}"),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn to_rgb8(picture: DynamicImage) -> RgbImage {
    fn high_bytes<P: Pixel<Subpixel = u16>>(pixels: &image::ImageBuffer<P, Vec<u16>>) -> RgbImage {
        let (w, h) = pixels.dimensions();
        RgbImage::from_fn(w, h, |x, y| {
            Rgb(pixels.get_pixel(x, y).to_rgb().0.map(|v| (v >> 8) as u8))
        })
    }
    match picture {
        DynamicImage::ImageLuma16(p) => high_bytes(&p),
        DynamicImage::ImageLumaA16(p) => high_bytes(&p),
        DynamicImage::ImageRgb16(p) => high_bytes(&p),
        DynamicImage::ImageRgba16(p) => high_bytes(&p),
        other => other.into_rgb8(),
    }
}

/// A picture as the vision tower reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[patches_h * patches_w, 3 * p * p]`: patches in reading order, each its channels R, G, B,
    /// each `p` rows of `p` values from -1 to 1.
    pub data: Vec<f32>,
    /// Patches in a row.
    pub patches_w: usize,
    /// Rows of patches.
    pub patches_h: usize,
    /// The plan the patches were cut by.
    pub plan: Plan,
    /// [`content_hash`] of the canvas.
    pub hash: u128,
}

/// Plans `picture`, fits it to its canvas and cuts that to patches.
///
/// # Errors
/// Those of [`plan`].
pub fn prepare(picture: &RgbImage, cfg: &PlanConfig) -> Result<Patches> {
    let plan = plan(picture.width(), picture.height(), cfg)?;
    let canvas = fit(picture, &plan);
    Ok(Patches {
        data: cut(&canvas, &plan),
        patches_w: plan.patches_w,
        patches_h: plan.patches_h,
        plan,
        hash: content_hash(&canvas, &plan),
    })
}

/// Resizes `picture` to the plan's canvas: stretched, or letterboxed with grey bars.
pub fn fit(picture: &RgbImage, plan: &Plan) -> RgbImage {
    let (w, h) = (plan.target_w, plan.target_h);
    if plan.stretch {
        return resize(picture, w, h);
    }
    let (inner_w, inner_h) = inner_size(picture.dimensions(), (w, h));
    let inner = resize(picture, inner_w, inner_h);
    if inner.dimensions() == (w, h) {
        return inner;
    }
    let mut canvas = RgbImage::from_pixel(w, h, BARS);
    let offset = |outer: u32, inner: u32| (f64::from(outer - inner) * 0.5).round_ties_even() as i64;
    imageops::replace(&mut canvas, &inner, offset(w, inner_w), offset(h, inner_h));
    canvas
}

/// The largest size with (about) the picture's aspect ratio inside of the canvas. A side can come
/// out as 0 for an extreme picture, which leaves the canvas grey, as in the reference.
fn inner_size(picture: (u32, u32), canvas: (u32, u32)) -> (u32, u32) {
    let (w, h) = (f64::from(picture.0), f64::from(picture.1));
    let ratio = w / h;
    let target = f64::from(canvas.0) / f64::from(canvas.1);
    let side = |len: f64, most: u32| (len.round_ties_even() as u32).min(most);
    if ratio > target {
        (canvas.0, side(h / w * f64::from(canvas.0), canvas.1))
    } else if ratio < target {
        (side(w / h * f64::from(canvas.1), canvas.0), canvas.1)
    } else {
        canvas
    }
}

/// Cuts a canvas of the plan's size to normalised patches, ordered as [`Patches::data`].
fn cut(canvas: &RgbImage, plan: &Plan) -> Vec<f32> {
    // The steps of the reference, in f32. DeepSeek's own code rounds the values to bf16 after
    // this; they stay f32 here, as in the f32 oracle that logits are compared with.
    let normal: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - 0.5) / 0.5);
    let p = plan.target_w as usize / plan.patches_w.max(1);
    let row = plan.target_w as usize * 3;
    let mut data = Vec::with_capacity(canvas.as_raw().len());
    for patch_y in 0..plan.patches_h {
        for patch_x in 0..plan.patches_w {
            let corner = patch_y * p * row + patch_x * p * 3;
            for channel in 0..3 {
                for y in 0..p {
                    let line = &canvas.as_raw()[corner + y * row..][..p * 3];
                    let values = line.iter().skip(channel).step_by(3);
                    data.extend(values.map(|&v| normal[usize::from(v)]));
                }
            }
        }
    }
    data
}

/// A 128-bit hash of what the vision tower sees: the canvas's pixels and its grid. Equal pictures
/// and frames give equal hashes on every machine, so it can key a cache of encoded pictures.
pub fn content_hash(canvas: &RgbImage, plan: &Plan) -> u128 {
    let mut hash = Xxh3::new();
    for side in [plan.patches_w, plan.patches_h] {
        hash.update(&(side as u64).to_le_bytes());
    }
    hash.update(canvas.as_raw());
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, ImageFormat, Rgba, RgbaImage};
    use std::path::PathBuf;

    fn gradient(w: u32, h: u32) -> RgbImage {
        RgbImage::from_fn(w, h, |x, y| Rgb([(x * 9) as u8, (y * 7) as u8, (x ^ y) as u8]))
    }

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn temp_file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    const LOSSLESS: [ImageFormat; 7] = [
        ImageFormat::Bmp,
        ImageFormat::Png,
        ImageFormat::Pnm,
        ImageFormat::Qoi,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Ico,
    ];

    #[test]
    fn lossless_formats_round_trip() {
        let picture = gradient(31, 17);
        let dir = tempfile::tempdir().unwrap();
        for format in LOSSLESS.into_iter().chain([ImageFormat::Tga]) {
            let bytes = if format == ImageFormat::Ico {
                encoded(DynamicImage::from(picture.clone()).into_rgba8(), format)
            } else {
                encoded(picture.clone(), format)
            };
            let name = format!("p.{}", format.extensions_str()[0]);
            assert_eq!(read(temp_file(&dir, &name, &bytes)).unwrap(), picture, "{format:?}");
        }
    }

    #[test]
    fn alpha_is_dropped() {
        let picture = RgbaImage::from_pixel(4, 4, Rgba([10, 20, 30, 0]));
        let read = decode(&encoded(picture, ImageFormat::Png), "a.png").unwrap();
        assert!(read.pixels().all(|p| p.0 == [10, 20, 30]));
    }

    #[test]
    fn deep_channels_give_their_high_byte() {
        let deep = image::ImageBuffer::from_pixel(2, 2, Rgb([0x12ffu16, 0x0080, 0xff00]));
        let read = decode(&encoded(deep, ImageFormat::Png), "deep.png").unwrap();
        assert!(read.pixels().all(|p| p.0 == [0x12, 0x00, 0xff]));
    }

    #[test]
    fn exif_orientation_is_honoured() {
        // A TIFF header with one entry: tag 0x112 (orientation), SHORT, one value, 6 (turn right).
        let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
        exif.extend([0, 6, 0, 0, 0, 0, 0, 0]);
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif).unwrap();
        let picture = gradient(6, 4);
        encoder.write_image(picture.as_raw(), 6, 4, ExtendedColorType::Rgb8).unwrap();
        assert_eq!(decode(&bytes, "turned.png").unwrap(), imageops::rotate90(&picture));
    }

    #[test]
    fn a_huge_header_is_refused_at_once() {
        // A well-formed header that promises 2.5 gigapixels.
        let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bmp.extend(50_000u32.to_le_bytes());
        bmp.extend(50_000u32.to_le_bytes());
        bmp.extend([1, 0, 24, 0]);
        bmp.resize(54 + 1024, 0);
        let error = decode(&bmp, "huge.bmp").unwrap_err().to_string();
        assert!(error.contains("50000x50000") || error.contains("too large"), "{error}");

        let pnm = decode(b"P6\n50000 50000\n255\n", "huge.ppm").unwrap_err().to_string();
        assert!(pnm.contains("too large"), "{pnm}");
    }

    #[test]
    fn damage_gives_one_line() {
        for format in LOSSLESS.into_iter().chain([ImageFormat::Jpeg, ImageFormat::Gif]) {
            let bytes = encoded(
                DynamicImage::from(gradient(40, 30)).into_rgba8(),
                match format {
                    // JPEG has no alpha; it is encoded below.
                    ImageFormat::Jpeg | ImageFormat::Pnm => ImageFormat::Png,
                    other => other,
                },
            );
            let bytes = match format {
                ImageFormat::Jpeg | ImageFormat::Pnm => encoded(gradient(40, 30), format),
                _ => bytes,
            };
            for cut in [0, 1, 3, 10, bytes.len() / 3, bytes.len() / 2] {
                let error = decode(&bytes[..cut], "cut").unwrap_err().to_string();
                assert!(!error.contains('\n'), "{format:?} cut at {cut}: {error}");
            }
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x5a;
                if let Err(e) = decode(&bad, "flipped") {
                    assert!(!e.to_string().contains('\n'), "{format:?} flipped at {at}: {e}");
                }
            }
        }
    }

    #[test]
    fn odd_paths() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        assert!(matches!(read(dir.path().join("none.png")), Err(Error::Io { .. })));
        let text = temp_file(&dir, "text", b"hello");
        assert!(read(text).unwrap_err().to_string().contains("not a picture"));
    }

    #[test]
    fn patches_are_in_channel_row_column_order() {
        let cfg = PlanConfig {
            patch_size: 2,
            downsample_ratio: 1,
            min_pixels: 0,
            ..PlanConfig::default()
        };
        let patches = prepare(&gradient(4, 2), &cfg).unwrap();
        assert_eq!((patches.patches_w, patches.patches_h), (2, 1));
        let normal = |v: u8| (f32::from(v) / 255.0 - 0.5) / 0.5;
        let second = &patches.data[12..24];
        assert_eq!(second[..4], [18, 27, 18, 27].map(normal));
        assert_eq!(second[4..8], [0, 0, 7, 7].map(normal));
        assert_eq!(second[8..], [2, 3, 3, 2].map(normal));
    }

    #[test]
    fn the_hash_follows_pixels_and_grid() {
        let cfg = PlanConfig::default();
        let a = prepare(&gradient(400, 400), &cfg).unwrap();
        let mut other = gradient(400, 400);
        other.put_pixel(200, 200, Rgb([1, 2, 3]));
        assert_eq!(a.hash, prepare(&gradient(400, 400), &cfg).unwrap().hash);
        assert_ne!(a.hash, prepare(&other, &cfg).unwrap().hash);
        let grey = RgbImage::from_pixel(28, 14, BARS);
        let plan_of = |w, h| Plan { patches_w: w, patches_h: h, ..a.plan };
        assert_ne!(content_hash(&grey, &plan_of(2, 1)), content_hash(&grey, &plan_of(1, 2)));
    }
}
