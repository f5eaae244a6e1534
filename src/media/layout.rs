//! The order of a picture's tokens in the prompt ("N-layout").
//!
//! The text side compresses every four prompt positions to one key. The layout makes each such
//! window of the body a 2x2 neighbourhood of the picture: rows are taken in pairs and a pair is
//! written column by column (top, bottom, next column ...), and leading PADs move the body to a
//! multiple of four.

use std::ops::Range;

/// Prompt positions in one compressed window, to which a block's body is aligned.
pub const ALIGN: usize = 4;

/// What a position of an image block holds. The discriminants are the checkpoint's codes: the
/// position's token id is the vocabulary size plus the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First position of the span.
    Start = 0,
    /// Filler: before the span, in place of a missing last row, or before the end.
    Pad = 1,
    /// One aligner row.
    Image = 2,
    /// End of a picture row.
    Newline = 3,
    /// Last position of the span.
    End = 4,
}

impl Kind {
    /// The token id of this kind for a text model with `vocab_size` tokens. It lies outside of the
    /// vocabulary, so it must not index an embedding table.
    pub fn token_id(self, vocab_size: u32) -> u32 {
        vocab_size + self as u32
    }
}

/// Tokens from START to END of a `grid_h` x `grid_w` picture, the leading PADs not counted.
pub fn span_tokens(grid_h: usize, grid_w: usize) -> usize {
    START_AND_END + body_tokens(grid_h, grid_w)
}

const START_AND_END: usize = 2;

/// Rows and PADs between START and END: an even number of rows, then PADs to a multiple of four.
fn body_tokens(grid_h: usize, grid_w: usize) -> usize {
    (grid_h.next_multiple_of(2) * (grid_w + 1)).next_multiple_of(ALIGN)
}

/// One picture's block of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBlock {
    /// What each position holds, in prompt order, leading PADs included.
    pub kinds: Vec<Kind>,
    /// For each [`Kind::Image`] position, in prompt order, the aligner row that goes there: the
    /// index `row * grid_w + column` into the token grid.
    pub image_index: Vec<u32>,
    /// Leading PADs: positions before START.
    pub lead: usize,
}

impl ImageBlock {
    /// Lays out a grid of `grid_h` rows and `grid_w` columns whose block begins at prompt position
    /// `position`.
    pub fn new(grid_h: usize, grid_w: usize, position: usize) -> Self {
        let lead = ALIGN - 1 - position % ALIGN;
        let body = body_tokens(grid_h, grid_w);
        let mut kinds = vec![Kind::Pad; lead];
        kinds.reserve_exact(START_AND_END + body);
        let mut image_index = Vec::with_capacity(grid_h * grid_w);

        kinds.push(Kind::Start);
        for top in (0..grid_h).step_by(2) {
            for col in 0..=grid_w {
                for row in [top, top + 1] {
                    kinds.push(if row == grid_h {
                        Kind::Pad
                    } else if col == grid_w {
                        Kind::Newline
                    } else {
                        image_index.push((row * grid_w + col) as u32);
                        Kind::Image
                    });
                }
            }
        }
        kinds.resize(lead + 1 + body, Kind::Pad);
        kinds.push(Kind::End);
        Self { kinds, image_index, lead }
    }

    /// Number of prompt positions the block takes, leading PADs included.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Always false: a block has at least START and END.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Positions of START..=END inside the block: the span whose tokens see each other both ways.
    pub fn span(&self) -> Range<usize> {
        self.lead..self.kinds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{End, Image, Newline, Pad, Start};

    #[test]
    fn a_small_block() {
        // Three rows of two: the third row pairs with a row of PADs.
        let block = ImageBlock::new(3, 2, 6);
        assert_eq!(
            block.kinds,
            [
                Pad, Start, Image, Image, Image, Image, Newline, Newline, Image, Pad, Image, Pad,
                Newline, Pad, End
            ]
        );
        assert_eq!(block.image_index, [0, 2, 1, 3, 4, 5]);
        assert_eq!(block.span(), 1..15);
    }

    #[test]
    fn windows_are_aligned() {
        for (h, w, position) in
            (1..9).flat_map(|h| (1..9).flat_map(move |w| (0..8).map(move |s| (h, w, s))))
        {
            let block = ImageBlock::new(h, w, position);
            assert_eq!(block.len(), block.lead + span_tokens(h, w));
            assert_eq!((position + block.lead) % ALIGN, 3, "START");
            assert_eq!((position + block.len() - 1) % ALIGN, 0, "END");
            let mut seen = block.image_index.clone();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..(h * w) as u32));
            assert_eq!(block.kinds.iter().filter(|&&k| k == Newline).count(), h);
        }
    }

    #[test]
    fn codes() {
        assert_eq!(Start.token_id(129_280), 129_280);
        assert_eq!(End.token_id(129_280), 129_284);
    }
}
