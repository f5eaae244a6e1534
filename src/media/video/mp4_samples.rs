//! From an MP4 track's tables to its samples, and from those to what is shown when.

use super::mp4::{Bytes, Edit, FragmentDefaults};
use super::samples::Shown;

/// Most samples that a track may have, and most entries of a timeline: three days at 60 fps.
const MAX_SAMPLES: usize = 1 << 24;

/// One coded frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Where in the file its bytes start.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u32,
    /// Whether the track's tables call it a sync sample.
    pub sync: bool,
    /// When it is shown, in the track's ticks.
    pub shown: i64,
    /// How long it lasts if nothing is shown after it, in ticks.
    pub duration: u32,
}

/// The tables of an `stbl` box.
pub(super) struct SampleTables<'a> {
    sizes: Sizes<'a>,
    count: usize,
    /// Bodies of the tables, after their entry counts: of `stts`, `ctts`, `stsc`, `stss`.
    durations: Runs<'a>,
    offsets: Option<Runs<'a>>,
    chunks: Bytes<'a>,
    syncs: Option<Bytes<'a>>,
    chunk_offsets: ChunkOffsets<'a>,
}

enum Sizes<'a> {
    All(u32),
    Each(Bytes<'a>),
}

enum ChunkOffsets<'a> {
    Short(Bytes<'a>),
    Long(Bytes<'a>),
}

impl ChunkOffsets<'_> {
    fn next(&mut self) -> Option<u64> {
        match self {
            Self::Short(table) => table.u32().map(u64::from),
            Self::Long(table) => table.u64(),
        }
    }
}

/// A table of (how many samples, value) pairs, read one sample at a time.
#[derive(Clone, Copy)]
struct Runs<'a> {
    table: Bytes<'a>,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(table: Bytes<'a>) -> Self {
        Self { table, left: 0, value: 0 }
    }

    /// The next sample's value. A table that ends early keeps its last value, as players do.
    fn next(&mut self) -> u32 {
        while self.left == 0 {
            let (Some(count), Some(value)) = (self.table.u32(), self.table.u32()) else {
                return self.value;
            };
            (self.left, self.value) = (count, value);
        }
        self.left -= 1;
        self.value
    }
}

impl<'a> SampleTables<'a> {
    pub fn new(stbl: Bytes<'a>) -> Option<Self> {
        let entries = |kind: &[u8; 4]| {
            let mut table = stbl.child(kind)?;
            table.version()?;
            table.u32()?;
            Some(table)
        };
        let mut stsz = stbl.child(b"stsz")?;
        stsz.version()?;
        let size = stsz.u32()?;
        let count = stsz.u32()? as usize;
        Some(Self {
            sizes: if size == 0 { Sizes::Each(stsz) } else { Sizes::All(size) },
            count,
            durations: Runs::new(entries(b"stts")?),
            offsets: entries(b"ctts").map(Runs::new),
            chunks: entries(b"stsc")?,
            syncs: entries(b"stss"),
            chunk_offsets: match entries(b"stco") {
                Some(table) => ChunkOffsets::Short(table),
                None => ChunkOffsets::Long(entries(b"co64")?),
            },
        })
    }

    /// The samples in decoding order; `None` if the tables contradict one another. `length` is the
    /// file's, which bounds how many samples there can be.
    pub fn samples(mut self, length: u64) -> Option<Vec<Sample>> {
        if self.count > MAX_SAMPLES || self.count as u64 > length {
            return None;
        }
        let mut samples = Vec::with_capacity(self.count);
        let mut decoded: i64 = 0;
        let mut chunk = ChunkWalk { number: 0, per_chunk: 0, next: None };
        chunk.next = chunk_run(&mut self.chunks);
        let mut left_in_chunk = 0;
        let mut offset: u64 = 0;
        let mut next_sync = self.syncs.as_mut().and_then(Bytes::u32);
        for number in 1..=self.count as u32 {
            while left_in_chunk == 0 {
                left_in_chunk = chunk.step(&mut self.chunks)?;
                offset = self.chunk_offsets.next()?;
            }
            left_in_chunk -= 1;
            let size = match &mut self.sizes {
                Sizes::All(size) => *size,
                Sizes::Each(table) => table.u32()?,
            };
            let duration = self.durations.next();
            // Version 0 tables hold unsigned offsets, but writers put negative ones there too.
            let delay = self.offsets.as_mut().map_or(0, |runs| runs.next() as i32);
            let sync = self.syncs.is_none() || next_sync == Some(number);
            if next_sync == Some(number) {
                next_sync = self.syncs.as_mut().and_then(Bytes::u32);
            }
            let shown = decoded.checked_add(delay.into())?;
            samples.push(Sample { offset, size, sync, shown, duration });
            decoded = decoded.checked_add(duration.into())?;
            offset = offset.checked_add(size.into())?;
        }
        Some(samples)
    }
}

/// Walks the `stsc` table: which chunk has how many samples.
struct ChunkWalk {
    /// The current chunk, from 1.
    number: u32,
    per_chunk: u32,
    /// The next run: its first chunk and samples a chunk.
    next: Option<(u32, u32)>,
}

impl ChunkWalk {
    /// Steps to the next chunk and gives how many samples it has.
    fn step(&mut self, table: &mut Bytes<'_>) -> Option<u32> {
        self.number = self.number.checked_add(1)?;
        if let Some((first, per_chunk)) = self.next.filter(|&(first, _)| first <= self.number) {
            if first < self.number {
                return None;
            }
            self.per_chunk = per_chunk;
            self.next = chunk_run(table);
        }
        Some(self.per_chunk)
    }
}

fn chunk_run(table: &mut Bytes<'_>) -> Option<(u32, u32)> {
    let run = (table.u32()?, table.u32()?);
    table.u32()?;
    Some(run)
}

/// Appends the samples of a `moof` box's fragments of the track. `start` is where the box starts in
/// the file and `length` the file's length. `None` if the box is damaged.
pub(super) fn fragment_samples(
    moof: &[u8],
    start: u64,
    defaults: &FragmentDefaults,
    length: u64,
    samples: &mut Vec<Sample>,
) -> Option<()> {
    for (_, traf) in Bytes(moof).boxes().filter(|(kind, _)| kind == b"traf") {
        let mut tfhd = traf.child(b"tfhd")?;
        let (_, flags) = tfhd.version()?;
        if tfhd.u32()? != defaults.track_id {
            continue;
        }
        let mut field = |bit: u32, default: u32| {
            if flags & bit == 0 { Some(default) } else { tfhd.u32() }
        };
        let (high, low) = (field(1, 0)?, field(1, 0)?);
        field(2, 0)?;
        let base = if flags & 1 == 0 { start } else { u64::from(high) << 32 | u64::from(low) };
        let fragment = FragmentDefaults {
            track_id: defaults.track_id,
            duration: field(8, defaults.duration)?,
            size: field(0x10, defaults.size)?,
            flags: field(0x20, defaults.flags)?,
        };
        let mut decoded = match traf.child(b"tfdt") {
            Some(mut tfdt) => {
                let (version, _) = tfdt.version()?;
                i64::try_from(tfdt.long(version)?).ok()?
            }
            None => samples.last().map_or(0, |s| s.shown.saturating_add(s.duration.into())),
        };
        let mut offset = base;
        for (_, trun) in traf.boxes().filter(|(kind, _)| kind == b"trun") {
            run_samples(trun, base, &fragment, length, &mut decoded, &mut offset, samples)?;
        }
    }
    Some(())
}

/// Appends the samples of one `trun` box. `decoded` and `offset` carry on from run to run.
fn run_samples(
    mut trun: Bytes<'_>,
    base: u64,
    fragment: &FragmentDefaults,
    length: u64,
    decoded: &mut i64,
    offset: &mut u64,
    samples: &mut Vec<Sample>,
) -> Option<()> {
    const NOT_SYNC: u32 = 1 << 16;
    let (_, flags) = trun.version()?;
    let count = trun.u32()? as usize;
    if flags & 1 != 0 {
        *offset = base.checked_add_signed((trun.u32()? as i32).into())?;
    }
    let first_flags = if flags & 4 != 0 { Some(trun.u32()?) } else { None };
    if samples.len() + count > MAX_SAMPLES || (samples.len() + count) as u64 > length {
        return None;
    }
    for i in 0..count {
        let mut field =
            |bit: u32, default: u32| if flags & bit == 0 { Some(default) } else { trun.u32() };
        let duration = field(0x100, fragment.duration)?;
        let size = field(0x200, fragment.size)?;
        let own_flags = field(0x400, fragment.flags)?;
        let delay = field(0x800, 0)? as i32;
        let flags = first_flags.filter(|_| i == 0).unwrap_or(own_flags);
        samples.push(Sample {
            offset: *offset,
            size,
            sync: flags & NOT_SYNC == 0,
            shown: decoded.checked_add(delay.into())?,
            duration,
        });
        *decoded = decoded.checked_add(duration.into())?;
        *offset = offset.checked_add(size.into())?;
    }
    Some(())
}

/// What is shown when, and which sample (index into `samples`) it is. The clip begins with its first
/// frame, whatever delay the edit list puts before that; `None` if the edit list repeats more than [`MAX_SAMPLES`] frames.
pub(super) fn presentation(
    samples: &[Sample],
    timescale: u32,
    movie_timescale: u32,
    edits: &[Edit],
) -> Option<(Vec<Shown>, Vec<usize>)> {
    // An empty sample repeats the frame before it.
    let mut order: Vec<usize> = (0..samples.len()).filter(|&i| samples[i].size > 0).collect();
    order.sort_by_key(|&i| samples[i].shown);
    let Some(first) = order.first().map(|&i| samples[i].shown) else {
        return Some(Default::default());
    };
    // Where a frame ends: the next one starts, or its own duration is over.
    let end_of = |rank: usize| {
        let own = &samples[order[rank]];
        let after = order.get(rank + 1).map(|&i| samples[i].shown);
        after.unwrap_or(own.shown.saturating_add(own.duration.into()))
    };
    let seconds = |ticks: i64| ticks as f64 / f64::from(timescale);
    let whole = [Edit { duration: 0, from: Some(first) }];
    let edits = if edits.is_empty() { &whole } else { edits };

    let mut timeline: Vec<Shown> = Vec::new();
    let mut shown = Vec::new();
    let mut now = 0.0;
    for edit in edits {
        let lasts = edit.duration as f64 / f64::from(movie_timescale);
        let Some(from) = edit.from else {
            now += lasts;
            continue;
        };
        let zero = now - seconds(from);
        let until = if edit.duration == 0 { f64::INFINITY } else { now + lasts };
        let begin = order.partition_point(|&i| samples[i].shown <= from).saturating_sub(1);
        for rank in begin..order.len() {
            let start = (zero + seconds(samples[order[rank]].shown)).max(now);
            let end = (zero + seconds(end_of(rank))).min(until);
            if start >= until {
                break;
            }
            if end <= start {
                continue;
            }
            timeline.push(Shown { start, end });
            shown.push(order[rank]);
            if timeline.len() > MAX_SAMPLES {
                return None;
            }
        }
        now = if edit.duration == 0 { timeline.last().map_or(now, |s| s.end) } else { until };
    }
    let begin = timeline.first().map_or(0.0, |first| first.start);
    for frame in &mut timeline {
        frame.start -= begin;
        frame.end -= begin;
    }
    Some((timeline, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(shown: i64) -> Sample {
        Sample { offset: 0, size: 1, sync: shown == 0, shown, duration: 10 }
    }

    #[test]
    fn frames_are_shown_in_time_order() {
        // I P B B in decoding order, shown from tick 20 on.
        let samples = [20, 50, 30, 40].map(sample);
        let (timeline, order) = presentation(&samples, 10, 1000, &[]).unwrap();
        assert_eq!(order, [0, 2, 3, 1]);
        assert_eq!(timeline[0], Shown { start: 0.0, end: 1.0 });
        assert_eq!(timeline[3], Shown { start: 3.0, end: 4.0 });
    }

    #[test]
    fn edit_lists_delay_trim_and_cut() {
        let samples = [0, 10, 20, 30, 40].map(sample);
        let gap = Edit { duration: 500, from: None };
        let part = |duration, from| Edit { duration, from: Some(from) };
        let edits = [gap, part(2000, 15), gap, part(1000, 0)];
        let (timeline, order) = presentation(&samples, 10, 1000, &edits).unwrap();
        assert_eq!(order, [1, 2, 3, 0]);
        assert_eq!(timeline[0], Shown { start: 0.0, end: 0.5 });
        assert_eq!(timeline[1], Shown { start: 0.5, end: 1.5 });
        assert_eq!(timeline[2], Shown { start: 1.5, end: 2.0 });
        assert_eq!(timeline[3], Shown { start: 2.5, end: 3.5 });
    }

    #[test]
    fn an_edit_without_end_shows_the_rest() {
        let samples = [0, 10, 20].map(sample);
        let edits = [Edit { duration: 0, from: Some(10) }];
        let (timeline, order) = presentation(&samples, 10, 1000, &edits).unwrap();
        assert_eq!(order, [1, 2]);
        assert_eq!(timeline[1].end, 2.0);
    }

    #[test]
    fn no_frames() {
        assert_eq!(presentation(&[], 10, 10, &[]).unwrap().0, []);
    }

    #[test]
    fn short_run_tables_keep_their_last_value() {
        let table = [0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9];
        let mut runs = Runs::new(Bytes(&table));
        assert_eq!([(); 5].map(|()| runs.next()), [7, 7, 9, 9, 9]);
    }
}
