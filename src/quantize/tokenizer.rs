//! A folder's tokenizer and chat template as the metadata of a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::formats::{Array, ModelConfig, Strings, Value};
use crate::text::{TextFolder, name_of_pre_tokenizer};
use crate::{Error, Result};

/// What a token is for, in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// `tokenizer.json`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pre_tokenizer: Json,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    vocab: HashMap<String, usize>,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// A pair of tokens to be one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// The keys `tokenizer.*`. A folder without `tokenizer.json` has a model of ids alone.
///
/// # Errors
/// If the tokenizer is there and not one that GGUF files of these architectures have.
pub(super) fn vocabulary(config: &ModelConfig, folder: &Path) -> Result<Vec<(String, Value)>> {
    let path = folder.join("tokenizer.json");
    if !path.exists() {
        return Ok(vec![("tokenizer.ggml.model".into(), Value::Str("none".into()))]);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let wrong = |what: String| Error::file(&path, what);
    let file: File = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if file.model.kind.as_deref().is_some_and(|kind| kind != "BPE") || file.model.byte_fallback {
        return Err(wrong("not byte-level BPE, which alone can be written to GGUF files".into()));
    }
    let pre = name_of_pre_tokenizer(&file.pre_tokenizer);
    let unknown = || wrong("its `pre_tokenizer` has no name in GGUF files".into());
    let pre = pre.ok_or_else(unknown)?;
    let (tokens, types) = tokens(&file, config.vocab()).map_err(wrong)?;

    let mut list = vec![];
    let mut set = |key: &str, value| list.push((format!("tokenizer.{key}"), value));
    set("ggml.model", Value::Str("gpt2".into()));
    set("ggml.pre", Value::Str(pre.into()));
    set("ggml.tokens", Value::Array(Array::Str(tokens)));
    set("ggml.token_type", Value::Array(Array::I32(types)));
    let mut merges = Strings::default();
    for merge in &file.model.merges {
        match merge {
            Merge::Text(pair) => merges.push(pair),
            Merge::Pair(a, b) => merges.push(&format!("{a} {b}")),
        }
    }
    set("ggml.merges", Value::Array(Array::Str(merges)));

    let texts = TextFolder::new(folder);
    let tokenizer = texts.tokenizer()?;
    let bounds = tokenizer.bounds();
    let bos = bounds.bos.or(config.bos());
    let eos = bounds.eos.or(config.eos().first().copied());
    // A second token that ends answers is what ends a turn.
    let eot = config.eos().iter().copied().find(|&id| Some(id) != eos);
    for (key, id) in [("bos", bos), ("eos", eos), ("eot", eot)] {
        if let Some(id) = id {
            set(&format!("ggml.{key}_token_id"), Value::U32(id));
        }
    }
    set("ggml.add_bos_token", Value::Bool(bounds.add_bos));
    if let Some((_, template)) = texts.template_source()? {
        set("chat_template", Value::Str(template));
    }
    Ok(list)
}

/// The spelling of each of `size` tokens, and what it is for.
fn tokens(file: &File, size: usize) -> Result<(Strings, Vec<i32>), String> {
    let mut spellings: Vec<Option<(&str, i32)>> = vec![None; size];
    let words = file.model.vocab.iter().map(|(text, &id)| (id, text.as_str(), NORMAL));
    let added = file.added_tokens.iter().map(|t| {
        let marks = t.special || (t.content.starts_with("<|") && t.content.ends_with("|>"));
        (t.id, t.content.as_str(), if marks { CONTROL } else { USER_DEFINED })
    });
    for (id, text, kind) in words.chain(added) {
        let place = spellings.get_mut(id);
        let outside = || format!("token {id} is beyond the {size} of config.json's `vocab_size`");
        *place.ok_or_else(outside)? = Some((text, kind));
    }
    let mut all = Strings::default();
    let mut kinds = Vec::with_capacity(size);
    for (id, spelling) in spellings.into_iter().enumerate() {
        match spelling {
            Some((text, kind)) => {
                all.push(text);
                kinds.push(kind);
            }
            None => {
                all.push(&format!("[PAD{id}]"));
                kinds.push(UNUSED);
            }
        }
    }
    Ok((all, kinds))
}
