//! DeepSeek-V4-Flash-Vision-Exp: the vision tower and the aligner that makes tokens of its patches.

use super::rope::push_angles;
use super::{ModelWeights, frequencies};
use crate::Result;
use crate::formats::{RopeScaling, VisionConfig};
use crate::graph::{Elem, Extent, Graph, StepSize, TensorId};
use crate::ops::{self, Extra};

/// The tower's norms have their own epsilon, whatever the language model's is.
const EPS: f32 = 1e-6;

/// The tensors of a [`vision_graph`] that the runtime feeds and reads.
#[derive(Debug)]
pub struct VisionTensors {
    /// Input `[P, 3 * patch^2]`: normalised pixels.
    pub pixels: TensorId,
    /// Input `[P, 4]`: row and column in the picture's grid, first and one past the last patch of
    /// the picture.
    pub patches: TensorId,
    /// Input `[P, head_dim]`: cosines and sines, see [`rope_table`].
    pub rope: TensorId,
    /// Input `[O, 4]`: for each token its top-left patch, how many patches of its square exist to
    /// the right and down, and the patches in a row of its grid.
    pub blocks: TensorId,
    /// Output `[O, D]`: what replaces the embeddings of IMAGE tokens.
    pub tokens: TensorId,
}

/// The largest step of the tower: one picture of as many tokens as the model takes.
pub fn largest(vision: &VisionConfig) -> StepSize {
    let patches = vision.max_tokens * vision.downsample * vision.downsample;
    StepSize { rows: patches, outs: vision.max_tokens }
}

/// Builds the graph of the tower for pictures of up to `max.rows` patches and `max.outs` tokens in
/// all: its rows are patches, its output rows image tokens of width `hidden`, the language model's.
///
/// # Errors
/// If a weight is missing, of the wrong shape or in a format without kernels.
pub fn vision_graph(
    hidden: usize,
    vision: &VisionConfig,
    w: &mut ModelWeights<'_>,
    max: StepSize,
) -> Result<(Graph, VisionTensors)> {
    let v = vision;
    let mut graph = Graph::new("deepseek_v4 vision", max);
    let g = &mut graph;
    let head_dim = v.dim / v.heads;
    let inputs = 3 * v.patch * v.patch;
    let pixels = g.input("pixels", Elem::F32, Extent::ROWS, inputs);
    let patches = g.input("patches", Elem::U32, Extent::ROWS, 4);
    let rope = g.input("rope", Elem::F32, Extent::ROWS, head_dim);
    let blocks = g.input("blocks", Elem::U32, Extent::OUTS, 4);

    let mut x = linear(g, w, pixels, "vision.patch_embed.proj", v.dim, true, None)?;
    for block in 0..v.layers {
        let p = format!("vision.blocks.{block}");
        let n = norm(g, w, x, &format!("{p}.norm1"))?;
        let qkv = linear(g, w, n, &format!("{p}.attn.wqkv"), 3 * v.dim, true, None)?;
        ops::vit_rope(g, qkv, rope, v.heads);
        let o = ops::vit_attention(g, qkv, patches, v.heads);
        x = linear(g, w, o, &format!("{p}.attn.wo"), v.dim, true, Some(x))?;

        let n = norm(g, w, x, &format!("{p}.norm2"))?;
        let h = linear(g, w, n, &format!("{p}.mlp.w1"), 2 * v.inter, false, None)?;
        let h = ops::swiglu(g, h, None, f32::INFINITY);
        x = linear(g, w, h, &format!("{p}.mlp.w2"), v.dim, false, Some(x))?;
    }
    let x = norm(g, w, x, "vision.norm")?;

    let square = ops::unfold(g, x, blocks, v.downsample);
    let h = linear(g, w, square, "aligner.w1", hidden, true, None)?;
    ops::gelu(g, h);
    let (w2, bias) = (
        w.matrix(g, "aligner.w2.weight", hidden, hidden)?,
        w.vector(g, "aligner.w2.bias", hidden)?,
    );
    let extra = Extra { bias: Some(bias), output: Some("tokens"), ..Extra::default() };
    let tokens = ops::matmul_with(g, h, w2, extra);
    Ok((graph, VisionTensors { pixels, patches, rope, blocks, tokens }))
}

fn linear(
    g: &mut Graph,
    w: &mut ModelWeights<'_>,
    x: TensorId,
    name: &str,
    outputs: usize,
    bias: bool,
    residual: Option<TensorId>,
) -> Result<TensorId> {
    let inputs = g.tensor(x).cols;
    let weight = w.matrix(g, &format!("{name}.weight"), outputs, inputs)?;
    let bias = match bias {
        true => Some(w.vector(g, &format!("{name}.bias"), outputs)?),
        false => None,
    };
    Ok(ops::matmul_with(g, x, weight, Extra { bias, residual, ..Extra::default() }))
}

fn norm(g: &mut Graph, w: &mut ModelWeights<'_>, x: TensorId, name: &str) -> Result<TensorId> {
    let cols = g.tensor(x).cols;
    let weight = w.vector(g, &format!("{name}.weight"), cols)?;
    Ok(ops::rms_norm(g, x, weight, EPS))
}

/// Cosines and sines of the tower's 2-D rotary embedding: for each patch at `(row, column)`, a
/// quarter of a head's width of angles by its row, then as many by its column.
pub fn rope_table(vision: &VisionConfig, patches: impl Iterator<Item = (u32, u32)>) -> Vec<f32> {
    let by = frequencies(vision.dim / vision.heads / 2, vision.theta, &RopeScaling::Plain);
    let mut out = vec![];
    for (row, col) in patches {
        let angles = [row, col].into_iter().flat_map(|at| by.iter().map(move |f| at as f32 * f));
        push_angles(&mut out, angles);
    }
    out
}
