//! Clips as streams of frames, one decoded frame at a time.
//!
//! [`open`] reads what a container says about its frames (times, size) without decoding them and
//! decides which frames will be sent; [`Clip::next_frame`] then decodes those, in order. Memory
//! holds one frame, the decoder's own reference frames and a table of frame times.
//!
//! | container | reader |
//! |---|---|
//! | animated GIF, WebP, PNG | `animation` |
//! | a folder of pictures | `folder` |
//! | MP4 and MOV with 8-bit 4:2:0 progressive H.264 | `mp4` and `h264` |
//! | anything else | `ffmpeg`, the program |
//!
//! `docs/video.md` describes how a clip becomes part of a prompt.

mod animation;
mod ffmpeg;
mod folder;
mod h264;
mod mp4;
mod mp4_samples;
mod samples;
mod sps;
mod yuv;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::RgbImage;

use self::samples::{Pick, Shown, pick};
use super::layout::ALIGN;
use super::plan::{Plan, PlanConfig, plan};
use crate::{Error, Result};

/// Most pixels a frame of a clip may have (8K video has 33 million).
pub(crate) const MAX_FRAME_PIXELS: u64 = 64_000_000;

/// How a clip is turned into frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipOptions {
    /// Frames sampled a second. For a folder of pictures, also the pictures shown a second.
    pub fps: f64,
    /// Most frames sampled; if `fps` asks for more, this many are spread evenly over the clip.
    pub max_frames: usize,
    /// Token budget of one frame, where it is below the model's own budget for a picture.
    pub max_tokens_per_frame: Option<usize>,
}

impl Default for ClipOptions {
    /// Two frames a second, at most 64.
    fn default() -> Self {
        Self { fps: 2.0, max_frames: 64, max_tokens_per_frame: None }
    }
}

impl ClipOptions {
    /// The planner's config for a frame: the model's own, with the budget lowered to this one's.
    pub fn plan_config(&self, model: &PlanConfig) -> PlanConfig {
        let budget = self.max_tokens_per_frame.and_then(|most| u32::try_from(most).ok());
        let max_n_token = budget.map_or(model.max_n_token, |most| most.min(model.max_n_token));
        PlanConfig { max_n_token, ..*model }
    }

    fn check(&self) -> Result<()> {
        if !self.fps.is_finite() || self.fps <= 0.0 || self.fps > 1000.0 {
            let fps = self.fps;
            return Err(Error::Request(format!("fps must lie above 0 and up to 1000, not {fps}")));
        }
        if self.max_frames == 0 {
            return Err(Error::Request("max_frames must be at least 1".to_owned()));
        }
        Ok(())
    }
}

/// What is known of a clip before a frame of it is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipInfo {
    /// Container and codec, for people.
    pub container: String,
    /// Width of a frame in pixels, upright. A folder's frames may differ; this is the first's.
    pub width: u32,
    /// Height of a frame in pixels, upright.
    pub height: u32,
    /// From the clip's begin to the end of its last frame, in seconds.
    pub duration_s: f64,
    /// Frames in the container that are shown.
    pub frame_count: usize,
    /// Times of the frames that [`Clip::next_frame`] gives, in seconds, rising.
    pub sampled: Vec<f64>,
}

/// One sampled frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// When it was sampled, in seconds from the clip's begin.
    pub time_s: f64,
    /// Its pixels.
    pub image: RgbImage,
}

impl Frame {
    /// The text that stands before the frame's image block, such as `<12.0 seconds>`.
    pub fn timestamp(&self) -> String {
        timestamp(self.time_s)
    }
}

/// The text that stands before the image block of a frame sampled at `time_s` seconds.
pub fn timestamp(time_s: f64) -> String {
    format!("<{time_s:.1} seconds>")
}

/// Gives the picked frames one after the other.
type Pictures = Box<dyn Iterator<Item = Result<RgbImage>>>;

/// A container whose headers have been read.
struct Probe {
    container: String,
    width: u32,
    height: u32,
    /// When each frame is shown, in the order shown.
    timeline: Vec<Shown>,
    /// Starts to read the frames with the given indices into `timeline` (rising).
    start: Box<dyn FnOnce(Vec<usize>) -> Result<Pictures>>,
}

/// A clip that gives its sampled frames one by one.
///
/// Decoders keep state that cannot change threads, so a clip is read on the thread that opened it.
pub struct Clip {
    info: ClipInfo,
    next: usize,
    frames: State,
}

enum State {
    Waiting { indices: Vec<usize>, start: Box<dyn FnOnce(Vec<usize>) -> Result<Pictures>> },
    Running(Pictures),
    Done,
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clip").field("info", &self.info).field("next", &self.next).finish()
    }
}

/// Opens the clip at `path`: a file, or a folder whose pictures are the frames.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Media`] if it is no clip, has no frames, is damaged
/// or cut short, or needs a program that is not installed; [`Error::Request`] for a bad option.
pub fn open(path: impl AsRef<Path>, options: &ClipOptions) -> Result<Clip> {
    let path = path.as_ref();
    options.check()?;
    let probe = probe(path, options)?;
    let picks = pick(&probe.timeline, options.fps, options.max_frames);
    let (Some(last), false) = (probe.timeline.last(), picks.is_empty()) else {
        return Err(Error::media(path, "has no frames"));
    };
    let info = ClipInfo {
        container: probe.container,
        width: probe.width,
        height: probe.height,
        duration_s: last.end,
        frame_count: probe.timeline.len(),
        sampled: picks.iter().map(|pick| pick.time_s).collect(),
    };
    let indices = picks.iter().map(|&Pick { index, .. }| index).collect();
    Ok(Clip { info, next: 0, frames: State::Waiting { indices, start: probe.start } })
}

/// Finds the reader for `path` by its first bytes and reads its headers.
fn probe(path: &Path, options: &ClipOptions) -> Result<Probe> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        return folder::probe(path, options.fps);
    }
    let mut head = Vec::new();
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.by_ref().take(16).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    if head.is_empty() {
        return Err(Error::media(path, "is empty"));
    }
    if let Some(kind) = animation::Kind::of(&head) {
        return animation::probe(path, kind);
    }
    let why = if mp4::looks_like(&head) {
        match mp4::probe(path, file)? {
            mp4::Found::Clip(probe) => return Ok(probe),
            mp4::Found::Other(why) => why,
        }
    } else if image::guess_format(&head).is_ok() {
        return Err(Error::media(path, "is a still picture, not a clip"));
    } else {
        "it is neither a GIF, WebP, PNG nor MP4 clip".to_owned()
    };
    ffmpeg::probe(path, &why)
}

impl Clip {
    /// What is known of the clip; complete before the first frame is read.
    pub fn info(&self) -> &ClipInfo {
        &self.info
    }

    /// Decodes the next sampled frame; `None` after the last. After an error the clip is over.
    ///
    /// # Errors
    /// [`Error::Media`] if the frame is damaged, missing or too large.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some(&time_s) = self.info.sampled.get(self.next) else {
            self.frames = State::Done;
            return Ok(None);
        };
        let mut pictures = match std::mem::replace(&mut self.frames, State::Done) {
            State::Waiting { indices, start } => start(indices)?,
            State::Running(pictures) => pictures,
            State::Done => return Ok(None),
        };
        // A reader gives as many pictures as it was asked for, or an error.
        let Some(image) = pictures.next().transpose()? else { return Ok(None) };
        self.frames = State::Running(pictures);
        self.next += 1;
        Ok(Some(Frame { time_s, image }))
    }
}

impl Iterator for Clip {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_frame().transpose()
    }
}

/// What a clip will cost, known before its frames are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Frames that will be sent.
    pub frames: usize,
    /// The plan of one frame.
    pub plan: Plan,
    /// Most prompt tokens of one frame's image block, PADs included.
    pub tokens_per_frame: usize,
    /// Most prompt tokens of the clip: its image blocks, and [`TIMESTAMP_TOKENS`] a frame.
    pub tokens: usize,
    /// Patches that the vision tower encodes, over all frames.
    pub patches: usize,
    /// Bytes of one decoded frame and of its patches: what this module holds at a time, besides
    /// the decoder's own reference frames.
    pub frame_bytes: usize,
}

/// Tokens of a timestamp such as `<12.0 seconds>`: 6 in DeepSeek's vocabulary, 7 past 1000 s.
pub const TIMESTAMP_TOKENS: usize = 7;

/// Estimates what a clip costs. `cfg` is the frames' planner config, see
/// [`ClipOptions::plan_config`].
///
/// # Errors
/// Those of [`plan`]: above all, a token budget too small for the clip's shape.
pub fn estimate(info: &ClipInfo, cfg: &PlanConfig) -> Result<Estimate> {
    let plan = plan(info.width, info.height, cfg)?;
    let frames = info.sampled.len();
    let canvas = plan.target_w as usize * plan.target_h as usize * 3;
    let decoded = info.width as usize * info.height as usize * 3;
    // A timestamp's length varies, so its frame's block starts anywhere: count the worst lead.
    let tokens_per_frame = plan.span_tokens() + ALIGN - 1;
    Ok(Estimate {
        frames,
        plan,
        tokens_per_frame,
        tokens: frames * (tokens_per_frame + TIMESTAMP_TOKENS),
        patches: frames * plan.patches_w * plan.patches_h,
        frame_bytes: decoded + canvas + canvas * size_of::<f32>(),
    })
}

#[cfg(test)]
mod tests;
