//! A prompt as the graph sees it: rows of tokens and of image positions.

use std::ops::Range;
use std::sync::Arc;

use super::{Encoded, Row};
use crate::formats::ModelConfig;
use crate::media::{ImageBlock, Kind};
use crate::text::Piece;
use crate::{Error, Result};

/// One position of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRow {
    /// A token of the vocabulary.
    Token(u32),
    /// A position of an image block.
    Image {
        /// Which picture of the prompt.
        picture: usize,
        /// What the position holds.
        kind: Kind,
        /// The picture's aligner row, for IMAGE positions.
        index: u32,
    },
}

/// Rows from position 0 of a sequence on, with the pictures they show.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// What is at each position.
    pub rows: Vec<PromptRow>,
    /// The pictures.
    pub pictures: Vec<Arc<Encoded>>,
    /// Where each picture's START to END lie, in order.
    pub spans: Vec<Range<usize>>,
}

impl Prompt {
    /// Lays out the pieces of an encoded conversation. A piece `Image(i)` becomes a block for
    /// `pictures[i]`.
    pub fn new(pieces: &[Piece], pictures: Vec<Arc<Encoded>>) -> Self {
        let mut prompt = Self { rows: vec![], pictures, spans: vec![] };
        for piece in pieces {
            match piece {
                Piece::Tokens(ids) => {
                    prompt.rows.extend(ids.iter().map(|&t| PromptRow::Token(t)));
                }
                Piece::Image(i) => prompt.push_picture(*i),
            }
        }
        prompt
    }

    fn push_picture(&mut self, picture: usize) {
        let at = self.rows.len();
        let plan = &self.pictures[picture].plan;
        let block = ImageBlock::new(plan.grid_h, plan.grid_w, at);
        let mut index = block.image_index.iter();
        for &kind in &block.kinds {
            let index = match kind {
                Kind::Image => index.next().copied().unwrap_or(0),
                _ => 0,
            };
            self.rows.push(PromptRow::Image { picture, kind, index });
        }
        self.spans.push(at + block.span().start..at + block.span().end);
    }

    /// Reads token ids in which image positions carry `vocab + type code`, as `fathom logits`
    /// takes them, pictures in the order of their blocks.
    ///
    /// # Errors
    /// If an id is outside of the vocabulary and its image codes, or the image positions are not
    /// the blocks that the pictures have there.
    pub fn from_ids(
        ids: &[u32],
        config: &ModelConfig,
        pictures: Vec<Arc<Encoded>>,
    ) -> Result<Self> {
        let vocab = config.vocab() as u32;
        let mut prompt = Self { rows: vec![], pictures, spans: vec![] };
        let mut next = 0;
        while let Some(&id) = ids.get(prompt.rows.len()) {
            let at = prompt.rows.len();
            if id < vocab {
                prompt.rows.push(PromptRow::Token(id));
                continue;
            }
            let Some(picture) = prompt.pictures.get(next) else {
                return Err(Error::Request(format!(
                    "token {at} is {id}: outside of the vocabulary of {vocab}, and no picture is \
                     left for an image position (give one --image for each block)"
                )));
            };
            let block = ImageBlock::new(picture.plan.grid_h, picture.plan.grid_w, at);
            let wanted = block.kinds.iter().map(|k| k.token_id(vocab));
            let wrong = wanted.enumerate().find(|(i, want)| ids.get(at + i) != Some(want));
            if let Some((i, want)) = wrong {
                let have = ids.get(at + i).map_or("missing".into(), u32::to_string);
                return Err(Error::Request(format!(
                    "token {} is {have}, but the block of picture {next}, which begins at token \
                     {at}, has {want} there",
                    at + i
                )));
            }
            prompt.push_picture(next);
            next += 1;
        }
        if next < prompt.pictures.len() {
            let n = prompt.pictures.len();
            return Err(Error::Request(format!(
                "{n} pictures were given, but the tokens have {next} image blocks"
            )));
        }
        Ok(prompt)
    }

    /// Appends tokens spread over a vocabulary of `vocab`, which say nothing, until there are `len`
    /// positions: for measuring and checking.
    pub fn fill(&mut self, len: usize, vocab: usize) {
        let token = |i: usize| PromptRow::Token((i as u64 * 2_654_435_761 % vocab as u64) as u32);
        self.rows.extend((self.len()..len).map(token));
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where a chunk that begins at `start` and should have `chunk` rows ends: never inside an
    /// image span, whose rows see each other.
    pub fn chunk_end(&self, start: usize, chunk: usize) -> usize {
        let end = (start + chunk).min(self.len());
        match self.spans.iter().find(|s| s.start < end && end < s.end) {
            Some(span) if span.start > start => span.start,
            Some(span) => span.end,
            None => end,
        }
    }

    /// The rows of positions `range` as they are uploaded, and the image embeddings they refer to
    /// (`[n, D]`). Without a `window` a row sees every position before it.
    pub fn upload(
        &self,
        range: Range<usize>,
        slot: usize,
        window: Option<usize>,
        hidden: usize,
    ) -> (Vec<Row>, Vec<f32>) {
        let mut images = vec![];
        let rows = range.map(|p| {
            let mut row = Row {
                slot: slot as u32,
                position: p as u32,
                first: window.map_or(0, |window| (p + 1).saturating_sub(window)) as u32,
                last: p as u32,
                ..Row::default()
            };
            match self.rows[p] {
                PromptRow::Token(token) => row.token = token,
                PromptRow::Image { picture, kind, index } => {
                    row.kind = 1 + kind as u32;
                    if kind == Kind::Image {
                        row.image = (images.len() / hidden) as u32;
                        let at = index as usize * hidden;
                        images.extend_from_slice(&self.pictures[picture].tokens[at..at + hidden]);
                    }
                    // Leading PADs are no part of the span and see only what is before them.
                    if let Some(span) = self.spans.iter().find(|s| s.contains(&p)) {
                        row.first = row.first.min(span.start as u32);
                        row.last = span.end as u32 - 1;
                    }
                }
            }
            row
        });
        (rows.collect(), images)
    }

    /// How many leading positions it has in common with `other`.
    pub fn common_prefix(&self, other: &Self) -> usize {
        let same = |(a, b): (&PromptRow, &PromptRow)| match (*a, *b) {
            (PromptRow::Token(a), PromptRow::Token(b)) => a == b,
            (
                PromptRow::Image { picture: p, kind: k, index: i },
                PromptRow::Image { picture: q, kind: l, index: j },
            ) => k == l && i == j && self.pictures[p].hash == other.pictures[q].hash,
            _ => false,
        };
        let common = self.rows.iter().zip(&other.rows).take_while(|&pair| same(pair)).count();
        // A span is whole or not at all.
        match self.spans.iter().find(|s| s.start < common && common < s.end) {
            Some(span) => span.start,
            None => common,
        }
    }
}
