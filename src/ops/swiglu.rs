//! The gated activation `y = silu(min(g, limit)) * clamp(u, -limit, limit)`, where
//! `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, arXiv:2002.05202; the limits are DeepSeek's).

use bytemuck::{Pod, Zeroable};

use super::quantize_activations::{EIGHT_BIT_GROUP, flag_eight_bits, quantize};
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, EightBits, Elem, Gate, Graph, Op, Part, StepSize, TensorId, Use};

/// `[n, I]` from `gate` and `up`, both `[n, I]`, or from a `gate` `[n, 2 * I]` that holds `g`, then
/// `u`, in each row. An infinite `limit` is none.
pub fn swiglu(g: &mut Graph, gate: TensorId, up: Option<TensorId>, limit: f32) -> TensorId {
    let (rows, cols) = (g.tensor(gate).rows, g.tensor(gate).cols);
    let cols = if up.is_some() { cols } else { cols / 2 };
    let y = g.scratch("swiglu", Elem::F32, rows, cols);
    // Shaders may assume that there are no infinities.
    g.push("swiglu", Swiglu { gate, up, y, eight_bits: None, limit: limit.min(f32::MAX) });
    y
}

/// One number of the result.
pub(super) fn gated(gate: f32, up: f32, limit: f32) -> f32 {
    let g = gate.min(limit);
    g / (1.0 + (-g).exp()) * up.clamp(-limit, limit)
}

/// The dispatch that makes what `gate` says, for products that can't.
pub(super) fn gate_kernels(gate: Gate, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
    let Gate { of, to, limit } = gate;
    Swiglu { gate: of, up: None, y: to, eight_bits: None, limit }.kernels(graph, limits)
}

#[derive(Clone, Debug)]
struct Swiglu {
    gate: TensorId,
    up: Option<TensorId>,
    y: TensorId,
    /// What is made of `y` beside it.
    eight_bits: Option<EightBits>,
    limit: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    limit: f32,
}

/// Invocations a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.gate.read()];
        uses.extend(self.eight_bits.map(|e| e.to.write()));
        uses.push(self.y.write());
        uses.extend(self.up.map(TensorId::read));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (gate, up, mut y) =
            (host.f32(self.gate), self.up.map(|up| host.f32(up)), host.f32_mut(self.y));
        let (cols, gate_cols) = (host.cols(self.y), host.cols(self.gate));
        for (row, y) in y.chunks_exact_mut(cols).enumerate() {
            let gate = &gate[row * gate_cols..(row + 1) * gate_cols];
            let up = up.as_ref().map_or(&gate[gate_cols - cols..], |up| &up[row * cols..]);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = gated(*g, *u, self.limit);
            }
        }
        if let Some(e) = self.eight_bits {
            quantize(&y, e.order, &mut host.u32_mut(e.to));
        }
    }

    fn part(&self) -> Option<Part> {
        let Self { gate: of, y: to, limit, .. } = *self;
        let alone = self.up.is_none() && self.eight_bits.is_none();
        alone.then_some(Part::Gate(Gate { of, to, limit }))
    }

    fn with(&self, part: Part, _: &Graph) -> Option<Box<dyn Op>> {
        let alone = self.up.is_none() && self.eight_bits.is_none();
        match part {
            Part::EightBits(e) if self.y == e.of && alone => {
                Some(Box::new(Self { eight_bits: Some(e), ..self.clone() }))
            }
            _ => None,
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.y);
        let (rows, cols) = (t.rows, t.cols);
        let params = Params {
            cols: cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            limit: self.limit,
        };
        let mut uses = self.uses();
        let keep = graph.is_read(self.y);
        if self.eight_bits.is_some() && !keep {
            uses.pop();
        }
        let narrow = self.eight_bits.is_some();
        let (wg, alone) = limits.invocations(graph, WG);
        let groups = move |s| {
            let rows = rows.at(s);
            let groups = rows * (cols / EIGHT_BIT_GROUP);
            grid(if narrow { groups.div_ceil(wg) } else { rows * cols.div_ceil(4 * wg) })
        };
        let kernel = Kernel::new("swiglu", params, uses, groups);
        let whole = cols.is_multiple_of(4);
        let kernel = kernel
            .flag_if(self.up.is_none(), "PACKED")
            .flag_if(whole, "FOURS")
            .flag_if(whole && limits.wide_loads, "WIDE")
            .constant("WG", wg as u32)
            .alone(alone);
        vec![flag_eight_bits(kernel, self.eight_bits, keep)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.y);
        let n = (t.rows.at(step) * t.cols) as u64;
        Cost { bytes: 12 * n, flops: 8 * n }
    }
}
