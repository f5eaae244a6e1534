//! A model's files: a folder, a GGUF file, or the default model that is built in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::formats::{Checkpoint, ModelConfig};
use crate::text::{PromptStyle, Tokenizer};
use crate::{Error, Result};

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

    /// Its tokenizer.
    ///
    /// # Errors
    /// If the folder has no usable tokenizer.json.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        let tokenizer = match &self.folder {
            Some(folder) => Tokenizer::from_file(folder.join("tokenizer.json")),
            None => Tokenizer::from_bytes(
                "minnow's tokenizer.json",
                include_bytes!("../../weights/minnow/tokenizer.json"),
            ),
        };
        tokenizer.map(Arc::new)
    }

    /// How its prompts are written.
    ///
    /// # Errors
    /// If its config.json is unusable, or the model is of an architecture without a known style.
    pub fn prompt_style(&self) -> Result<PromptStyle> {
        match ModelConfig::from_checkpoint(&self.checkpoint)? {
            ModelConfig::V4(config) => PromptStyle::from_config(&config),
            other => {
                let what = format!("no prompt format is known for {}", other.architecture());
                Err(Error::Config(what))
            }
        }
    }
}
