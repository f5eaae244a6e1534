//! A model's files: a folder, a GGUF file, or the default model that is built in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Result;
use crate::formats::{Checkpoint, ModelConfig};
use crate::text::{ChatTemplate, PromptStyle, TextFolder, Tokenizer, Vocabulary};

/// An opened model: nothing is computed yet.
#[derive(Debug)]
pub struct Model {
    /// The folder or file, or `minnow` for the one that is built in.
    pub name: String,
    /// Its weights and configuration.
    pub checkpoint: Checkpoint,
    folder: Option<PathBuf>,
}

impl Model {
    /// The default model, minnow (see `weights/minnow/README.md`).
    ///
    /// # Errors
    /// Never in a build whose files are whole.
    pub fn builtin() -> Result<Self> {
        let config = include_str!("../../weights/minnow/config.json");
        let weights = include_bytes!("../../weights/minnow/model.safetensors");
        let checkpoint = Checkpoint::from_static(config, weights)?;
        Ok(Self { name: "minnow".into(), checkpoint, folder: None })
    }

    /// The model in a folder of config.json, tokenizer.json and safetensors files, or in a GGUF
    /// file, for which a tokenizer.json may lie beside it.
    ///
    /// # Errors
    /// If it has no usable configuration or weights.
    pub fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let name = path.display().to_string();
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        Ok(Self { name, checkpoint, folder: Some(folder.to_owned()) })
    }

    /// Its tokenizer: a GGUF file's own, or that of the folder's tokenizer.json.
    ///
    /// # Errors
    /// If it has no usable tokenizer.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        if let Some(file) = self.checkpoint.gguf()
            && let Some(vocabulary) = Vocabulary::from_gguf(file)?
        {
            return vocabulary.into_tokenizer(file.path()).map(Arc::new);
        }
        let tokenizer = match &self.folder {
            Some(folder) => TextFolder::new(folder).tokenizer(),
            None => Tokenizer::from_bytes(
                "minnow's tokenizer.json",
                include_bytes!("../../weights/minnow/tokenizer.json"),
            ),
        };
        tokenizer.map(Arc::new)
    }

    /// How its prompts are written: V4's own way; by the chat template that comes with it; in
    /// ChatML if there is none and `tokenizer`, which is its own, knows that; else as plain text.
    ///
    /// # Errors
    /// If its configuration or its chat template is unusable.
    pub fn prompt_style(&self, tokenizer: &Tokenizer) -> Result<PromptStyle> {
        if let ModelConfig::V4(config) = ModelConfig::from_checkpoint(&self.checkpoint)? {
            return PromptStyle::from_config(&config);
        }
        let template = self.template(tokenizer)?.or_else(|| ChatTemplate::chat_ml(tokenizer));
        Ok(template
            .map_or(PromptStyle::Plain, |template| PromptStyle::Template(Arc::new(template))))
    }

    /// The chat template that comes with it.
    fn template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        // What lies beside a GGUF file that has a tokenizer may be another model's.
        if let Some(file) = self.checkpoint.gguf()
            && file.get("tokenizer.ggml.model").is_some()
        {
            let source = file.str("tokenizer.chat_template")?.map(str::to_owned);
            let template = |source| ChatTemplate::new(file.path(), source, tokenizer);
            return source.map(template).transpose();
        }
        match &self.folder {
            Some(folder) => TextFolder::new(folder).template(tokenizer),
            None => Ok(None),
        }
    }
}
