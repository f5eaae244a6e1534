//! Running a model: a [`Model`] is its files, an [`Engine`] holds its graphs on one device, a
//! [`Session`] is one sequence in it, fed prompts and giving tokens, and a [`Chat`] is a conversation
//! in words, pictures and clips.

pub mod bench;
mod chat;
mod engine;
mod image;
mod model;
mod prompt;
mod rows;
mod runner;
mod session;
pub mod tune;
pub mod verify;

pub use chat::{Chat, Finish, Reply, ReplyOptions};
pub use engine::{Backend, Engine, EngineOptions, Progress};
pub use image::Encoded;
pub use model::Model;
pub use prompt::{Prompt, PromptRow};
pub use rows::{Out, Row, Sampling};
pub use runner::{GraphId, Runner};
pub use session::Session;
