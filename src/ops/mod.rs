//! The ops: one file each, with its formula, its shapes, its reference function and its dispatch.
//! The kernel is the file of the same name in `shaders/`.
//!
//! Each op's public function appends it to a graph and returns the tensor it makes.

mod act_round;
mod attention;
mod causal_attention;
mod columns;
mod combine;
mod compress;
mod copy_columns;
mod embed;
mod expert_tiles;
mod flash;
mod gather;
mod gelu;
mod head_rope;
mod index_scores;
mod latent_keep;
mod layer_norm;
mod matmul;
mod matmul_gated;
mod matmul_lanes;
mod matmul_matrices;
mod matmul_transposed;
mod mhc_head;
mod mhc_post;
mod mhc_pre;
mod quantize_activations;
mod ring_write;
mod rms_norm;
mod rope_keep;
mod route;
mod row;
mod sample;
mod swiglu;
mod topk;
mod unfold;
mod vit_attention;
mod vit_rope;

pub use act_round::{
    ActRound, Closed, MOST_ROTATED, Narrow, act_round, act_round_closed, act_round_in_place,
};
pub use attention::{Attention, Compressed, attention};
pub use causal_attention::{CausalAttention, causal_attention};
pub use columns::Columns;
pub use combine::combine;
pub use compress::{Compress, compress};
pub use copy_columns::{CopyColumns, copy_columns};
pub use embed::{EmbedVision, embed};
pub use expert_tiles::{TileSizes, expert_tiles};
pub use gather::gather;
pub use gelu::gelu;
pub use head_rope::{HeadRope, Pairs, head_rope};
pub use index_scores::{IndexScores, index_scores};
pub use latent_keep::{LatentKeep, latent_keep};
pub use layer_norm::layer_norm;
pub use matmul::{
    Chosen, EXPERT_TILES, Extra, FEW_ROWS, Slice, Slices, expert_down, expert_gate_up, matmul,
    matmul_with,
};
pub use matmul_transposed::matmul_transposed;
pub use mhc_head::{MhcHead, mhc_head};
pub use mhc_post::{MhcPost, mhc_post, mhc_post_mix};
pub use mhc_pre::{MOST_STREAMS, MhcPre, mhc_pre};
pub use quantize_activations::{CodeOrder, EIGHT_BIT_GROUP, quantize_activations};
pub use ring_write::ring_write;
pub use rms_norm::{rms_norm, rms_norm_part};
pub use rope_keep::{RopeKeep, rope_keep};
pub use route::{GroupRank, Groups, MOST_CHOICES, MOST_EXPERTS, Route, Score, route};
pub use sample::{sample, uniform};
pub use swiglu::swiglu;
pub use topk::{index_topk, index_topk_in, topk};
pub use unfold::unfold;
pub use vit_attention::vit_attention;
pub use vit_rope::vit_rope;
