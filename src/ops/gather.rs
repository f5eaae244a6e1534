//! The rows whose logits are wanted: `y[o, :] = x[outs[o, 0], :]`.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Picks `[O, C]` out of `x` `[T, C]`; column 0 of the input `outs` `[O, 8]` holds the rows.
pub fn gather(g: &mut Graph, x: TensorId, outs: TensorId) -> TensorId {
    let y = g.scratch("gather", Elem::F32, Extent::OUTS, g.tensor(x).cols);
    g.push("gather", Gather { x, outs, y });
    y
}

#[derive(Debug)]
struct Gather {
    x: TensorId,
    outs: TensorId,
    y: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
}

/// Columns a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.read(), self.outs.read(), self.y.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (x, outs, mut y) = (host.f32(self.x), host.u32(self.outs), host.f32_mut(self.y));
        let cols = host.cols(self.x);
        for (out, y) in outs.chunks_exact(8).zip(y.chunks_exact_mut(cols)) {
            let row = out[0] as usize;
            y.copy_from_slice(&x[row * cols..(row + 1) * cols]);
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let cols = graph.tensor(self.x).cols;
        let params = Params { cols: cols as u32 };
        vec![Kernel::new("gather", params, self.uses(), move |s| grid(s.outs * cols.div_ceil(WG)))]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        Cost { bytes: (8 * step.outs * graph.tensor(self.x).cols) as u64, flops: 0 }
    }
}
