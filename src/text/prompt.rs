//! Conversations, and the prompts they become.
//!
//! How a prompt is written depends on the model: see [`PromptStyle`]. Only a style writes special
//! tokens; what people wrote is plain text whatever it spells.

use std::str::FromStr;
use std::sync::Arc;

use super::{Channel, ChatTemplate, Tokenizer, v4};
use crate::formats::V4Config;
use crate::{Error, Result};

/// The token that opens reasoning.
pub(super) const THINK: &str = "<think>";
/// The token that closes reasoning and opens the answer.
pub(super) const END_THINK: &str = "</think>";
/// What stands between the blocks of a turn, and between turns that become one.
pub(super) const SEPARATOR: &str = "\n\n";

/// How much the model should think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As it likes.
    Low,
    /// Thoroughly; models of April 2026 know no difference to [`Effort::Low`].
    High,
    /// As thoroughly as it can.
    Max,
}

/// Whether the model thinks before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It answers at once.
    Chat,
    /// It thinks first.
    Thinking(Effort),
}

impl FromStr for Mode {
    type Err = Error;

    /// Reads `off`, `low`, `high` or `max`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "off" => Ok(Self::Chat),
            "low" => Ok(Self::Thinking(Effort::Low)),
            "high" => Ok(Self::Thinking(Effort::High)),
            "max" => Ok(Self::Thinking(Effort::Max)),
            other => Err(Error::Request(format!(
                "thinking effort `{other}` is not one of off, low, high, max"
            ))),
        }
    }
}

/// A block of a user's message.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Something written.
    Text(String),
    /// The picture that the caller knows by this number.
    Image(usize),
    /// Frames of a clip, in order.
    Clip(Vec<Frame>),
}

/// A frame of a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// When it is shown, in seconds from the clip's beginning.
    pub seconds: f64,
    /// The picture that the caller knows by this number.
    pub image: usize,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// An instruction. Wherever it stands, the model reads it first.
    System(String),
    /// What the user gave. Messages with no answer between them are read as one.
    User(Vec<Content>),
    /// What the model answered.
    Assistant {
        /// What it thought before, if it did. Only read if this message is to be continued.
        reasoning: Option<String>,
        /// What it said.
        text: String,
    },
}

/// A conversation to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Its messages, oldest first.
    pub messages: Vec<Message>,
    /// Whether the model thinks before it answers.
    pub mode: Mode,
    /// Whether the model goes on with the last message, one of its own, instead of answering.
    pub continue_last: bool,
}

/// How a model's prompts are written.
#[derive(Clone, Debug)]
pub enum PromptStyle {
    /// As V4-Flash and V4-Pro of April 2026 read them.
    V4,
    /// As V4-Flash of 31 July 2026 and later models do, V4-Flash-Vision-Exp among them: their
    /// efforts mean something else.
    V4_0731,
    /// By the model's own chat template.
    Template(Arc<ChatTemplate>),
    /// What was said, one after another, as a text to go on with.
    Plain,
}

impl PromptStyle {
    /// The style of the V4 model that `config` describes: `fathom_prompt_style` if it is set (`v4`
    /// or `v4-0731`; an error if it is anything else). Otherwise the later style if the model has a
    /// drafter of the later kind or a vision tower, which only later models have.
    pub fn from_config(config: &V4Config) -> Result<Self> {
        match config.prompt_style.as_deref() {
            Some("v4") => Ok(Self::V4),
            Some("v4-0731") => Ok(Self::V4_0731),
            Some(other) => Err(Error::Config(format!(
                "field `fathom_prompt_style` is \"{other}\": expected \"v4\" or \"v4-0731\""
            ))),
            None if config.dspark || config.vision.is_some() => Ok(Self::V4_0731),
            None => Ok(Self::V4),
        }
    }
}

/// A conversation in token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// The ids, cut where pictures stand.
    pub pieces: Vec<Piece>,
    /// What the model will write first.
    pub reply: Channel,
}

/// A stretch of an encoded prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Token ids; never empty, and never two such pieces in a row.
    Tokens(Vec<u32>),
    /// The picture that the caller knows by this number.
    Image(usize),
}

impl Conversation {
    /// The prompt's text, with `<｜deepseek_image｜>` where a picture stands. For people and tests;
    /// encoding this text could take what a user wrote for a special token. An error if
    /// `continue_last` is set and the last message is not the model's, and what the model's own
    /// template says against the conversation.
    pub fn render_text(&self, style: &PromptStyle) -> Result<String> {
        match style {
            PromptStyle::V4 => v4::render_text(self, v4::Version::April),
            PromptStyle::V4_0731 => v4::render_text(self, v4::Version::July),
            PromptStyle::Template(template) => template.render_text(self),
            PromptStyle::Plain => self.plain_text(),
        }
    }

    /// The prompt in token ids. Errors as [`Self::render_text`], and if the tokenizer lacks one of
    /// the special tokens or cannot encode a text.
    pub fn encode(&self, style: &PromptStyle, tokenizer: &Tokenizer) -> Result<EncodedPrompt> {
        match style {
            PromptStyle::V4 => v4::encode(self, v4::Version::April, tokenizer),
            PromptStyle::V4_0731 => v4::encode(self, v4::Version::July, tokenizer),
            PromptStyle::Template(template) => template.encode(self, tokenizer),
            PromptStyle::Plain => {
                let ids = tokenizer.encode(&self.plain_text()?)?;
                Ok(EncodedPrompt::text(tokenizer.with_bos(ids), Channel::Answer))
            }
        }
    }

    /// Every message's text, one after another.
    fn plain_text(&self) -> Result<String> {
        self.messages.iter().map(Message::text).collect()
    }

    /// The messages to be read, and the one to be continued after them, if one is. An error if the
    /// last message is not the model's.
    pub(super) fn split_continued(&self) -> Result<(&[Message], Option<Continued<'_>>)> {
        match self.messages.split_last() {
            Some((Message::Assistant { reasoning, text }, past)) if self.continue_last => {
                Ok((past, Some(Continued { reasoning: reasoning.as_deref(), text })))
            }
            _ if self.continue_last => {
                let what = "the last message is not the model's, so it cannot be continued";
                Err(Error::Request(what.into()))
            }
            _ => Ok((&self.messages, None)),
        }
    }
}

/// A message of the model's that it is to go on with.
pub(super) struct Continued<'c> {
    pub reasoning: Option<&'c str>,
    pub text: &'c str,
}

impl EncodedPrompt {
    /// A prompt without pictures.
    pub(super) fn text(ids: Vec<u32>, reply: Channel) -> Self {
        let pieces = if ids.is_empty() { vec![] } else { vec![Piece::Tokens(ids)] };
        Self { pieces, reply }
    }
}

impl Message {
    /// What it says, for models that read nothing but text; an error if it has pictures.
    pub(super) fn text(&self) -> Result<String> {
        let blocks = match self {
            Self::System(text) | Self::Assistant { text, .. } => return Ok(text.clone()),
            Self::User(blocks) => blocks,
        };
        let texts = blocks.iter().map(|block| match block {
            Content::Text(text) => Ok(text.as_str()),
            Content::Image(_) | Content::Clip(_) => {
                Err(Error::Request("this model takes no pictures".into()))
            }
        });
        Ok(texts.collect::<Result<Vec<_>>>()?.join(SEPARATOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts_are_read_from_words() {
        assert_eq!("off".parse::<Mode>().unwrap(), Mode::Chat);
        assert_eq!("max".parse::<Mode>().unwrap(), Mode::Thinking(Effort::Max));
        let e = "huge".parse::<Mode>().unwrap_err().to_string();
        assert_eq!(e, "thinking effort `huge` is not one of off, low, high, max");
    }

    #[test]
    fn the_config_tells_the_style() {
        let config = |extra: &str| {
            let text = format!(
                r#"{{"model_type": "deepseek_v4", "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 1, "head_dim": 8, "qk_rope_head_dim": 4, "q_lora_rank": 4,
                "o_groups": 1, "o_lora_rank": 4, "n_routed_experts": 2, "num_experts_per_tok": 1,
                "moe_intermediate_size": 4, "num_hash_layers": 0, "vocab_size": 300,
                "compress_ratios": [0]{extra}}}"#
            );
            let config = V4Config::parse("config.json".as_ref(), &text).unwrap();
            PromptStyle::from_config(&config)
        };
        let is_v4 = |style| matches!(style, PromptStyle::V4);
        let is_later = |style| matches!(style, PromptStyle::V4_0731);
        assert!(is_v4(config("").unwrap()));
        assert!(is_later(config(r#", "dspark_block_size": 5"#).unwrap()));
        let vision = r#", "vision_n_layers": 1, "vision_dim": 8, "vision_n_heads": 1, "vision_inter_dim": 8"#;
        assert!(is_later(config(vision).unwrap()));
        let own = |style: &str| config(&format!(r#", "fathom_prompt_style": "{style}""#));
        assert!(is_later(own("v4-0731").unwrap()));
        assert!(is_v4(own("v4").unwrap()));
        assert_eq!(
            own("v5").unwrap_err().to_string(),
            "model config: field `fathom_prompt_style` is \"v5\": expected \"v4\" or \"v4-0731\""
        );
    }
}
