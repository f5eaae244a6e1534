//! Prompts, token ids and tensor names against implementations nobody here wrote. The fixtures are
//! made by `scripts/fixtures/text.py`.

#[path = "text/dialects.rs"]
mod dialects;
#[path = "text/families.rs"]
mod families;
#[path = "text/prompts.rs"]
mod prompts;
