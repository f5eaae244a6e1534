//! A folder of pictures as a clip: the pictures, in the natural order of their names, are frames
//! shown `fps` a second.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use image::ImageFormat;

use super::samples::Shown;
use super::{MAX_FRAME_PIXELS, Probe};
use crate::media::picture;
use crate::{Error, Result};

pub(super) fn probe(path: &Path, fps: f64) -> Result<Probe> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
        let file = entry.map_err(|e| Error::io(path, e))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let picture = ImageFormat::from_path(&file).is_ok_and(|format| format.reading_enabled());
        if picture && !hidden && file.is_file() {
            files.push(file);
        }
    }
    let key = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.sort_by(|a, b| natural(&key(a), &key(b)).then_with(|| a.cmp(b)));
    let Some(first) = files.first() else {
        return Err(Error::media(path, "has no frames: the folder holds no pictures"));
    };

    let (width, height) = picture::size(first, MAX_FRAME_PIXELS)?;
    let timeline = (0..files.len())
        .map(|i| Shown { start: i as f64 / fps, end: (i + 1) as f64 / fps })
        .collect();
    Ok(Probe {
        container: "folder of pictures".to_owned(),
        width,
        height,
        timeline,
        start: Box::new(|indices| {
            let picked = indices.into_iter().filter_map(move |i| files.get(i).cloned());
            Ok(Box::new(picked.map(picture::read)))
        }),
    })
}

/// Orders names as people do: runs of digits by their value, so that `f9.png` precedes `f10.png`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (Some(x), Some(y)) = (a.chars().next(), b.chars().next()) else {
            return a.len().cmp(&b.len());
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (run_a, rest_a) = digits(a);
            let (run_b, rest_b) = digits(b);
            // Without leading zeros the longer run is the larger number.
            let order = run_a.len().cmp(&run_b.len()).then_with(|| run_a.cmp(run_b));
            if order.is_ne() {
                return order;
            }
            (a, b) = (rest_a, rest_b);
        } else {
            if x != y {
                return x.cmp(&y);
            }
            (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]);
        }
    }
}

/// The run of digits that `text` starts with, less its leading zeros, and what follows.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::super::{ClipOptions, open};
    use super::*;
    use image::{Rgb, RgbImage};

    #[test]
    fn natural_order() {
        let mut names = ["f10.png", "f9.png", "f1.png", "f02.png", "g1.png", "f10b.png", "f.png"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["f.png", "f1.png", "f02.png", "f9.png", "f10.png", "f10b.png", "g1.png"]
        );
        assert_eq!(natural("a01", "a1"), Ordering::Equal);
        assert_eq!(natural("é1", "é01"), Ordering::Equal);
    }

    #[test]
    fn frames_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for i in [10u8, 1, 2, 9] {
            let picture = RgbImage::from_pixel(8, 6, Rgb([i, 0, 0]));
            picture.save(dir.path().join(format!("frame{i}.png"))).unwrap();
        }
        std::fs::write(dir.path().join("notes.txt"), "no picture").unwrap();
        std::fs::write(dir.path().join(".hidden.png"), "no picture").unwrap();
        let clip = open(dir.path(), &ClipOptions { fps: 4.0, ..ClipOptions::default() }).unwrap();
        assert_eq!(clip.info().sampled, [0.0, 0.25, 0.5, 0.75]);
        assert_eq!((clip.info().width, clip.info().height), (8, 6));
        assert_eq!(clip.info().duration_s, 1.0);
        let reds: Vec<u8> = clip.map(|f| f.unwrap().image.get_pixel(0, 0).0[0]).collect();
        assert_eq!(reds, [1, 2, 9, 10]);
    }

    #[test]
    fn empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path(), &ClipOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no frames"), "{error}");
    }

    #[test]
    fn a_damaged_frame_ends_the_clip() {
        let dir = tempfile::tempdir().unwrap();
        RgbImage::new(8, 6).save(dir.path().join("1.png")).unwrap();
        std::fs::write(dir.path().join("2.png"), "no picture").unwrap();
        RgbImage::new(8, 6).save(dir.path().join("3.png")).unwrap();
        let mut clip = open(dir.path(), &ClipOptions::default()).unwrap();
        assert!(clip.next_frame().unwrap().is_some());
        assert!(clip.next_frame().unwrap_err().to_string().contains("2.png"));
        assert!(clip.next_frame().unwrap().is_none());
    }
}
