//! A byte-level BPE tokenizer that keeps written text and the template's own tokens apart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, AddedVocabulary, DecoderWrapper, Model, NormalizerWrapper, OffsetReferential,
    OffsetType, PreTokenizer, Tokenizer as Inner,
};

use crate::{Error, Result};

/// The tokenizer of a model's `tokenizer.json` or of its GGUF file.
///
/// Text never becomes a special token: [`Self::encode`] leaves the template's tokens alone, so a
/// user who writes `<｜User｜>` gets the letters. Special tokens are asked for with
/// [`Self::special`]. (Turning off special tokens in the tokenizers crate would not do: official
/// files mark most of the template's tokens as not special.)
pub struct Tokenizer {
    path: PathBuf,
    /// Normalizer, splitter and merges. Its added vocabulary is not used.
    inner: Inner,
    /// The spellings of the added tokens, by id.
    added: HashMap<u32, String>,
    /// Added tokens that are words: they are found in any text.
    words: AddedVocabulary,
    /// Added tokens that are marks: only a template writes them.
    marks: AddedVocabulary,
    /// Bytes that no token stands for.
    missing: Vec<u8>,
    bounds: Bounds,
}

/// The tokens at which a model's texts begin and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What a text begins with.
    pub bos: Option<u32>,
    /// Whether a text begins with [`Self::bos`] even if no template writes it.
    pub add_bos: bool,
    /// What a text ends with.
    pub eos: Option<u32>,
    /// Every token after which the model has nothing more to say.
    pub ends: Vec<u32>,
}

/// What tokens that end a text or a turn are called.
const ENDS: &[&str] = &[
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
];

impl Tokenizer {
    /// Reads the `tokenizer.json` at `path`. Errors name it: unreadable, not a tokenizer, or not a
    /// byte-level one whose vocabulary has every common byte.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(path, &bytes)
    }

    /// Reads the bytes of a `tokenizer.json`, which errors will call `label`. Errors as
    /// [`Self::from_file`].
    pub fn from_bytes(label: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let path = label.as_ref();
        let inner = Inner::from_bytes(bytes)
            .map_err(|e| Error::file(path, format!("not a tokenizer: {e}")))?;
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(Error::file(path, "only byte-level tokenizers are supported"));
        }
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        let added: Vec<_> = added.iter().map(|(&id, token)| (id, token.clone())).collect();
        Self::assemble(path, inner, added)
    }

    /// A tokenizer of the rules and merges of `inner` and the added tokens `added`.
    pub(super) fn assemble(
        path: &Path,
        inner: Inner,
        mut added: Vec<(u32, AddedToken)>,
    ) -> Result<Self> {
        added.sort_unstable_by_key(|(id, _)| *id);
        let fault = |what: String| Error::file(path, what);
        let model = inner.get_model();
        let lacks = |&byte: &u8| model.token_to_id(&symbol_of(byte).to_string()).is_none();
        // Bytes that no UTF-8 text has are left out of some official files.
        let missing: Vec<u8> =
            (0..=0xf4).filter(|b| !matches!(b, 0xc0 | 0xc1)).filter(lacks).collect();
        if let Some(byte) = missing.iter().find(|&&b| b == b'\n' || (b' '..=b'~').contains(&b)) {
            return Err(fault(format!("its vocabulary lacks byte {byte:#04x}")));
        }
        let (marks, words): (Vec<_>, Vec<_>) =
            added.iter().partition(|(_, token)| token.special || is_markup(&token.content));
        let normalizer = inner.get_normalizer();
        let vocabulary = |tokens, normalizer| {
            vocabulary(tokens, normalizer).map_err(|e| fault(format!("its added tokens: {e}")))
        };
        let words = vocabulary(words, normalizer)?;
        // One character cannot be kept apart from the same character in a text.
        let marks = marks.into_iter().filter(|(_, token)| token.content.chars().nth(1).is_some());
        let marks = vocabulary(marks.collect(), None)?;
        let added = added.into_iter().map(|(id, token)| (id, token.content)).collect();
        let bounds = Bounds::default();
        let path = path.to_owned();
        let mut tokenizer = Self { path, inner, added, words, marks, missing, bounds };
        let bos = tokenizer.id_of("<｜begin▁of▁sentence｜>");
        tokenizer.set_bounds(Bounds { bos, add_bos: bos.is_some(), ..Bounds::default() });
        Ok(tokenizer)
    }

    /// Sets where texts begin and end. Tokens whose names say that they end something are added to
    /// [`Bounds::ends`], and so is [`Bounds::eos`].
    pub fn set_bounds(&mut self, mut bounds: Bounds) {
        let named = ENDS.iter().filter_map(|spelling| self.special(spelling).ok());
        bounds.ends.extend(bounds.eos.into_iter().chain(named));
        bounds.ends.sort_unstable();
        bounds.ends.dedup();
        self.bounds = bounds;
    }

    /// Where texts begin and end.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// `ids` with BOS before them, if texts begin with it and these do not yet.
    pub fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let Bounds { bos, add_bos, .. } = self.bounds;
        if let Some(bos) = bos.filter(|bos| add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// Whether the file's own rules put `bos` before a text.
    pub(super) fn adds_itself(&self, bos: Option<u32>) -> bool {
        let nothing = self.inner.encode("", true);
        bos.is_some() && nothing.is_ok_and(|ids| ids.get_ids().first().copied() == bos)
    }

    /// The ids of `text`, none of them a special token. An error if it has a byte that the
    /// vocabulary lacks, or if the tokenizer's own rules fail on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(byte) = text.bytes().find(|byte| self.missing.contains(byte)) {
            let what = format!("cannot encode a text: its vocabulary lacks byte {byte:#04x}");
            return Err(self.error(what));
        }
        self.encode_plain(text).map_err(|e| self.error(format!("cannot encode a text: {e}")))
    }

    fn encode_plain(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut text = self.words.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut text)?;
        }
        let model = self.inner.get_model();
        text.tokenize(|part| model.tokenize(part.get()))?;
        Ok(text.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// Cuts a template's rendering at the special tokens it spells: texts, and ids of tokens.
    pub(super) fn cut_at_marks(&self, rendering: &str) -> Vec<Result<u32, String>> {
        let cut = self.marks.extract_and_normalize(None::<&NormalizerWrapper>, rendering);
        let parts = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let parts = parts.into_iter().map(|(text, _, tokens)| match tokens.as_deref() {
            Some([token, ..]) => Ok(token.id),
            _ => Err(text.to_owned()),
        });
        parts.filter(|part| part.as_ref().err().is_none_or(|text| !text.is_empty())).collect()
    }

    /// The spellings of the special tokens that [`Self::cut_at_marks`] finds.
    pub(super) fn marks(&self) -> impl Iterator<Item = &str> {
        self.marks.get_vocab().keys().map(String::as_str)
    }

    /// The id of the special token spelled `spelling`, e.g. `</think>`; an error if the file does
    /// not add it to the vocabulary.
    pub fn special(&self, spelling: &str) -> Result<u32> {
        self.id_of(spelling).ok_or_else(|| self.error(format!("has no special token `{spelling}`")))
    }

    fn id_of(&self, spelling: &str) -> Option<u32> {
        self.marks
            .get_vocab()
            .get(spelling)
            .or_else(|| self.words.get_vocab().get(spelling))
            .copied()
    }

    /// Whether `id` is one of the tokens added to the vocabulary.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.contains_key(&id)
    }

    /// One more than the largest id the tokenizer can give. A model's vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        let model = self.inner.get_model().get_vocab();
        model.values().chain(self.added.keys()).max().map_or(0, |&id| id as usize + 1)
    }

    /// The bytes that `id` stands for: part of a text, maybe of a character; of a special token,
    /// its spelling; of an unknown id, nothing.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        if let Some(added) = self.added.get(&id) {
            return added.clone().into_bytes();
        }
        let token = self.inner.get_model().id_to_token(id).unwrap_or_default();
        match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
            Some(bytes) => bytes,
            None => token.into_bytes(),
        }
    }

    /// The text of `ids`, special tokens spelled out, with U+FFFD for bytes that are not UTF-8.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An [`Error::File`] that names the tokenizer's file.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::file(&self.path, what)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.path.display(), self.vocab_size())
    }
}

/// Whether an added token reads like one of a template's (`<think>`, `<|im_end|>`, `[INST]`) rather
/// than like a word. Files do not say: official ones mark few of the template's tokens as special.
pub(super) fn is_markup(spelling: &str) -> bool {
    spelling.contains(['<', '>', '[', ']', '|', '｜'])
}

/// What finds `tokens` in a text.
fn vocabulary(
    tokens: Vec<&(u32, AddedToken)>,
    normalizer: Option<&NormalizerWrapper>,
) -> tokenizers::Result<AddedVocabulary> {
    // Ids are taken from a model that has the spelling, and made up otherwise.
    let ids = tokens.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
    let model = BPE::builder().vocab_and_merges::<Vocab>(ids, vec![]).build()?;
    let tokens: Vec<AddedToken> = tokens.into_iter().map(|(_, token)| token.clone()).collect();
    let mut found = AddedVocabulary::new();
    found.add_tokens(&tokens, &model, normalizer);
    Ok(found)
}

/// Whether a byte is its own symbol in a byte-level vocabulary: the printable ones of Latin-1.
fn is_own_symbol(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character that stands for `byte` in a byte-level vocabulary. The bytes that are not
/// printable get the characters from U+0100 on, in order.
fn symbol_of(byte: u8) -> char {
    if is_own_symbol(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|&b| !is_own_symbol(b)).count() as u32;
    // At most 256 characters from U+0100: all of them exist.
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The symbols of all bytes, in order.
#[cfg(test)]
pub(super) fn byte_symbols() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| symbol_of(byte).to_string())
}

/// The byte that `symbol` stands for, or `None` if it stands for none.
fn byte_of(symbol: char) -> Option<u8> {
    match u8::try_from(symbol) {
        Ok(byte) => is_own_symbol(byte).then_some(byte),
        Err(_) => {
            let index = (symbol as u32).checked_sub(0x100)?;
            (0..=u8::MAX).filter(|&b| !is_own_symbol(b)).nth(index as usize)
        }
    }
}

/// A tokenizer whose only ordinary tokens are the 256 bytes, so that ids can be read off, and which
/// adds `special` after them, as official files do: not marked special.
#[cfg(test)]
pub(super) fn byte_tokenizer(special: &[&str]) -> Tokenizer {
    use serde_json::json;
    let vocab: serde_json::Map<_, _> =
        byte_symbols().zip(0..).map(|(symbol, id): (_, u32)| (symbol, id.into())).collect();
    let added: Vec<_> = (special.iter().zip(256..))
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": true, "special": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_bytes("tokenizer.json", file.to_string().as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_and_bytes_are_inverse() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(symbol_of(byte)), Some(byte));
        }
        assert_eq!(symbol_of(b' '), 'Ġ');
        assert_eq!(symbol_of(b'\n'), 'Ċ');
        assert_eq!(byte_of('｜'), None);
        assert_eq!(byte_of(' '), None);
    }

    #[test]
    fn written_text_never_becomes_a_special_token() {
        let t = byte_tokenizer(&["<｜User｜>", "</think>"]);
        let text = "a<｜User｜></think>";
        let ids = t.encode(text).unwrap();
        assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(t.decode(&ids), text);
        assert_eq!(t.special("</think>").unwrap(), 257);
        assert_eq!(t.decode(&[256, 65]), "<｜User｜>A");
        assert!(t.is_special(256) && !t.is_special(255));
        assert_eq!(t.vocab_size(), 258);
        assert_eq!(
            t.special("<think>").unwrap_err().to_string(),
            "tokenizer.json: has no special token `<think>`"
        );
    }

    #[test]
    fn unknown_ids_are_nothing_and_broken_characters_are_marked() {
        let t = byte_tokenizer(&[]);
        assert_eq!(t.token_bytes(4_000_000_000), b"");
        assert_eq!(t.decode(&[0xe2, 0x82]), "\u{fffd}");
        assert!(t.encode("").unwrap().is_empty());
    }

    #[test]
    fn faults_name_the_file() {
        let fault = |bytes: &[u8]| Tokenizer::from_bytes("t.json", bytes).unwrap_err().to_string();
        assert!(fault(b"{}").starts_with("t.json: not a tokenizer: "));
        let bare = br#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#;
        assert_eq!(fault(bare), "t.json: only byte-level tokenizers are supported");
        let part = br#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},
            "merges":[]},"decoder":{"type":"ByteLevel","add_prefix_space":false,
            "trim_offsets":true,"use_regex":true}}"#;
        assert_eq!(fault(part), "t.json: its vocabulary lacks byte 0x0a");
        assert!(
            Tokenizer::from_file("/nowhere.json").unwrap_err().to_string().starts_with("/nowhere")
        );
    }
}
