//! What is measured.

use fathom::formats::BlockFormat::{FP8, MXFP4, Q4_0, Q4_1, Q4K, Q6K, Q8_0};
use fathom::graph::Elem::{BF16, Block, F16, F32};
use fathom::graph::{Extent, StepSize};
use fathom::ops::{
    self, ActRound, CopyColumns, EXPERT_TILES, EmbedVision, GroupRank, Groups, HeadRope,
    LatentKeep, MhcHead, MhcPre, Narrow, Pairs, RopeKeep, Route, Score,
};
use fathom::runtime::Sampling;

use crate::build::{Build, EPS};

/// One line of the report. The last node that `build` pushes is measured; those before it run once,
/// to give it its inputs.
pub struct Case {
    pub name: &'static str,
    pub step: StepSize,
    pub build: fn(&mut Build),
}

const fn case(name: &'static str, rows: usize, build: fn(&mut Build)) -> Case {
    Case { name, step: StepSize { rows, outs: rows }, build }
}

/// Shapes are DeepSeek-V4-Flash's, with fewer rows, experts or outputs where a software adapter would
/// take too long, and those of the model in `weights/minnow`.
pub const CASES: &[Case] = &[
    case("matmul/4096x4096 bf16, 1 row", 1, |b| b.dense(4096, 4096, BF16)),
    case("matmul/4096x4096 f16, 1 row", 1, |b| b.dense(4096, 4096, F16)),
    case("matmul/4096x2048 f32, 1 row", 1, |b| b.dense(4096, 2048, F32)),
    case("matmul/4096x2048 bf16, 4 rows", 4, |b| b.dense(4096, 2048, BF16)),
    case("matmul/4096x4096 Q4_0, 1 row", 1, |b| b.dense(4096, 4096, Block(Q4_0))),
    case("matmul/4096x4096 Q8_0, 1 row", 1, |b| b.dense(4096, 4096, Block(Q8_0))),
    case("matmul/4096x4096 Q4_K, 1 row", 1, |b| b.dense(4096, 4096, Block(Q4K))),
    case("matmul/4096x4096 MXFP4, 1 row", 1, |b| b.dense(4096, 4096, Block(MXFP4))),
    case("matmul/4096x4096 FP8, 1 row", 1, |b| b.dense(4096, 4096, Block(FP8))),
    case("matmul_q8/4096x4096 Q4_0, 1 row", 1, |b| b.dense_q8(4096, 4096, Q4_0)),
    case("matmul_q8/4096x4096 Q8_0, 1 row", 1, |b| b.dense_q8(4096, 4096, Q8_0)),
    case("matmul_q8/4096x4096 Q4_K, 1 row", 1, |b| b.dense_q8(4096, 4096, Q4K)),
    case("matmul_q8/4096x4096 MXFP4, 1 row", 1, |b| b.dense_q8(4096, 4096, MXFP4)),
    case("matmul_q8/576x1536 Q4_1 (SmolLM2), 1 row", 1, |b| b.dense_q8(576, 1536, Q4_1)),
    case("matmul_q8/4096x1024 Q4_0, 64 rows", 64, |b| b.dense_q8(4096, 1024, Q4_0)),
    case("matmul_q8/4096x1024 Q6_K, 64 rows", 64, |b| b.dense_q8(4096, 1024, Q6K)),
    case("quantize_activations/4096 wide, 64 rows", 64, |b| {
        let x = b.x("x", 4096);
        b.in_eight_bits(x, Q4_0);
    }),
    case("matmul/576x1536 Q4_1 (SmolLM2), 1 row", 1, |b| b.dense(576, 1536, Block(Q4_1))),
    case("matmul_gated/norm, 4096x2048 bf16, 1 row", 1, |b| b.gated(4096, 2048, BF16)),
    case("matmul_gated/norm, 576x1536 Q4_1 (SmolLM2), 1 row", 1, |b| {
        b.gated(576, 1536, Block(Q4_1));
    }),
    case("matmul/128x772 bf16 (minnow), 1 row", 1, |b| b.dense(128, 772, BF16)),
    case("matmul/experts 6 of 16, 4096x512 bf16, 1 row", 1, |b| b.experts(4096, 512, 16, 6, BF16)),
    case("matmul/experts 2 of 16, 128x64 bf16 (minnow)", 1, |b| b.experts(128, 64, 16, 2, BF16)),
    case("matmul/4096x1024 bf16, 64 rows", 64, |b| b.dense(4096, 1024, BF16)),
    case("matmul/4096x1024 f32, 64 rows", 64, |b| b.dense(4096, 1024, F32)),
    case("matmul/4096x1024 Q4_0, 64 rows", 64, |b| b.dense(4096, 1024, Block(Q4_0))),
    case("matmul/4096x1024 FP8, 64 rows", 64, |b| b.dense(4096, 1024, Block(FP8))),
    case("matmul_f16/4096x1024 bf16, 64 rows", 64, |b| b.dense_f16(4096, 1024, BF16)),
    case("matmul_f16/4096x1024 Q4_0, 64 rows", 64, |b| b.dense_f16(4096, 1024, Block(Q4_0))),
    case("matmul_f16/4096x1024 FP8, 64 rows", 64, |b| b.dense_f16(4096, 1024, Block(FP8))),
    case("matmul/8 groups of 512x128 bf16, 64 rows", 64, |b| b.grouped(8, 512, 128)),
    case("matmul/128x256 bf16 (minnow), 256 rows", 256, |b| b.dense(128, 256, BF16)),
    case("matmul/experts 6 of 16, 2048x256 bf16, 64 rows", 64, |b| {
        b.experts(2048, 256, 16, 6, BF16);
    }),
    case("matmul/experts 6 of 16, 4096x512 MXFP4, 1 row", 1, |b| {
        b.experts(4096, 512, 16, 6, Block(MXFP4));
    }),
    case("matmul_transposed/16 heads, 128 to 512 bf16, 1 row", 1, |b| {
        b.transposed(16, 128, 512, BF16);
    }),
    case("matmul_transposed/16 heads, 128 to 512 Q4_K, 64 rows", 64, |b| {
        b.transposed(16, 128, 512, Block(Q4K));
    }),
    case("attention/64 heads of 512, 128 keys, 4 rows", 4, |b| b.attention(64, 512, 128, None)),
    case("attention/64 heads of 512, 128 keys, 256 entries, 4 rows", 4, |b| {
        b.attention(64, 512, 128, Some((256, None)));
    }),
    case("attention/64 heads of 512, 128 keys, 512 picked, 1 row", 1, |b| {
        b.attention(64, 512, 128, Some((1024, Some(512))));
    }),
    case("attention/16 heads of 512, 128 keys, 512 picked, 1 row", 1, |b| {
        b.attention(16, 512, 128, Some((1024, Some(512))));
    }),
    case("attention/4 heads of 64, 128 keys (minnow), 64 rows", 64, |b| {
        b.attention(4, 64, 128, None);
    }),
    case("causal_attention/128 heads of 576 (MLA), 512 keys, 1 row", 1, |b| {
        b.causal(128, 1, 576, 512, 512, None);
    }),
    case("causal_attention/16 heads of 576 (MLA), 256 keys, 16 rows", 16, |b| {
        b.causal(16, 1, 576, 512, 256, None);
    }),
    case("causal_attention/128 heads of 576, 2048 picked, 1 row", 1, |b| {
        b.causal(128, 1, 576, 512, 4096, Some(2048));
    }),
    case("causal_attention/32 heads of 128 (Llama), 512 keys, 1 row", 1, |b| {
        b.causal(32, 8, 128, 128, 512, None);
    }),
    case("causal_attention/32 heads of 128 (Llama), 512 keys, 16 rows", 16, |b| {
        b.causal(32, 8, 128, 128, 512, None);
    }),
    case("causal_attention/9 heads of 64 (SmolLM2), 256 keys, 1 row", 1, |b| {
        b.causal(9, 3, 64, 64, 256, None);
    }),
    case("causal_attention/9 heads of 64 (SmolLM2), 256 keys, 64 rows", 64, |b| {
        b.causal(9, 3, 64, 64, 256, None);
    }),
    case("index_scores/64 heads of 128, 4096 entries, 1 row", 1, |b| b.index(64, 128, 4096)),
    case("index_scores/16 heads of 128, 16384 entries, 1 row", 1, |b| b.index(16, 128, 16384)),
    case("topk/512 of 16384, 1 row", 1, |b| b.topk(512, 16384)),
    case("topk/512 of 16384, 4 rows", 4, |b| b.topk(512, 16384)),
    case("compress/windows of 128, 512 wide, 4 rows", 4, |b| b.compress(&[512], 128, false)),
    case("compress/overlapping windows of 4, 512 and 128 wide, 64 rows", 64, |b| {
        b.compress(&[512, 128], 4, true);
    }),
    case("ring_write/512 wide, 256 rows", 256, |b| {
        let (rows, x) = (b.rows(0), b.x("x", 512));
        let ring = b.graph.state("ring", 512, 512);
        ops::ring_write(&mut b.graph, rows, x, ring, 512);
    }),
    case("latent_keep/64 heads of 512, 64 of 128 (V4), 16 rows", 16, |b| {
        let (rows, q, table) = (b.rows(0), b.x("q", 64 * 512 + 64 * 128), b.x("table", 64));
        let (latent, norm) = (b.x("latent", 512).into(), b.weight("norm", F32, 1, 512));
        let (ring, cap, heads) = (b.graph.state("ring", 144, 512), 144, 64);
        let (index_heads, eps) = (64, EPS);
        ops::latent_keep(
            &mut b.graph,
            LatentKeep { rows, q, heads, index_heads, latent, norm, table, ring, cap, eps },
        );
    }),
    case("head_rope/32 heads of 128 in halves (Llama), 16 rows", 16, |b| {
        let (x, table) = (b.x("x", 32 * 128), b.x("table", 128));
        ops::head_rope(&mut b.graph, HeadRope::new(x, table, 32).halves());
    }),
    case("rope_keep/32 heads of 128 in 8 groups (Llama), 16 rows", 16, |b| {
        let (rows, qkv, table) = (b.rows(0), b.x("qkv", 48 * 128), b.x("table", 128));
        let [keys, values] = ["keys", "values"].map(|name| b.graph.state(name, 16, 8 * 128));
        let (heads, groups, context, pairs) = (32, 8, 16, Pairs::Halves);
        ops::rope_keep(
            &mut b.graph,
            RopeKeep { rows, qkv, table, keys, values, heads, groups, context, pairs },
        );
    }),
    case("act_round/4096 wide to FP8, 64 rows", 64, |b| {
        let x = b.x("x", 4096);
        ops::act_round(&mut b.graph, x, ActRound::fp8(4096));
    }),
    case("act_round/64 heads of 128, rotated, to FP4, 16 rows", 16, |b| {
        let (x, heads, cols) = (b.x("x", 64 * 128), 64, 128);
        let r = ActRound { heads, cols, group: 32, to: Narrow::E2m1, rotate: true };
        ops::act_round(&mut b.graph, x, r);
    }),
    case("copy_columns/128 heads of 64 (MLA), 64 rows", 64, |b| {
        let (from, to) = (b.x("from", 128 * 192), b.x("to", 128 * 576));
        let (from_step, from_at, to_step, to_at) = (192, 128, 576, 512);
        let (count, width) = (128, 64);
        ops::copy_columns(
            &mut b.graph,
            CopyColumns { from, from_step, from_at, to, to_step, to_at, count, width },
        );
    }),
    case("rms_norm/4096 wide, 256 rows", 256, |b| {
        let (x, w) = (b.x("x", 4096), b.weight("w", F32, 1, 4096));
        ops::rms_norm(&mut b.graph, x, w, EPS);
    }),
    case("rms_norm/512 of 576, 256 rows", 256, |b| {
        let (x, w) = (b.x("x", 576), b.weight("w", F32, 1, 512));
        ops::rms_norm_part(&mut b.graph, x, w, EPS, 512);
    }),
    case("layer_norm/128 wide, 256 rows", 256, |b| {
        let (w, bias) = (b.weight("w", F32, 1, 128), b.weight("bias", F32, 1, 128));
        let x = b.x("x", 128);
        ops::layer_norm(&mut b.graph, x, w, bias, EPS);
    }),
    case("mhc_pre/4 streams of 4096, 64 rows", 64, |b| {
        let (streams, mix) = (b.x("streams", 4 * 4096), b.x("mix", 24));
        let (base, scale) = (b.weight("base", F32, 1, 24), b.weight("scale", F32, 1, 3));
        let (norm, n, iters, hc_eps, eps) = (b.weight("norm", F32, 1, 4096), 4, 20, EPS, EPS);
        let p = MhcPre { streams, mix, base, scale, norm, n, iters, hc_eps, eps };
        ops::mhc_pre(&mut b.graph, p);
    }),
    case("mhc_post/4 streams of 4096, 64 rows", 64, |b| {
        let post = b.post();
        ops::mhc_post(&mut b.graph, post);
    }),
    case("mhc_post/4 streams of 4096, mixed, 1 row", 1, |b| {
        let (post, w) = (b.post(), b.weight("w", F32, 24, 4 * 4096));
        ops::mhc_post_mix(&mut b.graph, post, w);
    }),
    case("mhc_head/4 streams of 4096, 64 rows", 64, |b| {
        let (streams, mix) = (b.x("streams", 4 * 4096), b.x("mix", 4));
        let (base, scale) = (b.weight("base", F32, 1, 4), b.weight("scale", F32, 1, 1));
        let (norm, n, hc_eps, eps) = (b.weight("norm", F32, 1, 4096), 4, EPS, EPS);
        let p = MhcHead { streams, mix, base, scale, norm, n, hc_eps, eps };
        ops::mhc_head(&mut b.graph, p);
    }),
    case("route/6 of 256 experts, 256 rows", 256, |b| {
        let (rows, logits) = (b.rows(0), b.x("logits", 256));
        let bias = Some(b.weight("bias", F32, 1, 256));
        let (score, groups, normalise, scale) = (Score::SqrtSoftplus, None, true, 1.5);
        let (image_bias, hash, k) = (None, None, 6);
        ops::route(
            &mut b.graph,
            Route { rows, logits, bias, image_bias, hash, k, score, groups, normalise, scale },
        );
    }),
    case("route/8 of 256 experts in 4 of 8 groups (V3), 256 rows", 256, |b| {
        let (rows, logits) = (b.rows(0), b.x("logits", 256));
        let bias = Some(b.weight("bias", F32, 1, 256));
        let groups = Some(Groups { n: 8, top: 4, rank: GroupRank::TopTwo });
        let (score, normalise, scale) = (Score::Sigmoid, true, 2.5);
        let (image_bias, hash, k) = (None, None, 8);
        ops::route(
            &mut b.graph,
            Route { rows, logits, bias, image_bias, hash, k, score, groups, normalise, scale },
        );
    }),
    case("expert_tiles/6 of 256 experts, 256 rows", 256, |b| {
        let ids = b.ids(6, 256);
        ops::expert_tiles(&mut b.graph, ids, 256, EXPERT_TILES);
    }),
    case("swiglu/2048 wide, 256 rows", 256, |b| {
        let (gate, up) = (b.x("gate", 2048), b.x("up", 2048));
        ops::swiglu(&mut b.graph, gate, Some(up), 10.0);
    }),
    case("combine/6 experts, 4096 wide, 32 rows", 32, |b| {
        let experts = b.input("experts", Extent::rows(6), 4096);
        let shared = b.x("shared", 4096);
        ops::combine(&mut b.graph, experts, 6, Some(shared));
    }),
    case("embed/4 streams of 4096 bf16, 64 rows", 64, |b| {
        let (rows, table) = (b.rows(0), b.weight("table", BF16, 1024, 4096));
        let vision =
            EmbedVision { images: b.x("images", 4096), marks: b.weight("marks", F32, 4, 4096) };
        ops::embed(&mut b.graph, rows, table, Some(vision), 4);
    }),
    case("gather/4 streams of 4096, 64 rows", 64, |b| {
        let (x, outs) = (b.x("x", 4 * 4096), b.outs(Sampling::default()));
        ops::gather(&mut b.graph, x, outs);
    }),
    case("sample/greedy of 129280, 1 row", 1, |b| b.sample(Sampling::default())),
    case("sample/top 40, p 0.9 of 129280, 1 row", 1, |b| {
        b.sample(Sampling { temperature: 1.0, top_k: 40, top_p: 0.9, ..Sampling::default() });
    }),
    case("vit_attention/16 heads of 64, 256 patches", 256, |b| b.vit_attention(16, 64)),
    case("vit_attention/3 heads of 32 (minnow), 100 patches", 100, |b| b.vit_attention(3, 32)),
    case("vit_rope/16 heads of 64, 256 patches", 256, |b| {
        let (qkv, table) = (b.x("qkv", 3 * 16 * 64), b.x("table", 64));
        ops::vit_rope(&mut b.graph, qkv, table, 16);
    }),
    case("unfold/3x3 of 1024, 256 patches", 256, |b| {
        let x = b.x("x", 1024);
        let blocks = b.words("blocks", Extent::OUTS, 4, |_| vec![0, 3, 3, 16]);
        ops::unfold(&mut b.graph, x, blocks, 3);
    }),
    case("gelu/4096 wide, 64 rows", 64, |b| {
        let x = b.x("x", 4096);
        ops::gelu(&mut b.graph, x);
    }),
];
