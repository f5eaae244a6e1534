//! Prompts as the V4 family was trained to read them: `BOS`, the effort paragraph, the system texts,
//! and the turns. They end where the model goes on writing.

use super::prompt::{
    Content, Continued, Conversation, END_THINK, Effort, EncodedPrompt, Message, Mode, Piece,
    SEPARATOR, THINK,
};
use super::{Channel, Tokenizer};
use crate::Result;

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
const USER: &str = "<｜User｜>";
const ASSISTANT: &str = "<｜Assistant｜>";
/// What [`Conversation::render_text`] writes for a picture.
const IMAGE: &str = "<｜deepseek_image｜>";

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    April,
    July,
}

impl Version {
    /// The paragraph that asks for `effort`; empty if none does.
    fn effort_text(self, effort: Effort) -> &'static str {
        match (self, effort) {
            (Self::April, Effort::Max) | (Self::July, Effort::High) => ABSOLUTE_MAXIMUM,
            (Self::July, Effort::Max) => BEYOND_MAXIMUM,
            (Self::April, Effort::Low | Effort::High) | (Self::July, Effort::Low) => "",
        }
    }
}

/// [`Conversation::render_text`].
pub(super) fn render_text(conversation: &Conversation, version: Version) -> Result<String> {
    let parts = render(conversation, version)?;
    let text = parts.iter().map(|part| match part {
        Part::Special(spelling) => spelling,
        Part::Text(text) => text.as_str(),
        Part::Image(_) => IMAGE,
    });
    Ok(text.collect())
}

/// [`Conversation::encode`].
pub(super) fn encode(
    conversation: &Conversation,
    version: Version,
    tokenizer: &Tokenizer,
) -> Result<EncodedPrompt> {
    let mut pieces = Vec::new();
    for part in render(conversation, version)? {
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
    Ok(EncodedPrompt { pieces, reply: reply_channel(conversation) })
}

/// What the model will write first.
fn reply_channel(conversation: &Conversation) -> Channel {
    let continued = match conversation.messages.last() {
        Some(Message::Assistant { text, .. }) if conversation.continue_last => !text.is_empty(),
        _ => false,
    };
    match conversation.mode {
        Mode::Thinking(_) if !continued => Channel::Reasoning,
        _ => Channel::Answer,
    }
}

fn render(conversation: &Conversation, version: Version) -> Result<Vec<Part>> {
    let (past, continued) = conversation.split_continued()?;
    let mut out = Parts::default();
    out.special(BOS);
    if let Mode::Thinking(effort) = conversation.mode {
        out.text(version.effort_text(effort));
    }
    let system = past.iter().filter_map(|message| match message {
        Message::System(text) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    });
    out.text(&system.collect::<Vec<_>>().join(SEPARATOR));
    out.turns(past);

    out.special(ASSISTANT);
    let thinking = matches!(conversation.mode, Mode::Thinking(_));
    match continued {
        None => out.special(if thinking { THINK } else { END_THINK }),
        Some(Continued { reasoning, text }) => {
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
    use super::super::prompt::{Frame, PromptStyle};
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
            c.render_text(&PromptStyle::V4_0731).unwrap(),
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
            c.encode(&PromptStyle::V4_0731, &t).unwrap().pieces,
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
        let [Piece::Tokens(ids)] = &c.encode(&PromptStyle::V4, &t).unwrap().pieces[..] else {
            panic!("one piece of text")
        };
        let special: Vec<_> = ids.iter().filter(|&&id| id >= 256).collect();
        assert_eq!(special, [&256, &257, &258, &259]);
        let bare = byte_tokenizer(&[BOS]);
        let e = c.encode(&PromptStyle::V4, &bare).unwrap_err().to_string();
        assert_eq!(e, "tokenizer.json: has no special token `<｜User｜>`");
    }

    #[test]
    fn only_the_models_message_can_be_continued() {
        let mut c = chat(vec![user("a")]);
        c.continue_last = true;
        let e = c.render_text(&PromptStyle::V4).unwrap_err().to_string();
        assert_eq!(e, "the last message is not the model's, so it cannot be continued");
        c.messages.clear();
        assert!(c.render_text(&PromptStyle::V4).is_err());
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
            assert_eq!(reply_channel(&c), channel, "{c:?}");
        }
    }
}
