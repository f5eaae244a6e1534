//! Adds up what a token's experts made: `y[t] = sum_j experts[t * k + j] (+ shared[t])`.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, StepSize, TensorId, Use};

/// Of `experts` `[T * k, D]`, already weighted, and `shared` `[T, D]`: `[T, D]`.
pub fn combine(g: &mut Graph, experts: TensorId, k: usize, shared: Option<TensorId>) -> TensorId {
    let cols = g.tensor(experts).cols;
    let y = g.scratch("combine", Elem::F32, Extent::ROWS, cols);
    g.push("combine", Combine { experts, shared, y, k });
    y
}

#[derive(Debug)]
struct Combine {
    experts: TensorId,
    shared: Option<TensorId>,
    y: TensorId,
    k: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    k: u32,
    pad: [u32; 2],
}

/// Elements a workgroup: the shader's `SPAN`.
const SPAN: usize = 256;

impl Op for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.experts.read(), self.y.write()];
        uses.extend(self.shared.map(TensorId::read));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (experts, mut y) = (host.f32(self.experts), host.f32_mut(self.y));
        let cols = host.cols(self.y);
        for (y, experts) in y.chunks_exact_mut(cols).zip(experts.chunks_exact(self.k * cols)) {
            y.fill(0.0);
            for expert in experts.chunks_exact(cols) {
                y.iter_mut().zip(expert).for_each(|(y, e)| *y += e);
            }
        }
        if let Some(shared) = self.shared {
            y.iter_mut().zip(host.f32(shared).iter()).for_each(|(y, s)| *y += s);
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let cols = graph.tensor(self.y).cols;
        let params = Params { cols: cols as u32, k: self.k as u32, pad: [0; 2] };
        vec![
            Kernel::new("combine", params, self.uses(), move |s| {
                grid((s.rows * cols).div_ceil(SPAN))
            })
            .flag_if(self.shared.is_some(), "SHARED")
            .constant("SPAN", SPAN as u32),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (step.rows * graph.tensor(self.y).cols) as u64;
        let read = self.k as u64 + u64::from(self.shared.is_some());
        Cost { bytes: 4 * n * (read + 1), flops: n * (read - 1) }
    }
}
