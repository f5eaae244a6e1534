//! The one place that decides which ops become one dispatch.
//!
//! A [`Part`] is what a node does that another node may do in its own dispatch: activations in 8 bits and
//! gates may be left to the node that makes what they read, norms and sums to all nodes that read what
//! they make.
//! Ops say themselves which parts they can take, by [`Op::with`]. Where a part is taken its node goes,
//! and with it a dispatch and a way to memory and back.

use super::{Access, Graph, Op, TensorId};
use crate::ops::{CodeOrder, Columns};

/// A tensor, and the same in 8 bits: see [`crate::ops::quantize_activations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EightBits {
    /// What is rounded.
    pub of: TensorId,
    /// Where the codes go.
    pub to: TensorId,
    /// The order of the codes.
    pub order: CodeOrder,
}

/// A gated activation of both halves of a tensor: see [`crate::ops::swiglu`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// `[n, 2 I]`: what passes through the gate beside what opens it.
    pub of: TensorId,
    /// `[n, I]`.
    pub to: TensorId,
    /// Bound on either.
    pub limit: f32,
}

/// A root-mean-square norm: see [`crate::ops::rms_norm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What is normalised.
    pub of: Columns,
    /// The result.
    pub to: TensorId,
    /// `[1, cols]`.
    pub weight: TensorId,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// The sum of what a row's experts made: see [`crate::ops::combine`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    /// `[n * k, cols]`: what is added up, `k` rows each.
    pub of: TensorId,
    /// How many.
    pub k: usize,
    /// `[n, cols]`: one more of each, if there is one.
    pub beside: Option<TensorId>,
    /// `[n, cols]`.
    pub to: TensorId,
}

/// What a node does, if others may do it for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Rounds to 8 bits. Who takes it writes `to` beside its result `of`, which stays if it is read.
    EightBits(EightBits),
    /// Who takes it writes `to` in place of its result `of`.
    Gate(Gate),
    /// Who takes it reads `of` in place of `to`.
    Norm(Norm),
    /// The same.
    Sum(Sum),
}

/// Leaves parts to other nodes wherever these take them. A graph is whole when this is called.
pub fn fuse(g: &mut Graph) {
    // In turns, since a norm whose result is wanted in 8 bits is better off writing these, and a gate too.
    let kinds: [fn(&Part) -> bool; 4] = [
        |p| matches!(p, Part::EightBits(_)),
        |p| matches!(p, Part::Gate(_)),
        |p| matches!(p, Part::Norm(_)),
        |p| matches!(p, Part::Sum(_)),
    ];
    for kind in kinds {
        let mut node = 0;
        while node < g.nodes.len() {
            let taken = match g.nodes[node].op.part().filter(kind) {
                Some(part) => takers(g, node, part),
                None => None,
            };
            let Some(taken) = taken else {
                node += 1;
                continue;
            };
            for (at, op) in taken {
                g.nodes[at].op = op;
            }
            g.nodes.remove(node);
        }
    }
}

/// The nodes that take the part `part` of `node`, and their ops with it; `None` unless it can go.
fn takers(g: &Graph, node: usize, part: Part) -> Option<Vec<(usize, Box<dyn Op>)>> {
    let with = |at: usize| Some((at, g.nodes[at].op.with(part, g)?));
    match part {
        Part::EightBits(e) => Some(vec![with(g.maker(e.of, node)?)?]),
        Part::Gate(gate) => {
            let read_here_only = readers(g, gate.of).eq([node]);
            let maker = g.maker(gate.of, node).filter(|_| read_here_only)?;
            Some(vec![with(maker)?])
        }
        Part::Norm(norm) => {
            for_readers(g, node, &[norm.of.of], norm.to)?.into_iter().map(with).collect()
        }
        Part::Sum(sum) => {
            let of: Vec<TensorId> = [sum.of].into_iter().chain(sum.beside).collect();
            for_readers(g, node, &of, sum.to)?.into_iter().map(with).collect()
        }
    }
}

/// The readers of `to`, if each could make it from `of` as `node` does.
fn for_readers(g: &Graph, node: usize, of: &[TensorId], to: TensorId) -> Option<Vec<usize>> {
    let readers: Vec<usize> = readers(g, to).collect();
    let last = *readers.last()?;
    // What it is made from must still be there, and it be of no other node too.
    let stays = of.iter().all(|&of| g.maker(of, last) == g.maker(of, node));
    let alone = g.maker(to, last) == Some(node);
    (stays && alone).then_some(readers)
}

/// The nodes that read `id`.
fn readers(g: &Graph, id: TensorId) -> impl Iterator<Item = usize> {
    let reads = move |op: &dyn Op| {
        op.uses()
            .iter()
            .any(|u| u.tensor == id && matches!(u.access, Access::Read | Access::Update))
    };
    g.nodes.iter().enumerate().filter(move |(_, n)| reads(&*n.op)).map(|(at, _)| at)
}

impl Graph {
    /// The last node before `end` that changes `id`.
    pub(crate) fn maker(&self, id: TensorId, end: usize) -> Option<usize> {
        let changes =
            |op: &dyn Op| op.uses().iter().any(|u| u.tensor == id && u.access != Access::Read);
        self.nodes[..end].iter().rposition(|n| changes(&*n.op))
    }

    /// Whether a node reads what is in this tensor.
    pub fn is_read(&self, id: TensorId) -> bool {
        readers(self, id).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Elem, Extent, StepSize};
    use crate::ops;

    /// A norm of `x` `[rows, 64]`, and products with it.
    fn normed(rows: usize) -> (Graph, TensorId, TensorId) {
        let mut g = Graph::new("fuse", StepSize { rows, outs: 1 });
        let x = g.scratch("x", Elem::F32, Extent::ROWS, 64);
        let weight = g.weight("norm", Elem::F32, 1, 64);
        let y = ops::rms_norm(&mut g, x, weight, 1e-6);
        for name in ["w1", "w2"] {
            let w = g.weight(name, Elem::F32, 64, 64);
            ops::matmul(&mut g, y, w);
        }
        (g, x, y)
    }

    fn names(mut g: Graph) -> Vec<&'static str> {
        fuse(&mut g);
        g.nodes().iter().map(|n| n.op.name()).collect()
    }

    #[test]
    fn products_of_few_rows_make_norms_themselves() {
        assert_eq!(names(normed(8).0), ["matmul"; 2]);
        assert_eq!(names(normed(9).0), ["rms_norm", "matmul", "matmul"]);
    }

    #[test]
    fn a_norm_stays_for_who_can_not_make_it() {
        let (mut g, _, y) = normed(1);
        ops::gelu(&mut g, y);
        assert_eq!(names(g), ["rms_norm", "matmul", "matmul", "gelu"]);
    }

    #[test]
    fn a_norm_stays_if_what_it_is_of_does_not() {
        let (mut g, x, y) = normed(1);
        let weight = g.weight("part", Elem::F32, 1, 32);
        ops::rms_norm_part(&mut g, x, weight, 1e-6, 32);
        let w = g.weight("w3", Elem::F32, 64, 64);
        ops::matmul(&mut g, y, w);
        assert_eq!(names(g), ["rms_norm", "matmul", "matmul", "rms_norm", "matmul"]);
    }

    #[test]
    fn a_gate_goes_to_the_product_unless_both_halves_are_read() {
        for read in [false, true] {
            let (mut g, x, _) = normed(1);
            let w = g.weight("w1", Elem::F32, 64, 64);
            let both = ops::matmul(&mut g, x, w);
            ops::swiglu(&mut g, both, None, 1.0);
            if read {
                ops::gelu(&mut g, both);
            }
            let last = names(g).split_off(2);
            let expected: &[_] =
                if read { &["matmul", "swiglu", "gelu"] } else { &["matmul_gated"] };
            assert_eq!(last, expected);
        }
    }

    #[test]
    fn sums_go_to_who_writes_them_into_streams() {
        let mut g = Graph::new("fuse", StepSize { rows: 100, outs: 1 });
        let experts = g.scratch("experts", Elem::F32, Extent::rows(3), 64);
        let block = ops::combine(&mut g, experts, 3, None);
        let streams = g.scratch("streams", Elem::F32, Extent::ROWS, 2 * 64);
        let coef = g.scratch("coef", Elem::F32, Extent::ROWS, 6);
        ops::mhc_post(&mut g, ops::MhcPost { streams, coef, block, n: 2 });
        assert_eq!(names(g), ["mhc_post"]);
    }

    #[test]
    fn a_norm_of_some_columns_is_made_by_a_product_with_them() {
        let (mut g, x, _) = normed(1);
        let weight = g.weight("part", Elem::F32, 1, 32);
        let y = ops::rms_norm(&mut g, Columns { of: x, at: 16 }, weight, 1e-6);
        let w = g.weight("w3", Elem::F32, 64, 32);
        ops::matmul(&mut g, y, w);
        assert_eq!(names(g), ["matmul"; 3]);
    }

    #[test]
    fn what_is_wanted_in_8_bits_is_made_so() {
        let (mut g, x, y) = normed(1);
        ops::quantize_activations(&mut g, y, CodeOrder::Bytes);
        ops::quantize_activations(&mut g, x, CodeOrder::Bytes);
        assert_eq!(names(g), ["rms_norm", "matmul", "matmul", "quantize_activations"]);
    }
}
