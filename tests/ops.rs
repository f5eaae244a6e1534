//! Every op: GPU against reference over random shapes.

mod common;
#[path = "ops/norms.rs"]
mod norms;
#[path = "ops/streams.rs"]
mod streams;
#[path = "ops/vision.rs"]
mod vision;
