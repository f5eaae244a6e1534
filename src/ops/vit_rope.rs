//! Rotary position embedding of a vision transformer's queries and keys, each head in halves:
//! `(x1, x2) -> (x1 c - x2 s, x2 c + x1 s)` (Su et al. 2021, arXiv:2104.09864). That the angles come
//! from a patch's row and column is the table's affair.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// Rotates queries and keys of `qkv` `[P, 3 * dim]` (q, k, v; `heads` heads in each) in place.
/// `table` `[P, dim / heads]` holds each patch's cosines, then its sines.
pub fn vit_rope(g: &mut Graph, qkv: TensorId, table: TensorId, heads: usize) {
    let dims = g.tensor(table).cols;
    assert!(dims.is_multiple_of(2) && g.tensor(qkv).cols == 3 * heads * dims, "vit_rope shapes");
    g.push("rope", VitRope { qkv, table, heads });
}

#[derive(Debug)]
struct VitRope {
    qkv: TensorId,
    table: TensorId,
    heads: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
}

/// Pairs a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for VitRope {
    fn name(&self) -> &'static str {
        "vit_rope"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.qkv.update(), self.table.read()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (mut qkv, table) = (host.f32_mut(self.qkv), host.f32(self.table));
        let (cols, dims) = (host.cols(self.qkv), host.cols(self.table));
        for (qkv, table) in qkv.chunks_exact_mut(cols).zip(table.chunks_exact(dims)) {
            let (cos, sin) = table.split_at(dims / 2);
            for head in qkv[..2 * cols / 3].chunks_exact_mut(dims) {
                let (x1, x2) = head.split_at_mut(dims / 2);
                for (i, (x1, x2)) in x1.iter_mut().zip(x2).enumerate() {
                    (*x1, *x2) = (*x1 * cos[i] - *x2 * sin[i], *x2 * cos[i] + *x1 * sin[i]);
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let (heads, dims) = (self.heads, graph.tensor(self.table).cols);
        let params = Params { heads: heads as u32, dims: dims as u32 };
        let blocks = (heads * dims).div_ceil(WG);
        vec![Kernel::new("vit_rope", params, self.uses(), move |s| grid(s.rows * blocks))]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let dims = graph.tensor(self.table).cols;
        let turned = (step.rows * 2 * self.heads * dims) as u64;
        Cost { bytes: 8 * turned + (4 * step.rows * dims) as u64, flops: 3 * turned }
    }
}
