//! Every op: GPU against reference over random shapes.

#[path = "ops/attention.rs"]
mod attention;
mod common;
#[path = "ops/matmul.rs"]
mod matmul;
#[path = "ops/norms.rs"]
mod norms;
#[path = "ops/streams.rs"]
mod streams;
