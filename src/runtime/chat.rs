//! Conversations: pictures and clips in, streamed replies out.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use serde::Serialize;

use super::{Encoded, Engine, Prompt, Sampling, Session};
use crate::media::video::{self, ClipOptions, Estimate};
use crate::media::{self, PlanConfig};
use crate::text::{
    Channel, Content, Conversation, Delta, Frame, Message, Mode, PromptStyle, ThinkSplitter,
    Tokenizer,
};
use crate::{Error, Result};

/// How a reply is made.
#[derive(Clone, Debug)]
pub struct ReplyOptions {
    /// Whether and how hard the model thinks first.
    pub mode: Mode,
    /// Tokens at most, thinking included.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// The limit of tokens or of the context was reached.
    Length,
}

/// A whole reply.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// What the model thought, if it did.
    pub reasoning: String,
    /// What it said.
    pub answer: String,
    /// Why it ended.
    pub finish: Finish,
    /// Positions of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the reply.
    pub reply_tokens: usize,
    /// From the start to the first token.
    #[serde(rename = "first_token_seconds", serialize_with = "seconds")]
    pub first_token: Duration,
    /// From the first token to the last.
    #[serde(rename = "decode_seconds", serialize_with = "seconds")]
    pub decode: Duration,
}

fn seconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64())
}

/// A conversation with a loaded model.
#[derive(Debug)]
pub struct Chat<'e> {
    session: Session<'e>,
    tokenizer: Arc<Tokenizer>,
    style: PromptStyle,
    messages: Vec<Message>,
    pictures: Vec<Arc<Encoded>>,
    pending: Vec<Content>,
}

impl<'e> Chat<'e> {
    /// An empty conversation, with the tokenizer and the prompt style of the engine's [`Model`].
    ///
    /// [`Model`]: super::Model
    pub fn new(engine: &'e mut Engine, tokenizer: Arc<Tokenizer>, style: PromptStyle) -> Self {
        Self {
            session: Session::new(engine),
            tokenizer,
            style,
            messages: vec![],
            pictures: vec![],
            pending: vec![],
        }
    }

    /// Forgets everything said and shown.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.pictures.clear();
        self.pending.clear();
    }

    /// Gives the model an instruction.
    pub fn system(&mut self, text: impl Into<String>) {
        self.messages.push(Message::System(text.into()));
    }

    /// Whether prompts in `mode` end where the model goes on thinking.
    pub fn opens_reasoning(&self, mode: Mode) -> bool {
        let messages = vec![Message::User(vec![Content::Text(String::new())])];
        let conversation = Conversation { messages, mode, continue_last: false };
        let prompt = conversation.encode(&self.style, &self.tokenizer);
        prompt.is_ok_and(|prompt| prompt.reply == Channel::Reasoning)
    }

    fn plan(&mut self) -> Result<PlanConfig> {
        self.session
            .engine()
            .plan_config()
            .ok_or_else(|| Error::Request("this model takes no pictures".into()))
    }

    fn encode(&mut self, picture: &RgbImage, plan: &PlanConfig) -> Result<usize> {
        let patches = media::prepare(picture, plan)?;
        self.pictures.push(self.session.engine().encode(patches)?);
        Ok(self.pictures.len() - 1)
    }

    /// Adds a picture to the next question.
    ///
    /// # Errors
    /// If the model takes none or the device fails.
    pub fn picture(&mut self, picture: &RgbImage) -> Result<()> {
        let plan = self.plan()?;
        let number = self.encode(picture, &plan)?;
        self.pending.push(Content::Image(number));
        Ok(())
    }

    /// Adds frames, each with its time in seconds, as one clip to the next question.
    ///
    /// # Errors
    /// If the model takes no pictures or the device fails.
    pub fn frames<'f>(
        &mut self,
        frames: impl IntoIterator<Item = (f64, &'f RgbImage)>,
    ) -> Result<()> {
        let plan = self.plan()?;
        let mut shown = vec![];
        for (seconds, picture) in frames {
            shown.push(Frame { seconds, image: self.encode(picture, &plan)? });
        }
        self.pending.push(Content::Clip(shown));
        Ok(())
    }

    /// Adds the clip at `path` to the next question: its frames are read, resized and encoded one
    /// after the other. `told` gets the clip's cost before the first is read, `progress` the frames
    /// done and in all.
    ///
    /// # Errors
    /// If it is no readable clip, the model takes no pictures, its tokens are more than the
    /// context has, or the device fails.
    pub fn clip(
        &mut self,
        path: &Path,
        options: &ClipOptions,
        told: &mut dyn FnMut(&video::ClipInfo, &Estimate),
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let plan = options.plan_config(&self.plan()?);
        let mut clip = video::open(path, options)?;
        let estimate = video::estimate(clip.info(), &plan)?;
        told(clip.info(), &estimate);
        let context = self.session.engine().context;
        if estimate.tokens > context {
            return Err(Error::media(
                path,
                format!(
                    "its {} frames take about {} tokens, the context has {context}; sample fewer \
                     (--fps, --max-frames) or make each smaller (--frame-tokens)",
                    estimate.frames, estimate.tokens
                ),
            ));
        }
        let mut shown = vec![];
        while let Some(frame) = clip.next_frame()? {
            let image = self.encode(&frame.image, &plan)?;
            shown.push(Frame { seconds: frame.time_s, image });
            progress(shown.len(), estimate.frames);
        }
        self.pending.push(Content::Clip(shown));
        Ok(())
    }

    /// Asks `question` about what was added, and hands the reply on bit by bit. `progress` is told
    /// positions of the prompt done and in all.
    ///
    /// # Errors
    /// If the conversation is longer than the context, the device fails, or `sink` says so. The
    /// conversation is then as it was before, what was added to the question included.
    pub fn ask(
        &mut self,
        question: &str,
        options: &ReplyOptions,
        progress: &mut dyn FnMut(usize, usize),
        sink: &mut dyn FnMut(&Delta) -> Result<()>,
    ) -> Result<Reply> {
        let mut content = self.pending.clone();
        if !question.is_empty() {
            content.push(Content::Text(question.into()));
        }
        self.messages.push(Message::User(content));
        let reply = self.reply(options, progress, sink);
        match &reply {
            Ok(r) => {
                self.pending.clear();
                let reasoning = (!r.reasoning.is_empty()).then(|| r.reasoning.clone());
                self.messages.push(Message::Assistant { reasoning, text: r.answer.clone() });
            }
            Err(_) => drop(self.messages.pop()),
        }
        reply
    }

    /// Whether the model has nothing more to say after `token`.
    fn is_end(&mut self, token: u32) -> bool {
        self.tokenizer.bounds().ends.contains(&token)
            || self.session.engine().config.eos().contains(&token)
    }

    fn reply(
        &mut self,
        options: &ReplyOptions,
        progress: &mut dyn FnMut(usize, usize),
        sink: &mut dyn FnMut(&Delta) -> Result<()>,
    ) -> Result<Reply> {
        let start = Instant::now();
        let conversation = Conversation {
            messages: self.messages.clone(),
            mode: options.mode,
            continue_last: false,
        };
        let encoded = conversation.encode(&self.style, &self.tokenizer)?;
        let prompt = Prompt::new(&encoded.pieces, self.pictures.clone());
        let mut splitter = ThinkSplitter::new(Arc::clone(&self.tokenizer), encoded.reply);
        let prompt_tokens = prompt.len();
        let mut reply = Reply {
            reasoning: String::new(),
            answer: String::new(),
            finish: Finish::Length,
            prompt_tokens,
            reply_tokens: 0,
            first_token: Duration::ZERO,
            decode: Duration::ZERO,
        };
        let mut hand_on = |reply: &mut Reply, deltas: Vec<Delta>| -> Result<()> {
            for delta in deltas {
                match delta.channel {
                    Channel::Reasoning => reply.reasoning += &delta.text,
                    Channel::Answer => reply.answer += &delta.text,
                }
                sink(&delta)?;
            }
            Ok(())
        };

        let sampling = &options.sampling;
        let mut token = self.session.feed(prompt, sampling, progress)?;
        reply.first_token = start.elapsed();
        let decode = Instant::now();
        while reply.reply_tokens < options.max_tokens {
            reply.reply_tokens += 1;
            if self.is_end(token) {
                reply.finish = Finish::Stop;
                break;
            }
            hand_on(&mut reply, splitter.push(token))?;
            if reply.reply_tokens == options.max_tokens || self.session.is_full() {
                break;
            }
            token = self.session.next(token, sampling)?;
        }
        hand_on(&mut reply, splitter.finish())?;
        reply.decode = decode.elapsed();
        Ok(reply)
    }
}
