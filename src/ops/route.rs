//! Chooses the experts of each token.
//!
//! A row's scores are `s = sqrt(softplus(logits))` with `softplus(x) = ln(1 + e^x)`, or the sigmoids or
//! the softmax of its logits. A text row takes the `k` experts of the largest `s + bias`, or, in a hash
//! layer, those its token has in a table; an image row those of the largest `s + image_bias`. Where
//! experts stand in groups, only those of the best groups are candidates, whatever the sign of their
//! selection scores. Ties go to the lower index. The bias only selects: the weights are
//! `s[id] * scale`, divided by `sum(s[ids])` if they are normalised.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// How a logit becomes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// `sqrt(ln(1 + e^x))`.
    SqrtSoftplus,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `e^x` over the sum of all the row's `e^x`.
    Softmax,
}

/// What a group of experts is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupRank {
    /// The largest selection score in it.
    Max,
    /// The sum of the two largest.
    TopTwo,
}

/// Groups of experts, of which a row may use a few.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// Groups, of as many consecutive experts each.
    pub n: usize,
    /// Groups a row may use; together they must have `k` experts.
    pub top: usize,
    /// Which groups those are.
    pub rank: GroupRank,
}

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
    /// How logits become scores.
    pub score: Score,
    /// Experts' groups, if they count.
    pub groups: Option<Groups>,
    /// Whether a row's weights are made to sum to `scale`. Other implementations add 1e-20 to the
    /// sum they divide by; DeepSeek's own do not, and it tells only where all scores all but vanish.
    pub normalise: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// Routes every row: (ids `[T, k]` integers, weights `[T, k]`), in falling order of selection score
/// or in the table's order. A row whose scores all vanish gets weights of zero.
pub fn route(g: &mut Graph, r: Route) -> (TensorId, TensorId) {
    let experts = g.tensor(r.logits).cols;
    assert!(r.k <= experts && experts <= MOST_EXPERTS && r.k <= MOST_CHOICES, "route: {r:?}");
    if let Some(groups) = r.groups {
        let each = experts / groups.n;
        let fits = each * groups.n == experts && r.k <= groups.top * each && groups.top <= groups.n;
        assert!(fits, "route: {groups:?} of {experts} experts");
    }
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
    groups: u32,
    top_groups: u32,
    scale: f32,
    given: u32,
}

/// `sqrt(ln(1 + e^x))`, without overflow for large `x` or loss of all digits for small.
fn sqrt_softplus(x: f32) -> f32 {
    if x < -20.0 { (0.5 * x).exp() } else { (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt() }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f32> = logits.iter().map(|x| (x - top).exp()).collect();
    let sum: f32 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

impl Score {
    fn of(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Self::SqrtSoftplus => logits.iter().map(|&x| sqrt_softplus(x)).collect(),
            Self::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Self::Softmax => softmax(logits),
        }
    }
}

/// Indices in falling order of `keys`, equal ones in rising order.
fn ranked(keys: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    // Adding zero makes one of the two zeros; the sort is stable.
    order.sort_by(|&a, &b| (keys[b] + 0.0).total_cmp(&(keys[a] + 0.0)));
    order
}

impl Groups {
    /// The groups a row with these selection scores may use.
    fn best(&self, keys: &[f32]) -> Vec<usize> {
        let worth = |group: &[f32]| {
            let order = ranked(group);
            match self.rank {
                GroupRank::Max => group[order[0]],
                GroupRank::TopTwo => order.iter().take(2).map(|&e| group[e]).sum(),
            }
        };
        let mut best =
            ranked(&keys.chunks_exact(keys.len() / self.n).map(worth).collect::<Vec<_>>());
        best.truncate(self.top);
        best
    }
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
            let s = r.score.of(logits);
            match r.hash {
                Some(hash) if row.kind == 0 => {
                    ids.copy_from_slice(&host.u32(hash)[row.token as usize * r.k..][..r.k]);
                }
                _ => {
                    let image = if row.kind == 0 { None } else { r.image_bias };
                    let bias = image.or(r.bias).map(|b| host.f32(b));
                    let key = |e: usize| s[e] + bias.as_ref().map_or(0.0, |b| b[e]);
                    let keys: Vec<f32> = (0..experts).map(key).collect();
                    let mut order = ranked(&keys);
                    if let Some(groups) = r.groups {
                        let best = groups.best(&keys);
                        order.retain(|e| best.contains(&(e / (experts / groups.n))));
                    }
                    ids.iter_mut().zip(order).for_each(|(id, e)| *id = e as u32);
                }
            }
            let sum = match r.normalise {
                true => ids.iter().map(|&e| s[e as usize]).sum(),
                false => 1.0f32,
            };
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
            groups: r.groups.map_or(1, |g| g.n as u32),
            top_groups: r.groups.map_or(1, |g| g.top as u32),
            scale: r.scale,
            given: [r.bias, r.image_bias, r.hash]
                .iter()
                .enumerate()
                .map(|(bit, given)| u32::from(given.is_some()) << bit)
                .sum(),
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
                .flag_if(r.score == Score::Sigmoid, "SIGMOID")
                .flag_if(r.score == Score::Softmax, "SOFTMAX")
                .flag_if(r.groups.is_some(), "GROUPS")
                .flag_if(r.groups.is_some_and(|g| g.rank == GroupRank::TopTwo), "TOP_TWO")
                .flag_if(r.normalise, "NORMALISE"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let experts = graph.tensor(self.r.logits).cols;
        let n = (step.rows * experts) as u64;
        Cost { bytes: 4 * n + (8 * step.rows * self.r.k + 4 * experts) as u64, flops: 8 * n }
    }
}
