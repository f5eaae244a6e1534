//! Decoding the wanted frames of an H.264 track.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use image::{DynamicImage, RgbImage};
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use super::mp4::{Bytes, Track};
use super::mp4_samples::Sample;
use super::sps::{Colour, Sps};
use super::yuv::to_rgb;
use super::{MAX_FRAME_PIXELS, Pictures};
use crate::media::picture::check_size;
use crate::{Error, Result};

/// Largest coded frame that is read; 8K intra frames stay under a tenth of it.
const MAX_SAMPLE_BYTES: u32 = 64 << 20;
/// How many wanted frames ahead a decoded frame is kept for: H.264 reorders by at most 16 frames.
const REORDER: usize = 16;

// NAL unit types.
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// The decoder configuration of a track, from its `avcC` box.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AvcConfig {
    /// Bytes of the length that precedes each NAL unit of a sample.
    length_size: usize,
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl AvcConfig {
    pub fn parse(mut avcc: Bytes<'_>) -> Option<Self> {
        avcc.take(4)?;
        let length_size = usize::from(avcc.u8()? & 3) + 1;
        let mut sets = |mask: u8| {
            let count = avcc.u8()? & mask;
            let set = |_| {
                let length = avcc.u16()?;
                Some(avcc.take(length.into())?.to_vec())
            };
            (0..count).map(set).collect::<Option<Vec<_>>>()
        };
        Some(Self { length_size, sps: sets(0x1f)?, pps: sets(0xff)? })
    }

    /// Whether OpenH264 decodes such streams; if not, why.
    pub fn supported(&self) -> Result<(), String> {
        self.sps.iter().filter_map(|nal| Sps::parse(nal)).try_for_each(|sps| sps_supported(&sps))
    }

    /// The colours that the stream's parameter sets declare for pictures `height` lines high.
    fn colour(&self, height: u32, container: Option<Colour>) -> Colour {
        let sps = self.sps.iter().find_map(|nal| Sps::parse(nal));
        let full_range = sps.is_some_and(|sps| sps.full_range);
        sps.and_then(|sps| sps.colour)
            .or(container)
            .unwrap_or_else(|| Colour::assumed(height, full_range))
    }

    /// The NAL units of a sample, in order; `None` in place of one that passes the sample's end.
    fn nals<'a>(&self, sample: &'a [u8]) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut rest = sample;
        let length_size = self.length_size;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let nal = rest.split_at_checked(length_size).and_then(|(length, body)| {
                let length = length.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
                body.split_at_checked(length)
            });
            let (nal, after) = nal.map_or((None, &[][..]), |(nal, after)| (Some(nal), after));
            rest = after;
            Some(nal)
        })
    }
}

fn sps_supported(sps: &Sps) -> Result<(), String> {
    const BASELINE: u8 = 66;
    const MAIN: u8 = 77;
    const HIGH: u8 = 100;
    if sps.interlaced {
        return Err("its H.264 is interlaced".to_owned());
    }
    if sps.chroma != 1 || sps.depth != 8 {
        return Err("its H.264 is not 8-bit 4:2:0".to_owned());
    }
    if !matches!(sps.profile, BASELINE | MAIN | HIGH) {
        return Err(format!("its H.264 profile is {}", sps.profile));
    }
    let (width, height) = sps.coded;
    if width.saturating_mul(height) > MAX_FRAME_PIXELS {
        return Err(format!("its frames are too large ({width}x{height})"));
    }
    Ok(())
}

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Decodes the samples of `track` with the indices `wanted`, in that order.
pub(super) fn pictures(path: PathBuf, file: File, track: Track, wanted: Vec<usize>) -> Pictures {
    Box::new(Reader {
        path,
        file,
        track,
        run: None,
        wanted: wanted.into(),
        kept: Vec::new(),
        sample: Vec::new(),
        packet: Vec::new(),
    })
}

struct Reader {
    path: PathBuf,
    file: File,
    track: Track,
    run: Option<Run>,
    /// Samples still to be given.
    wanted: VecDeque<usize>,
    /// Wanted frames that were decoded before their turn.
    kept: Vec<(usize, RgbImage)>,
    /// The current sample, as in the file.
    sample: Vec<u8>,
    /// The current sample as the decoder reads it, NAL units behind start codes.
    packet: Vec<u8>,
}

/// A decoder that was started at some sample and fed those that follow, up to `next`, but for
/// pictures that are neither wanted nor needed to decode others.
///
/// It gives pictures back some calls late and in the order shown, so the one given back is always
/// the first shown of those it holds.
struct Run {
    decoder: Decoder,
    /// The sample to feed next.
    next: usize,
    /// Time shown, and index, of the samples that were fed and not given back.
    held: BTreeSet<(i64, usize)>,
}

impl Iterator for Reader {
    type Item = Result<RgbImage>;

    fn next(&mut self) -> Option<Self::Item> {
        let target = self.wanted.pop_front()?;
        Some(self.frame(target))
    }
}

impl Reader {
    fn frame(&mut self, target: usize) -> Result<RgbImage> {
        if let Some(picture) = self.take_kept(target) {
            return Ok(picture);
        }
        let mut run = self.reach(target)?;
        while run.next < self.track.samples.len() {
            let index = run.next;
            run.next += 1;
            let Sample { size, shown, .. } = self.track.samples[index];
            if size == 0 {
                continue;
            }
            let is_reference = self.pack(index)?;
            if !is_reference && !self.is_wanted(index, target) {
                continue;
            }
            run.held.insert((shown, index));
            let picture = run.decoder.decode(&self.packet);
            if let Some(picture) = picture.map_err(|_| self.undecodable(index))? {
                self.keep(&picture, run.held.pop_first(), target)?;
                if let Some(picture) = self.take_kept(target) {
                    self.run = Some(run);
                    return Ok(picture);
                }
            }
        }
        // The pictures that the decoder still holds; once flushed, it cannot go on.
        let rest = run.decoder.flush_remaining().map_err(|_| self.undecodable(target))?;
        for picture in rest {
            self.keep(&picture, run.held.pop_first(), target)?;
        }
        self.take_kept(target).ok_or_else(|| self.bad(target, "has no picture"))
    }

    fn take_kept(&mut self, target: usize) -> Option<RgbImage> {
        let at = self.kept.iter().position(|&(index, _)| index == target)?;
        Some(self.kept.swap_remove(at).1)
    }

    /// Whether sample `index` is the target or will be soon.
    fn is_wanted(&self, index: usize, target: usize) -> bool {
        index == target || self.wanted.iter().take(REORDER).any(|&wanted| wanted == index)
    }

    /// The run from which decoding reaches `target` soonest: one started at the last IDR picture
    /// before it, unless the current one is already past that.
    fn reach(&mut self, target: usize) -> Result<Run> {
        let key = (self.track.samples[target].shown, target);
        let current = self.run.take().filter(|r| target >= r.next || r.held.contains(&key));
        let samples = &self.track.samples[..=target];
        let sync = samples.iter().rposition(|s| s.sync && s.size > 0).unwrap_or(0);
        if let Some(run) = current {
            // A sync sample can also be a plain I picture; frames shown before it may follow it.
            if sync <= run.next || !self.is_idr(sync)? {
                return Ok(run);
            }
        } else if !self.is_idr(sync)? {
            return self.start(0);
        }
        self.start(sync)
    }

    fn start(&self, first: usize) -> Result<Run> {
        // Flushing after every packet would lose track of the pictures of streams with B frames.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let decoder = Decoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|_| self.undecodable(first))?;
        Ok(Run { decoder, next: first, held: BTreeSet::new() })
    }

    fn is_idr(&mut self, index: usize) -> Result<bool> {
        self.read(index)?;
        let mut nals = self.track.avc.nals(&self.sample).flatten();
        Ok(nals.any(|nal| nal_type(nal) == IDR_SLICE))
    }

    /// Reads sample `index` into `self.sample`.
    fn read(&mut self, index: usize) -> Result<()> {
        let Sample { offset, size, .. } = self.track.samples[index];
        if size > MAX_SAMPLE_BYTES {
            return Err(self.bad(index, "is too large"));
        }
        self.sample.resize(size as usize, 0);
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut self.sample))
            .map_err(|e| Error::io(&self.path, e))
    }

    /// Reads sample `index` and makes the decoder's packet of it. Gives whether other pictures may
    /// be predicted from it.
    fn pack(&mut self, index: usize) -> Result<bool> {
        self.read(index)?;
        let avc = &self.track.avc;
        self.packet.clear();
        if self.track.samples[index].sync {
            for set in avc.sps.iter().chain(&avc.pps) {
                push_nal(&mut self.packet, set);
            }
        }
        let mut is_reference = None;
        for nal in avc.nals(&self.sample) {
            let Some(nal) = nal else {
                return Err(self.bad(index, "is damaged: its units pass its end"));
            };
            match nal_type(nal) {
                SPS => match Sps::parse(nal).map(|sps| sps_supported(&sps)) {
                    Some(Ok(())) => push_nal(&mut self.packet, nal),
                    Some(Err(why)) => {
                        return Err(self.bad(index, &format!("cannot be decoded: {why}")));
                    }
                    None => return Err(self.bad(index, "is damaged: its parameters")),
                },
                PPS => push_nal(&mut self.packet, nal),
                SLICE | IDR_SLICE => {
                    // Not empty: it has a type.
                    is_reference = Some(nal[0] & 0x60 != 0);
                    push_nal(&mut self.packet, nal);
                }
                // Messages, delimiters, filler and the layers of scalable streams.
                _ => {}
            }
        }
        // Pictures are told apart by counting them, so each sample must hold one.
        is_reference.ok_or_else(|| self.bad(index, "holds no picture"))
    }

    /// Keeps the picture of the sample with the given key if it is wanted.
    fn keep(
        &mut self,
        picture: &DecodedYUV<'_>,
        key: Option<(i64, usize)>,
        target: usize,
    ) -> Result<()> {
        let Some((_, index)) = key.filter(|&(_, index)| self.is_wanted(index, target)) else {
            return Ok(());
        };
        let (width, height) = picture.dimensions();
        let (width, height) = (width as u32, height as u32);
        check_size(&self.path, width, height, MAX_FRAME_PIXELS)?;
        let colour = self.track.avc.colour(height, self.track.colour);
        let Some(picture) = to_rgb(picture, colour) else {
            return Err(self.bad(index, "has planes of the wrong size"));
        };
        let mut picture = DynamicImage::from(picture);
        picture.apply_orientation(self.track.turn);
        self.kept.push((index, picture.into_rgb8()));
        Ok(())
    }

    fn undecodable(&self, index: usize) -> Error {
        self.bad(index, "cannot be decoded by OpenH264")
    }

    fn bad(&self, index: usize, what: &str) -> Error {
        let all = self.track.samples.len();
        Error::media(&self.path, format!("coded frame {} of {all} {what}", index + 1))
    }
}

fn push_nal(packet: &mut Vec<u8>, nal: &[u8]) {
    packet.extend([0, 0, 0, 1]);
    packet.extend(nal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_split_by_their_length() {
        let avc = AvcConfig { length_size: 2, sps: vec![], pps: vec![] };
        let nals: Vec<_> = avc.nals(&[0, 1, 7, 0, 2, 8, 9, 0, 3, 1]).collect();
        assert_eq!(nals, [Some(&[7][..]), Some(&[8, 9]), None]);
    }

    #[test]
    fn configuration() {
        let avcc = [1, 66, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        let avc = AvcConfig::parse(Bytes(&avcc)).unwrap();
        assert_eq!(avc.length_size, 4);
        assert_eq!((avc.sps, avc.pps), (vec![vec![0x67, 1]], vec![vec![0x68]]));
        for cut in 0..avcc.len() {
            assert_eq!(AvcConfig::parse(Bytes(&avcc[..cut])), None);
        }
    }
}
