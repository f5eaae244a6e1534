//! From a stream of token ids back to text: whole characters only, reasoning apart from answer.

use std::sync::Arc;

use super::Tokenizer;
use super::prompt::{END_THINK, THINK};

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

/// Splits a reply into reasoning and answer at `<think>` and `</think>`, which themselves never
/// come out. If the tokenizer has tokens for them, letters that merely spell them do come out;
/// otherwise the letters are all there is.
#[derive(Debug)]
pub struct ThinkSplitter {
    text: Detokenizer,
    channel: Channel,
    /// Whether nothing has come yet but `<think>` and blanks.
    fresh: bool,
    think: Marker,
    end_think: Marker,
    /// Text that may turn out to be a marker.
    held: String,
}

/// How a model spells `<think>` or `</think>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Token(u32),
    Letters,
}

impl Marker {
    fn new(tokenizer: &Tokenizer, spelling: &str) -> Self {
        tokenizer.special(spelling).map_or(Self::Letters, Self::Token)
    }
}

impl ThinkSplitter {
    /// A splitter for a reply to a prompt that ends in `channel`: [`Channel::Reasoning`] after
    /// `<think>`, [`Channel::Answer`] after `</think>` or in models that do not think.
    pub fn new(tokenizer: Arc<Tokenizer>, channel: Channel) -> Self {
        let think = Marker::new(&tokenizer, THINK);
        let end_think = Marker::new(&tokenizer, END_THINK);
        let text = Detokenizer::new(tokenizer);
        Self { text, channel, fresh: true, think, end_think, held: String::new() }
    }

    /// The part the next text will belong to.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// The texts that become complete with `id`: none, one, or the end of the reasoning and the
    /// beginning of the answer.
    pub fn push(&mut self, id: u32) -> Vec<Delta> {
        if self.end_think == Marker::Token(id) {
            let left = self.finish();
            self.fresh = false;
            self.channel = Channel::Answer;
            return left;
        }
        if self.think == Marker::Token(id) {
            // The model opens its own reasoning if the prompt left it to it. Later it means nothing.
            if self.fresh {
                self.channel = Channel::Reasoning;
            }
            return vec![];
        }
        self.held += &self.text.push(id);
        if self.fresh && !self.begin() {
            return vec![];
        }
        if self.channel == Channel::Reasoning && self.end_think == Marker::Letters {
            return self.close();
        }
        self.release(self.held.len()).into_iter().collect()
    }

    /// What is left when the reply ends: what might have become a marker, and the rest of a
    /// character.
    pub fn finish(&mut self) -> Vec<Delta> {
        self.held += &self.text.finish();
        self.release(self.held.len()).into_iter().collect()
    }

    /// Looks for the letters of `<think>` at the beginning of the reply. False if they may still
    /// come.
    fn begin(&mut self) -> bool {
        let written = self.held.trim_start();
        let mut fresh = written.is_empty();
        if self.think == Marker::Letters {
            if let Some(rest) = written.strip_prefix(THINK) {
                self.held = rest.to_owned();
                self.channel = Channel::Reasoning;
            } else if THINK.starts_with(written) {
                return false;
            }
            fresh = false;
        }
        self.fresh = fresh;
        true
    }

    /// Looks for the letters of `</think>`, and hands on what cannot be part of them.
    fn close(&mut self) -> Vec<Delta> {
        if let Some(at) = self.held.find(END_THINK) {
            let reasoning = self.release(at);
            self.held.drain(..END_THINK.len());
            self.channel = Channel::Answer;
            let answer = self.release(self.held.len());
            return reasoning.into_iter().chain(answer).collect();
        }
        let begins = |at: &usize| END_THINK.starts_with(&self.held[*at..]);
        let cut = self.held.char_indices().map(|(at, _)| at).find(begins);
        self.release(cut.unwrap_or(self.held.len())).into_iter().collect()
    }

    /// Hands on the first `len` bytes of what is held.
    fn release(&mut self, len: usize) -> Option<Delta> {
        let text: String = self.held.drain(..len).collect();
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
        split_with(tokenizer(), start, ids)
    }

    fn split_with(
        tokenizer: Arc<Tokenizer>,
        start: Channel,
        ids: impl IntoIterator<Item = u32>,
    ) -> Vec<(Channel, String)> {
        let mut splitter = ThinkSplitter::new(tokenizer, start);
        let mut deltas: Vec<_> = ids.into_iter().flat_map(|id| splitter.push(id)).collect();
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
    fn letters_are_markers_where_there_are_no_tokens() {
        let bare = Arc::new(byte_tokenizer(&[]));
        let split = |start, text: &str| split_with(Arc::clone(&bare), start, bytes(text));
        let reasoning = |text: &str| (Channel::Reasoning, text.to_owned());
        let answer = |text: &str| (Channel::Answer, text.to_owned());
        assert_eq!(
            split(Channel::Answer, "\n<think>a < b</think>\n\nc</think>"),
            [reasoning("a < b"), answer("\n\nc</think>")]
        );
        assert_eq!(split(Channel::Reasoning, "a</thin"), [reasoning("a</thin")]);
        assert_eq!(split(Channel::Reasoning, "a</</think>b"), [reasoning("a</"), answer("b")]);
        assert_eq!(split(Channel::Answer, "a <think>"), [answer("a <think>")]);
        assert_eq!(split(Channel::Answer, " <thin"), [answer(" <thin")]);
        assert_eq!(split(Channel::Answer, "<x>"), [answer("<x>")]);
    }
}
