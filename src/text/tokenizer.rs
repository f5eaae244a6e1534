//! A byte-level BPE tokenizer that keeps written text and the template's own tokens apart.

use std::path::{Path, PathBuf};

use tokenizers::{
    DecoderWrapper, Model, Normalizer, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer as Inner,
};

use crate::{Error, Result};

/// The tokenizer of a model folder's `tokenizer.json`.
///
/// Text never becomes a special token: [`Self::encode`] leaves the added vocabulary alone, so a
/// user who writes `<｜User｜>` gets the letters. Special tokens are asked for with
/// [`Self::special`]. (Turning off special tokens in the tokenizers crate would not do: official
/// files mark most of the template's tokens as not special.)
pub struct Tokenizer {
    path: PathBuf,
    inner: Inner,
}

impl Tokenizer {
    /// Reads the `tokenizer.json` at `path`. Errors name it: unreadable, not a tokenizer, or not a
    /// byte-level one whose vocabulary has every byte.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(path, &bytes)
    }

    /// Reads the bytes of a `tokenizer.json`, which errors will call `label`. Errors as
    /// [`Self::from_file`].
    pub fn from_bytes(label: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let path = label.as_ref().to_owned();
        let inner = Inner::from_bytes(bytes)
            .map_err(|e| Error::file(&path, format!("not a tokenizer: {e}")))?;
        let tokenizer = Self { path, inner };
        if !matches!(tokenizer.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(tokenizer.error("only byte-level tokenizers are supported"));
        }
        // A missing byte would silently drop out of every text that has it.
        for byte in 0..=u8::MAX {
            let symbol = symbol_of(byte).to_string();
            if tokenizer.inner.get_model().token_to_id(&symbol).is_none() {
                return Err(tokenizer.error(format!("its vocabulary lacks byte {byte:#04x}")));
            }
        }
        Ok(tokenizer)
    }

    /// The ids of `text`, none of them a special token. Errors only if the tokenizer's own rules
    /// fail on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_plain(text).map_err(|e| self.error(format!("cannot encode a text: {e}")))
    }

    fn encode_plain(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut text = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            text.normalize(|part| normalizer.normalize(part))?;
        }
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut text)?;
        }
        let model = self.inner.get_model();
        text.tokenize(|part| model.tokenize(part.get()))?;
        Ok(text.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// The id of the special token spelled `spelling`, e.g. `</think>`; an error if the file does
    /// not add it to the vocabulary.
    pub fn special(&self, spelling: &str) -> Result<u32> {
        let added = self.inner.get_added_vocabulary().get_vocab().get(spelling);
        added.copied().ok_or_else(|| self.error(format!("has no special token `{spelling}`")))
    }

    /// Whether `id` is one of the tokens added to the vocabulary.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// One more than the largest id the tokenizer can give. A model's vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let last_added = added.keys().max().map_or(0, |&id| id as usize + 1);
        self.inner.get_model().get_vocab_size().max(last_added)
    }

    /// The bytes that `id` stands for: part of a text, maybe of a character; of a special token,
    /// its spelling; of an unknown id, nothing.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        if let Some(added) = self.inner.get_added_vocabulary().simple_id_to_token(id) {
            return added.into_bytes();
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

    fn error(&self, what: impl Into<String>) -> Error {
        Error::file(&self.path, what)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.path.display(), self.vocab_size())
    }
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
        (0..=u8::MAX).map(|b| (symbol_of(b).to_string(), b.into())).collect();
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
        assert_eq!(fault(part), "t.json: its vocabulary lacks byte 0x00");
        assert!(
            Tokenizer::from_file("/nowhere.json").unwrap_err().to_string().starts_with("/nowhere")
        );
    }
}
