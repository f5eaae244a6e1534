//! What the files next to `tokenizer.json` say.

use std::path::Path;

use fathom::text::{Bounds, Content, Conversation, Message, Mode, PromptStyle, TextFolder};
use serde_json::{Value, json};
use tempfile::TempDir;

const BOS: &str = "<｜begin▁of▁sentence｜>";

/// A folder with minnow's tokenizer.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let minnows = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/minnow/tokenizer.json");
    std::fs::copy(minnows, folder.path().join("tokenizer.json")).unwrap();
    folder
}

fn write(folder: &TempDir, name: &str, value: &Value) {
    std::fs::write(folder.path().join(name), value.to_string()).unwrap();
}

/// What the folder's template makes of a question, or its fault; nothing if it has no template.
fn rendered(folder: &TempDir) -> Result<Option<String>, String> {
    let texts = TextFolder::new(folder.path());
    let tokenizer = texts.tokenizer().unwrap();
    let Some(template) = texts.template(&tokenizer).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let conversation = Conversation {
        messages: vec![Message::User(vec![Content::Text("q".into())])],
        mode: Mode::Chat,
        continue_last: false,
    };
    Ok(Some(conversation.render_text(&PromptStyle::Template(template.into())).unwrap()))
}

#[test]
fn templates_are_found_where_they_may_be() {
    let f = folder();
    assert_eq!(rendered(&f), Ok(None));
    write(&f, "tokenizer_config.json", &json!({"chat_template": "one {{ messages[0].content }}"}));
    assert_eq!(rendered(&f), Ok(Some("one q".into())));
    let named =
        |name: &str| json!([{"name": "rag", "template": "r"}, {"name": name, "template": "d"}]);
    write(&f, "tokenizer_config.json", &json!({"chat_template": named("default")}));
    assert_eq!(rendered(&f), Ok(Some("d".into())));
    write(&f, "tokenizer_config.json", &json!({"chat_template": named("tools")}));
    let e = rendered(&f).unwrap_err();
    let what = "tokenizer_config.json: `chat_template` has no template named \"default\"";
    assert!(e.ends_with(what), "{e}");
    std::fs::write(f.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(rendered(&f), Ok(Some("file".into())));
}

#[test]
fn bounds_come_from_the_configs() {
    let f = folder();
    let texts = TextFolder::new(f.path());
    let plain = texts.tokenizer().unwrap();
    let id = |spelling: &str| plain.special(spelling).unwrap();
    let (bos, eos) = (id(BOS), id("<｜end▁of▁sentence｜>"));
    let bounds = |add_bos, eos_token, ends: &[u32]| {
        let mut ends: Vec<_> = ends.iter().copied().chain([eos]).collect();
        ends.sort_unstable();
        Bounds { bos: Some(bos), add_bos, eos: eos_token, ends }
    };
    assert_eq!(*plain.bounds(), bounds(true, None, &[]));

    let config = json!({"bos_token": {"content": BOS}, "eos_token": "<think>"});
    write(&f, "tokenizer_config.json", &config);
    write(&f, "generation_config.json", &json!({"eos_token_id": 9}));
    let think = id("<think>");
    // minnow's file puts nothing before a text by itself.
    assert_eq!(*texts.tokenizer().unwrap().bounds(), bounds(false, Some(think), &[think, 9]));
    let config = json!({"bos_token": BOS, "add_bos_token": true});
    write(&f, "tokenizer_config.json", &config);
    write(&f, "generation_config.json", &json!({"eos_token_id": [9, 8]}));
    assert_eq!(*texts.tokenizer().unwrap().bounds(), bounds(true, None, &[9, 8]));
}

#[test]
fn faults_name_the_file() {
    let f = folder();
    let fault = || TextFolder::new(f.path()).tokenizer().unwrap_err().to_string();
    write(&f, "tokenizer_config.json", &json!({"bos_token": "<s>"}));
    assert!(fault().ends_with("tokenizer.json: has no special token `<s>`"), "{}", fault());
    write(&f, "tokenizer_config.json", &json!({"bos_token": 3}));
    assert!(fault().contains("tokenizer_config.json: "), "{}", fault());
    std::fs::remove_file(f.path().join("tokenizer_config.json")).unwrap();
    write(&f, "generation_config.json", &json!([]));
    assert!(fault().contains("generation_config.json: "), "{}", fault());
}
