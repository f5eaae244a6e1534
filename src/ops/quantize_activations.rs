//! Activations in 8 bits, for products with weights in block formats: 32 columns share a scale.
//!
//! `s` is `max(|x|) / 127` and a code `round(x / s)`, so that the largest number stays: a few are so
//! large that the least error in them is more than all others. With the codes go `s` and, for formats
//! whose numbers have a shift, `s` times the sums of the first 16 codes and of the last. llama.cpp
//! rounds in the same way. The steps are exact or rounded correctly: on any device the same bits come
//! out.
//!
//! A group is [`WORDS`] words: 8 of codes, `s`, the two sums, and a spare one.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::formats::BlockFormat;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::reference::Host;
use crate::graph::{Cost, EightBits, Elem, Graph, Op, Part, StepSize, Tensor, TensorId, Use};

/// Columns that share a scale.
pub const EIGHT_BIT_GROUP: usize = 32;
/// Words of a group.
const WORDS: usize = 12;
/// Invocations a workgroup: the shader's default.
const WG: usize = 64;

/// The op's name.
const NAME: &str = "quantize_activations";

/// Which codes share a word: those of weights in the same places of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrder {
    /// The even columns of 8, then the odd ones: as weights of less than 8 bits are taken apart.
    Parted,
    /// Four neighbours.
    Bytes,
}

impl CodeOrder {
    /// The order for weights of this type, if there are kernels that multiply them as integers.
    pub fn of(elem: Elem) -> Option<Self> {
        use BlockFormat::*;
        match elem {
            Elem::Block(Q8_0) => Some(Self::Bytes),
            Elem::Block(Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q2K | Q3K | Q4K | Q5K | Q6K | MXFP4) => {
                Some(Self::Parted)
            }
            _ => None,
        }
    }

    /// The label of nodes that make it.
    fn part(self) -> &'static str {
        match self {
            Self::Parted => "eight_bits",
            Self::Bytes => "eight_bits_in_order",
        }
    }

    /// Where column `i` of a group has its code, in bytes.
    fn place(self, i: usize) -> usize {
        match self {
            Self::Parted => i % 2 * 16 + i / 8 * 4 + i % 8 / 2,
            Self::Bytes => i,
        }
    }
}

/// `x` `[n, cols]` in 8 bits, as a U32 tensor that [`super::matmul_with`] takes in place of `x`. If
/// the graph has it already and `x` has not changed since, that is used again.
pub fn quantize_activations(g: &mut Graph, x: TensorId, order: CodeOrder) -> TensorId {
    let (rows, cols) = (g.tensor(x).rows, g.tensor(x).cols);
    assert_eq!(cols % EIGHT_BIT_GROUP, 0, "columns of `{}`", g.tensor(x).name);
    let maker = g.maker(x, g.nodes().len());
    // What has been made of `x` since it was written.
    for node in &g.nodes()[maker.unwrap_or(0)..] {
        match node.op.part() {
            Some(Part::EightBits(e)) if e.of == x && e.order == order => return e.to,
            _ => {}
        }
    }
    let y = g.scratch(order.part(), Elem::U32, rows, cols / EIGHT_BIT_GROUP * WORDS);
    g.push(order.part(), QuantizeActivations(EightBits { of: x, to: y, order }));
    y
}

/// Columns of the activations in `t`, which may be in 8 bits.
pub(super) fn columns(t: &Tensor) -> usize {
    if t.elem == Elem::U32 { t.cols / WORDS * EIGHT_BIT_GROUP } else { t.cols }
}

/// The numbers that activations in 8 bits mean.
pub(super) fn expand(words: &[u32], order: CodeOrder) -> Vec<f32> {
    let group = |words: &[u32]| {
        let codes: &[i8] = bytemuck::cast_slice(&words[..8]);
        let scale = f32::from_bits(words[8]);
        std::array::from_fn::<f32, EIGHT_BIT_GROUP, _>(|i| scale * f32::from(codes[order.place(i)]))
    };
    words.par_chunks_exact(WORDS).flat_map_iter(group).collect()
}

/// `kernel` of an op that writes its result in 8 bits, with what it is before beside it if that is to
/// be kept.
pub(super) fn flag_eight_bits(kernel: Kernel, made: Option<EightBits>, keep: bool) -> Kernel {
    let Some(e) = made else { return kernel };
    let kernel = kernel.flag("EIGHT_BITS").flag_if(keep, "KEEP");
    kernel.flag_if(e.order == CodeOrder::Bytes, "BYTES")
}

#[derive(Debug)]
struct QuantizeActivations(EightBits);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    groups: u32,
    rows_per_row: u32,
    rows_per_out: u32,
    rows_fixed: u32,
}

/// `v` times a power of two.
fn scaled(v: f32, exponent: i32) -> f32 {
    f32::from_bits(v.to_bits().wrapping_add_signed(exponent << 23))
}

/// What a code of 1 means in a group whose largest magnitude has the bits `top`, and the inverse.
fn scale_of(top: u32) -> (f32, f32) {
    let exponent = (top >> 23) as i32;
    match exponent {
        255 => return (f32::from_bits(top), 0.0),
        ..20 => return (0.0, 0.0),
        _ => {}
    }
    // The largest magnitude is less than most * 2^(exponent - 142), if by so little that it is still
    // rounded to 127.
    let most = (top >> 8 & 0x7fff) + 0x8001;
    let inverse = scaled(((127 << 24) / most) as f32, 118 - exponent);
    (f32::from_bits(top) * (1.0 / 127.0), inverse)
}

/// Writes rows of whole groups in 8 bits.
pub(super) fn quantize(x: &[f32], order: CodeOrder, words: &mut [u32]) {
    let groups = words.par_chunks_exact_mut(WORDS).zip(x.par_chunks_exact(EIGHT_BIT_GROUP));
    groups.for_each(|(words, x)| quantize_group(x, order, words));
}

/// Writes the words of one group.
fn quantize_group(x: &[f32], order: CodeOrder, words: &mut [u32]) {
    let top = x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let (scale, inverse) = scale_of(top);
    let mut sums = [0; 2];
    words.fill(0);
    let codes: &mut [i8] = bytemuck::cast_slice_mut(&mut words[..8]);
    for (i, v) in x.iter().enumerate() {
        let code = (v * inverse).round_ties_even() as i8;
        codes[order.place(i)] = code;
        sums[i / 16] += i32::from(code);
    }
    let floats = [scale, scale * sums[0] as f32, scale * sums[1] as f32];
    words[8..11].copy_from_slice(&floats.map(f32::to_bits));
}

impl Op for QuantizeActivations {
    fn name(&self) -> &'static str {
        NAME
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.0.of.read(), self.0.to.write()]
    }

    fn reference(&self, host: &Host<'_>) {
        quantize(&host.f32(self.0.of), self.0.order, &mut host.u32_mut(self.0.to));
    }

    fn part(&self) -> Option<Part> {
        Some(Part::EightBits(self.0))
    }

    fn kernels(&self, graph: &Graph, _: &Limits) -> Vec<Kernel> {
        let x = graph.tensor(self.0.of);
        let (rows, groups) = (x.rows, x.cols / EIGHT_BIT_GROUP);
        let params = Params {
            groups: groups as u32,
            rows_per_row: rows.per_row as u32,
            rows_per_out: rows.per_out as u32,
            rows_fixed: rows.fixed as u32,
        };
        let kernel = Kernel::new(NAME, params, self.uses(), move |s| {
            grid((rows.at(s) * groups).div_ceil(WG))
        });
        vec![kernel.flag_if(self.0.order == CodeOrder::Bytes, "BYTES")]
    }

    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let n = (graph.tensor(self.0.of).rows.at(step) * graph.tensor(self.0.of).cols) as u64;
        Cost { bytes: 4 * (n + n / EIGHT_BIT_GROUP as u64 * WORDS as u64), flops: 4 * n }
    }
}
