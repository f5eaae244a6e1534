//! The first half of a gated feed-forward for few rows, in one dispatch: with `g` and `u` the halves of
//! `x w`, `y = silu(min(g, limit)) * clamp(u, -limit, limit)`. Made by [`fuse`](crate::graph::fuse).

use super::matmul::{Extra, Kind, Matmul, Params, ROWS_MAX, Slice, Slices, dot, operand};
use super::matmul::{NORMED_OUTPUTS, rows_at_once};
use super::matmul_lanes::Few;
use super::swiglu::{gate_kernels, gated};
use crate::gpu::{Kernel, Limits};
use crate::graph::reference::Host;
use crate::graph::{Cost, Gate, Graph, Norm, Op, Part, StepSize, TensorId, Use};

/// `gate.to` from `x` `[n, K]`, which `norm` normalises first, and `w` `[2 I, K]`.
#[derive(Clone, Debug)]
pub(super) struct MatmulGated {
    pub x: TensorId,
    pub w: TensorId,
    /// Its `of` is used only where a device can't bind all of `w` at once.
    pub gate: Gate,
    pub norm: Option<Norm>,
}

impl MatmulGated {
    /// The product alone, into `gate.of`.
    fn product(&self, graph: &Graph) -> Matmul {
        let outputs = graph.tensor(self.w).rows.fixed;
        let after = |step| Slice { step, at: 0 };
        let k = graph.tensor(self.w).cols;
        let slices = Slices { x: after(k), w: after(outputs), y: after(outputs), outputs };
        let Self { x, w, gate, norm } = *self;
        Matmul { x, w, y: gate.of, groups: 1, slices, extra: Extra::default(), norm }
    }
}

impl Op for MatmulGated {
    fn name(&self) -> &'static str {
        "matmul_gated"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.x.read(), self.w.read(), self.gate.to.write()];
        uses.extend(self.norm.map(|n| n.weight.read()));
        uses.push(self.gate.of.temporary());
        uses
    }

    fn with(&self, part: Part, graph: &Graph) -> Option<Box<dyn Op>> {
        match part {
            Part::Norm(norm) if norm.to == self.x && self.norm.is_none() => {
                let worth = graph.tensor(self.w).rows.fixed <= NORMED_OUTPUTS;
                let whole = graph.tensor(norm.of.of).cols == graph.tensor(norm.to).cols;
                (worth && whole).then(|| -> Box<dyn Op> {
                    Box::new(Self { x: norm.of.of, norm: Some(norm), ..self.clone() })
                })
            }
            _ => None,
        }
    }

    fn reference(&self, host: &Host<'_>) {
        let x = operand(host, self.x, self.w, self.norm);
        let (w, mut y) = (host.f32(self.w), host.f32_mut(self.gate.to));
        let (k, half) = (host.cols(self.w), host.cols(self.gate.to));
        for (y, x) in y.chunks_exact_mut(half).zip(x.chunks_exact(k)) {
            for (n, y) in y.iter_mut().enumerate() {
                let of = |row: usize| dot(x, &w[row * k..][..k]);
                *y = gated(of(n), of(half + n), self.gate.limit);
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let Self { x, w, gate, norm } = *self;
        if limits.parts(graph, w).len() > 1 {
            let mut kernels = self.product(graph).kernels(graph, limits);
            kernels.extend(gate_kernels(gate, graph, limits));
            return kernels;
        }
        let (of, weight, y) = (graph.tensor(x), graph.tensor(w), graph.tensor(gate.to));
        let (half, most) = (y.cols, y.rows.at(graph.max));
        let plain = Params::new(of, weight, y);
        let params = Params {
            n: half as u32,
            count: half as u32,
            limit: gate.limit,
            up: half as u32 * plain.layout.pitch,
            eps: norm.map_or(0.0, |n| n.eps),
            ..plain
        };
        let mut bindings = vec![x.read(), w.read(), gate.to.write()];
        bindings.extend(norm.map(|n| n.weight.read()));
        bindings.push(w.read());
        let rows = y.rows;
        let grid = move |[outputs, at_once]: [usize; 2]| {
            move |s: StepSize| {
                [half.div_ceil(outputs) as u32, rows.at(s).div_ceil(at_once) as u32, 1]
            }
        };
        let kernel = match Kind::of(of, weight, half, 2, limits) {
            Kind::Lanes(lanes) => {
                let few = lanes.few(half, most);
                let params = Params { outs: few.outs as u32, ..params };
                let kernel = Kernel::new(Few::SHADER, params, bindings, grid(few.block()));
                few.set(kernel)
            }
            Kind::Tiled(kinds) => {
                let at_once = most.next_power_of_two().min(ROWS_MAX);
                let team = kinds.team(half, limits);
                let grid = grid([team.outputs(), at_once]);
                rows_at_once(Kernel::new(kinds.rows, params, bindings, grid), team, at_once)
            }
        };
        let eights = weight.cols.is_multiple_of(8);
        let kernel = kernel.flag(weight.elem.name()).flag("GATED");
        vec![kernel.flag_if(eights, "X8").flag_if(norm.is_some(), "NORM")]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let product = self.product(graph).cost(graph, step);
        let y = graph.tensor(self.gate.to);
        // One number is written for two.
        let fewer = 4 * (y.rows.at(step) * y.cols) as u64;
        Cost { bytes: product.bytes - fewer, ..product }
    }
}
