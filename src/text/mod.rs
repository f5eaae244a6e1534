//! Text and token ids: tokenizers, the prompts of conversations, and the way back from a stream of
//! ids to text.

mod folder;
mod guard;
mod jinja;
mod pre_tokenizer;
pub mod prompt;
pub mod stream;
mod template;
pub mod tokenizer;
mod v4;
mod vocabulary;

pub use folder::TextFolder;
pub(crate) use pre_tokenizer::name_of as name_of_pre_tokenizer;
pub use prompt::{
    Content, Conversation, Effort, EncodedPrompt, Frame, Message, Mode, Piece, PromptStyle,
};
pub use stream::{Channel, Delta, Detokenizer, ThinkSplitter};
pub use template::ChatTemplate;
pub use tokenizer::{Bounds, Tokenizer};
pub use vocabulary::Vocabulary;
