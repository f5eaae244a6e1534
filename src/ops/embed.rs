//! Token embedding, copied into every residual stream: `x[t, n, :] = table[token_t, :]`, where rows
//! of an image take the image's embeddings and its learned marks instead.

use bytemuck::{Pod, Zeroable};

use super::matmul::Layout;
use crate::gpu::{Binding, Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// What the rows of an image span are embedded as.
#[derive(Clone, Copy, Debug)]
pub struct EmbedVision {
    /// `[T, D]`, an input: the image embeddings of this step, of which `Row.image` names a row.
    pub images: TensorId,
    /// `[4, D]`, an f32 weight: the vectors of START, PAD, NEWLINE and END.
    pub marks: TensorId,
}

/// The streams `[T, streams * D]` of the step's `rows` `[T, 8]` (laid out as `Row` in
/// `shaders/lib/step.wgsl`) from the embedding `table` `[vocab, D]`. Without `vision` every row is
/// text.
pub fn embed(
    g: &mut Graph,
    rows: TensorId,
    table: TensorId,
    vision: Option<EmbedVision>,
    streams: usize,
) -> TensorId {
    let (extent, cols) = (g.tensor(rows).rows, g.tensor(table).cols);
    let x = g.scratch("embed", Elem::F32, extent, streams * cols);
    g.push("embed", Embed { rows, table, vision, streams, x });
    x
}

#[derive(Debug)]
struct Embed {
    rows: TensorId,
    table: TensorId,
    vision: Option<EmbedVision>,
    streams: usize,
    x: TensorId,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    cols: u32,
    streams: u32,
    layout: Layout,
    first: u32,
    count: u32,
    mark_stride: u32,
    leads: u32,
}

/// Columns a workgroup: 8 for each of the shader's `WG` invocations.
const BLOCK: usize = 8 * 64;

impl Op for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![self.rows.read(), self.table.read(), self.x.write()];
        if let Some(vision) = self.vision {
            uses.extend([vision.marks.read(), vision.images.read()]);
        }
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let (rows, table, mut x) =
            (host.u32(self.rows), host.f32(self.table), host.f32_mut(self.x));
        let cols = host.cols(self.table);
        for (row, x) in rows.chunks_exact(8).zip(x.chunks_exact_mut(self.streams * cols)) {
            let (token, kind, image) = (row[2] as usize, row[3], row[4] as usize);
            let (from, at) = match self.vision {
                Some(v) if kind == 3 => (v.images, image),
                Some(v) if kind != 0 => (v.marks, [0, 1, 2, 2, 3][kind as usize - 1]),
                _ => (self.table, token),
            };
            let other = (from != self.table).then(|| host.f32(from));
            let from = other.as_deref().unwrap_or(&table);
            for stream in x.chunks_exact_mut(cols) {
                stream.copy_from_slice(&from[at * cols..(at + 1) * cols]);
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let t = graph.tensor(self.table);
        let (extent, cols) = (graph.tensor(self.rows).rows, t.cols);
        let kernel = |(part, ids): (usize, std::ops::Range<usize>)| {
            let params = Params {
                cols: cols as u32,
                streams: self.streams as u32,
                layout: Layout::of(t),
                first: ids.start as u32,
                count: ids.len() as u32,
                mark_stride: self.vision.map_or(0, |v| graph.tensor(v.marks).stride() as u32),
                leads: u32::from(part == 0),
            };
            let mut kernel = Kernel::new("embed", params, self.uses(), move |s| {
                grid(extent.at(s) * cols.div_ceil(BLOCK))
            });
            kernel.bindings[1] = Binding { used: self.table.read(), part };
            kernel.flag(t.elem.name()).flag_if(self.vision.is_some(), "VISION")
        };
        limits.parts(graph, self.table).into_iter().enumerate().map(kernel).collect()
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let t = graph.tensor(self.table);
        let rows = graph.tensor(self.rows).rows.at(step);
        Cost { bytes: (rows * (t.row_bytes() + 4 * self.streams * t.cols)) as u64, flops: 0 }
    }
}
