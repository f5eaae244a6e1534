//! Prompts, token ids and tensor names against implementations nobody here wrote. The fixtures are
//! made by `scripts/fixtures/text.py` and `scripts/fixtures/text_families.py`.

#[path = "text/dialects.rs"]
mod dialects;
#[path = "text/families.rs"]
mod families;
#[path = "text/folders.rs"]
mod folders;
#[path = "text/prompts.rs"]
mod prompts;
#[path = "text/real.rs"]
mod real;
