//! The vocabulary of a GGUF file, and a text and its ids with the tokenizer made of it.
#![no_main]

use fathom_fuzz::text::Vocabulary;
use fathom_fuzz::{bytes, one_line};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Rules for cutting texts, some unknown.
const RULES: [&str; 7] =
    ["gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-v3", "smollm", "other"];

#[derive(Arbitrary, Debug)]
struct Input {
    /// Whether every byte has a token, as in all vocabularies that are of use.
    whole: bool,
    rules: u8,
    tokens: Vec<String>,
    types: Option<Vec<i32>>,
    merges: Vec<String>,
    ids: [Option<u16>; 4],
    add_bos: Option<bool>,
    text: String,
}

fuzz_target!(|input: Input| {
    let mut vocabulary = if input.whole { bytes() } else { Vocabulary::default() };
    vocabulary.model = "gpt2".into();
    vocabulary.pre = Some(RULES[input.rules as usize % RULES.len()].into());
    if let Some(types) = input.types {
        vocabulary.token_types = vec![1; vocabulary.tokens.len()];
        vocabulary.token_types.extend(types);
    }
    vocabulary.tokens.extend(input.tokens);
    vocabulary.merges = input.merges;
    [vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.eom] =
        input.ids.map(|id| id.map(u32::from));
    vocabulary.add_bos = input.add_bos;
    match vocabulary.into_tokenizer("f.gguf") {
        Ok(tokenizer) => {
            if let Ok(ids) = tokenizer.encode(&input.text) {
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                tokenizer.decode(&tokenizer.with_bos(ids));
            }
            let _ = (tokenizer.token_bytes(u32::MAX), tokenizer.special("<think>"));
        }
        Err(error) => one_line(&error),
    }
});
