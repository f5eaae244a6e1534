//! A product whose inner index runs over the rows of the weight:
//! `y[t, y_at(g) + n] = sum_k x[t, x_at(g) + k] w[w_at(g) + k, n]`, with groups `g` as in [`Slices`].
//!
//! This is how multi-head latent attention takes queries into the latent space: `w` is `kv_b_proj`,
//! made for the other direction, a group is a head, and the rows are those of the head's keys.

use rayon::prelude::*;

use super::matmul::{Extra, Params, Slice, Slices, result, short};
use crate::gpu::{Kernel, Limits};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// `x` `[T, ..]` times `inner` rows of `w` `[.., N]` for each of `groups` groups. `slices.outputs` is
/// `N`. The result is a tensor `[T, groups * N]`, or goes into columns of `into` if that is given.
pub fn matmul_transposed(
    g: &mut Graph,
    x: TensorId,
    w: TensorId,
    groups: usize,
    inner: usize,
    slices: Slices,
    into: Option<TensorId>,
) -> TensorId {
    let (from, weight) = (g.tensor(x), g.tensor(w));
    assert_eq!(slices.outputs, weight.cols, "columns of `{}`", weight.name);
    assert!(slices.x.fits(groups, inner, from.cols), "columns of x for `{}`", weight.name);
    assert!(slices.w.fits(groups, inner, weight.rows.fixed), "rows a group of `{}`", weight.name);
    let (part, rows, all) = (short(&weight.name).to_owned(), from.rows, weight.rows.fixed);
    let y = result(g, &part, rows, groups, &slices, &Extra { into, ..Extra::default() });
    // A sum is never parted.
    g.keep_together(w, if groups > 1 { slices.w.step } else { all });
    g.push(&part, MatmulTransposed { x, w, y, groups, inner, slices, into });
    y
}

#[derive(Debug)]
struct MatmulTransposed {
    x: TensorId,
    w: TensorId,
    y: TensorId,
    groups: usize,
    inner: usize,
    slices: Slices,
    into: Option<TensorId>,
}

/// Columns a workgroup, times the parts of the inner length: 8 for each of the shader's `WG`.
const WG: usize = 64;
/// Rows of x a workgroup serves at most.
const ROWS_MAX: usize = 8;

impl Op for MatmulTransposed {
    fn name(&self) -> &'static str {
        "matmul_transposed"
    }

    fn uses(&self) -> Vec<Use> {
        let y = if self.into.is_some() { self.y.update() } else { self.y.write() };
        vec![self.x.read(), self.w.read(), y]
    }

    fn reference(&self, host: &Host<'_>) {
        let (x, w, mut y) = (host.f32(self.x), host.f32(self.w), host.f32_mut(self.y));
        let (n, cols, x_cols) = (host.cols(self.w), host.cols(self.y), host.cols(self.x));
        let (x, w, s) = (&*x, &*w, self.slices);
        y.par_chunks_exact_mut(cols).enumerate().for_each(|(t, y)| {
            for g in 0..self.groups {
                let y = &mut y[s.y.of(g)..][..n];
                y.fill(0.0);
                for k in 0..self.inner {
                    let x = x[t * x_cols + s.x.of(g) + k];
                    let w = &w[(s.w.of(g) + k) * n..][..n];
                    y.iter_mut().zip(w).for_each(|(y, w)| *y += x * w);
                }
            }
        });
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (x, w, y) = (graph.tensor(self.x), graph.tensor(self.w), graph.tensor(self.y));
        let s = self.slices;
        let at_once = y.rows.at(graph.max).next_power_of_two().min(ROWS_MAX);
        let (wg, alone) = limits.invocations(graph, WG);
        let splits = if alone { 1 } else { limits.tuning.splits() };
        let kernels =
            limits.parts(graph, self.w).into_iter().enumerate().filter_map(|(part, range)| {
                let held = s.held(self.groups, self.inner, &range);
                let groups = held.groups.len();
                if groups == 0 {
                    return None;
                }
                let params = Params {
                    k: self.inner as u32,
                    n: w.cols as u32,
                    x: s.x.into(),
                    y: s.y.into(),
                    w: Slice { step: s.w.step, at: held.at }.into(),
                    group: held.groups.start as u32,
                    ..Params::new(x, w, y)
                };
                let (rows, blocks) = (y.rows, w.cols.div_ceil(8 * wg / splits));
                let mut kernel = Kernel::new("matmul_transposed", params, self.uses(), move |s| {
                    [blocks, rows.at(s).div_ceil(at_once), groups].map(|b| b as u32)
                });
                kernel.bindings[1].part = part;
                let consts = [("WG", wg), ("SPLIT", splits), ("ROWS", at_once)];
                let kernel = kernel.constants(consts).flag(w.elem.name());
                Some(kernel.flag_if(alone, "ALONE").alone(alone))
            });
        kernels.collect()
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (w, rows) = (graph.tensor(self.w), graph.tensor(self.y).rows.at(step));
        let weights = self.groups * self.inner * w.cols;
        Cost {
            bytes: (w.bytes(self.groups * self.inner)
                + 4 * rows * self.groups * (self.inner + w.cols)) as u64,
            flops: 2 * (rows * weights) as u64,
        }
    }
}
