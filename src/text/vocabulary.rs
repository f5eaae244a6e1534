//! Tokenizers as GGUF files have them: token by token in the file's metadata.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::pre_tokenizer::{self, Rules};
use super::tokenizer::is_markup;
use super::{Bounds, Tokenizer};
use crate::formats::Gguf;
use crate::{Error, Result};

/// What a GGUF file's `tokenizer.ggml.*` keys say.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// `model`: the kind of tokenizer.
    pub model: String,
    /// `pre`: how texts are cut before merges.
    pub pre: Option<String>,
    /// `tokens`: the spelling of each token, in byte-level symbols.
    pub tokens: Vec<String>,
    /// `token_type`: what each token is for; empty if the file does not say.
    pub token_types: Vec<i32>,
    /// `merges`: pairs of spellings with a space between, the most urgent first.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`: what ends a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: what ends a message that a tool answers.
    pub eom: Option<u32>,
    /// `add_bos_token`: whether every text begins with BOS.
    pub add_bos: Option<bool>,
}

/// What a token is for, by its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of texts, made by merges.
    Word,
    /// Of the template's.
    Mark,
    /// Added to the vocabulary by the tokenizer's authors, for either use.
    Added,
    /// For no text at all.
    Unused,
}

impl Kind {
    fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            // Undefined, normal and byte.
            0 | 1 | 6 => Self::Word,
            // Unknown and control.
            2 | 3 => Self::Mark,
            4 => Self::Added,
            5 => Self::Unused,
            _ => return None,
        })
    }
}

impl Vocabulary {
    /// The vocabulary in `file`, or `None` if it has none. An error if one of its keys holds
    /// something else than it should.
    pub fn from_gguf(file: &Gguf) -> Result<Option<Self>> {
        let Some(model) = file.str("tokenizer.ggml.model")? else { return Ok(None) };
        let strings = |key: &str| -> Result<Vec<String>> {
            let found = file.strings(key)?;
            Ok(found.map_or_else(Vec::new, |all| all.iter().map(str::to_owned).collect()))
        };
        Ok(Some(Self {
            model: model.to_owned(),
            pre: file.str("tokenizer.ggml.pre")?.map(str::to_owned),
            tokens: strings("tokenizer.ggml.tokens")?,
            token_types: file.i32s("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: strings("tokenizer.ggml.merges")?,
            bos: file.u32("tokenizer.ggml.bos_token_id")?,
            eos: file.u32("tokenizer.ggml.eos_token_id")?,
            eot: file.u32("tokenizer.ggml.eot_token_id")?,
            eom: file.u32("tokenizer.ggml.eom_token_id")?,
            add_bos: file.bool("tokenizer.ggml.add_bos_token")?,
        }))
    }
}

/// Added tokens and their ids.
type AddedTokens = Vec<(u32, AddedToken)>;

impl Vocabulary {
    /// The tokenizer of this vocabulary. Errors name `file` and the key: a model other than
    /// byte-level BPE, unknown rules, a list that does not fit another, an id without a token, a
    /// merge of unknown tokens, or a vocabulary that lacks a common byte.
    pub fn into_tokenizer(self, file: impl AsRef<Path>) -> Result<Tokenizer> {
        let file = file.as_ref();
        let (inner, added, bounds) = self.build().map_err(|what| Error::file(file, what))?;
        let mut tokenizer = Tokenizer::assemble(file, inner, added)?;
        tokenizer.set_bounds(bounds);
        Ok(tokenizer)
    }

    fn build(self) -> Result<(Inner, AddedTokens, Bounds), String> {
        if self.model != "gpt2" {
            return Err(format!(
                "`tokenizer.ggml.model` is \"{}\": only \"gpt2\" (byte-level BPE) is supported",
                self.model
            ));
        }
        let rules = self.rules()?;
        let bounds = self.bounds(rules.add_bos)?;
        let kinds = self.kinds()?;
        let merges = self.merges()?;
        let (words, added) = sort(self.tokens, &kinds, &merges)?;
        check(&merges, &words)?;
        let model = BPE::builder()
            .vocab_and_merges(words, merges)
            .ignore_merges(rules.whole_words)
            .build()
            .map_err(|e| format!("`tokenizer.ggml.merges`: {e}"))?;
        let mut inner = Inner::new(model);
        inner.with_pre_tokenizer(Some(rules.splitter)).with_normalizer(rules.normalizer);
        Ok((inner, added, bounds))
    }

    /// The rules by which texts are cut.
    fn rules(&self) -> Result<Rules, String> {
        let name = self.pre.as_deref().unwrap_or("default");
        pre_tokenizer::rules(name).map_err(|e| format!("its tokenizer: {e}"))?.ok_or_else(|| {
            let known = pre_tokenizer::NAMES.join(", ");
            format!("`tokenizer.ggml.pre` is \"{name}\", which is none of {known}")
        })
    }

    fn bounds(&self, add_bos: bool) -> Result<Bounds, String> {
        let named = [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("eot_token_id", self.eot),
            ("eom_token_id", self.eom),
        ];
        for (key, id) in named {
            if let Some(id) = id.filter(|&id| id as usize >= self.tokens.len()) {
                let count = self.tokens.len();
                return Err(format!(
                    "`tokenizer.ggml.{key}` is {id}, but there are {count} tokens"
                ));
            }
        }
        let add_bos = self.add_bos.unwrap_or(add_bos);
        if add_bos && self.bos.is_none() {
            let what = "texts should begin with BOS, but `tokenizer.ggml.bos_token_id` is missing";
            return Err(what.into());
        }
        let ends = [self.eot, self.eom].into_iter().flatten().collect();
        Ok(Bounds { bos: self.bos, add_bos, eos: self.eos, ends })
    }

    fn kinds(&self) -> Result<Vec<Kind>, String> {
        let (count, types) = (self.tokens.len(), self.token_types.len());
        if self.token_types.is_empty() {
            // Without types, what the file names by id is known to be the template's.
            let named: HashSet<_> =
                [self.bos, self.eos, self.eot, self.eom].into_iter().flatten().collect();
            let kind = |id| if named.contains(&id) { Kind::Mark } else { Kind::Word };
            return Ok((0..).map(kind).take(count).collect());
        }
        if types != count {
            return Err(format!(
                "`tokenizer.ggml.token_type` has {types} entries, but there are {count} tokens"
            ));
        }
        let kind = |(id, &number): (usize, &i32)| {
            Kind::from_number(number).ok_or_else(|| {
                format!("`tokenizer.ggml.token_type`: entry {id} is {number}, which is no type")
            })
        };
        self.token_types.iter().enumerate().map(kind).collect()
    }

    fn merges(&self) -> Result<Merges, String> {
        let pair = |(number, merge): (usize, &String)| match merge.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok((a.to_owned(), b.to_owned())),
            _ => Err(format!(
                "`tokenizer.ggml.merges`: merge {number}, `{merge}`, is not two tokens"
            )),
        };
        self.merges.iter().enumerate().map(pair).collect()
    }
}

/// The tokens that merges work on, and those added to them.
fn sort(
    tokens: Vec<String>,
    kinds: &[Kind],
    merges: &Merges,
) -> Result<(Vocab, AddedTokens), String> {
    let merged: HashSet<String> = merges.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut words = Vocab::default();
    let mut added = vec![];
    let mut ids = HashMap::new();
    for ((id, token), &kind) in (0..).zip(tokens).zip(kinds) {
        if kind == Kind::Unused || token.is_empty() {
            continue;
        }
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(format!(
                "`tokenizer.ggml.tokens`: tokens {first} and {id} are both `{token}`"
            ));
        }
        if kind != Kind::Word {
            let special = kind == Kind::Mark;
            added.push((id, AddedToken::from(token.clone(), special)));
        }
        // An added word may come from merges as well.
        let is_word = kind == Kind::Added && !is_markup(&token) && merged.contains(&token);
        if kind == Kind::Word || is_word {
            words.insert(token, id);
        }
    }
    Ok((words, added))
}

/// Refuses merges of tokens that are none.
fn check(merges: &Merges, words: &Vocab) -> Result<(), String> {
    for (number, (a, b)) in merges.iter().enumerate() {
        let joined = format!("{a}{b}");
        if let Some(token) = [a, b, &joined].into_iter().find(|t| !words.contains_key(*t)) {
            return Err(format!(
                "`tokenizer.ggml.merges`: merge {number}, `{a} {b}`, needs `{token}`, which is no \
                 token of texts"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::byte_symbols;
    use super::*;

    /// The 256 bytes, `ab`, `abc`, and three added tokens.
    fn small() -> Vocabulary {
        let mut tokens: Vec<String> = byte_symbols().collect();
        tokens.extend(["ab", "abc", "<s>", "<think>", "ø"].map(String::from));
        // The symbol of byte 0xf8 is the added word's.
        tokens[0xf8] = "<unused>".into();
        let mut token_types = vec![1; tokens.len()];
        (token_types[0xf8], token_types[258], token_types[259], token_types[260]) = (5, 3, 4, 4);
        Vocabulary {
            model: "gpt2".into(),
            pre: Some("deepseek-llm".into()),
            tokens,
            token_types,
            merges: vec!["a b".into(), "ab c".into()],
            bos: Some(258),
            eos: Some(259),
            ..Vocabulary::default()
        }
    }

    #[test]
    fn tokens_do_what_their_types_say() {
        let t = small().into_tokenizer("m.gguf").unwrap();
        assert_eq!(t.encode("abcabø").unwrap(), [257, 256, 260]);
        assert_eq!(t.encode("<s>").unwrap(), [b'<', b's', b'>'].map(u32::from));
        assert_eq!(t.encode("<think>").unwrap().len(), 7);
        assert_eq!(t.special("<think>").unwrap(), 259);
        assert_eq!(t.decode(&[258, 257, 260, 0xf8]), "<s>abcø");
        assert_eq!(t.bounds().ends, [259]);
        assert_eq!(t.with_bos(vec![1]), [1]);
        assert_eq!(t.vocab_size(), 261);

        let t = Vocabulary { add_bos: Some(true), ..small() }.into_tokenizer("m.gguf").unwrap();
        assert_eq!(t.with_bos(vec![1]), [258, 1]);
        assert_eq!(t.with_bos(vec![258, 1]), [258, 1]);
    }

    #[test]
    fn whole_words_need_no_merges_where_the_family_says_so() {
        let ids = |pre: &str| {
            let mut vocabulary = Vocabulary { pre: Some(pre.into()), ..small() };
            vocabulary.merges.remove(0);
            vocabulary.merges.remove(0);
            vocabulary.into_tokenizer("m.gguf").unwrap().encode("abc").unwrap()
        };
        assert_eq!(ids("llama-bpe"), [257]);
        assert_eq!(ids("qwen2"), [b'a', b'b', b'c'].map(u32::from));
    }

    #[test]
    fn without_types_the_named_tokens_are_special() {
        let mut vocabulary = small();
        vocabulary.token_types.clear();
        let t = vocabulary.into_tokenizer("m.gguf").unwrap();
        assert!(t.is_special(258) && t.is_special(259) && !t.is_special(260));
    }

    #[test]
    fn faults_name_the_key() {
        let fault = |change: fn(&mut Vocabulary)| {
            let mut vocabulary = small();
            change(&mut vocabulary);
            vocabulary.into_tokenizer("m.gguf").unwrap_err().to_string()
        };
        assert_eq!(
            fault(|v| v.model = "llama".into()),
            "m.gguf: `tokenizer.ggml.model` is \"llama\": only \"gpt2\" (byte-level BPE) is \
             supported"
        );
        let e = fault(|v| v.pre = Some("tekken".into()));
        let start = "m.gguf: `tokenizer.ggml.pre` is \"tekken\", which is none of deepseek-llm, ";
        assert!(e.starts_with(start), "{e}");
        assert_eq!(
            fault(|v| v.token_types.truncate(3)),
            "m.gguf: `tokenizer.ggml.token_type` has 3 entries, but there are 261 tokens"
        );
        assert_eq!(
            fault(|v| v.token_types[7] = -1),
            "m.gguf: `tokenizer.ggml.token_type`: entry 7 is -1, which is no type"
        );
        assert_eq!(
            fault(|v| v.tokens[1] = "ab".into()),
            "m.gguf: `tokenizer.ggml.tokens`: tokens 1 and 256 are both `ab`"
        );
        assert_eq!(
            fault(|v| v.merges.push("abc".into())),
            "m.gguf: `tokenizer.ggml.merges`: merge 2, `abc`, is not two tokens"
        );
        assert_eq!(
            fault(|v| v.merges.push("b c".into())),
            "m.gguf: `tokenizer.ggml.merges`: merge 2, `b c`, needs `bc`, which is no token of texts"
        );
        assert_eq!(
            fault(|v| v.merges.push("< s>".into())),
            "m.gguf: `tokenizer.ggml.merges`: merge 2, `< s>`, needs `s>`, which is no token of \
             texts"
        );
        assert_eq!(
            fault(|v| v.eot = Some(261)),
            "m.gguf: `tokenizer.ggml.eot_token_id` is 261, but there are 261 tokens"
        );
        assert_eq!(
            fault(|v| (v.bos, v.add_bos) = (None, Some(true))),
            "m.gguf: texts should begin with BOS, but `tokenizer.ggml.bos_token_id` is missing"
        );
        assert_eq!(
            fault(|v| v.token_types[usize::from(b'q')] = 5),
            "m.gguf: its vocabulary lacks byte 0x71"
        );
        assert_eq!(
            fault(|v| (v.tokens, v.token_types) = (vec![], vec![])),
            "m.gguf: `tokenizer.ggml.bos_token_id` is 258, but there are 0 tokens"
        );
    }

    #[test]
    fn a_text_with_a_missing_byte_is_refused() {
        let mut vocabulary = small();
        vocabulary.token_types[4] = 5;
        let t = vocabulary.into_tokenizer("m.gguf").unwrap();
        assert!(t.encode("\u{3}").is_ok());
        let e = t.encode("a\u{4}").unwrap_err().to_string();
        assert_eq!(e, "m.gguf: cannot encode a text: its vocabulary lacks byte 0x04");
    }
}
