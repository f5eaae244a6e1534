//! A chat template, and a conversation written by it.
#![no_main]

use std::sync::LazyLock;

use fathom_fuzz::text::prompt::{Content, Conversation, Message, Mode};
use fathom_fuzz::text::{ChatTemplate, Tokenizer};
use fathom_fuzz::{bytes, one_line};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut vocabulary = bytes();
    vocabulary.token_types = vec![1; vocabulary.tokens.len()];
    for mark in ["<think>", "</think>", "<|im_start|>", "<|im_end|>"] {
        vocabulary.tokens.push(mark.into());
        vocabulary.token_types.push(3);
    }
    vocabulary.bos = Some(258);
    vocabulary.into_tokenizer("vocabulary").expect("a vocabulary of bytes and marks")
});

static CONVERSATION: LazyLock<Conversation> = LazyLock::new(|| Conversation {
    messages: vec![
        Message::System("Be brief.".into()),
        Message::User(vec![Content::Text("What is <|im_start|>?".into())]),
        Message::Assistant { reasoning: Some("Hm.".into()), text: "A token.".into() },
        Message::User(vec![Content::Text("{{ Thanks }}".into())]),
    ],
    mode: Mode::Chat,
    continue_last: false,
});

fuzz_target!(|source: &str| {
    let template = match ChatTemplate::new("template", source.into(), &TOKENIZER) {
        Ok(template) => template,
        Err(error) => return one_line(&error),
    };
    if let Err(error) = template.render_text(&CONVERSATION) {
        one_line(&error);
    }
    if let Err(error) = template.encode(&CONVERSATION, &TOKENIZER) {
        one_line(&error);
    }
});
