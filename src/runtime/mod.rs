//! Running a model: an [`Engine`] holds its graphs on one device; a [`Session`] is one sequence in
//! it, fed prompts and giving tokens.

mod engine;
mod image;
mod prompt;
mod rows;
mod runner;
mod session;

pub use engine::{Backend, Engine, EngineOptions, Progress};
pub use image::Encoded;
pub use prompt::{Prompt, PromptRow};
pub use rows::{Out, Row, Sampling};
pub use runner::{GraphId, Runner};
pub use session::Session;
