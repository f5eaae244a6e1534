//! Any other container, through the programs `ffprobe` and `ffmpeg`.
//!
//! `ffprobe` lists the times of the frames without decoding them; `ffmpeg` then decodes the wanted
//! ones and writes each as a PPM picture, which says its own size, to a pipe.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use image::RgbImage;

use super::samples::Shown;
use super::{MAX_FRAME_PIXELS, Probe};
use crate::media::picture::check_size;
use crate::{Error, Result};

/// Wanted frames that one `ffmpeg` is asked for: its command line grows with them.
const BATCH: usize = 256;
/// The same for frames found by number: those cannot be sought, so each program starts over.
const BATCH_BY_NUMBER: usize = 4096;
/// A gap in seconds between wanted frames from which seeking past it beats decoding through it.
const GAP: f64 = 10.0;
/// How many frame times a container may list: three days at 60 fps.
const MAX_FRAMES: usize = 1 << 24;

/// Reads the headers of the clip at `path`. `why` tells why Fathom's own readers pass it on.
pub(super) fn probe(path: &Path, why: &str) -> Result<Probe> {
    let mut command = program("ffprobe");
    command
        .args(["-select_streams", "V:0", "-of", "compact", "-show_entries"])
        .arg(concat!(
            "stream=codec_name,width,height,avg_frame_rate:stream_side_data=rotation",
            ":stream_tags=rotate:format=format_name,start_time:packet=pts_time,dts_time,duration_time"
        ))
        .arg(url(path));
    let mut running = Running::start(command, path, why)?;
    let mut found = Listing::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line is short unless the program is not ffprobe; what is longer is not read.
        let count = running.output.by_ref().take(4096).read_until(b'\n', &mut line);
        match count {
            Ok(0) => break,
            Ok(_) => found.line(&String::from_utf8_lossy(&line)),
            Err(e) => return Err(Error::io(path, e)),
        }
        if found.packets.len() > MAX_FRAMES {
            return Err(Error::media(path, "has too many frames"));
        }
    }
    if let Err(said) = running.finish() {
        return Err(Error::media(
            path,
            format!("is no clip that can be read ({why}; ffprobe: {said})"),
        ));
    }
    if found.codec.is_empty() {
        return Err(Error::media(path, "has no video track"));
    }
    let Listing { width, height, turned, .. } = found;
    let (width, height) = if turned { (height, width) } else { (width, height) };
    check_size(path, width, height, MAX_FRAME_PIXELS)?;
    let (starts, timed) = (found.starts(), found.timed());
    let begin = starts.first().map_or(0.0, |&(start, _)| start);
    let timeline = (0..starts.len())
        .map(|i| {
            let (start, own) = starts[i];
            let end = starts.get(i + 1).map_or(start + own, |&(next, _)| next);
            Shown { start: start - begin, end: end - begin }
        })
        .collect();
    let container = format!("{}, {}, by ffmpeg", found.format, found.codec);
    let (path, why, zero) = (path.to_owned(), why.to_owned(), found.start_time);
    Ok(Probe {
        container,
        width,
        height,
        timeline,
        start: Box::new(move |indices| {
            let wanted = indices
                .into_iter()
                .filter_map(|number| starts.get(number).map(|&(time, _)| Wanted { number, time }));
            let wanted = wanted.collect();
            Ok(Box::new(Reader { path, why, zero, timed, wanted, batch: None }))
        }),
    })
}

/// A command with the options that both programs share.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // A playlist must not make it open other places than files.
    command.args(["-v", "error", "-protocol_whitelist", "file"]);
    command
}

/// The path as ffmpeg reads it: never as an option or another protocol.
fn url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

/// What `ffprobe` says.
#[derive(Debug, Default, PartialEq)]
struct Listing {
    format: String,
    codec: String,
    width: u32,
    height: u32,
    turned: bool,
    /// Seconds a frame, for packets without times.
    frame_time: f64,
    /// The container's own start, in seconds.
    start_time: f64,
    /// Start and, if known, duration in seconds of each packet, as stored.
    packets: Vec<(f64, Option<f64>)>,
    /// Number and decoding time of the first and of the last packet that has one.
    stored: Option<((usize, f64), (usize, f64))>,
    /// Packets whose start is not stored.
    untimed: usize,
}

impl Listing {
    /// Takes in one line of the form `section|key=value|key=value`.
    fn line(&mut self, line: &str) {
        let mut fields = line.trim_end().split('|');
        let section = fields.next().unwrap_or_default();
        let (mut shown, mut decoded, mut duration) = (None, None, None);
        for field in fields {
            let Some((key, value)) = field.split_once('=') else { continue };
            let seconds = || value.parse::<f64>().ok().filter(|s| s.is_finite());
            match (section, key) {
                ("packet", "pts_time") => shown = seconds(),
                ("packet", "dts_time") => decoded = seconds(),
                ("packet", "duration_time") => duration = seconds(),
                ("stream", "codec_name") => self.codec = value.to_owned(),
                ("stream", "width") => self.width = value.parse().unwrap_or(0),
                ("stream", "height") => self.height = value.parse().unwrap_or(0),
                ("stream", "avg_frame_rate") => self.frame_time = frame_time(value),
                ("stream", "rotation" | "tag:rotate") => {
                    self.turned = seconds().is_some_and(|turn| (turn / 90.0).round() % 2.0 != 0.0);
                }
                ("format", "format_name") => {
                    self.format = value.split(',').next().unwrap_or_default().to_owned();
                }
                ("format", "start_time") => self.start_time = seconds().unwrap_or(0.0),
                _ => {}
            }
        }
        if section == "packet" {
            self.untimed += usize::from(shown.is_none());
            if let Some(time) = decoded.or(shown) {
                let here = (self.packets.len(), time);
                self.stored = Some((self.stored.map_or(here, |(first, _)| first), here));
            }
            self.packets.push((shown.unwrap_or(0.0), duration));
        }
    }

    /// Whether every frame's time is stored; it is not in AVI, MPEG program and raw streams.
    fn timed(&self) -> bool {
        self.untimed == 0
    }

    /// Start and duration of every frame, in the order shown. Where not every time is stored, the
    /// frames are taken to follow each other at the mean rate.
    fn starts(&self) -> Vec<(f64, f64)> {
        let mut frame_time = self.frame_time;
        if !self.timed() {
            // The nominal rate of an AVI can be a multiple of the real one.
            if let Some(((a, from), (b, to))) = self.stored.filter(|((_, a), (_, b))| a < b) {
                frame_time = (to - from) / (b - a) as f64;
            }
            return (0..self.packets.len()).map(|i| (i as f64 * frame_time, frame_time)).collect();
        }
        let mut starts: Vec<(f64, f64)> = self
            .packets
            .iter()
            .map(|&(start, duration)| (start, duration.unwrap_or(frame_time)))
            .collect();
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        starts.dedup_by(|a, b| a.0 == b.0);
        starts
    }
}

/// Seconds a frame, from a rate such as `30000/1001`; a 25th if it says nothing.
fn frame_time(rate: &str) -> f64 {
    let number = |text: &str| text.parse::<f64>().ok();
    let parts = rate.split_once('/').and_then(|(n, d)| Some((number(n)?, number(d)?)));
    match parts {
        Some((frames, seconds)) if frames > 0.0 && seconds > 0.0 => {
            f64::max(seconds / frames, 1e-4)
        }
        _ => 0.04,
    }
}

/// A frame to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    /// Its place in the order shown.
    number: usize,
    /// Its time in the container's own clock, in seconds.
    time: f64,
}

struct Reader {
    path: PathBuf,
    why: String,
    /// The container's own start: `-ss` counts from it.
    zero: f64,
    /// Whether frames are found by time (which allows seeking) or by number.
    timed: bool,
    wanted: VecDeque<Wanted>,
    /// The running program and how many frames it still has to give.
    batch: Option<(Running, usize)>,
}

impl Iterator for Reader {
    type Item = Result<RgbImage>;

    fn next(&mut self) -> Option<Self::Item> {
        let Wanted { time, .. } = *self.wanted.front()?;
        if self.batch.as_ref().is_none_or(|&(_, left)| left == 0) {
            match self.start_batch() {
                Ok(batch) => self.batch = Some(batch),
                Err(e) => return Some(Err(e)),
            }
        }
        self.wanted.pop_front();
        let (running, left) = self.batch.as_mut()?;
        *left -= 1;
        Some(match read_ppm(&mut running.output, &self.path) {
            Ok(picture) => Ok(picture),
            Err(Some(error)) => Err(error),
            Err(None) => {
                let said = running.finish().err().unwrap_or_else(|| "it stopped early".to_owned());
                Err(Error::media(
                    &self.path,
                    format!("has no frame at {time:.3} s (ffmpeg: {said})"),
                ))
            }
        })
    }
}

impl Reader {
    /// Starts a program for the next wanted frames, up to a gap that is better sought past.
    fn start_batch(&self) -> Result<(Running, usize)> {
        let batch = if self.timed { BATCH } else { BATCH_BY_NUMBER };
        let wanted: Vec<Wanted> = self.wanted.iter().copied().take(batch).collect();
        let gap = wanted.windows(2).position(|pair| pair[1].time - pair[0].time > GAP);
        let gap = gap.filter(|_| self.timed);
        let wanted = &wanted[..gap.map_or(wanted.len(), |at| at + 1)];
        let first = wanted.first().map_or(0.0, |frame| frame.time);

        let mut command = program("ffmpeg");
        command.arg("-nostdin");
        if self.timed && first - self.zero > GAP {
            // Seeking stops at a key frame at or before the time; `select` drops what precedes it.
            let seek = first - self.zero - 0.5;
            command.args(["-noaccurate_seek", "-ss", &format!("{seek:.6}")]);
        }
        command.args(["-copyts", "-i"]).arg(url(&self.path)).args(["-map", "0:V:0"]);
        // Frames leave the filter one tick apart, so that none is repeated or dropped for the sake
        // of a constant frame rate.
        let filter = format!(
            "select='{}',settb=1/25,setpts=N,scale=flags=accurate_rnd+full_chroma_int,format=rgb24",
            if self.timed { select_times(wanted) } else { select_numbers(wanted) }
        );
        command.args(["-vf", &filter, "-r", "25", "-frames:v", &wanted.len().to_string()]);
        command.args(["-c:v", "ppm", "-f", "image2pipe", "-"]);
        Ok((Running::start(command, &self.path, &self.why)?, wanted.len()))
    }
}

/// A filter expression that is true for the first frame at or after each time.
fn select_times(wanted: &[Wanted]) -> String {
    // Times are printed to the microsecond; half a millisecond of slack absorbs that.
    let from = |frame: &Wanted| format!("{:.6}", frame.time - 0.0005);
    let terms = wanted.iter().enumerate().map(|(i, frame)| {
        let from_here = from(frame);
        let until = wanted.get(i + 1).map(|next| format!("*lt(t,{})", from(next)));
        let until = until.unwrap_or_default();
        format!(
            "gte(t,{from_here}){until}*(isnan(prev_selected_t)+lt(prev_selected_t,{from_here}))"
        )
    });
    terms.collect::<Vec<_>>().join("+")
}

/// A filter expression that is true for the frames with the wanted numbers.
fn select_numbers(wanted: &[Wanted]) -> String {
    let terms = wanted.iter().map(|frame| format!("eq(n,{})", frame.number));
    terms.collect::<Vec<_>>().join("+")
}

/// Reads one PPM picture. `Err(None)` if the stream ends before it does.
fn read_ppm(input: &mut impl BufRead, path: &Path) -> std::result::Result<RgbImage, Option<Error>> {
    let ended =
        |e: std::io::Error| (e.kind() != ErrorKind::UnexpectedEof).then(|| Error::io(path, e));
    let mut word = || -> std::result::Result<String, Option<Error>> {
        let mut word = String::new();
        loop {
            let mut byte = [0];
            input.read_exact(&mut byte).map_err(ended)?;
            if byte[0].is_ascii_whitespace() {
                return Ok(word);
            }
            word.push(byte[0].into());
            if word.len() > 20 {
                return Err(Some(Error::media(path, "ffmpeg wrote no PPM picture")));
            }
        }
    };
    let head = [word()?, word()?, word()?, word()?];
    let (Ok(width), Ok(height), "P6", "255") =
        (head[1].parse(), head[2].parse(), head[0].as_str(), head[3].as_str())
    else {
        return Err(Some(Error::media(path, "ffmpeg wrote no PPM picture")));
    };
    check_size(path, width, height, MAX_FRAME_PIXELS)?;
    let mut picture = RgbImage::new(width, height);
    input.read_exact(&mut picture).map_err(ended)?;
    Ok(picture)
}

/// A running child program, killed when dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Collects what the program says on its error stream.
    said: Option<JoinHandle<String>>,
}

impl Running {
    fn start(mut command: Command, path: &Path, why: &str) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_owned();
        let mut child = command.spawn().map_err(|e| not_started(&name, path, why, &e))?;
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::media(path, format!("{} has no output", name.to_string_lossy())));
        };
        // The error stream must be read while the program runs, or a full pipe stops it.
        let said = std::thread::spawn(move || {
            let mut first = Vec::new();
            let _ = errors.by_ref().take(64 << 10).read_to_end(&mut first);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            String::from_utf8_lossy(&first).into_owned()
        });
        Ok(Self { child, output: BufReader::new(output), said: Some(said) })
    }

    /// Waits for the program; on failure, the last line that it said.
    fn finish(&mut self) -> std::result::Result<(), String> {
        let status = self.child.wait().map_err(|e| e.to_string())?;
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
        match last {
            Some(line) if !status.success() => Err(line.to_owned()),
            None if !status.success() => Err(status.to_string()),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the program is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_started(name: &OsStr, path: &Path, why: &str, error: &std::io::Error) -> Error {
    let name = name.to_string_lossy();
    let what = if error.kind() == ErrorKind::NotFound {
        format!(
            "{why}, so reading it needs the program `{name}`, which is not on PATH; \
             install the package `ffmpeg`"
        )
    } else {
        format!("{why}, and the program `{name}` does not start: {error}")
    };
    Error::media(path, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings() {
        let mut found = Listing::default();
        for line in [
            "packet|pts_time=0.080000|dts_time=0.000000|duration_time=0.040000\n",
            "packet|pts_time=0.040000|dts_time=0.040000|duration_time=N/A",
            "stream|codec_name=vp9|width=640|height=272|avg_frame_rate=25/1|side_data|rotation=-90",
            "format|format_name=matroska,webm|start_time=0.040000",
            "",
        ] {
            found.line(line);
        }
        assert_eq!(found.starts(), [(0.04, 0.04), (0.08, 0.04)]);
        assert!(found.timed());
        found.line("packet|pts_time=N/A|dts_time=0.200000|duration_time=0.040000");
        assert!(!found.timed());
        assert_eq!(found.starts(), [(0.0, 0.1), (0.1, 0.1), (0.2, 0.1)]);
        assert_eq!((found.format.as_str(), found.turned), ("matroska", true));
        assert_eq!(frame_time("30/1"), 1.0 / 30.0);
        assert_eq!(frame_time("0/0"), 0.04);
    }

    #[test]
    fn ppm() {
        let path = Path::new("clip");
        let mut two = b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxy".as_slice();
        assert_eq!(read_ppm(&mut two, path).unwrap().as_raw(), b"abcdef");
        assert!(matches!(read_ppm(&mut two, path), Err(None)));
        assert!(matches!(read_ppm(&mut b"hello\n".repeat(9).as_slice(), path), Err(Some(_))));
        let huge = b"P6\n90000 90000\n255\n";
        assert!(matches!(read_ppm(&mut huge.as_slice(), path), Err(Some(_))));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Running::start(Command::new("fathom-no-such-program"), Path::new("a.mkv"), "x");
        let error = error.err().unwrap().to_string();
        assert!(error.contains("install the package `ffmpeg`"), "{error}");
    }
}
