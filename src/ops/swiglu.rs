//! The gated activation `y = silu(min(g, limit)) * clamp(u, -limit, limit)`, where
//! `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, arXiv:2002.05202; the limits are DeepSeek's).

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// `[n, I]` from `gate` and `up`, both `[n, I]`, or from a `gate` `[n, 2 * I]` that holds `g`, then
/// `u`, in each row. An infinite `limit` is none.
pub fn swiglu(g: &mut Graph, gate: TensorId, up: Option<TensorId>, limit: f32) -> TensorId {
    let (rows, cols) = (g.tensor(gate).rows, g.tensor(gate).cols);
    let cols = if up.is_some() { cols } else { cols / 2 };
    let y = g.scratch("swiglu", Elem::F32, rows, cols);
    // Shaders may assume that there are no infinities.
    g.push("swiglu", Swiglu { gate, up, y, limit: limit.min(f32::MAX) });
    y
}

#[derive(Debug)]
struct Swiglu {
    gate: TensorId,
    up: Option<TensorId>,
    y: TensorId,
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

/// Columns a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.gate.read(), self.y.write()];
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
                let (g, u) = (g.min(self.limit), u.clamp(-self.limit, self.limit));
                *y = g / (1.0 + (-g).exp()) * u;
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.y);
        let (rows, cols) = (t.rows, t.cols);
        let params = Params {
            cols: cols as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            limit: self.limit,
        };
        let groups = move |s| grid(rows.at(s) * cols.div_ceil(WG));
        vec![
            Kernel::new("swiglu", params, self.uses(), groups).flag_if(self.up.is_none(), "PACKED"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.y);
        let n = (t.rows.at(step) * t.cols) as u64;
        Cost { bytes: 12 * n, flops: 8 * n }
    }
}
