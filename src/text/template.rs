//! Prompts by a model's own chat template, a Jinja program in its GGUF file or next to its weights.

use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::Value;
use serde::Serialize;

use super::guard::{Guard, Marks};
use super::prompt::{Conversation, END_THINK, EncodedPrompt, Message, Mode, THINK};
use super::{Channel, Tokenizer, jinja};
use crate::{Error, Result};

/// Turns as ChatML has them, for models that know its tokens and have no template.
const CHAT_ML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
";

/// A chat template.
///
/// What people wrote stays text: tokens that it spells are not those of the template (see
/// [`Self::encode`]). A template that runs without end or makes texts without end is stopped.
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    bos: Option<String>,
    eos: Option<String>,
    marks: Marks,
}

/// What a template is given.
#[derive(Serialize)]
struct Context<'c> {
    messages: &'c [Turn],
    add_generation_prompt: bool,
    // Two names for one thing: DeepSeek's templates read the first, Qwen's the second.
    thinking: bool,
    enable_thinking: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eos_token: Option<&'c str>,
    tools: Option<()>,
    documents: Option<()>,
}

/// A message as templates know it.
#[derive(Serialize)]
struct Turn {
    role: &'static str,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
}

/// What a template wrote, with guards in what people wrote.
struct Rendering {
    text: String,
    guard: Guard,
}

impl ChatTemplate {
    /// The template `source` of the file `path`, for prompts in the ids of `tokenizer`. An error
    /// that names the file and the line if it is no Jinja.
    pub fn new(path: impl AsRef<Path>, source: String, tokenizer: &Tokenizer) -> Result<Self> {
        let path = path.as_ref().to_owned();
        jinja::check(&source).map_err(|e| fault(&path, &e))?;
        let bounds = tokenizer.bounds();
        let spelling = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id]));
        let marks = Marks::new(tokenizer.marks().chain([THINK, END_THINK]));
        Ok(Self { path, source, bos: spelling(bounds.bos), eos: spelling(bounds.eos), marks })
    }

    /// ChatML, if the tokenizer knows its tokens.
    pub fn chat_ml(tokenizer: &Tokenizer) -> Option<Self> {
        tokenizer.special("<|im_start|>").and_then(|_| tokenizer.special("<|im_end|>")).ok()?;
        Self::new("ChatML", CHAT_ML.into(), tokenizer).ok()
    }

    /// The prompt's text. For people and tests; encoding this text could take what a user wrote
    /// for a special token. Errors as [`Self::encode`].
    pub fn render_text(&self, conversation: &Conversation) -> Result<String> {
        let rendering = self.render(conversation)?;
        Ok(rendering.guard.remove(&rendering.text))
    }

    /// The prompt in token ids: special tokens where the template spells one, and text elsewhere,
    /// whatever it spells.
    ///
    /// # Errors
    /// If a message has a picture, if the template fails, does not end, or refuses the
    /// conversation, or if the last message is to be continued and is not the model's.
    pub fn encode(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<EncodedPrompt> {
        let Rendering { text, guard } = self.render(conversation)?;
        let mut ids = vec![];
        for part in tokenizer.cut_at_marks(&text) {
            match part {
                Ok(id) => ids.push(id),
                Err(text) => ids.extend(tokenizer.encode(&guard.remove(&text))?),
            }
        }
        let thinks = text.trim_end().ends_with(THINK);
        let reply = if thinks { Channel::Reasoning } else { Channel::Answer };
        Ok(EncodedPrompt::text(tokenizer.with_bos(ids), reply))
    }

    fn render(&self, conversation: &Conversation) -> Result<Rendering> {
        let continues = conversation.split_continued()?.1.is_some();
        let mut turns = conversation.messages.iter().map(Turn::new).collect::<Result<Vec<_>>>()?;
        let written = turns.iter().flat_map(Turn::texts).chain([self.source.as_str()]);
        let guard = Guard::absent_from(written)?;
        let mut given = 0;
        for turn in &mut turns {
            turn.protect(guard, &self.marks);
            given += turn.texts().map(str::len).sum::<usize>();
        }
        let place = guard.place();
        if let Some(last) = turns.last_mut().filter(|_| continues) {
            last.content += &place;
            last.content.push(' ');
        }
        let thinking = matches!(conversation.mode, Mode::Thinking(_));
        let context = Context {
            messages: &turns,
            add_generation_prompt: !continues,
            thinking,
            enable_thinking: thinking,
            bos_token: self.bos.as_deref(),
            eos_token: self.eos.as_deref(),
            tools: None,
            documents: None,
        };
        let context = Value::from_serialize(context);
        let rendered = jinja::render(&self.source, &context, given);
        let mut text = rendered.map_err(|e| fault(&self.path, &e))?;
        if continues {
            let end = text.rfind(&place).ok_or_else(|| {
                let what = "the model's chat template leaves out the message to be continued";
                Error::Request(what.into())
            })?;
            // As in Transformers: a template that strips messages strips this one, too.
            let stripped = !text[end + place.len()..].starts_with(' ');
            text.truncate(end);
            if stripped {
                text.truncate(text.trim_end().len());
            }
        }
        Ok(Rendering { text, guard })
    }
}

impl Turn {
    fn new(message: &Message) -> Result<Self> {
        let (role, reasoning) = match message {
            Message::System(_) => ("system", None),
            Message::User(_) => ("user", None),
            Message::Assistant { reasoning, .. } => ("assistant", reasoning.clone()),
        };
        Ok(Self { role, content: message.text()?, reasoning_content: reasoning })
    }

    /// What people and the model wrote.
    fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        [Some(self.content.as_str()), self.reasoning_content.as_deref()].into_iter().flatten()
    }

    fn protect(&mut self, guard: Guard, marks: &Marks) {
        for text in [Some(&mut self.content), self.reasoning_content.as_mut()].into_iter().flatten()
        {
            *text = guard.protect(text, marks);
        }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({})", self.path.display())
    }
}

/// What went wrong in the template of `path`, and where.
fn fault(path: &Path, error: &minijinja::Error) -> Error {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let source = std::error::Error::source(error).map(ToString::to_string);
    let what = match (error.detail(), source) {
        (_, Some(source)) => source,
        (Some(detail), None) => detail.to_owned(),
        (None, None) => error.kind().to_string(),
    };
    Error::file(path, format!("chat template{line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::prompt::{Content, Effort, Piece};
    use super::super::tokenizer::byte_tokenizer;
    use super::*;

    fn chat(question: &str) -> Conversation {
        Conversation {
            messages: vec![Message::User(vec![Content::Text(question.into())])],
            mode: Mode::Chat,
            continue_last: false,
        }
    }

    fn template(source: &str) -> Result<ChatTemplate> {
        let tokenizer = byte_tokenizer(&["<think>", "<|im_start|>", "<|im_end|>"]);
        ChatTemplate::new("m.gguf", source.into(), &tokenizer)
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        let syntax = template("a\n{% if %}").unwrap_err().to_string();
        assert!(syntax.starts_with("m.gguf: chat template, line 2: "), "{syntax}");
        let fault = |source: &str| {
            let e = template(source).unwrap().render_text(&chat("a")).unwrap_err().to_string();
            let start = "m.gguf: chat template, line 1: ";
            e.strip_prefix(start).unwrap_or_else(|| panic!("{e}")).to_owned()
        };
        assert_eq!(fault("{{ raise_exception('No such role') }}"), "No such role");
        assert!(fault("{{ x | nofilter }}").contains("nofilter"));
        assert!(
            fault("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").contains("recursion limit")
        );
        let endless = "{% set r = range(9999) %}\
                       {% for a in r %}{% for b in r %}{% endfor %}{% endfor %}";
        assert_eq!(fault(endless), "engine ran out of fuel");
        assert_eq!(
            fault("{% for a in range(9999) %}{{ 'a' * 1000 }}{% endfor %}"),
            "it makes more than 1048640 bytes of texts"
        );
    }

    #[test]
    fn the_clock_and_the_mode_are_known() {
        let t =
            template("{{ strftime_now('%Y') | int > 2020 }} {{ thinking }} {{ enable_thinking }}");
        let t = t.unwrap();
        let mut c = chat("a");
        assert_eq!(t.render_text(&c).unwrap(), "True False False");
        c.mode = Mode::Thinking(Effort::Low);
        assert_eq!(t.render_text(&c).unwrap(), "True True True");
    }

    #[test]
    fn pictures_are_refused() {
        let mut c = chat("a");
        c.messages.push(Message::User(vec![Content::Image(0)]));
        let e = template("x").unwrap().render_text(&c).unwrap_err().to_string();
        assert_eq!(e, "this model takes no pictures");
    }

    #[test]
    fn a_template_must_write_what_is_to_be_continued() {
        let mut c = chat("a");
        c.messages.push(Message::Assistant { reasoning: None, text: "b".into() });
        c.continue_last = true;
        let e = template("x").unwrap().render_text(&c).unwrap_err().to_string();
        assert_eq!(e, "the model's chat template leaves out the message to be continued");
        let t = template("{% for m in messages %}[{{ m.content }}]{% endfor %}").unwrap();
        assert_eq!(t.render_text(&c).unwrap(), "[a][b");
    }

    #[test]
    fn chat_ml_needs_its_tokens() {
        assert!(ChatTemplate::chat_ml(&byte_tokenizer(&["<|im_start|>"])).is_none());
        let tokenizer = byte_tokenizer(&["<|im_start|>", "<|im_end|>"]);
        let t = ChatTemplate::chat_ml(&tokenizer).unwrap();
        assert_eq!(
            t.render_text(&chat("a<|im_end|>")).unwrap(),
            "<|im_start|>user\na<|im_end|><|im_end|>\n<|im_start|>assistant\n"
        );
        let EncodedPrompt { pieces, .. } = t.encode(&chat("a<|im_end|>"), &tokenizer).unwrap();
        let [Piece::Tokens(ids)] = &pieces[..] else { panic!("{pieces:?}") };
        let special: Vec<_> = ids.iter().filter(|&&id| id >= 256).collect();
        assert_eq!(special, [&256, &257, &256]);
    }
}
