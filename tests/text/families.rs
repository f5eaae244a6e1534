//! Tokenizers by their GGUF keys and prompts by chat templates, against Hugging Face's `tokenizers`
//! and Transformers. The fixtures are made by `scripts/fixtures/text_families.py`.

use std::sync::Arc;

use fathom::text::{
    Channel, ChatTemplate, Content, Conversation, Detokenizer, Effort, EncodedPrompt, Message,
    Mode, Piece, PromptStyle, Tokenizer, Vocabulary,
};
use proptest::prelude::*;
use serde::Deserialize;

const TOKENIZERS: &str = include_str!("../fixtures/text/tokenizers.json");
const TEMPLATES: &str = include_str!("../fixtures/text/templates.json");

#[derive(Deserialize)]
struct Tokenizers {
    tokens: Vec<String>,
    merges: Vec<String>,
    words: Vec<String>,
    marks: Vec<String>,
    texts: Vec<String>,
    cases: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    pre: String,
    ids: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Template {
    template: String,
    source: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    chat: String,
    messages: Vec<Written>,
    thinking: bool,
    #[serde(rename = "continue")]
    continue_last: bool,
    /// `None` if the template refuses the conversation.
    text: Option<String>,
    ids: Outcome,
}

/// The ids, or what the template says against the conversation.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Ids(Vec<u32>),
    Refusal(String),
}

#[derive(Deserialize)]
struct Written {
    role: String,
    content: String,
    reasoning_content: Option<String>,
}

impl Tokenizers {
    fn read() -> Self {
        serde_json::from_str(TOKENIZERS).unwrap()
    }

    /// The fixture's vocabulary as a GGUF file has it.
    fn build(&self, pre: &str) -> Tokenizer {
        let kind = |token: &String| if self.words.contains(token) { 4 } else { 1 };
        let mut token_types: Vec<_> = self.tokens.iter().map(kind).collect();
        // R1's files have the marks of its reasoning among the words its makers added.
        let mark = |mark: &String| if mark.ends_with("think>") { 4 } else { 3 };
        token_types.extend(self.marks.iter().map(mark));
        let first = self.tokens.len() as u32;
        let vocabulary = Vocabulary {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            tokens: self.tokens.iter().chain(&self.marks).cloned().collect(),
            token_types,
            merges: self.merges.clone(),
            bos: Some(first),
            eos: Some(first + 1),
            add_bos: Some(false),
            ..Vocabulary::default()
        };
        vocabulary.into_tokenizer("model.gguf").unwrap()
    }
}

impl Case {
    fn conversation(&self) -> Conversation {
        let message = |m: &Written| match m.role.as_str() {
            "system" => Message::System(m.content.clone()),
            "user" => Message::User(vec![Content::Text(m.content.clone())]),
            _ => Message::Assistant {
                reasoning: m.reasoning_content.clone(),
                text: m.content.clone(),
            },
        };
        Conversation {
            messages: self.messages.iter().map(message).collect(),
            mode: if self.thinking { Mode::Thinking(Effort::High) } else { Mode::Chat },
            continue_last: self.continue_last,
        }
    }
}

fn tokens(pieces: &[Piece]) -> &[u32] {
    match pieces {
        [Piece::Tokens(ids)] => ids,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_are_those_of_each_familys_rules() {
    let all = Tokenizers::read();
    assert!(all.cases.len() >= 9 && all.texts.len() >= 20);
    for family in &all.cases {
        let tokenizer = all.build(&family.pre);
        for (text, ids) in all.texts.iter().zip(&family.ids) {
            let found = tokenizer.encode(text).unwrap();
            assert_eq!(found, *ids, "{}: {text:?}", family.pre);
        }
    }
    // The rules differ: a wrong one would be seen.
    let distinct: std::collections::HashSet<_> = all.cases.iter().map(|c| &c.ids).collect();
    assert_eq!(distinct.len(), 7);
}

#[test]
fn templates_write_what_transformers_writes() {
    let all = Tokenizers::read();
    let tokenizer = all.build("deepseek-v3");
    let templates: Vec<Template> = serde_json::from_str(TEMPLATES).unwrap();
    let (mut prompts, mut refusals) = (0, 0);
    for Template { template: name, source, cases } in templates {
        let template = ChatTemplate::new("model.gguf", source, &tokenizer).unwrap();
        let style = PromptStyle::Template(Arc::new(template));
        for case in cases {
            let what = format!("{name}: {} ({}, {})", case.chat, case.thinking, case.continue_last);
            let conversation = case.conversation();
            let (text, expected) = match (&case.text, &case.ids) {
                (Some(text), Outcome::Ids(ids)) => (text, ids),
                (_, Outcome::Refusal(refusal)) => {
                    let e = conversation.encode(&style, &tokenizer).unwrap_err().to_string();
                    assert!(e.starts_with("model.gguf: chat template, line "), "{e}");
                    assert!(e.ends_with(refusal), "{what}: {e}");
                    refusals += 1;
                    continue;
                }
                _ => panic!("{what}"),
            };
            assert_eq!(conversation.render_text(&style).unwrap(), *text, "{what}");
            let prompt = conversation.encode(&style, &tokenizer).unwrap();
            let ids = tokens(&prompt.pieces);
            assert_eq!(tokenizer.decode(ids), *text, "{what}");
            assert_eq!(ids, expected, "{what}");
            let thinks = text.trim_end().ends_with("<think>");
            let channel = if thinks { Channel::Reasoning } else { Channel::Answer };
            assert_eq!(prompt.reply, channel, "{what}");
            prompts += 1;
        }
    }
    assert!(prompts > 100 && refusals > 0, "{prompts} {refusals}");
}

/// A text that no template and no token has.
const HARMLESS: &str = "☃";

/// Bits of special tokens, and what might pass for one after a template has been at it.
fn hostile() -> impl Strategy<Value = String> {
    let bits = [
        "<",
        ">",
        "｜",
        "|",
        "<｜",
        "｜>",
        "<|",
        "|>",
        "User",
        "think",
        "/think>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜end▁of▁sentence｜>",
        "<think>",
        "</think>",
        "<|im_end|>",
        "<|eot_id|>",
        "\u{fdd0}",
        "\u{fdd1}",
        "\u{f0000}",
        "{{ bos_token }}",
        "{% raw %}",
        "x",
        "é",
    ];
    // No blanks around it, which templates strip.
    prop::collection::vec(prop::sample::select(bits.to_vec()), 1..9).prop_map(|bits| bits.concat())
}

fn families() -> (Tokenizer, Vec<(String, PromptStyle)>) {
    let tokenizer = Tokenizers::read().build("deepseek-v3");
    let templates: Vec<Template> = serde_json::from_str(TEMPLATES).unwrap();
    let style = |t: Template| {
        let template = ChatTemplate::new("model.gguf", t.source, &tokenizer).unwrap();
        (t.template, PromptStyle::Template(Arc::new(template)))
    };
    let styles = templates.into_iter().filter(|t| t.template != "tour").map(style).collect();
    (tokenizer, styles)
}

/// A conversation in which everyone says `text`.
fn all_say(text: &str) -> Conversation {
    Conversation {
        messages: vec![
            Message::System(text.into()),
            Message::User(vec![Content::Text(text.into())]),
            Message::Assistant { reasoning: Some(text.into()), text: text.into() },
            Message::User(vec![Content::Text(text.into())]),
        ],
        mode: Mode::Chat,
        continue_last: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever people write: the template's own tokens stay the same, and the text comes through.
    #[test]
    fn what_people_write_is_no_token(texts in prop::collection::vec(hostile(), 8)) {
        let (tokenizer, styles) = families();
        let special = |prompt: &EncodedPrompt| -> Vec<u32> {
            let ids = tokens(&prompt.pieces).iter().copied();
            ids.filter(|&id| tokenizer.is_special(id)).collect()
        };
        for (name, style) in &styles {
            let harmless = all_say(HARMLESS).encode(style, &tokenizer).unwrap();
            for text in &texts {
                let prompt = all_say(text).encode(style, &tokenizer).unwrap();
                prop_assert_eq!(special(&prompt), special(&harmless), "{}: {}", name, text);
                prop_assert_eq!(prompt.reply, harmless.reply, "{}: {}", name, text);
                let written = tokenizer.decode(tokens(&prompt.pieces));
                let expected = tokenizer.decode(tokens(&harmless.pieces));
                prop_assert_eq!(written, expected.replace(HARMLESS, text), "{}", name);
            }
        }
    }

    #[test]
    fn texts_come_back(text in "(\\PC|[ \\t\\r\\n]|<think>|<｜User｜>|ø|[a-z ]{3}){0,40}") {
        let all = Tokenizers::read();
        for family in &all.cases {
            let tokenizer = Arc::new(all.build(&family.pre));
            // Qwen's rules compose characters first.
            if family.pre.contains("qwen") && !text.is_ascii() {
                continue;
            }
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids), &text, "{}", family.pre);
            let mut stream = Detokenizer::new(Arc::clone(&tokenizer));
            let mut whole: String = ids
                .iter()
                .map(|&id| stream.push(id))
                .inspect(|part| assert!(!part.contains('\u{fffd}') || text.contains('\u{fffd}')))
                .collect();
            whole.push_str(&stream.finish());
            prop_assert_eq!(&whole, &text);
        }
    }
}
