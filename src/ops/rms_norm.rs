//! Root-mean-square norm: `y = x * rsqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019,
//! arXiv:1910.07467).

use bytemuck::{Pod, Zeroable};

use super::Columns;
use super::quantize_activations::{EIGHT_BIT_GROUP, flag_eight_bits, quantize};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, EightBits, Elem, Graph, Norm, Op, Part, StepSize, TensorId, Use};

/// Normalises `cols` columns of each row of `x` and scales them by `weight` `[1, cols]`: `[n, cols]`.
pub fn rms_norm(g: &mut Graph, x: impl Into<Columns>, weight: TensorId, eps: f32) -> TensorId {
    let x = x.into();
    let (rows, cols) = (g.tensor(x.of).rows, g.tensor(weight).cols);
    assert!(x.at + cols <= g.tensor(x.of).cols, "rms_norm: weight");
    let y = g.scratch("norm", Elem::F32, rows, cols);
    g.push("norm", RmsNorm { x, weight, y: Some(y), eight_bits: None, cols, eps });
    y
}

/// The same in place, on the first `cols` columns of `x`.
pub fn rms_norm_part(g: &mut Graph, x: TensorId, weight: TensorId, eps: f32, cols: usize) {
    assert!(g.tensor(weight).cols == cols && cols <= g.tensor(x).cols, "rms_norm_part: weight");
    g.push("norm", RmsNorm { x: x.into(), weight, y: None, eight_bits: None, cols, eps });
}

#[derive(Clone, Debug)]
struct RmsNorm {
    x: Columns,
    weight: TensorId,
    /// Without it `x` is changed, whose first columns these are.
    y: Option<TensorId>,
    /// What is made of `y` beside it.
    eight_bits: Option<EightBits>,
    cols: usize,
    eps: f32,
}

/// The norm of one row, in place.
pub(super) fn normalise(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
    let scale = (mean + eps).sqrt().recip();
    for (v, w) in row.iter_mut().zip(weight) {
        *v = *v * scale * w;
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    x_cols: u32,
    x_at: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    eps: f32,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn uses(&self) -> Vec<Use> {
        let Some(y) = self.y else { return vec![self.x.of.update(), self.weight.read()] };
        let mut uses = vec![self.x.of.read(), self.weight.read()];
        uses.extend(self.eight_bits.map(|e| e.to.write()));
        uses.push(y.write());
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let weight = host.f32(self.weight);
        if let Some(y) = self.y {
            let (x, mut y) = (host.f32(self.x.of), host.f32_mut(y));
            let rows = x.chunks_exact(host.cols(self.x.of));
            for (y, x) in y.chunks_exact_mut(self.cols).zip(rows) {
                y.copy_from_slice(&x[self.x.at..][..self.cols]);
            }
        }
        let y = self.y.unwrap_or(self.x.of);
        let (cols, mut y) = (host.cols(y), host.f32_mut(y));
        for y in y.chunks_exact_mut(cols) {
            normalise(&mut y[..self.cols], &weight, self.eps);
        }
        if let Some(e) = self.eight_bits {
            quantize(&y, e.order, &mut host.u32_mut(e.to));
        }
    }

    fn part(&self) -> Option<Part> {
        let Self { x: of, weight, eps, .. } = *self;
        let to = self.y.filter(|_| self.eight_bits.is_none())?;
        Some(Part::Norm(Norm { of, to, weight, eps }))
    }

    fn with(&self, part: Part, _: &Graph) -> Option<Box<dyn Op>> {
        match part {
            Part::EightBits(e) if self.y == Some(e.of) && self.eight_bits.is_none() => {
                Some(Box::new(Self { eight_bits: Some(e), ..self.clone() }))
            }
            _ => None,
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.x.of);
        let rows = t.rows;
        let params = Params {
            cols: self.cols as u32,
            x_cols: t.cols as u32,
            x_at: self.x.at as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            eps: self.eps,
        };
        let mut uses = self.uses();
        let keep = self.y.is_some_and(|y| graph.is_read(y));
        if self.eight_bits.is_some() && !keep {
            uses.pop();
        }
        let whole = [self.cols, t.cols, self.x.at].iter().all(|n| n.is_multiple_of(4));
        let kernel = Kernel::new("rms_norm", params, uses, move |s| grid(rows.at(s)))
            .flag_if(self.y.is_none(), "IN_PLACE")
            .flag_if(whole, "FOURS")
            .flag_if(whole && self.y.is_some() && limits.wide_loads, "WIDE");
        // An invocation a group, or idle ones would take their time.
        let groups = self.cols / EIGHT_BIT_GROUP;
        let wg = match self.eight_bits {
            Some(_) => groups.next_power_of_two().clamp(32, 256),
            None => 64,
        };
        vec![flag_eight_bits(kernel, self.eight_bits, keep).reduces(limits, wg as u32)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (graph.tensor(self.x.of).rows.at(step) * self.cols) as u64;
        Cost { bytes: 8 * n + 4 * self.cols as u64, flops: 4 * n }
    }
}
