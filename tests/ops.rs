//! Every op: GPU against reference over random shapes.

mod common;
#[path = "ops/norms.rs"]
mod norms;
