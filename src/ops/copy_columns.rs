//! Moves blocks of columns between tensors whose rows are laid out differently:
//! `to[t, h * to_step + to_at + i] = from[t, h * from_step + from_at + i]` for `h < count` and
//! `i < width`. With it a head is put together from parts that were computed apart.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Graph, Op, StepSize, TensorId, Use};

/// What [`copy_columns`] moves.
#[derive(Clone, Copy, Debug)]
pub struct CopyColumns {
    /// `[n, any]`.
    pub from: TensorId,
    /// Columns from one block of it to the next.
    pub from_step: usize,
    /// Columns before the first block.
    pub from_at: usize,
    /// `[n, any]`; its other columns stay as they are.
    pub to: TensorId,
    /// As in `from`.
    pub to_step: usize,
    /// As in `from`.
    pub to_at: usize,
    /// Blocks.
    pub count: usize,
    /// Columns a block.
    pub width: usize,
}

/// Copies in every row.
pub fn copy_columns(g: &mut Graph, c: CopyColumns) {
    assert_eq!(g.tensor(c.from).rows, g.tensor(c.to).rows, "copy_columns: rows");
    for (tensor, step, at) in [(c.from, c.from_step, c.from_at), (c.to, c.to_step, c.to_at)] {
        let end = c.count.saturating_sub(1) * step + at + c.width;
        assert!(end <= g.tensor(tensor).cols, "copy_columns: {c:?}");
    }
    assert!(c.width <= c.to_step || c.count < 2, "copy_columns: blocks overlap");
    g.push("copy", c);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    from_cols: u32,
    from_step: u32,
    from_at: u32,
    to_cols: u32,
    to_step: u32,
    to_at: u32,
    count: u32,
    width: u32,
    rows_per_row: u32,
    rows_per_out: u32,
}

/// Elements a workgroup: `WG` of the shader.
const WG: usize = 64;

impl Op for CopyColumns {
    fn name(&self) -> &'static str {
        "copy_columns"
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.from.read(), self.to.update()]
    }

    fn reference(&self, host: &Host<'_>) {
        let (from, mut to) = (host.f32(self.from), host.f32_mut(self.to));
        let rows = from.chunks_exact(host.cols(self.from));
        for (from, to) in rows.zip(to.chunks_exact_mut(host.cols(self.to))) {
            for h in 0..self.count {
                let from = &from[h * self.from_step + self.from_at..][..self.width];
                to[h * self.to_step + self.to_at..][..self.width].copy_from_slice(from);
            }
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (from, to) = (graph.tensor(self.from), graph.tensor(self.to));
        let (rows, n) = (from.rows, self.count * self.width);
        let params = Params {
            from_cols: from.cols as u32,
            from_step: self.from_step as u32,
            from_at: self.from_at as u32,
            to_cols: to.cols as u32,
            to_step: self.to_step as u32,
            to_at: self.to_at as u32,
            count: self.count as u32,
            width: self.width as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
        };
        let (wg, alone) = limits.invocations(graph, WG);
        let workgroups = move |s: StepSize| grid((rows.at(s) * n).div_ceil(wg));
        let kernel = Kernel::new("copy_columns", params, self.uses(), workgroups);
        vec![kernel.constant("WG", wg as u32).alone(alone)]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let rows = graph.tensor(self.from).rows.at(step);
        Cost { bytes: (8 * rows * self.count * self.width) as u64, flops: 0 }
    }
}
