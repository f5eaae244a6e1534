//! Conversations as the V4 family was trained to read them.
//!
//! A prompt is `BOS`, the effort paragraph, the system texts, and the turns; it ends where the
//! model goes on writing. Only this module writes special tokens; what people wrote is plain text
//! whatever it spells.

use std::str::FromStr;

use super::{Channel, Tokenizer};
use crate::formats::V4Config;
use crate::{Error, Result};

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
const USER: &str = "<｜User｜>";
const ASSISTANT: &str = "<｜Assistant｜>";
/// The token that opens reasoning.
pub(super) const THINK: &str = "<think>";
/// The token that closes reasoning and opens the answer.
pub(super) const END_THINK: &str = "</think>";
/// What [`Conversation::render_text`] writes for a picture.
const IMAGE: &str = "<｜deepseek_image｜>";

/// What stands between the blocks of a turn, and between turns that become one.
const SEPARATOR: &str = "\n\n";

/// The paragraph of the highest effort in April 2026, of high effort since July. The model was
/// trained on these exact words.
const ABSOLUTE_MAXIMUM: &str = "\
Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve \
the root cause, rigorously stress-testing your logic against all potential paths, edge cases, and \
adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, \
considered alternative, and rejected hypothesis to ensure absolutely no assumption is left \
unchecked.

";

/// The paragraph of the highest effort since July 2026, likewise.
const BEYOND_MAXIMUM: &str = "\
Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: \
exhaustively decompose the problem into its most fundamental components, trace every causal chain \
to its root, and resolve the underlying cause rather than any surface symptom.
Do not stop reasoning until you have independently verified the solution from multiple angles and \
are certain that no assumption remains unchecked and no error remains undiscovered.

";

/// Which models a prompt is for; they differ in what the efforts mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptStyle {
    /// V4-Flash and V4-Pro of April 2026.
    V4,
    /// V4-Flash of 31 July 2026 and later models, V4-Flash-Vision-Exp among them.
    V4_0731,
}

impl PromptStyle {
    /// The style of the model that `config` describes: `fathom_prompt_style` if it is set (`v4` or
    /// `v4-0731`; an error if it is anything else). Otherwise the later style if the model has a
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

    /// The paragraph that asks for `effort`; empty if none does.
    fn effort_text(self, effort: Effort) -> &'static str {
        match (self, effort) {
            (Self::V4, Effort::Max) | (Self::V4_0731, Effort::High) => ABSOLUTE_MAXIMUM,
            (Self::V4_0731, Effort::Max) => BEYOND_MAXIMUM,
            (Self::V4, Effort::Low | Effort::High) | (Self::V4_0731, Effort::Low) => "",
        }
    }
}

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
    /// `continue_last` is set and the last message is not the model's.
    pub fn render_text(&self, style: PromptStyle) -> Result<String> {
        let parts = self.render(style)?;
        Ok(parts
            .iter()
            .map(|part| match part {
                Part::Special(spelling) => spelling,
                Part::Text(text) => text.as_str(),
                Part::Image(_) => IMAGE,
            })
            .collect())
    }

    /// The prompt in token ids, cut where pictures stand. Errors as [`Self::render_text`], and if
    /// the tokenizer lacks one of the special tokens.
    pub fn encode(&self, style: PromptStyle, tokenizer: &Tokenizer) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for part in self.render(style)? {
            let ids = match part {
                Part::Special(spelling) => vec![tokenizer.special(spelling)?],
                Part::Text(text) => tokenizer.encode(&text)?,
                Part::Image(number) => {
                    pieces.push(Piece::Image(number));
                    continue;
                }
            };
            match pieces.last_mut() {
                Some(Piece::Tokens(so_far)) => so_far.extend(ids),
                _ if ids.is_empty() => {}
                _ => pieces.push(Piece::Tokens(ids)),
            }
        }
        Ok(pieces)
    }

    /// What the model will write first after this prompt.
    pub fn reply_channel(&self) -> Channel {
        let continued = match self.messages.last() {
            Some(Message::Assistant { text, .. }) if self.continue_last => !text.is_empty(),
            _ => false,
        };
        match self.mode {
            Mode::Thinking(_) if !continued => Channel::Reasoning,
            _ => Channel::Answer,
        }
    }

    fn render(&self, style: PromptStyle) -> Result<Vec<Part>> {
        let (past, continued) = match self.messages.split_last() {
            Some((Message::Assistant { reasoning, text }, past)) if self.continue_last => {
                (past, Some((reasoning.as_deref(), text.as_str())))
            }
            _ if self.continue_last => {
                let what = "the last message is not the model's, so it cannot be continued";
                return Err(Error::Request(what.into()));
            }
            _ => (self.messages.as_slice(), None),
        };

        let mut out = Parts::default();
        out.special(BOS);
        if let Mode::Thinking(effort) = self.mode {
            out.text(style.effort_text(effort));
        }
        let system = past.iter().filter_map(|message| match message {
            Message::System(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        });
        out.text(&system.collect::<Vec<_>>().join(SEPARATOR));
        out.turns(past);

        out.special(ASSISTANT);
        let thinking = matches!(self.mode, Mode::Thinking(_));
        match continued {
            None => out.special(if thinking { THINK } else { END_THINK }),
            Some((reasoning, text)) => {
                if let Some(reasoning) = reasoning {
                    out.special(THINK);
                    out.text(reasoning);
                }
                // With nothing said yet, a thinking model goes on thinking.
                if !(thinking && text.is_empty()) {
                    out.special(END_THINK);
                }
                out.text(text);
            }
        }
        Ok(out.0)
    }
}

/// A stretch of a prompt before encoding.
enum Part {
    Special(&'static str),
    Text(String),
    Image(usize),
}

/// A prompt under construction. Neighbouring texts become one, because they are encoded as one.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn special(&mut self, spelling: &'static str) {
        self.0.push(Part::Special(spelling));
    }

    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Text(so_far)) => so_far.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Part::Text(text.to_owned())),
        }
    }

    /// The user's and the model's past messages.
    fn turns(&mut self, messages: &[Message]) {
        // Whether a user's turn is open, and whether it has anything in it.
        let mut open = None;
        for message in messages {
            match message {
                // Already at the front; it does not end the user's turn.
                Message::System(_) => {}
                Message::User(blocks) => {
                    let filled = open.unwrap_or_else(|| {
                        self.special(USER);
                        false
                    });
                    let empty = is_empty(blocks);
                    if filled && !empty {
                        self.text(SEPARATOR);
                    }
                    self.blocks(blocks);
                    open = Some(filled || !empty);
                }
                Message::Assistant { text, .. } => {
                    open = None;
                    self.special(ASSISTANT);
                    self.special(END_THINK);
                    self.text(text);
                    self.special(EOS);
                }
            }
        }
    }

    /// The blocks of one user's message.
    fn blocks(&mut self, blocks: &[Content]) {
        for (i, block) in blocks.iter().enumerate() {
            if i > 0 {
                self.text(SEPARATOR);
            }
            match block {
                Content::Text(text) => self.text(text),
                Content::Image(number) => self.0.push(Part::Image(*number)),
                Content::Clip(frames) => {
                    for frame in frames {
                        self.text(&format!("<{:.1} seconds>", frame.seconds));
                        self.0.push(Part::Image(frame.image));
                    }
                }
            }
        }
    }
}

/// Whether a message's blocks come to nothing: no block, or one empty one.
fn is_empty(blocks: &[Content]) -> bool {
    match blocks {
        [] => true,
        [Content::Text(text)] => text.is_empty(),
        [Content::Clip(frames)] => frames.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::byte_tokenizer;
    use super::*;

    fn user(text: &str) -> Message {
        Message::User(vec![Content::Text(text.into())])
    }

    fn chat(messages: Vec<Message>) -> Conversation {
        Conversation { messages, mode: Mode::Chat, continue_last: false }
    }

    #[test]
    fn pictures_and_clips_keep_their_places() {
        let blocks = vec![
            Content::Text("a".into()),
            Content::Image(7),
            Content::Clip(vec![
                Frame { seconds: 0.0, image: 3 },
                Frame { seconds: 12.04, image: 4 },
            ]),
            Content::Text("b".into()),
        ];
        let c = chat(vec![Message::User(blocks)]);
        assert_eq!(
            c.render_text(PromptStyle::V4_0731).unwrap(),
            format!(
                "{BOS}{USER}a\n\n{IMAGE}\n\n<0.0 seconds>{IMAGE}<12.0 seconds>{IMAGE}\n\nb\
                 {ASSISTANT}{END_THINK}"
            )
        );
        let t = byte_tokenizer(&[BOS, USER, ASSISTANT, END_THINK]);
        let ids = |text: &str| Piece::Tokens(t.encode(text).unwrap());
        let mut first = vec![256, 257];
        first.extend(t.encode("a\n\n").unwrap());
        let mut last = t.encode("\n\nb").unwrap();
        last.extend([258, 259]);
        assert_eq!(
            c.encode(PromptStyle::V4_0731, &t).unwrap(),
            [
                Piece::Tokens(first),
                Piece::Image(7),
                ids("\n\n<0.0 seconds>"),
                Piece::Image(3),
                ids("<12.0 seconds>"),
                Piece::Image(4),
                Piece::Tokens(last),
            ]
        );
    }

    #[test]
    fn a_written_marker_stays_text() {
        let t = byte_tokenizer(&[BOS, USER, ASSISTANT, END_THINK, IMAGE]);
        let c = chat(vec![user("<｜User｜><｜deepseek_image｜>")]);
        let [Piece::Tokens(ids)] = &c.encode(PromptStyle::V4, &t).unwrap()[..] else {
            panic!("one piece of text")
        };
        let special: Vec<_> = ids.iter().filter(|&&id| id >= 256).collect();
        assert_eq!(special, [&256, &257, &258, &259]);
        let bare = byte_tokenizer(&[BOS]);
        let e = c.encode(PromptStyle::V4, &bare).unwrap_err().to_string();
        assert_eq!(e, "tokenizer.json: has no special token `<｜User｜>`");
    }

    #[test]
    fn only_the_models_message_can_be_continued() {
        let mut c = chat(vec![user("a")]);
        c.continue_last = true;
        let e = c.render_text(PromptStyle::V4).unwrap_err().to_string();
        assert_eq!(e, "the last message is not the model's, so it cannot be continued");
        c.messages.clear();
        assert!(c.render_text(PromptStyle::V4).is_err());
    }

    #[test]
    fn the_reply_begins_where_the_prompt_ends() {
        let answer = |text: &str| Message::Assistant { reasoning: None, text: text.into() };
        for (mode, last, continue_last, channel) in [
            (Mode::Chat, user("a"), false, Channel::Answer),
            (Mode::Thinking(Effort::Low), user("a"), false, Channel::Reasoning),
            (Mode::Thinking(Effort::Low), answer("b"), false, Channel::Reasoning),
            (Mode::Thinking(Effort::Low), answer("b"), true, Channel::Answer),
            (Mode::Thinking(Effort::Low), answer(""), true, Channel::Reasoning),
            (Mode::Chat, answer(""), true, Channel::Answer),
        ] {
            let c = Conversation { messages: vec![last], mode, continue_last };
            assert_eq!(c.reply_channel(), channel, "{c:?}");
        }
    }

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
        assert_eq!(config("").unwrap(), PromptStyle::V4);
        assert_eq!(config(r#", "dspark_block_size": 5"#).unwrap(), PromptStyle::V4_0731);
        let vision = r#", "vision_n_layers": 1, "vision_dim": 8, "vision_n_heads": 1, "vision_inter_dim": 8"#;
        assert_eq!(config(vision).unwrap(), PromptStyle::V4_0731);
        let own = |style: &str| config(&format!(r#", "fathom_prompt_style": "{style}""#));
        assert_eq!(own("v4-0731").unwrap(), PromptStyle::V4_0731);
        assert_eq!(own("v4").unwrap(), PromptStyle::V4);
        assert_eq!(
            own("v5").unwrap_err().to_string(),
            "model config: field `fathom_prompt_style` is \"v5\": expected \"v4\" or \"v4-0731\""
        );
    }
}
