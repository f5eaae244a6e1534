//! Rounds activations to a narrow float format and back, as models that were trained for such
//! formats saw them: groups of columns share a scale, the least power of two that brings all of
//! the group within the format's range.
//!
//! `s = 2^ceil(log2(max(|x|, floor) / most))`, `y = s * round(x / s)`, ties to even.
//!
//! Optionally each head is first multiplied by the normalised Walsh-Hadamard matrix
//! `H[i, j] = (-1)^popcount(i & j) / sqrt(d)`, in Sylvester's order, which spreads a single large
//! number over all of them.
//!
//! Rounding works on the bits of f32 as integers: on any device the same bits come out.

use bytemuck::{Pod, Zeroable};

use super::row::Row;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Graph, Op, StepSize, TensorId, Use};

/// A format that activations are rounded to. Their scales are powers of two (ue8m0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// FP8 with 4 bits of exponent and 3 of mantissa, up to 448.
    E4m3,
    /// FP4 with 2 bits of exponent and 1 of mantissa, up to 6.
    E2m1,
}

/// A format in numbers, and the least maximum a group is taken to have.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Format {
    /// Bits of the largest number as f32.
    most: u32,
    /// Bits of mantissa.
    mantissa: u32,
    /// Exponent of the smallest normal number, negated.
    depth: u32,
    /// Bits of the least maximum as f32.
    floor: u32,
}

impl Narrow {
    fn format(self) -> Format {
        match self {
            Self::E4m3 => {
                Format { most: 448f32.to_bits(), mantissa: 3, depth: 6, floor: 1e-4f32.to_bits() }
            }
            Self::E2m1 => Format {
                most: 6f32.to_bits(),
                mantissa: 1,
                depth: 0,
                floor: (6.0 * f32::MIN_POSITIVE).to_bits(),
            },
        }
    }
}

impl Format {
    /// The exponent field of the scale of a group whose largest magnitude has the bits `top`.
    fn scale(self, top: u32) -> u32 {
        (top.max(self.floor) + 1f32.to_bits() + 0x7f_ffff - self.most) >> 23
    }

    /// The number with the bits `x`, rounded under a scale. What is not finite stays as it is.
    fn round(self, x: u32, scale: u32) -> u32 {
        let size = x & 0x7fff_ffff;
        let exponent = (size >> 23).max(1);
        // The mantissa with its leading bit, if it has one.
        let full = size - ((exponent - 1) << 23);
        // Bits the format has no room for: more below its smallest normal number.
        let dropped = 23 - self.mantissa + scale.saturating_sub(exponent + self.depth);
        if exponent == 255 {
            return x;
        }
        if dropped > 24 {
            return x & 0x8000_0000;
        }
        let even = (full >> dropped) & 1;
        let kept = (full + (1 << (dropped - 1)) - 1 + even) >> dropped << dropped;
        let size = if kept == 0 { 0 } else { kept + ((exponent - 1) << 23) };
        (x & 0x8000_0000) | size
    }

    /// Rounds one group.
    fn round_group(self, group: &mut [f32]) {
        let top = group.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
        let scale = self.scale(top);
        group.iter_mut().for_each(|v| *v = f32::from_bits(self.round(v.to_bits(), scale)));
    }
}

/// Multiplies by the normalised Walsh-Hadamard matrix.
fn hadamard(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let norm = (x.len() as f32).sqrt().recip();
    x.iter_mut().for_each(|v| *v *= norm);
}

/// How [`act_round`] rounds.
#[derive(Clone, Copy, Debug)]
pub struct ActRound {
    /// Heads a row, rounded each for itself.
    pub heads: usize,
    /// The first so many columns of a head are rounded.
    pub cols: usize,
    /// Columns that share a scale; the last group of a head may be shorter.
    pub group: usize,
    /// The format.
    pub to: Narrow,
    /// Whether to rotate whole heads before; their width is then a power of two.
    pub rotate: bool,
}

impl ActRound {
    /// To FP8, whole rows of `cols` columns in groups of 128: the input of a matrix in FP8 or FP4.
    pub fn fp8(cols: usize) -> Self {
        Self { heads: 1, cols, group: 128, to: Narrow::E4m3, rotate: false }
    }
}

/// Entries of a compressed cache, of which a step closes some: see [`super::compress`]. With a ratio of
/// 1, the places of a ring that a step writes.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// The token rows `[T, 8]`.
    pub rows: TensorId,
    /// Cache places a sequence.
    pub entries: usize,
    /// Positions an entry.
    pub ratio: usize,
}

/// The widest head that can be rotated: what the shader's workgroup memory has room for.
pub const MOST_ROTATED: usize = 512;

/// A rounded copy of `x` `[n, heads * d]`, of which all columns are rounded.
pub fn act_round(g: &mut Graph, x: TensorId, r: ActRound) -> TensorId {
    let (rows, cols) = (g.tensor(x).rows, g.tensor(x).cols);
    assert_eq!(r.heads * r.cols, cols, "act_round: a copy must be whole");
    let y = g.scratch("rounded", Elem::F32, rows, cols);
    push(g, Node { x, y: Some(y), closed: None, r });
    y
}

/// Rounds `x` `[n, heads * d]` in place.
pub fn act_round_in_place(g: &mut Graph, x: TensorId, r: ActRound) {
    push(g, Node { x, y: None, closed: None, r });
}

/// Rounds those entries of the state `cache` `[slots * entries, heads * d]` in place that the step's
/// rows have closed.
pub fn act_round_closed(g: &mut Graph, cache: TensorId, closed: Closed, r: ActRound) {
    push(g, Node { x: cache, y: None, closed: Some(closed), r });
}

fn push(g: &mut Graph, node: Node) {
    let (r, dims) = (node.r, g.tensor(node.x).cols / node.r.heads);
    assert!(r.cols <= dims && r.heads * dims == g.tensor(node.x).cols, "act_round: {r:?}");
    assert!(r.group <= SPAN, "act_round: {r:?}");
    let fits = r.cols == dims && dims.is_power_of_two() && dims <= MOST_ROTATED;
    assert!(!r.rotate || fits, "act_round: {r:?}");
    g.push("round", node);
}

#[derive(Debug)]
struct Node {
    x: TensorId,
    /// Without it `x` is changed.
    y: Option<TensorId>,
    closed: Option<Closed>,
    r: ActRound,
}

/// The most columns a workgroup works on: the shader's `SPAN`.
const SPAN: usize = 512;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    heads: u32,
    dims: u32,
    cols: u32,
    span: u32,
    group: u32,
    entries: u32,
    ratio: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    norm: f32,
    format: Format,
}

impl Node {
    fn dims(&self, graph: &Graph) -> usize {
        graph.tensor(self.x).cols / self.r.heads
    }

    /// Columns a workgroup works on: whole groups, or a whole head to rotate.
    fn span(&self) -> usize {
        match self.r.rotate {
            true => self.r.cols,
            false => SPAN / self.r.group * self.r.group,
        }
    }
}

impl Op for Node {
    fn name(&self) -> &'static str {
        "act_round"
    }

    fn uses(&self) -> Vec<Use> {
        match (self.y, self.closed) {
            (Some(y), _) => vec![self.x.read(), y.write()],
            (None, Some(closed)) => vec![self.x.update(), closed.rows.read()],
            (None, None) => vec![self.x.update()],
        }
    }

    fn reference(&self, host: &Host<'_>) {
        if let Some(y) = self.y {
            host.f32_mut(y).copy_from_slice(&host.f32(self.x));
        }
        let mut y = host.f32_mut(self.y.unwrap_or(self.x));
        let (r, cols) = (&self.r, host.cols(self.x));
        let mut round = |row: usize| {
            for head in y[row * cols..(row + 1) * cols].chunks_exact_mut(cols / r.heads) {
                if r.rotate {
                    hadamard(head);
                }
                head[..r.cols].chunks_mut(r.group).for_each(|g| r.to.format().round_group(g));
            }
        };
        match self.closed {
            None => (0..host.rows(self.x)).for_each(round),
            Some(closed) => {
                let rows = host.u32(closed.rows);
                for row in Row::all(&rows) {
                    let end = row.position as usize + 1;
                    if end.is_multiple_of(closed.ratio) {
                        let entry = (end / closed.ratio - 1) % closed.entries;
                        round(row.slot as usize * closed.entries + entry);
                    }
                }
            }
        }
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let (r, span, dims) = (self.r, self.span(), self.dims(graph));
        let extent = match self.closed {
            Some(_) => crate::graph::Extent::ROWS,
            None => graph.tensor(self.x).rows,
        };
        let params = Params {
            heads: r.heads as u32,
            dims: dims as u32,
            cols: r.cols as u32,
            span: span as u32,
            group: r.group as u32,
            entries: self.closed.map_or(0, |c| c.entries as u32),
            ratio: self.closed.map_or(1, |c| c.ratio as u32),
            rows_per_row: extent.per_row as u32,
            rows_per_out: extent.per_out as u32,
            norm: (dims as f32).sqrt().recip(),
            format: r.to.format(),
        };
        let each = r.heads * r.cols.div_ceil(span);
        vec![
            Kernel::new("act_round", params, self.uses(), move |s| grid(extent.at(s) * each))
                .flag_if(self.y.is_none(), "IN_PLACE")
                .flag_if(self.closed.is_some(), "CLOSED")
                .flag_if(r.rotate, "ROTATE"),
        ]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let rows = match self.closed {
            // As if the step began at a window's edge.
            Some(closed) => step.rows / closed.ratio,
            None => graph.tensor(self.x).rows.at(step),
        };
        let n = (rows * self.r.heads * self.r.cols) as u64;
        let adds = if self.r.rotate { u64::from(self.r.cols.ilog2()) + 1 } else { 0 };
        Cost { bytes: 8 * n, flops: n * adds }
    }
}
