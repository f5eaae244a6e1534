//! From a stream of token ids back to text: whole characters only, reasoning apart from answer.

use std::sync::Arc;

use super::Tokenizer;
use crate::Result;

/// Turns ids into text as they come. A token may end inside a character; its bytes then wait for
/// the rest, so that what comes out, put together, is what decoding all ids at once would give.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The beginning of a character whose other bytes have not come yet: at most 3 bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer at the beginning of a text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The text that becomes complete with `id`; empty if none does. Bytes that can be no part of
    /// a character come out as U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        let bytes = self.tokenizer.token_bytes(id);
        self.push_bytes(&bytes)
    }

    /// What is still waiting, as U+FFFD: there is more than nothing only if the ids end inside a
    /// character.
    pub fn finish(&mut self) -> String {
        let pending = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&pending).into_owned()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend(bytes);
        // Only a character that breaks off at the very end may still become one.
        let cut = match self.pending.utf8_chunks().last() {
            Some(last) if is_beginning(last.invalid()) => self.pending.len() - last.invalid().len(),
            _ => self.pending.len(),
        };
        let complete = String::from_utf8_lossy(&self.pending[..cut]).into_owned();
        self.pending.drain(..cut);
        complete
    }
}

/// Whether `bytes` are a character cut short rather than an error.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// Which part of a reply a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Thinking, before `</think>`.
    Reasoning,
    /// What the user asked for.
    Answer,
}

/// A bit of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// What it is part of.
    pub channel: Channel,
    /// Its text, never empty.
    pub text: String,
}

/// Splits a reply into reasoning and answer by the ids of `<think>` and `</think>`, which
/// themselves never come out. Letters that merely spell them do.
#[derive(Debug)]
pub struct ThinkSplitter {
    text: Detokenizer,
    channel: Channel,
    /// Whether nothing but `<think>` has come yet.
    fresh: bool,
    think: u32,
    end_think: u32,
}

impl ThinkSplitter {
    /// A splitter for a reply to a prompt that ends in `channel`: [`Channel::Reasoning`] after
    /// `<think>`, [`Channel::Answer`] after `</think>`. An error if the tokenizer lacks the two.
    pub fn new(tokenizer: Arc<Tokenizer>, channel: Channel) -> Result<Self> {
        let think = tokenizer.special(super::prompt::THINK)?;
        let end_think = tokenizer.special(super::prompt::END_THINK)?;
        let text = Detokenizer::new(tokenizer);
        Ok(Self { text, channel, fresh: true, think, end_think })
    }

    /// The part the next text will belong to.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// The text that becomes complete with `id`, if any does.
    pub fn push(&mut self, id: u32) -> Option<Delta> {
        let fresh = std::mem::replace(&mut self.fresh, false);
        if id == self.end_think {
            let left = self.finish();
            self.channel = Channel::Answer;
            left
        } else if id == self.think {
            // The model opens its own reasoning if the prompt left it to it. Later it means nothing.
            if fresh {
                self.channel = Channel::Reasoning;
            }
            None
        } else {
            let text = self.text.push(id);
            self.delta(text)
        }
    }

    /// What is left when the reply ends, if it ends inside a character.
    pub fn finish(&mut self) -> Option<Delta> {
        let text = self.text.finish();
        self.delta(text)
    }

    fn delta(&self, text: String) -> Option<Delta> {
        (!text.is_empty()).then_some(Delta { channel: self.channel, text })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::byte_tokenizer;
    use super::*;
    use proptest::prelude::*;

    fn tokenizer() -> Arc<Tokenizer> {
        Arc::new(byte_tokenizer(&["<think>", "</think>"]))
    }

    /// The deltas of a reply, neighbours of one channel joined.
    fn split(start: Channel, ids: impl IntoIterator<Item = u32>) -> Vec<(Channel, String)> {
        let mut splitter = ThinkSplitter::new(tokenizer(), start).unwrap();
        let mut deltas: Vec<_> = ids.into_iter().filter_map(|id| splitter.push(id)).collect();
        deltas.extend(splitter.finish());
        let mut joined: Vec<(Channel, String)> = Vec::new();
        for Delta { channel, text } in deltas {
            assert!(!text.is_empty());
            match joined.last_mut() {
                Some((last, so_far)) if *last == channel => so_far.push_str(&text),
                _ => joined.push((channel, text)),
            }
        }
        joined
    }

    fn bytes(text: &str) -> impl Iterator<Item = u32> {
        text.bytes().map(u32::from)
    }

    #[test]
    fn characters_come_whole() {
        let mut d = Detokenizer::new(tokenizer());
        let out: Vec<_> = bytes("a€🙂").map(|id| d.push(id)).collect();
        assert_eq!(out, ["a", "", "", "€", "", "", "", "🙂"]);
        assert_eq!(d.finish(), "");
        assert_eq!(d.push(0xe2), "");
        assert_eq!(d.push(b'x'.into()), "\u{fffd}x");
        assert_eq!(d.push(0xf0), "");
        assert_eq!(d.finish(), "\u{fffd}");
        assert_eq!(d.push(b'y'.into()), "y");
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_decoding_at_once(ids in prop::collection::vec(0u32..258, 0..40)) {
            let mut d = Detokenizer::new(tokenizer());
            let mut all: String = ids.iter().map(|&id| d.push(id)).collect();
            all.push_str(&d.finish());
            prop_assert_eq!(all, tokenizer().decode(&ids));
        }

        #[test]
        fn any_chunks_add_up(
            chunks in prop::collection::vec(prop::collection::vec(0x7eu8.., 0..4), 0..9),
        ) {
            let mut d = Detokenizer::new(tokenizer());
            let mut all: String = chunks.iter().map(|chunk| d.push_bytes(chunk)).collect();
            prop_assert!(d.pending.len() < 4);
            all.push_str(&d.finish());
            prop_assert_eq!(all, String::from_utf8_lossy(&chunks.concat()).into_owned());
        }
    }

    #[test]
    fn reasoning_ends_at_the_token_not_at_its_letters() {
        let (think, end) = (256, 257);
        let ids = bytes("so </think>").chain([end]).chain(bytes("Yes."));
        assert_eq!(
            split(Channel::Reasoning, ids),
            [(Channel::Reasoning, "so </think>".into()), (Channel::Answer, "Yes.".into())]
        );
        assert_eq!(split(Channel::Answer, bytes("Hi")), [(Channel::Answer, "Hi".into())]);
        let opened = [think].into_iter().chain(bytes("r")).chain([end]).chain(bytes("a"));
        assert_eq!(
            split(Channel::Answer, opened),
            [(Channel::Reasoning, "r".into()), (Channel::Answer, "a".into())]
        );
        let late = bytes("a").chain([think, end]).chain(bytes("b"));
        assert_eq!(split(Channel::Answer, late), [(Channel::Answer, "ab".into())]);
    }

    #[test]
    fn a_character_cut_by_the_marker_stays_on_its_side() {
        let ids = [0xe2, 0x82, 257, 0x41, 0xe2];
        assert_eq!(
            split(Channel::Reasoning, ids),
            [(Channel::Reasoning, "\u{fffd}".into()), (Channel::Answer, "A\u{fffd}".into())]
        );
    }

    #[test]
    fn a_tokenizer_without_the_markers_is_refused() {
        let bare = Arc::new(byte_tokenizer(&["<think>"]));
        let e = ThinkSplitter::new(bare, Channel::Answer).unwrap_err().to_string();
        assert_eq!(e, "tokenizer.json: has no special token `</think>`");
    }
}
