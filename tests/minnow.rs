//! The built-in model through the public interface, on the GPU and on the CPU: answers, verification,
//! conversations and sampling. Only what the model is sure of is asked by its right answer; all else
//! is compared.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fathom::formats::Weights;
use fathom::media::video::ClipOptions;
use fathom::media::{self, picture};
use fathom::models::ModelWeights;
use fathom::runtime::verify::verify;
use fathom::runtime::{
    Backend, Chat, Engine, EngineOptions, Finish, Model, Prompt, PromptRow, ReplyOptions, Sampling,
    Session,
};
use fathom::text::{Content, Conversation, Effort, Message, Mode, Piece, PromptStyle, Tokenizer};
use image::{Rgb, RgbImage};

struct Minnow {
    model: Model,
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    style: PromptStyle,
}

impl Minnow {
    fn on(backend: Backend) -> Self {
        let model = Model::builtin().unwrap();
        let options = EngineOptions { backend, ..EngineOptions::default() };
        let engine = Engine::load(&model.checkpoint, &options, &mut |_, _, _| {}).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let style = model.prompt_style(&tokenizer).unwrap();
        Self { model, engine, tokenizer, style }
    }

    /// An empty conversation.
    fn chat(&mut self) -> Chat<'_> {
        Chat::new(&mut self.engine, Arc::clone(&self.tokenizer), self.style.clone())
    }
}

/// The CPU reference, and the GPU if there is one.
fn backends() -> Vec<Backend> {
    let gpu = common::gpu().map(|_| Backend::Gpu);
    [Some(Backend::Cpu), gpu].into_iter().flatten().collect()
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn scene() -> RgbImage {
    picture::read(sample("scene.png")).unwrap()
}

/// Always the likeliest token, without thinking.
fn greedy() -> ReplyOptions {
    ReplyOptions { mode: Mode::Chat, max_tokens: 64, sampling: Sampling::default() }
}

fn ask(chat: &mut Chat<'_>, question: &str) -> String {
    chat.ask(question, &greedy(), &mut |_, _| {}, &mut |_| Ok(())).unwrap().answer
}

/// What every backend answers, which must be one and the same.
fn agreed(mut ask: impl FnMut(&mut Chat<'_>) -> String) -> String {
    let mut answers: Vec<String> = vec![];
    for backend in backends() {
        let mut minnow = Minnow::on(backend);
        answers.push(ask(&mut minnow.chat()));
        // Once more in the engine as it is now.
        assert_eq!(ask(&mut minnow.chat()), answers[0], "{backend:?}, again");
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "GPU and CPU differ: {answers:?}");
    answers.swap_remove(0)
}

#[test]
fn it_sees_a_colour() {
    let answer = agreed(|chat| {
        chat.picture(&scene()).unwrap();
        ask(chat, "what color is the circle?")
    });
    assert_eq!(answer.trim(), "red");
}

#[test]
fn it_watches_a_clip() {
    let answer = agreed(|chat| {
        let path = sample("clip.gif");
        chat.clip(&path, &ClipOptions::default(), &mut |_, _| {}, &mut |_, _| {}).unwrap();
        ask(chat, "which direction does the shape move?")
    });
    assert!(!answer.is_empty());
}

#[test]
fn it_copies() {
    assert_eq!(agreed(|chat| ask(chat, "repeat: red circle")).trim(), "red circle");
}

#[test]
fn it_adds_and_thinks_first() {
    let answer = agreed(|chat| {
        let options = ReplyOptions { mode: Mode::Thinking(Effort::Low), ..greedy() };
        let mut said = String::new();
        let reply = chat.ask("what is 2 + 3?", &options, &mut |_, _| {}, &mut |delta| {
            said += &delta.text;
            Ok(())
        });
        let reply = reply.unwrap();
        assert_eq!(reply.finish, Finish::Stop);
        assert!(!reply.reasoning.is_empty());
        assert_eq!(said, format!("{}{}", reply.reasoning, reply.answer));
        reply.answer
    });
    assert_eq!(answer.trim(), "5");
}

/// As `fathom verify` does it, with fewer tokens.
#[test]
fn every_op_agrees_with_its_reference() {
    if common::gpu().is_none() {
        return;
    }
    let Minnow { model, mut engine, .. } = Minnow::on(Backend::Gpu);
    let plan = engine.plan_config().unwrap();
    let pattern = |x: u32, y: u32| Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]);
    let patches = media::prepare(&RgbImage::from_fn(150, 100, pattern), &plan).unwrap();
    let encoded = engine.encode(patches.clone()).unwrap();
    let mut prompt = Prompt::new(&[Piece::Image(0)], vec![encoded]);
    let vocab = engine.config.vocab() as u32;
    prompt.rows.extend((0..150).map(|i| PromptRow::Token(i * 37 % vocab)));

    let mut weights = ModelWeights::new(Weights::new(&model.checkpoint));
    engine.declare(&mut weights).unwrap();
    let mut seen = (0, 0);
    let ops = verify(&mut engine, &weights, &prompt, Some(patches), &mut |done, all| {
        seen = (done, all);
    });
    let ops = ops.unwrap();
    assert_eq!(seen.0, seen.1);
    for op in &ops {
        assert!(op.passed, "{} differs by {:.2e} at {}", op.op, op.worst, op.at);
    }
    for name in ["attention", "compress", "route", "topk", "vit_attention", "sample"] {
        assert!(ops.iter().any(|op| op.op == name && op.runs > 0), "{name} did not run");
    }
}

/// The greedy reply to a whole conversation in an engine that has seen nothing before.
fn afresh(backend: Backend, messages: Vec<Message>, pictures: &[RgbImage]) -> String {
    let Minnow { mut engine, tokenizer, style, .. } = Minnow::on(backend);
    let plan = engine.plan_config().unwrap();
    let encode = |p: &RgbImage| engine.encode(media::prepare(p, &plan).unwrap()).unwrap();
    let pictures = pictures.iter().map(encode).collect();
    let conversation = Conversation { messages, mode: Mode::Chat, continue_last: false };
    let prompt = Prompt::new(&conversation.encode(&style, &tokenizer).unwrap().pieces, pictures);
    let eos = engine.config.eos().to_vec();
    let mut session = Session::new(&mut engine);
    let mut token = session.feed(prompt, &Sampling::default(), &mut |_, _| {}).unwrap();
    let mut reply = vec![];
    while !eos.contains(&token) && reply.len() < greedy().max_tokens {
        reply.push(token);
        token = session.next(token, &Sampling::default()).unwrap();
    }
    tokenizer.decode(&reply)
}

fn user(pictures: &[usize], text: &str) -> Message {
    let pictures = pictures.iter().map(|&i| Content::Image(i));
    Message::User(pictures.chain([Content::Text(text.into())]).collect())
}

/// A conversation goes on from what the state holds, and says what it would say from the start.
#[test]
fn a_conversation_goes_on_where_it_was() {
    const QUESTIONS: [&str; 3] =
        ["what color is the circle?", "how many shapes are there?", "repeat: small blue square"];
    for backend in backends() {
        let mut minnow = Minnow::on(backend);
        let mut chat = minnow.chat();
        chat.picture(&scene()).unwrap();
        let mut messages = vec![];
        for (i, question) in QUESTIONS.into_iter().enumerate() {
            let shown: &[usize] = if i == 0 { &[0] } else { &[] };
            messages.push(user(shown, question));
            let answer = ask(&mut chat, question);
            assert_eq!(answer, afresh(backend, messages.clone(), &[scene()]), "{backend:?} {i}");
            messages.push(Message::Assistant { reasoning: None, text: answer });
        }
    }
}

/// After `clear`, with or without what was there before, answers are those of a new conversation.
#[test]
fn a_conversation_is_taken_back() {
    for backend in backends() {
        let mut minnow = Minnow::on(backend);
        let mut chat = minnow.chat();
        let mirrored = image::imageops::flip_horizontal(&scene());
        let mut both = |first: &str, picture: &RgbImage, second: &str| {
            chat.clear();
            chat.picture(picture).unwrap();
            let answer = ask(&mut chat, first);
            let mut messages = vec![user(&[0], first)];
            assert_eq!(answer, afresh(backend, messages.clone(), std::slice::from_ref(picture)));
            messages.push(Message::Assistant { reasoning: None, text: answer });
            messages.push(user(&[], second));
            assert_eq!(
                ask(&mut chat, second),
                afresh(backend, messages, std::slice::from_ref(picture))
            );
        };
        both("what color is the circle?", &scene(), "how many shapes are there?");
        // The same beginning, another second question.
        both("what color is the circle?", &scene(), "is there a square?");
        // Another picture in the same place.
        both("what color is the circle?", &mirrored, "how many shapes are there?");
        chat.clear();
        assert_eq!(ask(&mut chat, "repeat: red circle").trim(), "red circle");
    }
}

/// A question that fails leaves the conversation, and what was added to it, as it was.
#[test]
fn a_question_that_fails_is_forgotten() {
    for backend in backends() {
        let mut minnow = Minnow::on(backend);
        let mut chat = minnow.chat();
        chat.picture(&scene()).unwrap();
        let long = "what color is the circle? ".repeat(2000);
        let error = chat.ask(&long, &greedy(), &mut |_, _| {}, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("the prompt has"), "{error}");
        let stop = || fathom::Error::Request("enough".into());
        let stopped =
            chat.ask("describe the image", &greedy(), &mut |_, _| {}, &mut |_| Err(stop()));
        assert_eq!(stopped.unwrap_err().to_string(), "enough");
        let answer = ask(&mut chat, "what color is the circle?");
        assert_eq!(
            answer,
            afresh(backend, vec![user(&[0], "what color is the circle?")], &[scene()])
        );
    }
}

#[test]
fn a_seed_tells_the_text() {
    for backend in backends() {
        let mut minnow = Minnow::on(backend);
        let mut say = |seed: u64| {
            // Hot enough that the model, sure of what it sees, still wavers.
            let sampling = Sampling { temperature: 6.0, seed, ..Sampling::default() };
            let options = ReplyOptions { sampling, max_tokens: 24, ..greedy() };
            let mut chat = minnow.chat();
            chat.picture(&scene()).unwrap();
            chat.ask("describe the image", &options, &mut |_, _| {}, &mut |_| Ok(()))
                .unwrap()
                .answer
        };
        let texts: Vec<String> = (0..8).map(&mut say).collect();
        assert_eq!(texts[3], say(3), "{backend:?}");
        assert!(texts.iter().any(|t| *t != texts[0]), "{backend:?}: {texts:?}");
        // The other half of a seed counts as well.
        let high: Vec<String> = (0..8).map(|seed| say(seed << 32 | 3)).collect();
        assert!(high.iter().any(|t| *t != high[0]), "{backend:?}: {high:?}");
    }
}
