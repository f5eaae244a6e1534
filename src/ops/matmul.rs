//! Matrix products with weights, dense and grouped by expert.
//!
//! Dense: `y[r, n] = sum_k x[r, k] w[n, k] (+ bias) (+ residual)`. With groups, each has columns of `x`
//! and of `y` and rows of `w` for itself: one after the other, as in DeepSeek-V4's grouped output
//! projection, or as [`Slices`] say.
//!
//! Experts: a row of the result is a slot `(token, choice)`, whose expert's rows of the bank are
//! multiplied: [`expert_gate_up`] makes `silu(min(w1 x, limit)) * clamp(w3 x) * routing weight`,
//! [`expert_down`] multiplies by `w2`. Where an expert's rows lie in the bank is looked up in a page
//! table, so that a bank may hold fewer experts than the model has.
//!
//! Two kernels: `matmul_rows` for up to [`FEW_ROWS`] rows reads each weight once and is bound by the
//! bytes of `w`; `matmul_tiles` is bound by `2 * rows * N * K` operations. Both decode weights of
//! any format in registers. Each has a twin (`_q8`) that multiplies integers, for `x` in 8 bits from
//! [`quantize_activations`](super::quantize_activations) and weights whose formats allow it.
//! Where subgroups multiply matrices, `matmul_matrices` takes the place of `matmul_tiles`. Software
//! adapters, where loads are what costs, have `matmul_lanes_rows` and `matmul_lanes` in place of all.

use std::ops::{Range, RangeInclusive};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::expert_tiles::{TileSet, TileSizes};
use super::matmul_gated::MatmulGated;
use super::matmul_lanes::{Few, Lanes, Ring};
use super::matmul_matrices::Tiles as MatrixTiles;
use super::quantize_activations::{CodeOrder, EIGHT_BIT_GROUP, columns, expand as expand_codes};
use super::rms_norm::normalise;
use super::swiglu::gated;
use crate::gpu::tuning::{ExpertTile, Numbers, Team, Tile, Work};
use crate::gpu::{Binding, Kernel, Limits};
use crate::graph::reference::Host;
use crate::graph::{Cost, Elem, Extent, Graph, Norm, Op, Part, StepSize, Tensor, TensorId, Use};

/// Up to this many rows the row-wise kernel is used.
pub const FEW_ROWS: usize = 8;

/// Slots that an expert's tiles hold: a chunk of 512 tokens spread over 256 experts gives each a dozen, over
/// 64 experts four times as many.
pub const EXPERT_TILES: TileSizes = TileSizes { small: 16, large: 32 };

/// What a dense product does beside multiplying.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// Groups; 0 and 1 both mean a plain product.
    pub groups: usize,
    /// Which columns and rows a group has, if not those that follow its predecessor's.
    pub slices: Option<Slices>,
    /// `[1, N]`, added to every row.
    pub bias: Option<TensorId>,
    /// Of the result's shape, added to it.
    pub residual: Option<TensorId>,
    /// The result is the graph's output of this name rather than scratch.
    pub output: Option<&'static str>,
    /// The result goes into columns of this f32 tensor, whose other columns stay.
    pub into: Option<TensorId>,
    /// What is multiplied is never rounded to f16, whatever other products are: a small difference may
    /// choose another expert.
    pub exact: bool,
}

/// The columns or rows that belong to a group: those from `group * step + at` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// From one group to the next.
    pub step: usize,
    /// Where group 0 begins.
    pub at: usize,
}

impl Slice {
    pub(super) fn of(self, group: usize) -> usize {
        group * self.step + self.at
    }

    /// Whether `groups` pieces of `len` lie within `all` without overlapping.
    pub(super) fn fits(self, groups: usize, len: usize, all: usize) -> bool {
        self.of(groups - 1) + len <= all && (groups == 1 || self.step >= len)
    }
}

/// What of `x`, `w` and `y` belongs to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Columns of `x`, as many as the inner length.
    pub x: Slice,
    /// Rows of `w`; of a product that is not transposed, `outputs` of them.
    pub w: Slice,
    /// Columns of `y`, `outputs` of them.
    pub y: Slice,
    /// Results of a group.
    pub outputs: usize,
}

/// `x` `[n, K]` times `w` `[N, K]`, transposed: `[n, N]`. `x` may be in 8 bits, in the order of the
/// codes of `w`.
pub fn matmul(g: &mut Graph, x: TensorId, w: TensorId) -> TensorId {
    matmul_with(g, x, w, Extra::default())
}

/// [`matmul`] with groups, a bias or a residual. `K` is a group's inner length.
pub fn matmul_with(g: &mut Graph, x: TensorId, w: TensorId, extra: Extra) -> TensorId {
    let groups = extra.groups.max(1);
    check_order(g, x, w);
    let (from, weight) = (g.tensor(x), g.tensor(w));
    let (k, rows, n) = (weight.cols, from.rows, weight.rows.fixed / groups);
    let x_cols = columns(from);
    let slices = extra.slices.unwrap_or_else(|| {
        assert_eq!(x_cols, groups * k, "inner lengths of `{}`", weight.name);
        assert_eq!(weight.rows.fixed % groups, 0, "groups of `{}`", weight.name);
        let after = |step| Slice { step, at: 0 };
        Slices { x: after(k), w: after(n), y: after(n), outputs: n }
    });
    assert!(slices.x.fits(groups, k, x_cols), "columns of x for `{}`", weight.name);
    assert!(
        slices.w.fits(groups, slices.outputs, weight.rows.fixed),
        "rows a group of `{}`",
        weight.name
    );
    let part = short(&weight.name).to_owned();
    let y = result(g, &part, rows, groups, &slices, &extra);
    if groups > 1 {
        g.keep_together(w, slices.w.step);
    }
    g.push(&part, Matmul { x, w, y, groups, slices, extra, norm: None });
    y
}

/// The tensor that the columns of all groups go to.
pub(super) fn result(
    g: &mut Graph,
    part: &str,
    rows: Extent,
    groups: usize,
    slices: &Slices,
    extra: &Extra,
) -> TensorId {
    let cols = groups * slices.outputs;
    let y = match (extra.into, extra.output) {
        (Some(y), _) => y,
        (None, Some(name)) => g.output(name, Elem::F32, rows, cols),
        (None, None) => g.scratch(part, Elem::F32, rows, cols),
    };
    let t = g.tensor(y);
    assert!(
        t.rows == rows && slices.y.fits(groups, slices.outputs, t.cols),
        "columns of `{}` for `{part}`",
        t.name
    );
    y
}

/// `layers.3.attn.wq_a.weight` -> `wq_a`.
pub(super) fn short(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    name.rsplit('.').next().unwrap_or(name)
}

/// The chosen experts of each token and the banks' page table.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// `[T, k]` U32, from [`super::route`].
    pub ids: TensorId,
    /// `[T, k]` routing weights.
    pub weights: TensorId,
    /// `[1, experts]` U32: the page of the bank that holds the expert.
    pub pages: TensorId,
    /// From [`super::expert_tiles`] with [`EXPERT_TILES`]: needed above [`FEW_ROWS`] tokens.
    pub tiles: Option<(TensorId, TensorId)>,
}

/// First half of the experts: `x` `[T, D]`, banks `[pages*I, D]` -> `[T*k, I]`.
pub fn expert_gate_up(
    g: &mut Graph,
    x: TensorId,
    w1: TensorId,
    w3: TensorId,
    chosen: Chosen,
    limit: f32,
) -> TensorId {
    expert(g, x, w1, Some((w3, limit)), chosen)
}

/// Second half: `h` `[T*k, I]`, bank `[pages*D, I]` -> `[T*k, D]`.
pub fn expert_down(g: &mut Graph, h: TensorId, w2: TensorId, chosen: Chosen) -> TensorId {
    expert(g, h, w2, None, chosen)
}

fn expert(
    g: &mut Graph,
    x: TensorId,
    w: TensorId,
    gate: Option<(TensorId, f32)>,
    chosen: Chosen,
) -> TensorId {
    let k = g.tensor(chosen.ids).cols;
    let n = g.tensor(w).granule;
    check_order(g, x, w);
    if let Some((w3, _)) = gate {
        assert_eq!(g.tensor(w).elem, g.tensor(w3).elem, "banks read by one kernel");
    }
    let share = match g.tensor(x).rows.per_row {
        1 => k,
        rows => {
            assert_eq!(rows, k, "expert input has a row a token or a row a slot");
            1
        }
    };
    let part = short(&g.tensor(w).name).to_owned();
    let y = g.scratch(&part, Elem::F32, Extent::rows(k), n);
    g.push(&part, Expert { x, w, y, gate, chosen, share, k });
    y
}

#[derive(Clone, Debug)]
pub(super) struct Matmul {
    pub x: TensorId,
    pub w: TensorId,
    pub y: TensorId,
    pub groups: usize,
    pub slices: Slices,
    pub extra: Extra,
    /// What is made of `x` before it is multiplied.
    pub norm: Option<Norm>,
}

#[derive(Debug)]
struct Expert {
    x: TensorId,
    w: TensorId,
    y: TensorId,
    /// The second bank and the clamp, in the gated half.
    gate: Option<(TensorId, f32)>,
    chosen: Chosen,
    /// Slots that read the same row of `x`.
    share: usize,
    k: usize,
}

/// `Params` of `shaders/lib/matmul_params.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Params {
    pub k: u32,
    pub n: u32,
    pub oct: u32,
    pub layout: Layout,
    pub x_cols: u32,
    pub y_cols: u32,
    pub x: [u32; 2],
    pub y: [u32; 2],
    pub w: [u32; 2],
    pub group: u32,
    pub first: u32,
    pub count: u32,
    pub per_row: u32,
    pub per_out: u32,
    pub fixed: u32,
    pub share: u32,
    pub limit: f32,
    pub up: u32,
    pub eps: f32,
    pub outs: u32,
}

impl Params {
    /// For products of `w` and rows of `x`, without groups or parts.
    pub(super) fn new(x: &Tensor, w: &Tensor, y: &Tensor) -> Self {
        let unit = if in_eight_bits(x) { EIGHT_BIT_GROUP } else { 1 };
        Self {
            k: w.cols as u32,
            oct: w.cols.div_ceil(8) as u32,
            layout: Layout::of(w),
            x_cols: (columns(x) / unit) as u32,
            y_cols: y.cols as u32,
            per_row: y.rows.per_row as u32,
            per_out: y.rows.per_out as u32,
            fixed: y.rows.fixed as u32,
            share: 1,
            ..Self::default()
        }
    }
}

/// Where a kernel finds the rows of a weight and their parts, as `shaders/lib/weight.wgsl` asks.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Layout {
    /// From one row to the next, in 16 bytes.
    pub pitch: u32,
    /// Where in a row the second, third and fourth plane begin, in words; 0 if there is none.
    planes: [u32; 3],
}

impl Layout {
    pub(super) fn of(weight: &Tensor) -> Self {
        let mut planes = [0; 3];
        if let Elem::Block(format) = weight.elem {
            let starts = format.planes(weight.cols);
            for (to, &from) in planes.iter_mut().zip(&starts[1..starts.len() - 1]) {
                *to = from as u32;
            }
        }
        Self { pitch: (weight.row_bytes() / 16) as u32, planes }
    }
}

impl From<Slice> for [u32; 2] {
    fn from(s: Slice) -> Self {
        [s.step as u32, s.at as u32]
    }
}

/// Whether these activations are in 8 bits.
pub(super) fn in_eight_bits(x: &Tensor) -> bool {
    x.elem == Elem::U32
}

/// Activations in 8 bits meet only weights that are multiplied as integers.
fn check_order(g: &Graph, x: TensorId, w: TensorId) {
    let (x, w) = (g.tensor(x), g.tensor(w));
    assert!(!in_eight_bits(x) || CodeOrder::of(w.elem).is_some(), "8 bits for `{}`", w.name);
}

/// The numbers of activations that meet the weights `w`.
fn numbers(host: &Host<'_>, x: TensorId, w: TensorId) -> Vec<f32> {
    match CodeOrder::of(host.graph.tensor(w).elem) {
        Some(order) if in_eight_bits(host.graph.tensor(x)) => expand_codes(&host.u32(x), order),
        _ => host.f32(x).to_vec(),
    }
}

/// The same of a dense product, which may have to make their norm.
pub(super) fn operand(host: &Host<'_>, x: TensorId, w: TensorId, norm: Option<Norm>) -> Vec<f32> {
    let mut numbers = numbers(host, x, w);
    if let Some(n) = norm {
        let weight = host.f32(n.weight);
        for row in numbers.chunks_exact_mut(host.cols(x)) {
            normalise(&mut row[n.of.at..][..weight.len()], &weight, n.eps);
        }
    }
    numbers
}

/// `matmul_rows` or its twin, for so many rows a workgroup.
pub(super) fn rows_at_once(kernel: Kernel, team: Team, rows: usize) -> Kernel {
    kernel.constants([("LANES", team.lanes), ("OUTS", team.outs), ("ROWS", rows)])
}

/// `matmul_tiles` or its twin.
fn tiled(kernel: Kernel, tile: Tile) -> Kernel {
    let ([bm, bn], [tm, tn]) = (tile.block, tile.each);
    kernel.constants([("BM", bm), ("BN", bn), ("TM", tm), ("TN", tn)])
}

/// The kernels that multiply activations of one kind.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// One kernel for few rows and one for many.
    Tiled(Tiled),
    /// Those of software adapters.
    Lanes(Lanes),
}

/// `matmul_rows` and `matmul_tiles`, or their twins.
#[derive(Clone, Copy)]
pub(super) struct Tiled {
    pub rows: &'static str,
    tiles: &'static str,
    numbers: Numbers,
    /// What takes the place of `tiles`.
    matrices: Option<MatrixTiles>,
}

impl Tiled {
    /// The team of `rows` where a row has so many results in all.
    pub fn team(&self, outputs: usize, limits: &Limits) -> Team {
        limits.tuning.team(self.numbers, outputs)
    }
}

impl Kind {
    /// Those for `x` and `outputs` rows of `w`, or of as many `banks` as are multiplied together, on
    /// this device. This is where it is decided which kernels an adapter gets.
    pub fn of(x: &Tensor, w: &Tensor, outputs: usize, banks: usize, limits: &Limits) -> Self {
        let codes = CodeOrder::of(w.elem).filter(|_| in_eight_bits(x));
        let small = outputs.min(w.cols) < Work::LONG_SIDE;
        let numbers = Numbers::of(w.elem, in_eight_bits(x));
        if let Some(lanes) = Lanes::of(limits, w, small, banks, numbers, codes) {
            return Self::Lanes(lanes);
        }
        let (rows, tiles) = match numbers {
            Numbers::EightBits => ("matmul_rows_q8", "matmul_tiles_q8"),
            _ => ("matmul_rows", "matmul_tiles"),
        };
        let matrices = MatrixTiles::of(limits, w).filter(|_| numbers != Numbers::EightBits);
        Self::Tiled(Tiled { rows, tiles, numbers, matrices })
    }
}

/// Outputs for which it pays to make a norm along with them: every workgroup reads the weights of the
/// norm anew, which for more costs as much as the dispatch that is saved.
pub(super) const NORMED_OUTPUTS: usize = 8192;
/// Rows of x a workgroup of `matmul_rows` serves at most.
pub(super) const ROWS_MAX: usize = 4;

/// What a workgroup of `matmul_tiles` makes of the tiles of experts, of `banks` weights at once.
fn expert_tile(set: TileSet, banks: usize, chosen: ExpertTile) -> Tile {
    let each = match (set, chosen.large) {
        (TileSet::Small, _) => chosen.small,
        (_, [rows, outputs]) => [rows, outputs / banks],
    };
    Tile { block: [set.slots(EXPERT_TILES), chosen.outputs], each }
}

/// What of a grouped weight lies in one part of it.
pub(super) struct Held {
    /// The groups; only 0 without groups.
    pub groups: Range<usize>,
    /// Which of their outputs; all of them with groups, which are never parted.
    pub outputs: Range<usize>,
    /// The row, within the part, of the first output of the first group.
    pub at: usize,
}

impl Slices {
    /// What of the `groups` groups lies in rows `rows` of the weight, `len` rows each.
    pub(super) fn held(&self, groups: usize, len: usize, rows: &Range<usize>) -> Held {
        if groups > 1 {
            let of = |row: usize| (row / self.w.step).min(groups);
            let at = self.w.at;
            return Held { groups: of(rows.start)..of(rows.end), outputs: 0..len, at };
        }
        let (first, end) = (rows.start.max(self.w.at), rows.end.min(self.w.at + len));
        let outputs = first.saturating_sub(self.w.at)..end.saturating_sub(self.w.at);
        Held { groups: 0..1, outputs, at: first - rows.start }
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn uses(&self) -> Vec<Use> {
        let y = if self.extra.into.is_some() { self.y.update() } else { self.y.write() };
        let mut uses = vec![self.x.read(), self.w.read(), y];
        uses.extend(self.extra.bias.map(TensorId::read));
        uses.extend(self.extra.residual.map(TensorId::read));
        uses.extend(self.norm.map(|n| n.weight.read()));
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let x = operand(host, self.x, self.w, self.norm);
        let (w, mut y) = (host.f32(self.w), host.f32_mut(self.y));
        let bias = self.extra.bias.map(|b| host.f32(b));
        let residual = self.extra.residual.map(|r| host.f32(r));
        let (bias, residual) = (bias.as_deref(), residual.as_deref());
        let (k, cols) = (host.cols(self.w), host.cols(self.y));
        let x_cols = columns(host.graph.tensor(self.x));
        let (w, s) = (&*w, self.slices);
        y.par_chunks_exact_mut(cols).enumerate().for_each(|(r, y)| {
            for g in 0..self.groups {
                let x = &x[r * x_cols + s.x.of(g)..][..k];
                for n in 0..s.outputs {
                    let c = s.y.of(g) + n;
                    y[c] = dot(x, &w[(s.w.of(g) + n) * k..][..k])
                        + bias.map_or(0.0, |b| b[c])
                        + residual.map_or(0.0, |b| b[r * cols + c]);
                }
            }
        });
    }

    fn with(&self, part: Part, graph: &Graph) -> Option<Box<dyn Op>> {
        let (x, w, y) = (graph.tensor(self.x), graph.tensor(self.w), graph.tensor(self.y));
        // Where there are many rows, these passes are short beside the product, and kernels have neither
        // registers for two products nor time to make norms again and again.
        if y.rows.at(graph.max) > FEW_ROWS || self.groups > 1 {
            return None;
        }
        let Extra { bias, residual, output, into, .. } = self.extra;
        match part {
            Part::Norm(norm) => {
                let whole = self.slices.x.at == 0 && w.cols == x.cols;
                let worth = self.slices.outputs <= NORMED_OUTPUTS;
                let able = norm.to == self.x && self.norm.is_none() && whole && worth;
                let x = Slice { step: self.slices.x.step, at: norm.of.at };
                let slices = Slices { x, ..self.slices };
                able.then(|| -> Box<dyn Op> {
                    Box::new(Self { x: norm.of.of, slices, norm: Some(norm), ..self.clone() })
                })
            }
            Part::Gate(gate) => {
                let plain =
                    bias.or(residual).or(into).is_none() && output.is_none() && !in_eight_bits(x);
                let whole = gate.of == self.y && self.slices.outputs == w.rows.fixed;
                (plain && whole && self.slices.x.at == 0).then(|| -> Box<dyn Op> {
                    Box::new(MatmulGated { x: self.x, w: self.w, gate, norm: self.norm })
                })
            }
            Part::EightBits(_) | Part::Sum(_) => None,
        }
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (x, w, y) = (graph.tensor(self.x), graph.tensor(self.w), graph.tensor(self.y));
        let s = self.slices;
        let most = y.rows.at(graph.max);
        let eight_bits = in_eight_bits(x);
        let eights = !eight_bits && [x.cols, w.cols, s.x.step, s.x.at].iter().all(|n| n % 8 == 0);
        let unit = if eight_bits { EIGHT_BIT_GROUP } else { 1 };
        let x_slice = Slice { step: s.x.step / unit, at: s.x.at / unit };
        let work = Work::of(most, s.outputs, w.cols);
        let kind = Kind::of(x, w, s.outputs, 1, limits);
        let mut kernels = vec![];
        for (part, range) in limits.parts(graph, self.w).into_iter().enumerate() {
            let held = s.held(self.groups, s.outputs, &range);
            let (groups, count) = (held.groups.len(), held.outputs.len());
            if groups == 0 || count == 0 {
                continue;
            }
            let params = Params {
                n: s.outputs as u32,
                x: x_slice.into(),
                y: s.y.into(),
                w: Slice { step: s.w.step, at: held.at }.into(),
                group: held.groups.start as u32,
                first: held.outputs.start as u32,
                count: count as u32,
                eps: self.norm.map_or(0.0, |n| n.eps),
                ..Params::new(x, w, y)
            };
            let rows = y.rows;
            // The workgroups of a step whose number of rows is in `served`; none in others.
            let kernel =
                |shader, params, [outputs, at_once]: [usize; 2], served: RangeInclusive<usize>| {
                    let kernel = Kernel::new(shader, params, self.uses(), move |s| {
                        let rows = rows.at(s);
                        let rows = if served.contains(&rows) { rows } else { 0 };
                        [count.div_ceil(outputs), rows.div_ceil(at_once), groups].map(|b| b as u32)
                    });
                    let mut kernel = kernel
                        .flag(w.elem.name())
                        .flag_if(eights, "X8")
                        .flag_if(self.extra.bias.is_some(), "BIAS")
                        .flag_if(self.extra.residual.is_some(), "RESIDUAL")
                        .flag_if(self.norm.is_some(), "NORM");
                    kernel.bindings[1].part = part;
                    kernel
                };
            let kinds = match kind {
                Kind::Tiled(tiled) => tiled,
                Kind::Lanes(lanes) if most <= FEW_ROWS => {
                    let few = lanes.few(count, most);
                    let params = Params { outs: few.outs as u32, ..params };
                    let kernel = kernel(Few::SHADER, params, few.block(), 1..=most);
                    kernels.push(few.set(kernel));
                    continue;
                }
                Kind::Lanes(lanes) => {
                    let ring = lanes.ring(count);
                    let fewer = ring.map_or(most, |(_, above)| above.min(most));
                    if let Some((ring, above)) = ring.filter(|r| most > r.1) {
                        let params = Params { outs: ring.outs as u32, ..params };
                        let kernel = kernel(Ring::SHADER, params, ring.block(), above + 1..=most);
                        kernels.push(ring.set(kernel));
                    }
                    let kernel = kernel(lanes.shader(), params, lanes.block(), 1..=fewer);
                    let mut kernel = lanes.set(kernel, lanes.width);
                    if lanes.again() {
                        kernel.bindings.push(kernel.bindings[1]);
                    }
                    kernels.push(kernel);
                    continue;
                }
            };
            if most <= FEW_ROWS {
                let at_once = most.next_power_of_two().min(ROWS_MAX);
                let team = kinds.team(self.groups * s.outputs, limits);
                let kernel = kernel(kinds.rows, params, [team.outputs(), at_once], 1..=most);
                kernels.push(rows_at_once(kernel, team, at_once));
                continue;
            }
            let matrices = kinds.matrices.filter(|m| !(self.extra.exact && m.round()));
            let mut tiles = |work, served| {
                if let Some(matrices) = matrices {
                    let block = matrices.block(work, &limits.tuning);
                    let at_once = [block.outputs, block.rows];
                    let kernel = kernel(MatrixTiles::SHADER, params, at_once, served);
                    kernels.push(matrices.set(kernel, block, 1));
                    return;
                }
                let tile = limits.tuning.tile(kinds.numbers, work);
                let [rows, outputs] = tile.block;
                kernels.push(tiled(kernel(kinds.tiles, params, [outputs, rows], served), tile));
            };
            if work == Work::Small {
                tiles(work, 1..=most);
            } else {
                // Of what is much, steps of few rows are small all the same.
                tiles(Work::Small, 1..=Work::FEW_ROWS);
                tiles(work, Work::FEW_ROWS + 1..=most);
            }
        }
        kernels
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (w, y) = (graph.tensor(self.w), graph.tensor(self.y));
        let rows = y.rows.at(step);
        let outputs = self.groups * self.slices.outputs;
        let results = outputs * (1 + usize::from(self.extra.residual.is_some()));
        Cost {
            bytes: (w.bytes(outputs) + 4 * rows * (self.groups * w.cols + results)) as u64,
            flops: 2 * (rows * outputs * w.cols) as u64,
        }
    }
}

/// Summed up in double precision: with the few huge activations that models have, a sum in single
/// precision would be further from the truth than the kernels', which add up parts.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}

impl Op for Expert {
    fn name(&self) -> &'static str {
        if self.gate.is_some() { "expert_gate_up" } else { "expert_down" }
    }

    fn uses(&self) -> Vec<Use> {
        let Chosen { ids, weights, pages, tiles } = self.chosen;
        let mut uses = vec![self.x.read(), self.w.read(), self.y.write(), pages.read(), ids.read()];
        if let Some((w3, _)) = self.gate {
            uses.extend([weights.read(), w3.read()]);
        }
        if let Some((sorted, tiles)) = tiles {
            uses.extend([sorted.read(), tiles.read()]);
        }
        uses
    }

    fn reference(&self, host: &Host<'_>) {
        let x = numbers(host, self.x, self.w);
        let (w, mut y) = (host.f32(self.w), host.f32_mut(self.y));
        let (ids, pages) = (host.u32(self.chosen.ids), host.u32(self.chosen.pages));
        let gate = self.gate.map(|(w3, limit)| (host.f32(w3), limit));
        let gate = gate.as_ref().map(|(w3, limit)| (&**w3, *limit));
        let weights = host.f32(self.chosen.weights);
        let (k, n) = (host.cols(self.w), host.cols(self.y));
        let (w, ids, pages, weights) = (&*w, &*ids, &*pages, &*weights);
        y.par_chunks_exact_mut(n).enumerate().for_each(|(slot, y)| {
            let x = &x[slot / self.share * k..][..k];
            let bank = pages[ids[slot] as usize] as usize * n * k;
            for (c, y) in y.iter_mut().enumerate() {
                let at = bank + c * k;
                *y = dot(x, &w[at..][..k]);
                if let Some((w3, limit)) = gate {
                    *y = gated(*y, dot(x, &w3[at..][..k]), limit) * weights[slot];
                }
            }
        });
    }

    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel> {
        let (x, w, y) = (graph.tensor(self.x), graph.tensor(self.w), graph.tensor(self.y));
        let n = y.cols;
        let Chosen { ids, weights, pages, tiles } = self.chosen;
        let per_row = self.k;
        let banks = 1 + usize::from(self.gate.is_some());
        let kind = Kind::of(x, w, n, banks, limits);
        let ring = match kind {
            Kind::Lanes(lanes) => lanes.ring(n).map(|(ring, _)| ring),
            Kind::Tiled(_) => None,
        };
        // Software adapters may have one kernel for all tiles.
        let sets: &[TileSet] = match kind {
            Kind::Lanes(_) if ring.is_none() => &[TileSet::All],
            _ if per_row * graph.max.rows <= EXPERT_TILES.few() => &[TileSet::Small],
            _ => &[TileSet::Large, TileSet::Small],
        };
        // What each kernel makes of a part; that of decode has no tiles.
        let made = match tiles {
            Some(tiles) => sets.iter().map(|&set| Some((tiles, set))).collect(),
            None => vec![None],
        };
        let kernel = |part: usize,
                      range: &Range<usize>,
                      made: Option<((TensorId, TensorId), TileSet)>| {
            let params = Params {
                n: n as u32,
                first: (range.start / n) as u32,
                count: (range.len() / n) as u32,
                share: self.share as u32,
                limit: self.gate.map_or(0.0, |g| g.1),
                outs: ring.map_or(0, |ring| ring.outs as u32),
                ..Params::new(x, w, y)
            };
            let mut uses = vec![self.x.read(), self.w.read(), self.y.write(), pages.read()];
            let kernel = if let Some(((sorted, tiles), set)) = made {
                uses.extend([sorted.read(), tiles.read()]);
                let kernel = |shader, outputs: usize| {
                    let columns = n.div_ceil(outputs) as u32;
                    Kernel::new(shader, params, uses, move |_| [columns, 1, 1])
                };
                let kernel = match kind {
                    Kind::Lanes(lanes) => match ring.filter(|_| set == TileSet::Large) {
                        Some(ring) => ring.set(kernel(Ring::SHADER, ring.block()[0])),
                        None => {
                            let kernel = kernel(lanes.shader(), lanes.block()[0]);
                            lanes.set(kernel, set.slots(EXPERT_TILES))
                        }
                    },
                    Kind::Tiled(Tiled { matrices: Some(m), .. }) => {
                        let rows = set.slots(EXPERT_TILES);
                        let block = m.expert_block(rows, banks, &limits.tuning);
                        m.set(kernel(MatrixTiles::SHADER, block.outputs), block, banks)
                    }
                    Kind::Tiled(kinds) => {
                        let chosen = limits.tuning.expert_tile(kinds.numbers);
                        let tile = expert_tile(set, banks, chosen);
                        tiled(kernel(kinds.tiles, tile.block[1]), tile)
                    }
                };
                let after = u32::from(set == TileSet::Small);
                kernel.constant("SMALL_TILES", after).told(tiles, set as u32)
            } else {
                uses.push(ids.read());
                let slots = move |outputs: usize| {
                    move |s: StepSize| [n.div_ceil(outputs) as u32, (per_row * s.rows) as u32, 1]
                };
                match kind {
                    Kind::Tiled(kinds) => {
                        let team = kinds.team(per_row * n, limits);
                        let kernel = Kernel::new(kinds.rows, params, uses, slots(team.outputs()));
                        rows_at_once(kernel, team, 1)
                    }
                    Kind::Lanes(lanes) => {
                        let few = lanes.few(n, 1);
                        let params = Params { outs: few.outs as u32, ..params };
                        let grid = slots(few.block()[0]);
                        few.set(Kernel::new(Few::SHADER, params, uses, grid))
                    }
                }
            };
            let mut kernel = kernel
                .flag(w.elem.name())
                .flag("EXPERTS")
                .flag_if(!in_eight_bits(x) && x.cols % 8 == 0, "X8")
                .flag_if(self.gate.is_some(), "GATED");
            if let Some((w3, _)) = self.gate {
                kernel.bindings.extend([weights.read(), w3.read()].map(Binding::from));
                if let Some(last) = kernel.bindings.last_mut() {
                    last.part = part;
                }
            }
            kernel.bindings[1].part = part;
            if matches!(kind, Kind::Lanes(lanes) if lanes.again() && tiles.is_some()) {
                kernel.bindings.push(kernel.bindings[1]);
            }
            kernel
        };
        let parts = limits.parts(graph, self.w);
        let each = |(part, range)| made.iter().map(move |&made| (part, range, made));
        let each = parts.iter().enumerate().flat_map(each);
        each.map(|(part, range, made)| kernel(part, range, made)).collect()
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let (x, w) = (graph.tensor(self.x), graph.tensor(self.w));
        let slots = self.k * step.rows;
        let experts = graph.tensor(self.chosen.pages).cols.min(slots);
        let banks = 1 + usize::from(self.gate.is_some());
        let n = w.granule;
        let floats = x.rows.at(step) * x.cols + slots * n;
        Cost {
            // At most: every slot another expert, up to all of them.
            bytes: (banks * w.bytes(n) * experts + 4 * floats) as u64,
            flops: (2 * banks * slots * n * w.cols) as u64,
        }
    }
}
