//! One sequence in an engine.

use std::ops::Range;

use super::engine::Want;
use super::{Engine, Prompt, PromptRow, Sampling};
use crate::graph::reference::Data;
use crate::{Error, Result};

/// A sequence that is being read and written.
#[derive(Debug)]
pub struct Session<'e> {
    engine: &'e mut Engine,
    /// What the state has been fed with.
    fed: Prompt,
    /// One past the last position that was ever written in the rings since they began anew.
    high: usize,
}

impl<'e> Session<'e> {
    /// An empty sequence. The engine has one slot, so it forgets what went before.
    pub fn new(engine: &'e mut Engine) -> Self {
        Self { engine, fed: Prompt::default(), high: 0 }
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        self.engine
    }

    /// Positions fed so far.
    pub fn len(&self) -> usize {
        self.fed.len()
    }

    /// Whether nothing has been fed.
    pub fn is_empty(&self) -> bool {
        self.fed.is_empty()
    }

    /// Whether the context has no room for another token.
    pub fn is_full(&self) -> bool {
        self.fed.len() >= self.engine.context
    }

    /// Feeds a prompt that begins at position 0, and samples the token after it. What it has in
    /// common with what was fed before is not computed again where the state still holds it.
    /// `progress` is told positions done and positions in all.
    ///
    /// # Errors
    /// If the prompt is empty, longer than the context or has a token that the model has not, or
    /// the device fails.
    pub fn feed(
        &mut self,
        prompt: Prompt,
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<u32> {
        self.engine.check(&prompt)?;
        let mut start = self.resume(&prompt);
        self.fed = prompt;
        let len = self.fed.len();
        let chunk = self.engine.chunk;
        let mut token = None;
        while start < len {
            let end = self.fed.chunk_end(start, chunk);
            let outs = if end == len { len - 1..len } else { end..end };
            let want = if end == len { Want::Tokens } else { Want::Nothing };
            token = self.step(start..end, outs, sampling, want)?;
            progress(end, len);
            start = end;
        }
        first_token(token)
    }

    /// Takes the state as it is for what `prompt` would leave: to measure what comes after.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn presume(&mut self, prompt: Prompt) -> Result<()> {
        self.engine.check(&prompt)?;
        self.high = prompt.len();
        self.fed = prompt;
        Ok(())
    }

    /// Appends a token and samples the one after it.
    ///
    /// # Errors
    /// If the context is full or the device fails.
    pub fn next(&mut self, token: u32, sampling: &Sampling) -> Result<u32> {
        let at = self.fed.len();
        if self.is_full() {
            return Err(Error::Request(format!("the context of {at} tokens is full")));
        }
        self.fed.rows.push(PromptRow::Token(token));
        let token = self.step(at..at + 1, at..at + 1, sampling, Want::Tokens)?;
        first_token(token)
    }

    /// Feeds a prompt from position 0 in chunks of up to `chunk` rows (never parting an image
    /// span) and hands the logits of every position to `sink`, `[rows, vocab]` at a time.
    ///
    /// # Errors
    /// As [`Session::feed`], and whatever `sink` says.
    pub fn logits(
        &mut self,
        prompt: Prompt,
        chunk: usize,
        sink: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        self.engine.check(&prompt)?;
        self.fed = prompt;
        self.high = 0;
        let chunk = chunk.clamp(1, self.engine.chunk);
        let most = self.engine.max_outs();
        let mut start = 0;
        while start < self.fed.len() {
            let end = self.fed.chunk_end(start, chunk);
            // A step has room for so many rows of logits. Running it again for the next ones writes
            // the same state again.
            for first in (start..end).step_by(most) {
                let outs = first..(first + most).min(end);
                let logits = self.step(start..end, outs, &Sampling::default(), Want::Logits)?;
                if let Some(Data::F32(logits)) = logits {
                    sink(&logits)?;
                }
            }
            start = end;
        }
        Ok(())
    }

    fn step(
        &mut self,
        range: Range<usize>,
        outs: Range<usize>,
        sampling: &Sampling,
        want: Want,
    ) -> Result<Option<Data>> {
        self.high = self.high.max(range.end);
        let done = self.engine.step(&self.fed, range, outs, sampling, want);
        if done.is_err() {
            self.forget();
        }
        done
    }

    /// Begins anew, since the state does not hold what it was to be fed with.
    fn forget(&mut self) {
        self.fed = Prompt::default();
        self.high = 0;
    }

    /// Where computing must begin so that `prompt` continues what was fed.
    ///
    /// A model without a window keeps every position, so it can go back anywhere. Otherwise rings
    /// hold the last `window + chunk` positions: going back less than a chunk finds all that a row
    /// looks at still there. What lies beyond, compressed entries too, is rewritten before it becomes
    /// visible again. The last position is always computed, for its logits.
    fn resume(&mut self, prompt: &Prompt) -> usize {
        let common = self.fed.common_prefix(prompt).min(prompt.len() - 1);
        let start = match prompt.spans.iter().find(|s| s.start < common && common < s.end) {
            Some(span) => span.start,
            None => common,
        };
        if self.engine.config.window().is_none() || self.high - start < self.engine.chunk {
            return start;
        }
        self.high = 0;
        0
    }
}

fn first_token(data: Option<Data>) -> Result<u32> {
    match data.as_ref().and_then(Data::u32).and_then(|t| t.first()) {
        Some(&token) => Ok(token),
        None => Err(Error::Gpu("the device gave no token".into())),
    }
}
