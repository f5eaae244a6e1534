//! `config.json`: which architecture a model has, and its dimensions under Fathom's names.

use std::path::Path;

use super::Checkpoint;
use super::config_dense::DenseConfig;
use super::config_mla::{MlaConfig, MlaFamily};
use super::config_v4::{Qat, V4Config};
use super::config_vision::VisionConfig;
use super::fields::Fields;
use crate::{Error, Result};

/// A model of any architecture that Fathom runs.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// DeepSeek V4.
    V4(V4Config),
    /// DeepSeek V2, V3 and V3.2: multi-head latent attention.
    Mla(MlaConfig),
    /// Llama and Qwen2: no experts.
    Dense(DenseConfig),
}

/// What a config may call itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    V4,
    V32,
    V3,
    V2,
    Qwen2,
    Llama,
}

impl Architecture {
    const ALL: [Self; 6] = [Self::V4, Self::V32, Self::V3, Self::V2, Self::Qwen2, Self::Llama];

    /// As `architectures[0]` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "DeepseekV4ForCausalLM",
            Self::V32 => "DeepseekV32ForCausalLM",
            Self::V3 => "DeepseekV3ForCausalLM",
            Self::V2 => "DeepseekV2ForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    /// As `model_type` spells it.
    const fn model_type(self) -> &'static str {
        match self {
            Self::V4 => "deepseek_v4",
            Self::V32 => "deepseek_v32",
            Self::V3 => "deepseek_v3",
            Self::V2 => "deepseek_v2",
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
        }
    }

    /// What the config says it is. The spelling of DeepSeek's reference code says nothing, and is
    /// V4's.
    pub fn read(path: &Path, f: &Fields<'_>) -> Result<Self> {
        let known = || format!("supported: {}", Self::ALL.map(Self::name).join(", "));
        let unknown = |field| f.error(field, format!("unknown architecture ({})", known()));
        let architectures: Option<Vec<String>> = f.get(&["architectures"], "a list of texts")?;
        if let Some(name) = architectures.as_ref().and_then(|names| names.first()) {
            let found = Self::ALL.into_iter().find(|a| a.name() == name);
            return found.ok_or_else(|| unknown("architectures"));
        }
        match f.get::<String>(&["model_type"], "a text")? {
            Some(name) => {
                let found = Self::ALL.into_iter().find(|a| a.model_type() == name);
                found.ok_or_else(|| unknown("model_type"))
            }
            None if f.has(&["dim"]) && f.has(&["n_layers"]) => Ok(Self::V4),
            None => {
                let what = "field `architectures` or `model_type` is missing";
                Err(Error::file(path, format!("{what} ({})", known())))
            }
        }
    }
}

impl ModelConfig {
    /// Reads the `config.json` of `checkpoint`. Errors name the file, the field and its value.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        Self::parse(checkpoint.config_path(), checkpoint.config_text())
    }

    /// Reads the text of a `config.json`, which errors will call `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let f = Fields::parse(path, text)?;
        let mla = |family| MlaConfig::read(&f, family).map(Self::Mla);
        match Architecture::read(path, &f)? {
            Architecture::V4 => V4Config::read(&f).map(Self::V4),
            Architecture::V32 => mla(MlaFamily::V32),
            Architecture::V3 => mla(MlaFamily::V3),
            Architecture::V2 => mla(MlaFamily::V2),
            Architecture::Qwen2 => DenseConfig::read_qwen2(&f).map(Self::Dense),
            Architecture::Llama => DenseConfig::read_llama(&f).map(Self::Dense),
        }
    }

    /// The architecture's name, as `architectures` spells it.
    pub fn architecture(&self) -> &'static str {
        let architecture = match self {
            Self::V4(_) => Architecture::V4,
            Self::Mla(c) => match c.family {
                MlaFamily::V2 => Architecture::V2,
                MlaFamily::V3 => Architecture::V3,
                MlaFamily::V32 => Architecture::V32,
            },
            Self::Dense(c) if c.qwen2 => Architecture::Qwen2,
            Self::Dense(_) => Architecture::Llama,
        };
        architecture.name()
    }

    /// Has activations rounded otherwise than the checkpoint suggests.
    ///
    /// # Errors
    /// If only another architecture's rounding is known.
    pub fn set_qat(&mut self, qat: Qat) -> Result<()> {
        match self {
            Self::V4(c) => c.qat = qat,
            Self::Mla(_) | Self::Dense(_) if qat == Qat::Off => {}
            Self::Mla(_) | Self::Dense(_) => {
                let what = format!("activations of a {} are never rounded", self.architecture());
                return Err(Error::Request(format!("{what}: no --qat but `off` applies")));
            }
        }
        Ok(())
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> usize {
        match self {
            Self::V4(c) => c.hidden,
            Self::Mla(c) => c.hidden,
            Self::Dense(c) => c.hidden,
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::V4(c) => c.layers.len(),
            Self::Mla(c) => c.layers,
            Self::Dense(c) => c.layers,
        }
    }

    /// Query heads a layer.
    pub fn heads(&self) -> usize {
        match self {
            Self::V4(c) => c.heads,
            Self::Mla(c) => c.heads,
            Self::Dense(c) => c.heads,
        }
    }

    /// Width of a query head.
    pub fn head_dim(&self) -> usize {
        match self {
            Self::V4(c) => c.head_dim,
            Self::Mla(c) => c.nope_dim + c.rope_dim,
            Self::Dense(c) => c.head_dim,
        }
    }

    /// Token ids the embedding table knows.
    pub fn vocab(&self) -> usize {
        match self {
            Self::V4(c) => c.vocab,
            Self::Mla(c) => c.vocab,
            Self::Dense(c) => c.vocab,
        }
    }

    /// Most tokens a sequence may have.
    pub fn max_context(&self) -> usize {
        match self {
            Self::V4(c) => c.max_context,
            Self::Mla(c) => c.max_context,
            Self::Dense(c) => c.max_context,
        }
    }

    /// Id of the token that begins a text, if the config names one.
    pub fn bos(&self) -> Option<u32> {
        match self {
            Self::V4(c) => Some(c.bos),
            Self::Mla(c) => c.bos,
            Self::Dense(c) => c.bos,
        }
    }

    /// Ids of the tokens that end an answer.
    pub fn eos(&self) -> &[u32] {
        match self {
            Self::V4(c) => &c.eos,
            Self::Mla(c) => &c.eos,
            Self::Dense(c) => &c.eos,
        }
    }

    /// Tokens that a row's attention sees uncompressed, the current one included; `None` if it sees
    /// every one before it. A model without a window keeps all that it was fed.
    pub fn window(&self) -> Option<usize> {
        match self {
            Self::V4(c) => Some(c.window),
            Self::Mla(_) | Self::Dense(_) => None,
        }
    }

    /// The vision tower, if the model has one.
    pub fn vision(&self) -> Option<&VisionConfig> {
        match self {
            Self::V4(c) => c.vision.as_ref(),
            Self::Mla(_) | Self::Dense(_) => None,
        }
    }

    /// (routed experts a layer, those of them a token visits, shared experts); zeros for models
    /// without.
    pub fn experts(&self) -> (usize, usize, usize) {
        match self {
            Self::V4(c) => (c.experts, c.experts_per_token, c.shared_experts),
            Self::Mla(c) => (c.experts, c.experts_per_token, c.shared_experts),
            Self::Dense(_) => (0, 0, 0),
        }
    }
}

/// Token ids below `vocab`, given as one number or a list; empty if the field is missing.
pub(super) fn token_ids(f: &Fields<'_>, name: &str, vocab: usize) -> Result<Vec<u32>> {
    let kind = "a token id or a list of them";
    let ids = match f.get::<Vec<u32>>(&[name], kind) {
        Ok(ids) => ids.unwrap_or_default(),
        Err(_) => f.get::<u32>(&[name], kind)?.into_iter().collect(),
    };
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(f.error(name, format!("id {id} is not below the {vocab} of `vocab_size`"))),
        None => Ok(ids),
    }
}

/// A yes or no, `default` if it is missing.
pub(super) fn flag(f: &Fields<'_>, name: &str, default: bool) -> Result<bool> {
    Ok(f.get(&[name], "true or false")?.unwrap_or(default))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
