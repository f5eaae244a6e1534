//! Picks a token from the logits of each output row.
//!
//! With temperature 0: the largest logit, the lowest index among equals. Otherwise from
//! `p = softmax(logits / temperature)`, by three filters in this order:
//! 1. `top_k`: the `top_k` most likely tokens, lower indices first among equals;
//! 2. `top_p`: of these, the smallest set of most likely ones (again lower indices first) that holds
//!    at least the share `top_p` of their mass, and at least one token;
//! 3. `min_p`: of these, the ones with `p >= min_p * p_max`.
//!
//! What is left is walked in order of index until its running mass exceeds `u` times its mass.
//!
//! llama.cpp by default filters in the same order but applies the temperature last, so that its
//! `top_p` and `min_p` see the distribution at temperature 1. vLLM applies the temperature first, as
//! here, then `min_p`, then `top_k` and `top_p`, where `top_k` keeps all tokens equal to the last.
//! Both draw from random streams of their own, so their tokens for a seed are not these.
//!
//! `u` in [0, 1) is [`uniform`] of the request's seed and a counter, so a token does not depend on
//! what else is in the batch.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Samples from `logits` `[O, vocab]`; returns the output "tokens" `[O, 1]` (integers). `outs` is an
/// integer input `[O, 8]`: the output's row (not used here), `top_k` (0: off), then as bits of floats
/// the temperature (0: greedy), `top_p` (1: off) and `min_p` (0: off), then the seed's low and high
/// word, and the counter.
pub fn sample(g: &mut Graph, logits: TensorId, outs: TensorId) -> TensorId {
    let tokens = g.output("tokens", Elem::U32, Extent::OUTS, 1);
    g.push("sample", Sample { logits, outs, tokens });
    tokens
}

/// A float in [0, 1) of 24 random bits: the first word of `pcg4d` (Jarzynski and Olano 2020, "Hash
/// Functions for GPU Rendering") of the seed's two words, the counter and zero.
pub fn uniform(seed: u64, counter: u32) -> f32 {
    let mut v = [seed as u32, (seed >> 32) as u32, counter, 0];
    let mix = |v: &mut [u32; 4]| {
        v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
        v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
        v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
        v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
    };
    v = v.map(|x| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    mix(&mut v);
    v = v.map(|x| x ^ (x >> 16));
    mix(&mut v);
    (v[0] >> 8) as f32 / (1 << 24) as f32
}

#[derive(Debug)]
struct Sample {
    logits: TensorId,
    outs: TensorId,
    tokens: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    pad: [u32; 3],
}

/// One row of `outs`, as `struct Out` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Out {
    row: u32,
    top_k: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    seed: [u32; 2],
    counter: u32,
}

fn pick(logits: &[f32], out: &Out) -> usize {
    // Most likely first. Adding zero makes one of the two zeros; the sort is stable.
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    kept.sort_by(|&a, &b| (logits[b] + 0.0).total_cmp(&(logits[a] + 0.0)));
    let best = kept[0];
    if out.temperature <= 0.0 {
        return best;
    }
    let p = |i: usize| ((logits[i] - logits[best]) / out.temperature).exp();
    let mass = |kept: &[usize]| kept.iter().map(|&i| f64::from(p(i))).sum::<f64>();
    if out.top_k > 0 {
        kept.truncate(out.top_k as usize);
    }
    if out.top_p < 1.0 {
        let goal = f64::from(out.top_p) * mass(&kept);
        let mut sum = 0.0;
        let enough = kept.iter().position(|&i| {
            sum += f64::from(p(i));
            sum >= goal
        });
        kept.truncate(enough.map_or(kept.len(), |at| at + 1));
    }
    kept.retain(|&i| p(i) >= out.min_p);
    kept.sort_unstable();
    let seed = u64::from(out.seed[0]) | u64::from(out.seed[1]) << 32;
    let goal = f64::from(uniform(seed, out.counter)) * mass(&kept);
    let mut sum = 0.0;
    let token = kept.iter().copied().find(|&i| {
        sum += f64::from(p(i));
        sum > goal
    });
    token.unwrap_or(best)
}

impl Op for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.logits.read(), self.outs.read(), self.tokens.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (logits, outs, mut tokens) =
            (host.f32(self.logits), host.u32(self.outs), host.u32_mut(self.tokens));
        let outs: &[Out] = bytemuck::cast_slice(&outs);
        let rows = logits.chunks_exact(host.cols(self.logits)).zip(outs);
        for (token, (logits, out)) in tokens.iter_mut().zip(rows) {
            *token = pick(logits, out) as u32;
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let params = Params { vocab: graph.tensor(self.logits).cols as u32, pad: [0; 3] };
        vec![
            Kernel::new("sample", params, self.uses(), |s| grid(s.outs))
                .flag_if(limits.subgroups, "SUBGROUPS"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (step.outs * graph.tensor(self.logits).cols) as u64;
        Cost { bytes: 4 * n, flops: 4 * n }
    }
}
