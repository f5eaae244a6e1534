//! Chooses the experts of each token.
//!
//! `s = sqrt(softplus(logits))` with `softplus(x) = ln(1 + e^x)`. A text row takes the `k` experts of
//! the largest `s + bias`, or, in a hash layer, those its token has in a table; an image row those
//! of the largest `s + image_bias`. Ties go to the lower index. The bias only selects: the weights
//! are `s[id] / sum(s[ids]) * scale`.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// What [`route`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// `[T, E]`.
    pub logits: TensorId,
    /// `[1, E]`; zero if not given.
    pub bias: Option<TensorId>,
    /// `[1, E]`; image rows use `bias` if it is not given.
    pub image_bias: Option<TensorId>,
    /// Integers `[vocab, k]`: in a hash layer, the experts of each token. Image rows do not use it.
    pub hash: Option<TensorId>,
    /// Experts a row.
    pub k: usize,
    /// The sum of a row's weights.
    pub scale: f32,
}

/// Routes every row: (ids `[T, k]` integers, weights `[T, k]`), in falling order of selection score
/// or in the table's order. A row whose scores all vanish gets weights of zero.
pub fn route(g: &mut Graph, r: Route) -> (TensorId, TensorId) {
    let experts = g.tensor(r.logits).cols;
    assert!(r.k <= experts && experts <= MOST_EXPERTS && r.k <= MOST_CHOICES, "route: {r:?}");
    let ids = g.scratch("ids", Elem::U32, Extent::ROWS, r.k);
    let weights = g.scratch("weights", Elem::F32, Extent::ROWS, r.k);
    g.push("route", Node { r, ids, weights });
    (ids, weights)
}

/// The most experts: what the shader's workgroup memory has room for.
pub const MOST_EXPERTS: usize = 512;
/// The most experts a row may visit; the same.
pub const MOST_CHOICES: usize = 16;

#[derive(Debug)]
struct Node {
    r: Route,
    ids: TensorId,
    weights: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    experts: u32,
    k: u32,
    vocab: u32,
    hash_stride: u32,
    scale: f32,
    pad: [u32; 3],
}

/// `sqrt(ln(1 + e^x))`, without overflow for large `x` or loss of all digits for small.
fn score(x: f32) -> f32 {
    if x < -20.0 { (0.5 * x).exp() } else { (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt() }
}

impl Op for Node {
    fn name(&self) -> &'static str {
        "route"
    }

    fn uses(&self) -> Vec<Use> {
        let r = &self.r;
        let mut uses = vec![r.rows.read(), r.logits.read(), self.ids.write(), self.weights.write()];
        uses.extend([r.bias, r.image_bias, r.hash].into_iter().flatten().map(TensorId::read));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let r = &self.r;
        let (rows, logits) = (host.u32(r.rows), host.f32(r.logits));
        let (mut ids, mut weights) = (host.u32_mut(self.ids), host.f32_mut(self.weights));
        let experts = host.cols(r.logits);
        let outs = ids.chunks_exact_mut(r.k).zip(weights.chunks_exact_mut(r.k));
        let inputs = Row::all(&rows).iter().zip(logits.chunks_exact(experts));
        for ((row, logits), (ids, weights)) in inputs.zip(outs) {
            let s: Vec<f32> = logits.iter().map(|&x| score(x)).collect();
            match r.hash {
                Some(hash) if row.kind == 0 => {
                    ids.copy_from_slice(&host.u32(hash)[row.token as usize * r.k..][..r.k]);
                }
                _ => {
                    let image = if row.kind == 0 { None } else { r.image_bias };
                    let bias = image.or(r.bias).map(|b| host.f32(b));
                    let key = |&e: &usize| s[e] + bias.as_ref().map_or(0.0, |b| b[e]);
                    let mut order: Vec<usize> = (0..experts).collect();
                    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
                    ids.iter_mut().zip(order).for_each(|(id, e)| *id = e as u32);
                }
            }
            let sum: f32 = ids.iter().map(|&e| s[e as usize]).sum();
            for (w, &e) in weights.iter_mut().zip(&*ids) {
                *w = s[e as usize] / sum.max(f32::MIN_POSITIVE) * r.scale;
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let r = &self.r;
        let hash = r.hash.map(|h| graph.tensor(h));
        let params = Params {
            experts: graph.tensor(r.logits).cols as u32,
            k: r.k as u32,
            vocab: hash.map_or(0, |t| t.rows.fixed as u32),
            hash_stride: hash.map_or(0, |t| t.stride() as u32),
            scale: r.scale,
            pad: [0; 3],
        };
        // Where something is not given, something else stands in its binding and is not read.
        let bindings = [
            r.rows.read(),
            r.logits.read(),
            self.ids.write(),
            self.weights.write(),
            r.bias.unwrap_or(r.logits).read(),
            r.image_bias.unwrap_or(r.logits).read(),
            r.hash.unwrap_or(r.rows).read(),
        ];
        vec![
            Kernel::new("route", params, bindings, |s| grid(s.rows))
                .flag_if(r.bias.is_some(), "BIAS")
                .flag_if(r.image_bias.is_some(), "IMAGE_BIAS")
                .flag_if(r.hash.is_some(), "HASH"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let experts = graph.tensor(self.r.logits).cols;
        let n = (step.rows * experts) as u64;
        Cost { bytes: 4 * n + (8 * step.rows * self.r.k + 4 * experts) as u64, flops: 8 * n }
    }
}
