//! MP4 and MOV files with an H.264 track.
//!
//! The boxes that describe samples are read whole; the samples themselves are read from the file
//! one at a time, when they are decoded. The parser is this module's own because a file is outside
//! input: every table is bounded by the file's length and every index is checked.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use image::metadata::Orientation;

use super::h264::{self, AvcConfig};
use super::mp4_samples::{Sample, SampleTables, fragment_samples, presentation};
use super::sps::Colour;
use super::{MAX_FRAME_PIXELS, Probe};
use crate::media::picture::check_size;
use crate::{Error, Result};

/// Most boxes at the top level: a day of one-second fragments needs 200,000.
const MAX_BOXES: usize = 1 << 20;
/// Largest `moov` or `moof` box that is read. A day of 60 fps video needs about 100 MB.
const MAX_TABLES: u64 = 256 << 20;

/// What a file turned out to be.
pub(super) enum Found {
    /// A clip that this module reads.
    Clip(Probe),
    /// A sound file that needs another reader, and why.
    Other(String),
}

/// Whether a file that starts with `head` is of the MP4 and MOV family.
pub(super) fn looks_like(head: &[u8]) -> bool {
    let kinds: [&[u8]; 6] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"];
    head.get(4..8).is_some_and(|kind| kinds.contains(&kind))
}

/// The video track's description, and its samples in decoding order.
pub(super) struct Track {
    pub avc: AvcConfig,
    /// The size in pixels that the sample entry gives.
    pub width: u32,
    /// See [`Track::width`].
    pub height: u32,
    /// How the frame is turned for display.
    pub turn: Orientation,
    /// Colour coding that the container declares, if it does.
    pub colour: Option<Colour>,
    pub samples: Vec<Sample>,
}

pub(super) fn probe(path: &Path, mut file: File) -> Result<Found> {
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let damaged = |what: &str| Error::media(path, format!("is damaged: {what}"));
    let top = top_level(&mut file, length).map_err(|e| Error::io(path, e))?;
    let Some(moov) = top.iter().find(|b| &b.kind == b"moov") else {
        let what = "has no `moov` box; it is cut short, or was not closed by its recorder";
        return Err(Error::media(path, what));
    };
    let moov = load(path, &mut file, moov, length)?;
    let movie = match movie(&moov, length) {
        Ok(movie) => movie,
        Err(Problem::Damaged(what)) => return Err(damaged(&what)),
        Err(Problem::Other(why)) => return Ok(Found::Other(why)),
    };
    let Movie { mut track, timescale, movie_timescale, edits, defaults } = movie;
    for moof in top.iter().filter(|b| &b.kind == b"moof") {
        let body = load(path, &mut file, moof, length)?;
        fragment_samples(&body, moof.start, &defaults, length, &mut track.samples)
            .ok_or_else(|| damaged("a `moof` box"))?;
    }

    let missing = track.samples.iter().filter(|s| s.offset + u64::from(s.size) > length).count();
    if missing > 0 {
        let all = track.samples.len();
        return Err(Error::media(
            path,
            format!("is cut short: {missing} of {all} frames are missing"),
        ));
    }
    let (timeline, order) = presentation(&track.samples, timescale, movie_timescale, &edits)
        .ok_or_else(|| damaged("its edit list"))?;
    let turned = matches!(
        track.turn,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    check_size(path, track.width, track.height, MAX_FRAME_PIXELS)?;
    let (width, height) =
        if turned { (track.height, track.width) } else { (track.width, track.height) };
    let path = path.to_owned();
    Ok(Found::Clip(Probe {
        container: "MP4, H.264".to_owned(),
        width,
        height,
        timeline,
        start: Box::new(move |indices| {
            let wanted = indices.into_iter().filter_map(|i| order.get(i).copied()).collect();
            Ok(h264::pictures(path, file, track, wanted))
        }),
    }))
}

/// A box: its four-letter kind, where it starts in the file and where its body lies.
struct TopBox {
    kind: [u8; 4],
    start: u64,
    body: Range<u64>,
}

/// Walks the file's top-level boxes by their headers alone, up to where they stop making sense
/// (a file cut short ends inside of a box).
fn top_level(file: &mut File, length: u64) -> std::io::Result<Vec<TopBox>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 8 <= length && found.len() < MAX_BOXES {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 16];
        let have = (length - at).min(16) as usize;
        file.read_exact(&mut head[..have])?;
        let mut words = Bytes(&head);
        // Sixteen bytes are there, so no read of them can fail.
        let (Some(short), Some(kind), Some(long)) = (words.u32(), words.kind(), words.u64()) else {
            break;
        };
        let (header, size) = match short {
            0 => (8, length - at),
            1 => (16, long),
            _ => (8, u64::from(short)),
        };
        let Some(end) = at.checked_add(size).filter(|_| size >= header) else { break };
        found.push(TopBox { kind, start: at, body: at + header..end });
        at = end;
    }
    Ok(found)
}

/// Reads a top-level box's body.
fn load(path: &Path, file: &mut File, found: &TopBox, length: u64) -> Result<Vec<u8>> {
    if found.body.end > length {
        return Err(Error::media(path, "is cut short"));
    }
    let size = found.body.end - found.body.start;
    if size > MAX_TABLES {
        return Err(Error::media(path, format!("has {} MB of tables; too many", size >> 20)));
    }
    let mut body = vec![0; size as usize];
    file.seek(SeekFrom::Start(found.body.start))
        .and_then(|_| file.read_exact(&mut body))
        .map_err(|e| Error::io(path, e))?;
    Ok(body)
}

/// Big-endian fields read off the front of a slice; `None` once it is exhausted.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn kind(&mut self) -> Option<[u8; 4]> {
        self.array()
    }

    /// A full box's version and its flags.
    pub fn version(&mut self) -> Option<(u8, u32)> {
        let word = self.u32()?;
        Some(((word >> 24) as u8, word & 0xff_ffff))
    }

    /// A field of 64 bits in version 1 and of 32 in version 0.
    pub fn long(&mut self, version: u8) -> Option<u64> {
        if version == 1 { self.u64() } else { self.u32().map(u64::from) }
    }

    /// The child boxes that follow, as far as they make sense.
    pub fn boxes(self) -> impl Iterator<Item = ([u8; 4], Bytes<'a>)> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let size = rest.u32()?;
            let kind = rest.kind()?;
            let body = match size {
                0 => rest.0.len(),
                1 => usize::try_from(rest.u64()?).ok()?.checked_sub(16)?,
                _ => (size as usize).checked_sub(8)?,
            };
            Some((kind, Bytes(rest.take(body)?)))
        })
    }

    /// The first child box of the given kind.
    pub fn child(self, kind: &[u8; 4]) -> Option<Bytes<'a>> {
        self.boxes().find(|(found, _)| found == kind).map(|(_, body)| body)
    }
}

/// Why a `moov` box gives no track.
enum Problem {
    Damaged(String),
    Other(String),
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

/// One entry of an edit list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edit {
    /// How long it lasts, in the movie's ticks; 0 for the rest of the media.
    pub duration: u64,
    /// Where in the media it starts, in the track's ticks; `None` shows nothing.
    pub from: Option<i64>,
}

/// What samples of a fragment have unless the fragment says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FragmentDefaults {
    pub track_id: u32,
    pub duration: u32,
    pub size: u32,
    pub flags: u32,
}

struct Movie {
    track: Track,
    /// Ticks a second of the track's times.
    timescale: u32,
    /// Ticks a second of the edit list's durations.
    movie_timescale: u32,
    edits: Vec<Edit>,
    defaults: FragmentDefaults,
}

fn movie(moov: &[u8], length: u64) -> Result<Movie, Problem> {
    let moov = Bytes(moov);
    let movie_timescale = moov.child(b"mvhd").and_then(timescale).ok_or("no movie header")?;
    let mut other = "it has no video track".to_owned();
    for trak in moov.boxes().filter(|(kind, _)| kind == b"trak").map(|(_, body)| body) {
        let Some(mdia) = trak.child(b"mdia") else { continue };
        let handler = mdia.child(b"hdlr").and_then(|mut b| b.take(8).and(b.kind()));
        if handler != Some(*b"vide") {
            continue;
        }
        let stbl = mdia.child(b"minf").and_then(|b| b.child(b"stbl")).ok_or("no sample table")?;
        let entry = stbl.child(b"stsd").and_then(|mut b| b.take(8).and(b.boxes().next()));
        let (codec, entry) = entry.ok_or("no sample description")?;
        if !matches!(&codec, b"avc1" | b"avc3") {
            other = format!("its video is `{}`, not H.264", codec.escape_ascii());
            continue;
        }
        let (width, height, avc, colour) = entry_fields(entry).ok_or("its H.264 description")?;
        if let Err(why) = avc.supported() {
            return Err(Problem::Other(why));
        }
        let (track_id, turn) =
            trak.child(b"tkhd").and_then(track_header).ok_or("no track header")?;
        let timescale = mdia.child(b"mdhd").and_then(timescale).ok_or("no media header")?;
        let samples = SampleTables::new(stbl)
            .and_then(|tables| tables.samples(length))
            .ok_or("its sample tables do not fit together")?;
        let edits = trak.child(b"edts").and_then(|b| b.child(b"elst"));
        let edits = edits.map_or(Some(Vec::new()), edit_list).ok_or("its edit list")?;
        let defaults = moov
            .child(b"mvex")
            .and_then(|mvex| fragment_defaults(mvex, track_id))
            .unwrap_or(FragmentDefaults { track_id, ..FragmentDefaults::default() });
        let track = Track { avc, width, height, turn, colour, samples };
        return Ok(Movie { track, timescale, movie_timescale, edits, defaults });
    }
    Err(Problem::Other(other))
}

/// Ticks a second, of an `mvhd` or `mdhd` box.
fn timescale(mut header: Bytes<'_>) -> Option<u32> {
    let (version, _) = header.version()?;
    header.take(if version == 1 { 16 } else { 8 })?;
    header.u32().filter(|&ticks| ticks > 0)
}

/// The track's id and its turn, from the `tkhd` box.
fn track_header(mut header: Bytes<'_>) -> Option<(u32, Orientation)> {
    let (version, _) = header.version()?;
    header.take(if version == 1 { 16 } else { 8 })?;
    let id = header.u32()?;
    header.take(if version == 1 { 12 } else { 8 } + 16)?;
    // The matrix's upper left part maps (x, y) to (a x + c y, b x + d y), in 16.16 fixed point.
    let [a, b, _, c, d] = [(); 5].map(|()| header.u32().map(|word| (word as i32).signum()));
    use Orientation::*;
    let turn = match (a?, b?, c?, d?) {
        (0, 1, -1, 0) => Rotate90,
        (-1, 0, 0, -1) => Rotate180,
        (0, -1, 1, 0) => Rotate270,
        (-1, 0, 0, 1) => FlipHorizontal,
        (1, 0, 0, -1) => FlipVertical,
        (0, 1, 1, 0) => Rotate90FlipH,
        (0, -1, -1, 0) => Rotate270FlipH,
        _ => NoTransforms,
    };
    Some((id, turn))
}

/// Width, height, decoder configuration and declared colours of an `avc1` sample entry.
fn entry_fields(mut entry: Bytes<'_>) -> Option<(u32, u32, AvcConfig, Option<Colour>)> {
    entry.take(24)?;
    let (width, height) = (entry.u16()?, entry.u16()?);
    entry.take(50)?;
    let avc = AvcConfig::parse(entry.child(b"avcC")?)?;
    let colour = entry.child(b"colr").and_then(|mut b| {
        let kind = b.kind()?;
        b.take(4)?;
        let matrix = b.u16()?;
        let full_range = kind == *b"nclx" && b.u8()? & 0x80 != 0;
        matches!(&kind, b"nclx" | b"nclc").then_some(())?;
        Colour::from_code(matrix.into(), full_range)
    });
    Some((width.into(), height.into(), avc, colour))
}

fn edit_list(mut elst: Bytes<'_>) -> Option<Vec<Edit>> {
    let (version, _) = elst.version()?;
    let count = elst.u32()?;
    let mut edits = Vec::new();
    for _ in 0..count {
        let duration = elst.long(version)?;
        let from = elst.long(version)?;
        let from = if version == 1 { from as i64 } else { (from as u32 as i32).into() };
        elst.take(4)?;
        edits.push(Edit { duration, from: (from >= 0).then_some(from) });
    }
    Some(edits)
}

fn fragment_defaults(mvex: Bytes<'_>, track_id: u32) -> Option<FragmentDefaults> {
    mvex.boxes().filter(|(kind, _)| kind == b"trex").find_map(|(_, mut trex)| {
        trex.version()?;
        let id = trex.u32()?;
        trex.u32()?;
        let (duration, size, flags) = (trex.u32()?, trex.u32()?, trex.u32()?);
        (id == track_id).then_some(FragmentDefaults { track_id, duration, size, flags })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/media");
        std::fs::read(folder.join(name)).unwrap()
    }

    #[test]
    fn samples_equal_those_of_another_parser() {
        for name in ["reordered.mp4", "fragmented.mp4", "turned.mp4"] {
            let bytes = fixture(name);
            let other = re_mp4::Mp4::read_bytes(&bytes).unwrap();
            let other = &other.tracks().values().next().unwrap().samples;

            let length = bytes.len() as u64;
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            let top = top_level(&mut file, length).unwrap();
            let body = |b: &TopBox| &bytes[b.body.start as usize..b.body.end as usize];
            let moov = top.iter().find(|b| &b.kind == b"moov").unwrap();
            let Ok(mut found) = movie(body(moov), length) else { panic!("{name}") };
            let samples = &mut found.track.samples;
            for moof in top.iter().filter(|b| &b.kind == b"moof") {
                fragment_samples(body(moof), moof.start, &found.defaults, length, samples).unwrap();
            }

            assert_eq!((samples.len(), other.len()), (20, 20), "{name}");
            let first = samples.iter().map(|s| s.shown).min().unwrap();
            for (ours, theirs) in samples.iter().zip(other) {
                assert_eq!((ours.offset, u64::from(ours.size)), (theirs.offset, theirs.size));
                assert_eq!(ours.sync, theirs.is_sync);
                assert_eq!(ours.shown - first, theirs.composition_timestamp, "{name}");
            }
        }
    }

    #[test]
    fn boxes_end_where_their_parent_does() {
        let bytes = [0, 0, 0, 9, b'a', b'b', b'c', b'd', 7, 0, 0, 0, 20, b'e', b'f', b'g', b'h'];
        let found: Vec<_> = Bytes(&bytes).boxes().map(|(kind, body)| (kind, body.0)).collect();
        assert_eq!(found, [(*b"abcd", &[7][..])]);
    }

    #[test]
    fn edit_lists_of_both_versions() {
        let short = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 255, 255, 255, 255, 0, 1, 0, 0];
        assert_eq!(edit_list(Bytes(&short)), Some(vec![Edit { duration: 9, from: None }]));
        let mut long = vec![1, 0, 0, 0, 0, 0, 0, 1];
        long.extend([9u64.to_be_bytes(), 5u64.to_be_bytes()].concat());
        long.extend([0, 1, 0, 0]);
        assert_eq!(edit_list(Bytes(&long)), Some(vec![Edit { duration: 9, from: Some(5) }]));
        assert_eq!(edit_list(Bytes(&long[..20])), None);
    }
}
