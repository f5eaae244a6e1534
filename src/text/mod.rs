//! Text and token ids: the tokenizer, the prompt encodings, and the way back from a stream of ids
//! to text.

pub mod prompt;
pub mod stream;
pub mod tokenizer;

pub use prompt::{Content, Conversation, Effort, Frame, Message, Mode, Piece, PromptStyle};
pub use stream::{Channel, Delta, Detokenizer, ThinkSplitter};
pub use tokenizer::Tokenizer;
