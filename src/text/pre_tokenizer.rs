//! How texts are cut into words before byte-pair merges, by the names that GGUF files give in
//! `tokenizer.ggml.pre`.
//!
//! The rules are those of the `tokenizer.json` that each name was made from, which decides where
//! llama.cpp departs from it.

use serde_json::Value;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

/// The rules of a family of tokenizers.
pub(super) struct Rules {
    /// What is done to a text first.
    pub normalizer: Option<NormalizerWrapper>,
    /// How it is cut, and its bytes spelled as symbols.
    pub splitter: PreTokenizerWrapper,
    /// Whether a word that is a token as a whole is not merged from its bytes.
    pub whole_words: bool,
    /// Whether a text begins with BOS if the file does not say.
    pub add_bos: bool,
}

/// Every name there are rules for.
pub(super) const NAMES: &[&str] = &[
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "deepseek-r1-qwen",
    "joyai-llm",
    "qwen2",
    "llama3",
    "llama-v3",
    "llama-bpe",
    "smollm",
    "gpt-2",
    "default",
];

/// The rules called `name`, if there are any.
pub(super) fn rules(name: &str) -> tokenizers::Result<Option<Rules>> {
    let plain = |splitter| Rules { normalizer: None, splitter, whole_words: false, add_bos: false };
    Ok(Some(match name {
        "deepseek-llm" => plain(sequence([
            split(r"[\r\n]")?,
            split(LATIN_WORDS)?,
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+")?,
            split(r"\s+$")?,
            split(EAST_ASIAN)?,
            Digits::new(true).into(),
            bytes(),
        ])),
        "deepseek-coder" => plain(sequence([
            split(r"[\r\n]")?,
            split(r"\s?\p{L}+")?,
            split(r"\s?\p{P}+")?,
            split(EAST_ASIAN)?,
            Digits::new(true).into(),
            bytes(),
        ])),
        // V4's files have the name of another model whose rules are the same.
        "deepseek-v3" | "joyai-llm" => plain(sequence([
            split(r"\p{N}{1,3}")?,
            split(r"[一-龥぀-ゟ゠-ヿ]+")?,
            split(DEEPSEEK_V3)?,
            bytes(),
        ])),
        "qwen2" | "deepseek-r1-qwen" => {
            Rules { normalizer: Some(NFC.into()), ..plain(sequence([split(QWEN2)?, bytes()])) }
        }
        "llama3" | "llama-v3" | "llama-bpe" => {
            Rules { whole_words: true, add_bos: true, ..plain(sequence([split(LLAMA3)?, bytes()])) }
        }
        "smollm" => plain(sequence([Digits::new(true).into(), gpt2()])),
        "gpt-2" => plain(gpt2()),
        // What llama.cpp does with files from before there were names.
        "default" => plain(sequence([
            split(r"[\p{P}\$\+<=>\^~\|]+")?,
            split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)")?,
            split(r"\p{N}+")?,
            split(r"[0-9][0-9][0-9]")?,
            bytes(),
        ])),
        _ => return Ok(None),
    }))
}

/// The name of the rules by which a `tokenizer.json` cuts texts, `rules` being its `pre_tokenizer`, if
/// they have one.
pub(crate) fn name_of(rules: &Value) -> Option<&'static str> {
    let wanted = comparable(&serde_json::from_value(rules.clone()).ok()?)?;
    // Where rules have several names, the one that every reader knows.
    let named = ["llama-bpe", "qwen2"].iter().chain(NAMES);
    named.copied().find(|name| {
        let same = |r: Rules| comparable(&r.splitter).as_ref() == Some(&wanted);
        self::rules(name).ok().flatten().is_some_and(same)
    })
}

/// Rules without what has no effect on ids.
fn comparable(rules: &PreTokenizerWrapper) -> Option<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("trim_offsets");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(rules).ok()?;
    strip(&mut value);
    Some(value)
}

/// Words in Latin, Greek, Cyrillic and a few other scripts with upper and lower case. Characters that
/// Unicode normalisation would turn into others are escaped.
const LATIN_WORDS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ",
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ",
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);
/// Runs of Chinese, Korean and other scripts without spaces.
const EAST_ASIAN: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Cuts out what `pattern` matches.
fn split(pattern: &str) -> tokenizers::Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into())
}

/// Spells bytes as symbols.
fn bytes() -> PreTokenizerWrapper {
    ByteLevel::new(false, true, false).into()
}

/// GPT-2's words, spelled as symbols.
fn gpt2() -> PreTokenizerWrapper {
    ByteLevel::new(false, true, true).into()
}

fn sequence<const N: usize>(steps: [PreTokenizerWrapper; N]) -> PreTokenizerWrapper {
    Sequence::new(steps.into()).into()
}
