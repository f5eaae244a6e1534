//! Every op: GPU against reference over random shapes.

#[path = "ops/attention.rs"]
mod attention;
#[path = "ops/causal_attention.rs"]
mod causal_attention;
mod common;
#[path = "ops/cost.rs"]
mod cost;
#[path = "ops/matmul.rs"]
mod matmul;
#[path = "ops/moe.rs"]
mod moe;
#[path = "ops/norms.rs"]
mod norms;
#[path = "ops/rounding.rs"]
mod rounding;
#[path = "ops/sampling.rs"]
mod sampling;
#[path = "ops/streams.rs"]
mod streams;
#[path = "ops/tuning.rs"]
mod tuning;
#[path = "ops/vision.rs"]
mod vision;
