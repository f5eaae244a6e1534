//! Blocks of `f x f` patches as single rows: `y[o, c f f + dy f + dx]` is channel `c` of the patch
//! `dx` to the right of and `dy` below block `o`'s top left one, or 0 beyond the edge of the grid.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// `[O, C * factor * factor]` from the patches `x` `[P, C]`. The input `blocks` `[O, 4]` gives each
/// block's top left patch, how many patches there are to the right (1 to `factor`) and down (1 to
/// `factor`), and how many a row of its grid has.
pub fn unfold(g: &mut Graph, x: TensorId, blocks: TensorId, factor: usize) -> TensorId {
    let cols = g.tensor(x).cols * factor * factor;
    let y = g.scratch("unfold", Elem::F32, Extent::OUTS, cols);
    g.push("unfold", Unfold { x, blocks, factor, y });
    y
}

#[derive(Debug)]
struct Unfold {
    x: TensorId,
    blocks: TensorId,
    factor: usize,
    y: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    factor: u32,
}

/// Columns a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.x.read(), self.blocks.read(), self.y.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (x, blocks, mut y) = (host.f32(self.x), host.u32(self.blocks), host.f32_mut(self.y));
        let (cols, f) = (host.cols(self.x), self.factor);
        for (block, y) in blocks.chunks_exact(4).zip(y.chunks_exact_mut(cols * f * f)) {
            let [first, right, down, width] = [0, 1, 2, 3].map(|i| block[i] as usize);
            y.fill(0.0);
            for (dy, dx) in (0..down).flat_map(|dy| (0..right).map(move |dx| (dy, dx))) {
                let patch = first + dy * width + dx;
                for c in 0..cols {
                    y[c * f * f + dy * f + dx] = x[patch * cols + c];
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let (cols, f) = (graph.tensor(self.x).cols, self.factor);
        let params = Params { cols: cols as u32, factor: f as u32 };
        let groups = (cols * f * f).div_ceil(WG);
        vec![Kernel::new("unfold", params, self.uses(), move |s| grid(s.outs * groups))]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let cols = graph.tensor(self.x).cols;
        let read = step.rows * cols;
        let written = step.outs * cols * self.factor * self.factor;
        Cost { bytes: 4 * (read + written) as u64, flops: 0 }
    }
}
