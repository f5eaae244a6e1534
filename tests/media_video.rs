//! Clips in containers that need a decoder, held against ffmpeg's own decoding through the
//! fixtures that `scripts/fixtures/media_clips.sh` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use fathom::media::video::{ClipOptions, open};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/media").join(name)
}

fn options(fps: f64, max_frames: usize) -> ClipOptions {
    ClipOptions { fps, max_frames, ..ClipOptions::default() }
}

/// Mean colours of every frame's upper left quarter, as ffmpeg decodes the fixture.
fn reference(name: &str) -> Vec<[f64; 3]> {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let row = |line: &str| {
        let values: Vec<f64> = line.split(' ').map(|v| v.parse().unwrap()).collect();
        values.try_into().unwrap()
    };
    text.lines().map(row).collect()
}

fn quarter_mean(image: &image::RgbImage) -> [f64; 3] {
    let (w, h) = (image.width() / 2, image.height() / 2);
    let view = image::imageops::crop_imm(image, 0, 0, w, h).to_image();
    std::array::from_fn(|c| {
        view.pixels().map(|p| f64::from(p.0[c])).sum::<f64>() / f64::from(w * h)
    })
}

fn assert_near(got: [f64; 3], want: [f64; 3], what: &str) {
    for c in 0..3 {
        assert!((got[c] - want[c]).abs() < 1.5, "{what}: {got:?}, not {want:?}");
    }
}

#[test]
fn every_frame_of_an_mp4() {
    for (name, size) in [("reordered", (64, 48)), ("fragmented", (64, 48)), ("turned", (48, 64))] {
        let want = reference(&format!("{name}.txt"));
        let clip = open(fixture(&format!("{name}.mp4")), &options(10.0, 99)).unwrap();
        let info = clip.info().clone();
        assert_eq!((info.width, info.height), size, "{name}");
        assert_eq!((info.frame_count, info.sampled.len()), (20, 20), "{name}");
        assert!((info.duration_s - 2.0).abs() < 1e-6, "{name}: {}", info.duration_s);
        let frames: Vec<_> = clip.map(Result::unwrap).collect();
        assert_eq!(frames.len(), 20, "{name}");
        for (i, frame) in frames.iter().enumerate() {
            assert!((frame.time_s - i as f64 / 10.0).abs() < 1e-9);
            assert_eq!(frame.image.dimensions(), size);
            assert_near(quarter_mean(&frame.image), want[i], &format!("{name}, frame {i}"));
        }
    }
}

#[test]
fn sampling_skips_frames() {
    let want = reference("reordered.txt");
    // Frames 0, 10 (an IDR picture, so decoding jumps) and the last few of one group.
    for (fps, most, indices) in
        [(1.0, 9, vec![0, 10]), (2.0, 9, vec![0, 5, 10, 15]), (10.0, 3, vec![0, 10, 19])]
    {
        let clip = open(fixture("reordered.mp4"), &options(fps, most)).unwrap();
        let frames: Vec<_> = clip.map(Result::unwrap).collect();
        assert_eq!(frames.len(), indices.len());
        for (frame, i) in frames.iter().zip(indices) {
            assert_near(quarter_mean(&frame.image), want[i], &format!("frame {i}"));
        }
    }
}

/// Reads the file to its end or first error; an error must be one line.
fn drain(path: &Path) {
    let error = match open(path, &options(10.0, 99)) {
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
fn damaged_mp4s_do_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.mp4");
    for name in ["reordered.mp4", "fragmented.mp4"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for cut in (8..bytes.len()).step_by(97) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            drain(&path);
        }
        for at in (8..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 0xa5;
            std::fs::write(&path, &bad).unwrap();
            drain(&path);
        }
    }
}

#[test]
fn a_cut_mp4_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.mp4");
    let bytes = std::fs::read(fixture("fragmented.mp4")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 900]).unwrap();
    let error = open(&path, &options(2.0, 9)).unwrap_err().to_string();
    assert!(error.contains("cut short"), "{error}");
}

fn ffmpeg(args: &[&str], out: &Path) -> bool {
    let ran = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(args).arg(out).status();
    match ran {
        Ok(status) => {
            assert!(status.success());
            true
        }
        Err(_) => {
            eprintln!("ffmpeg is not installed; its reader was not tested");
            false
        }
    }
}

#[test]
fn other_containers_go_through_ffmpeg() {
    let dir = tempfile::tempdir().unwrap();
    let input = fixture("reordered.mp4");
    let input = input.to_str().unwrap();
    for name in ["-odd name.mkv", "clip.avi", "clip.ts"] {
        let path = dir.path().join(name);
        if !ffmpeg(&["-i", input, "-c", "copy"], &path) {
            return;
        }
        let want = reference("reordered.txt");
        let clip = open(&path, &options(2.0, 9)).unwrap();
        let info = clip.info().clone();
        assert_eq!((info.width, info.height, info.frame_count), (64, 48, 20), "{name}");
        let times: Vec<f64> = info.sampled.iter().map(|t| (t * 1e3).round() / 1e3).collect();
        assert_eq!(times, [0.0, 0.5, 1.0, 1.5], "{name}");
        let frames: Vec<_> = clip.map(Result::unwrap).collect();
        assert_eq!(frames.len(), 4, "{name}");
        for (frame, i) in frames.iter().zip([0, 5, 10, 15]) {
            assert_near(quarter_mean(&frame.image), want[i], &format!("{name}, frame {i}"));
        }
        // A clip dropped half-way ends its program.
        let mut clip = open(&path, &options(10.0, 99)).unwrap();
        assert!(clip.next_frame().unwrap().is_some());
    }
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "no clip").unwrap();
    let error = open(&text, &options(2.0, 9)).unwrap_err().to_string();
    assert!(error.contains("no clip that can be read") && !error.contains('\n'), "{error}");
}
