//! What the files next to a model's weights say about its texts: `tokenizer.json`,
//! `tokenizer_config.json`, `generation_config.json` and `chat_template.jinja`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ChatTemplate, Tokenizer};
use crate::{Error, Result};

/// A model folder, for its texts.
#[derive(Clone, Debug)]
pub struct TextFolder {
    path: PathBuf,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<Spelling>,
    eos_token: Option<Spelling>,
    add_bos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token, by its spelling or with its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Plain(String),
    Token { content: String },
}

impl Spelling {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Token { content: text } => text,
        }
    }
}

/// One chat template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// `generation_config.json`.
#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl TextFolder {
    /// The folder at `path`; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its tokenizer, which knows where texts begin and end from the other files, if they are
    /// there.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`]; if another file is there but unusable, or names a token that
    /// the tokenizer lacks.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let mut tokenizer = Tokenizer::from_file(self.path.join("tokenizer.json"))?;
        let mut bounds = tokenizer.bounds().clone();
        if let Some(config) = self.json::<TokenizerConfig>(CONFIG)? {
            let id = |token: Option<Spelling>| {
                token.map(|token| tokenizer.special(token.text())).transpose()
            };
            bounds.bos = id(config.bos_token)?;
            bounds.eos = id(config.eos_token)?;
            bounds.add_bos = match config.add_bos_token {
                Some(add_bos) => add_bos,
                None => tokenizer.adds_itself(bounds.bos),
            };
        }
        let generation: GenerationConfig = self.json("generation_config.json")?.unwrap_or_default();
        match generation.eos_token_id {
            Some(Ids::One(id)) => bounds.ends.push(id),
            Some(Ids::Many(ids)) => bounds.ends.extend(ids),
            None => {}
        }
        tokenizer.set_bounds(bounds);
        Ok(tokenizer)
    }

    /// Its chat template for prompts in the ids of `tokenizer`, if it has one. An error if there is
    /// one that cannot be used.
    pub fn template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        let source = self.template_source()?;
        source.map(|(path, source)| ChatTemplate::new(path, source, tokenizer)).transpose()
    }

    /// The text of its chat template and the file that has it, if it has one. An error if a file
    /// cannot be read, or has templates of which none is the default.
    pub fn template_source(&self) -> Result<Option<(PathBuf, String)>> {
        let path = self.path.join("chat_template.jinja");
        if let Some(source) = read(&path)? {
            return Ok(Some((path, source)));
        }
        let path = self.path.join(CONFIG);
        let config = self.json::<TokenizerConfig>(CONFIG)?.unwrap_or_default();
        Ok(match config.chat_template {
            None => None,
            Some(Templates::One(source)) => Some((path, source)),
            Some(Templates::Named(all)) => {
                let default = all.into_iter().find(|template| template.name == "default");
                let what = "`chat_template` has no template named \"default\"";
                let source = default.ok_or_else(|| Error::file(&path, what))?.template;
                Some((path, source))
            }
        })
    }

    /// The file `name`, if there is one.
    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| Error::file(&path, e.to_string()))
    }
}

const CONFIG: &str = "tokenizer_config.json";

/// The text of a file, if there is one.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}
