//! Adds up what a token's experts made: `y[t] = sum_j experts[t * k + j] (+ shared[t])`.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Op, Part, StepSize, Sum, TensorId, Use};

/// Of `experts` `[T * k, D]`, already weighted, and `shared` `[T, D]`: `[T, D]`.
pub fn combine(g: &mut Graph, experts: TensorId, k: usize, shared: Option<TensorId>) -> TensorId {
    let cols = g.tensor(experts).cols;
    let y = g.scratch("combine", Elem::F32, Extent::ROWS, cols);
    g.push("combine", Combine(Sum { of: experts, k, beside: shared, to: y }));
    y
}

#[derive(Debug)]
struct Combine(Sum);

impl Sum {
    /// The sums.
    pub(super) fn numbers(&self, host: &Host<'_>) -> Vec<f32> {
        let (experts, cols) = (host.f32(self.of), host.cols(self.of));
        let mut y = vec![0.0; experts.len() / self.k];
        for (y, experts) in y.chunks_exact_mut(cols).zip(experts.chunks_exact(self.k * cols)) {
            for expert in experts.chunks_exact(cols) {
                y.iter_mut().zip(expert).for_each(|(y, e)| *y += e);
            }
        }
        if let Some(beside) = self.beside {
            y.iter_mut().zip(host.f32(beside).iter()).for_each(|(y, s)| *y += s);
        }
        y
    }
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
        let mut uses = vec![self.0.of.read(), self.0.to.write()];
        uses.extend(self.0.beside.map(TensorId::read));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        host.f32_mut(self.0.to).copy_from_slice(&self.0.numbers(host));
    }

    fn part(&self) -> Option<Part> {
        Some(Part::Sum(self.0))
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let cols = graph.tensor(self.0.to).cols;
        let params = Params { cols: cols as u32, k: self.0.k as u32, pad: [0; 2] };
        vec![
            Kernel::new("combine", params, self.uses(), move |s| {
                grid((s.rows * cols).div_ceil(SPAN))
            })
            .flag_if(self.0.beside.is_some(), "SHARED")
            .constant("SPAN", SPAN as u32)
            .one_subgroup(limits),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (step.rows * graph.tensor(self.0.to).cols) as u64;
        let read = self.0.k as u64 + u64::from(self.0.beside.is_some());
        Cost { bytes: 4 * n * (read + 1), flops: n * (read - 1) }
    }
}
