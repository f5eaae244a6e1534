//! Attention of a vision transformer: `softmax(q k / sqrt(dims)) v`, each patch seeing all patches
//! of its own image. The kernel goes over the keys in tiles and corrects its softmax as it goes
//! (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// `[P, dim]` from `qkv` `[P, 3 * dim]` (q, k, v; `heads` heads in each). The input `patches`
/// `[P, 4]` gives each patch's row and column, and where the patches of its image start and end;
/// images follow each other without gaps.
pub fn vit_attention(g: &mut Graph, qkv: TensorId, patches: TensorId, heads: usize) -> TensorId {
    let (rows, dims) = (g.tensor(qkv).rows, g.tensor(qkv).cols / 3 / heads);
    assert_eq!(g.tensor(qkv).cols, 3 * heads * dims, "vit_attention: {heads} heads");
    let y = g.scratch("attention", Elem::F32, rows, heads * dims);
    g.push("attention", VitAttention { qkv, patches, heads, y });
    y
}

#[derive(Debug)]
struct VitAttention {
    qkv: TensorId,
    patches: TensorId,
    heads: usize,
    y: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
    scale: f32,
}

/// Queries a workgroup: `TILE` of the shader.
const TILE: usize = 32;

impl Op for VitAttention {
    fn name(&self) -> &'static str {
        "vit_attention"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.qkv.read(), self.patches.read(), self.y.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (qkv, patches) = (host.f32(self.qkv), host.u32(self.patches));
        let mut y = host.f32_mut(self.y);
        let cols = host.cols(self.y);
        let dims = cols / self.heads;
        let (qkv, patches) = (&*qkv, &*patches);
        y.par_chunks_exact_mut(cols).enumerate().for_each(|(p, y)| {
            let keys = patches[4 * p + 2] as usize..patches[4 * p + 3] as usize;
            for (head, y) in y.chunks_exact_mut(dims).enumerate() {
                // One head of patch p's query, key or value.
                let part =
                    |p: usize, which: usize| &qkv[(3 * p + which) * cols + head * dims..][..dims];
                let q = part(p, 0);
                let score = |k: usize| {
                    let dot: f32 = q.iter().zip(part(k, 1)).map(|(q, k)| q * k).sum();
                    dot / (dims as f32).sqrt()
                };
                let scores: Vec<f32> = keys.clone().map(score).collect();
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f32 = weights.iter().sum();
                y.fill(0.0);
                for (k, w) in keys.clone().zip(weights) {
                    y.iter_mut().zip(part(k, 2)).for_each(|(y, v)| *y += w / sum * v);
                }
            }
        });
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let heads = self.heads;
        let dims = graph.tensor(self.y).cols / heads;
        let params =
            Params { heads: heads as u32, dims: dims as u32, scale: (dims as f32).sqrt().recip() };
        let groups = move |s: StepSize| grid(heads * s.rows.div_ceil(TILE));
        vec![
            Kernel::new("vit_attention", params, self.uses(), groups)
                .constant("CHUNKS", dims.div_ceil(TILE) as u32),
        ]
    }

    /// As if all patches were of one image.
    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (rows, cols) = (step.rows as u64, graph.tensor(self.y).cols as u64);
        Cost { bytes: 4 * rows * (4 * cols + 4), flops: 4 * rows * rows * cols }
    }
}
