//! What the language models' files share: the graph being built, its inputs and outputs, and the
//! parts that most architectures are made of.

use super::{Capacity, ModelWeights, RopeTable, TextTensors, frequencies};
use crate::formats::Rope;
use crate::graph::{Elem, Extent, Graph, StepSize, TensorId, fuse};
use crate::ops::{
    self, ActRound, Chosen, Columns, EIGHT_BIT_GROUP, EXPERT_TILES, Extra, FEW_ROWS, HeadRope,
    MOST_CHOICES, MOST_EXPERTS, Slice, Slices,
};
use crate::{Error, Result};

/// A language model's graph in the making.
pub(super) struct Builder<'a, 'w, C> {
    /// The model's dimensions.
    pub c: &'a C,
    pub w: &'a mut ModelWeights<'w>,
    pub g: Graph,
    /// Input `[T, 8]`: the token rows.
    pub rows: TensorId,
    /// Input `[O, 8]`: the output rows.
    pub outs: TensorId,
    pub ropes: Vec<RopeTable>,
    pub capacity: Capacity,
}

/// The experts of one layer, as a checkpoint names them.
pub(super) struct Experts<'a> {
    /// What their names begin with: `layers.3.ffn`.
    pub prefix: &'a str,
    /// The names of an expert's gate, up and down matrices: `w1`, `w3` and `w2`.
    pub matrices: [&'a str; 3],
    /// Routed experts.
    pub count: usize,
    /// Width inside a routed expert.
    pub inter: usize,
    /// Width inside the shared experts together; 0 if there are none.
    pub shared_inter: usize,
    /// Bound on gate and up values; `f32::MAX` for none.
    pub limit: f32,
    /// Whether the inputs of their matrices are rounded to FP8.
    pub narrow: bool,
    /// `[T, k]`: the chosen ones of each row.
    pub ids: TensorId,
    /// `[T, k]`: their weights.
    pub weights: TensorId,
}

impl<'a, 'w, C> Builder<'a, 'w, C> {
    /// An empty graph of the architecture called `name`, for steps of up to `max` rows.
    pub fn new(
        name: &str,
        c: &'a C,
        w: &'a mut ModelWeights<'w>,
        capacity: Capacity,
        max: StepSize,
    ) -> Self {
        let phase = if max.rows > FEW_ROWS { "prefill" } else { "decode" };
        let mut g = Graph::new(format!("{name} {phase}"), max);
        let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
        let outs = g.input("outs", Elem::U32, Extent::OUTS, 8);
        Self { c, w, g, rows, outs, ropes: vec![], capacity }
    }

    /// The weight matrix `name` `[rows, cols]`, as it is stored.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<TensorId> {
        self.w.matrix(&mut self.g, name, rows, cols)
    }

    /// The weight vector `name`, in f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<TensorId> {
        self.w.vector(&mut self.g, name, len)
    }

    /// `x` times the matrix `name` `[outputs, cols of x]`.
    pub fn linear(&mut self, x: TensorId, name: &str, outputs: usize) -> Result<TensorId> {
        self.linear_with(x, name, outputs, Extra::default())
    }

    /// [`Self::linear`] for scores that experts are chosen by.
    pub fn router(&mut self, x: TensorId, name: &str, experts: usize) -> Result<TensorId> {
        self.linear_with(x, name, experts, Extra { exact: true, ..Extra::default() })
    }

    /// [`Self::linear`] with groups, a bias or a residual.
    pub fn linear_with(
        &mut self,
        x: TensorId,
        name: &str,
        outputs: usize,
        extra: Extra,
    ) -> Result<TensorId> {
        let inputs = self.g.tensor(x).cols / extra.groups.max(1);
        let w = self.matrix(name, outputs, inputs)?;
        Ok(self.multiply(x, w, extra))
    }

    /// `x` times `w`.
    pub fn multiply(&mut self, x: TensorId, w: TensorId, extra: Extra) -> TensorId {
        let at = extra.slices.map_or([0; 2], |s| [s.x.step, s.x.at]);
        let x = self.operand(x, w, &at);
        ops::matmul_with(&mut self.g, x, w, extra)
    }

    /// `x` as a product with `w` takes it: in 8 bits, if it may be and groups of columns, which begin
    /// at multiples of `at`, are whole.
    fn operand(&mut self, x: TensorId, w: TensorId, at: &[usize]) -> TensorId {
        let (cols, w) = (self.g.tensor(x).cols, self.g.tensor(w));
        let whole = at.iter().chain(&[cols, w.cols]).all(|n| n.is_multiple_of(EIGHT_BIT_GROUP));
        match self.w.order(w.elem) {
            Some(order) if whole => ops::quantize_activations(&mut self.g, x, order),
            _ => x,
        }
    }

    /// `x`, each row over its root mean square, scaled by the vector `name`.
    pub fn norm(&mut self, x: TensorId, name: &str, eps: f32) -> Result<TensorId> {
        let cols = self.g.tensor(x).cols;
        let w = self.vector(name, cols)?;
        Ok(ops::rms_norm(&mut self.g, x, w, eps))
    }

    /// State that keeps a row `[cols]` for every position of every sequence, `src` written into it.
    pub fn keep(&mut self, name: &str, src: TensorId) -> TensorId {
        let Capacity { slots, context, .. } = self.capacity;
        let cols = self.g.tensor(src).cols;
        let state = self.g.state(name, slots * context, cols);
        ops::ring_write(&mut self.g, self.rows, src, state, context);
        state
    }

    /// `x` times the matrix `NAME.weight`, plus the vector `NAME.bias` if the model has one, plus
    /// `residual` if there is one.
    pub fn project(
        &mut self,
        x: TensorId,
        name: &str,
        outputs: usize,
        bias: bool,
        residual: Option<TensorId>,
    ) -> Result<TensorId> {
        let bias = match bias {
            true => Some(self.vector(&format!("{name}.bias"), outputs)?),
            false => None,
        };
        let extra = Extra { bias, residual, ..Extra::default() };
        self.linear_with(x, &format!("{name}.weight"), outputs, extra)
    }

    /// `x` times each of these matrices (and the outputs of each), plus their biases if the model
    /// has them: the results side by side, `[T, sum of outputs]`. Neighbours of one format are one
    /// matrix in GPU memory, so that one product reads `x` for all.
    pub fn project_all(
        &mut self,
        x: TensorId,
        parts: &[(String, usize)],
        bias: bool,
    ) -> Result<TensorId> {
        let width = parts.iter().map(|p| p.1).sum();
        self.project_into(x, parts, bias, width)
    }

    /// The same in the first of so many columns.
    fn project_into(
        &mut self,
        x: TensorId,
        parts: &[(String, usize)],
        bias: bool,
        columns: usize,
    ) -> Result<TensorId> {
        let (rows, inputs) = (self.g.tensor(x).rows, self.g.tensor(x).cols);
        let mut formats = vec![];
        for (name, outputs) in parts {
            formats.push(self.w.elem(&format!("{name}.weight"), *outputs, inputs)?);
        }
        let width: usize = parts.iter().map(|p| p.1).sum();
        let alone = width == columns && formats.iter().all(|f| *f == formats[0]);
        let into = (!alone).then(|| self.g.scratch("products", Elem::F32, rows, columns));
        let (mut y, mut at) = (into, 0);
        for run in formats.iter().zip(parts).collect::<Vec<_>>().chunk_by(|a, b| a.0 == b.0) {
            let named = |kind: &str| {
                run.iter().map(|(_, part)| (format!("{}.{kind}", part.0), part.1)).collect()
            };
            let w = self.w.stack(&mut self.g, named("weight"), inputs)?;
            let bias = match bias {
                true => Some(self.w.joined(&mut self.g, named("bias"))?),
                false => None,
            };
            let outputs = self.g.tensor(w).rows.fixed;
            let slices = into.map(|_| {
                let [x, w] = [Slice { step: inputs, at: 0 }, Slice { step: outputs, at: 0 }];
                Slices { x, w, y: Slice { step: outputs, at }, outputs }
            });
            let extra = Extra { bias, into, slices, ..Extra::default() };
            y = Some(self.multiply(x, w, extra));
            at += outputs;
        }
        Ok(y.expect("there is a matrix to multiply with"))
    }

    /// What matrices make of their inputs, of each part an input and matrices (and the outputs of each)
    /// whose results are wanted side by side. Neighbours of one input and format are one matrix in GPU
    /// memory, so that one product makes what all do. Results have a multiple of so many columns.
    pub fn project_each(
        &mut self,
        parts: &[(TensorId, Vec<(String, usize)>)],
        multiple: usize,
    ) -> Result<Vec<Columns>> {
        let mut kinds = vec![];
        for (at, (x, matrices)) in parts.iter().enumerate() {
            let mut formats = vec![];
            for (name, outputs) in matrices {
                let inputs = self.g.tensor(*x).cols;
                formats.push(self.w.elem(&format!("{name}.weight"), *outputs, inputs)?);
            }
            // A part of several formats is like no other.
            let one = formats.iter().all(|f| *f == formats[0]);
            kinds.push((*x, one.then(|| formats[0]).ok_or(at)));
        }
        let mut made = vec![];
        for run in kinds.iter().zip(parts).collect::<Vec<_>>().chunk_by(|a, b| a.0 == b.0) {
            let matrices: Vec<_> = run.iter().flat_map(|(_, part)| part.1.clone()).collect();
            let columns = matrices.iter().map(|m| m.1).sum::<usize>().next_multiple_of(multiple);
            let of = self.project_into(run[0].1.0, &matrices, false, columns)?;
            let mut at = 0;
            for (_, (_, matrices)) in run {
                made.push(Columns { of, at });
                at += matrices.iter().map(|m| m.1).sum::<usize>();
            }
        }
        Ok(made)
    }

    /// A gated feed-forward `inter` wide, its matrices named as Hugging Face does, plus `residual`.
    pub fn gated(
        &mut self,
        x: TensorId,
        p: &str,
        inter: usize,
        bias: bool,
        residual: TensorId,
    ) -> Result<TensorId> {
        let halves = ["gate_proj", "up_proj"].map(|half| (format!("{p}.{half}"), inter));
        let both = self.project_all(x, &halves, bias)?;
        let h = ops::swiglu(&mut self.g, both, None, f32::MAX);
        let hidden = self.g.tensor(residual).cols;
        self.project(h, &format!("{p}.down_proj"), hidden, bias, Some(residual))
    }

    /// The input of cosines and sines for `dim` rotated elements of each row's position.
    pub fn rope(&mut self, dim: usize, rope: &Rope) -> TensorId {
        let input = self.g.input("rope", Elem::F32, Extent::ROWS, dim);
        let frequencies = frequencies(dim, rope.theta, &rope.scaling);
        self.ropes.push(RopeTable { input, frequencies, amplitude: rope.amplitude, window: None });
        input
    }

    /// Rotates the last elements of each head of `x`, neighbours together or else halves.
    pub fn turn(&mut self, x: TensorId, rope: TensorId, heads: usize, interleaved: bool) {
        let turn = HeadRope::new(x, rope, heads);
        ops::head_rope(&mut self.g, if interleaved { turn } else { turn.halves() });
    }

    /// Refuses more experts than the kernels have room for.
    pub fn check_experts(experts: usize, experts_per_token: usize) -> Result<()> {
        let counts = [
            ("n_routed_experts", experts, MOST_EXPERTS),
            ("num_experts_per_tok", experts_per_token, MOST_CHOICES),
        ];
        counts.into_iter().try_for_each(|(name, value, most)| at_most(name, value, most))
    }

    /// What the chosen experts and the shared ones make of `x` `[T, D]`, plus `residual` if there is
    /// one.
    pub fn experts(
        &mut self,
        x: TensorId,
        e: &Experts<'_>,
        residual: Option<TensorId>,
    ) -> Result<TensorId> {
        let (k, hidden) = (self.g.tensor(e.ids).cols, self.g.tensor(x).cols);
        // Every expert is resident: the page table is the identity.
        let pages = self.w.known(&mut self.g, "expert_pages", (0..e.count as u32).collect());
        let tiles = (self.g.max.rows > FEW_ROWS)
            .then(|| ops::expert_tiles(&mut self.g, e.ids, e.count, EXPERT_TILES));
        let chosen = Chosen { ids: e.ids, weights: e.weights, pages, tiles };

        let [gate, up, down] = e.matrices;
        let w1 = self.bank(e, gate, e.inter, hidden)?;
        let w3 = self.bank(e, up, e.inter, hidden)?;
        let w2 = self.bank(e, down, hidden, e.inter)?;
        let [a, b] = [w1, w3].map(|w| self.g.tensor(w));
        if a.elem != b.elem {
            let what =
                format!("is {}, unlike the {} of `{}`", b.elem.name(), a.elem.name(), a.name);
            return Err(Error::tensor(&b.name, what));
        }
        let x = self.narrow(x, e.narrow);
        let operand = self.operand(x, w1, &[]);
        let h = ops::expert_gate_up(&mut self.g, operand, w1, w3, chosen, e.limit);
        let h = self.narrow(h, e.narrow);
        let operand = self.operand(h, w2, &[]);
        let routed = ops::expert_down(&mut self.g, operand, w2, chosen);

        let shared = match e.shared_inter {
            0 => residual,
            inter => {
                let p = format!("{}.shared_experts", e.prefix);
                let halves = [gate, up].map(|half| (format!("{p}.{half}"), inter));
                let both = self.project_all(x, &halves, false)?;
                let h = ops::swiglu(&mut self.g, both, None, e.limit);
                let h = self.narrow(h, e.narrow);
                Some(self.project(h, &format!("{p}.{down}"), hidden, false, residual)?)
            }
        };
        Ok(ops::combine(&mut self.g, routed, k, shared))
    }

    /// `x`, rounded to FP8 if asked to: the input of matrices that are released in FP8 or FP4.
    pub fn narrow(&mut self, x: TensorId, really: bool) -> TensorId {
        let r = ActRound::fp8(self.g.tensor(x).cols);
        if really { ops::act_round(&mut self.g, x, r) } else { x }
    }

    fn bank(&mut self, e: &Experts<'_>, name: &str, rows: usize, cols: usize) -> Result<TensorId> {
        let p = format!("{}.experts", e.prefix);
        let parts = (0..e.count).map(|i| format!("{p}.{i}.{name}.weight")).collect();
        self.w.bank(&mut self.g, &format!("{p}.{name}"), parts, rows, cols)
    }

    /// [`Self::finish`] from the stream `x` `[T, D]` of a model named as Hugging Face does, whose head
    /// is `table` if that is given.
    pub fn finish_stream(
        mut self,
        x: TensorId,
        eps: f32,
        vocab: usize,
        table: Option<TensorId>,
    ) -> Result<(Graph, TextTensors)> {
        let last = ops::gather(&mut self.g, x, self.outs);
        let last = self.norm(last, "model.norm.weight", eps)?;
        let head = match table {
            Some(table) => table,
            None => self.matrix("lm_head.weight", vocab, self.g.tensor(last).cols)?,
        };
        Ok(self.finish(last, head, None))
    }

    /// Ends the graph with the head: logits of `x` `[O, D]` by `head` `[vocab, D]`, and the tokens
    /// sampled from them.
    pub fn finish(
        mut self,
        x: TensorId,
        head: TensorId,
        images: Option<TensorId>,
    ) -> (Graph, TextTensors) {
        let extra = Extra { output: Some("logits"), ..Extra::default() };
        let logits = self.multiply(x, head, extra);
        let tokens = ops::sample(&mut self.g, logits, self.outs);
        let Self { mut g, rows, outs, ropes, .. } = self;
        fuse(&mut g);
        (g, TextTensors { rows, outs, images, ropes, logits, tokens })
    }
}

/// Refuses a dimension that the kernels have no room for.
pub(super) fn at_most(name: &str, value: usize, most: usize) -> Result<()> {
    if value <= most {
        return Ok(());
    }
    let what = format!("`{name}` is {value}, Fathom's kernels take up to {most}");
    Err(Error::Config(what))
}
