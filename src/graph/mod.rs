//! The dispatch graph: tensors, nodes and the order they run in.
//!
//! A [`Graph`] is built once per model and phase by a file in [`crate::models`]. It knows names,
//! shapes and lifetimes, and nothing of wgpu or of any model. Two executors run it: the GPU
//! ([`crate::gpu::GpuGraph`]) and the plain reference loops ([`mod@reference`]).
//!
//! Every tensor is a matrix of `rows x cols`, row-major. The number of rows may depend on how many
//! token rows and output rows a step has ([`Extent`]), so that one graph serves a prefill chunk of
//! any length, the decode of one sequence and the decode of many.

mod fuse;
mod plan;
pub mod reference;

use std::fmt;
use std::ops::Add;

pub use fuse::{EightBits, Gate, Norm, Part, Sum, fuse};
pub use plan::{Plan, plan};

use crate::formats::BlockFormat;
use crate::gpu::{Kernel, Limits};

/// How many rows a step has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepSize {
    /// Token rows (or patches, in a vision graph).
    pub rows: usize,
    /// Rows whose logits are wanted.
    pub outs: usize,
}

/// A number of matrix rows as a linear function of the step's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Matrix rows a token row.
    pub per_row: usize,
    /// Matrix rows an output row.
    pub per_out: usize,
    /// Matrix rows there always are.
    pub fixed: usize,
}

impl Extent {
    /// One matrix row a token row.
    pub const ROWS: Self = Self::rows(1);
    /// One matrix row an output row.
    pub const OUTS: Self = Self { per_row: 0, per_out: 1, fixed: 0 };

    /// `n` matrix rows a token row.
    pub const fn rows(n: usize) -> Self {
        Self { per_row: n, per_out: 0, fixed: 0 }
    }

    /// `n` matrix rows whatever the step's size.
    pub const fn fixed(n: usize) -> Self {
        Self { per_row: 0, per_out: 0, fixed: n }
    }

    /// The number of matrix rows in a step of size `step`.
    pub fn at(self, step: StepSize) -> usize {
        self.per_row * step.rows + self.per_out * step.outs + self.fixed
    }
}

/// What one element of a tensor is. Activations and state are `F32` or `U32`; weights may also be
/// stored in 16 bits, two to a word, or in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// 32-bit float.
    F32,
    /// 32-bit unsigned integer.
    U32,
    /// IEEE half, weights only.
    F16,
    /// bfloat16, weights only.
    BF16,
    /// Part of a block, weights only; rows are packed, see [`BlockFormat`].
    Block(BlockFormat),
}

impl Elem {
    /// Its name, which is also the flag that has a kernel read weights of it: `BF16`, `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::U32 => "U32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Block(format) => format.name(),
        }
    }
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Read-only for the life of the model; shared by name between graphs.
    Weight,
    /// Kept between steps; shared by name between graphs. Zero at first.
    State,
    /// Written and read inside one step; its memory is reused.
    Scratch,
    /// Uploaded before a step.
    Input,
    /// Kept to the end of a step, and read back if asked for.
    Output,
}

/// Names a tensor of one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u32);

impl TensorId {
    /// Position in [`Graph::tensors`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A matrix of the graph.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Unique within its home; weights carry their checkpoint name.
    pub name: String,
    /// Element type.
    pub elem: Elem,
    /// Number of rows.
    pub rows: Extent,
    /// Elements a row.
    pub cols: usize,
    /// Where it lives.
    pub home: Home,
    /// Rows that may not be parted when a weight is larger than one binding (an expert's rows).
    pub granule: usize,
}

impl Tensor {
    /// Elements between the starts of two rows in GPU memory, unless these are packed blocks. Weight
    /// matrices are padded to a multiple of 8, so that a kernel may load 16 bytes at a time;
    /// everything else is dense.
    pub fn stride(&self) -> usize {
        if self.home == Home::Weight { self.cols.next_multiple_of(8) } else { self.cols }
    }

    /// Bytes between the starts of two rows in GPU memory; of a weight, a multiple of 16.
    pub fn row_bytes(&self) -> usize {
        match self.elem {
            Elem::F32 | Elem::U32 => 4 * self.stride(),
            Elem::F16 | Elem::BF16 => 2 * self.stride(),
            Elem::Block(format) => 4 * format.packed_words(self.cols),
        }
    }

    /// Bytes in GPU memory when it has `rows` rows, rounded up to whole words.
    pub fn bytes(&self, rows: usize) -> usize {
        (rows * self.row_bytes()).next_multiple_of(4)
    }
}

/// How a node uses a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it; what it held is lost.
    Write,
    /// Reads and writes it, or writes only part of it.
    Update,
    /// Passes something through it from one of its dispatches to the next. What it holds afterwards
    /// means nothing, and the reference leaves it alone.
    Temporary,
}

impl Access {
    /// Whether what the tensor holds afterwards is a result.
    pub fn makes(self) -> bool {
        matches!(self, Self::Write | Self::Update)
    }
}

/// One use of a tensor by a node.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The tensor.
    pub tensor: TensorId,
    /// How it is used.
    pub access: Access,
}

/// Shorthands for a node's list of uses.
impl TensorId {
    /// This tensor, read.
    pub fn read(self) -> Use {
        Use { tensor: self, access: Access::Read }
    }

    /// This tensor, written.
    pub fn write(self) -> Use {
        Use { tensor: self, access: Access::Write }
    }

    /// This tensor, as room for what passes between dispatches.
    pub fn temporary(self) -> Use {
        Use { tensor: self, access: Access::Temporary }
    }

    /// This tensor, read and written.
    pub fn update(self) -> Use {
        Use { tensor: self, access: Access::Update }
    }
}

/// What an op must at least move and compute in a step; the measure of its kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes read and written once each.
    pub bytes: u64,
    /// Floating-point operations (a multiply-add counts two).
    pub flops: u64,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, flops: self.flops + other.flops }
    }
}

/// An op: its formula lives in its file's doc comment, its reference function here, its kernel in
/// the shader of the same name.
pub trait Op: fmt::Debug + Send + Sync {
    /// The op's name: that of its file in `src/ops` and in `shaders`.
    fn name(&self) -> &'static str;

    /// Every tensor it touches.
    fn uses(&self) -> Vec<Use>;

    /// The specification: plain loops over host memory.
    fn reference(&self, host: &reference::Host<'_>);

    /// The GPU dispatches that do the same, for a device with these limits.
    fn kernels(&self, graph: &Graph, limits: &Limits) -> Vec<Kernel>;

    /// What of it other nodes may do in its place: all that it does.
    fn part(&self) -> Option<Part> {
        None
    }

    /// The same op with another node's part, if one dispatch does both.
    fn with(&self, _: Part, _: &Graph) -> Option<Box<dyn Op>> {
        None
    }

    /// What a step of this size must move and compute. The default counts each tensor once, rows
    /// of state and weights in full.
    fn cost(&self, graph: &Graph, step: StepSize) -> Cost {
        let bytes = |u: &Use| {
            let t = graph.tensor(u.tensor);
            let once = t.bytes(t.rows.at(step)) as u64;
            if u.access == Access::Update { 2 * once } else { once }
        };
        Cost { bytes: self.uses().iter().map(bytes).sum(), flops: 0 }
    }

    /// What comes on top of [`Op::cost`] for what has been kept of earlier positions, if the step's rows
    /// are those after `depth` positions of one sequence.
    fn context_cost(&self, _: &Graph, _: StepSize, _depth: usize) -> Cost {
        Cost::default()
    }
}

/// One op at its place in the graph.
#[derive(Debug)]
pub struct Node {
    /// Where in the model it stands, for reports: `layers.3.wq_a`.
    pub label: String,
    /// The layer it is of, if it is of one.
    pub layer: Option<usize>,
    /// What it does.
    pub op: Box<dyn Op>,
}

/// Ops in the order they run, and the tensors between them.
#[derive(Debug)]
pub struct Graph {
    /// For reports: the model and the phase.
    pub name: String,
    /// The largest step the graph will be asked to run; scratch memory is sized for it.
    pub max: StepSize,
    tensors: Vec<Tensor>,
    nodes: Vec<Node>,
    layer: Option<usize>,
}

impl Graph {
    /// An empty graph for steps of up to `max` rows.
    pub fn new(name: impl Into<String>, max: StepSize) -> Self {
        Self { name: name.into(), max, tensors: vec![], nodes: vec![], layer: None }
    }

    /// All tensors, in the order of their ids.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// All nodes, in the order they run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The tensor called `id`.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// All tensor ids.
    pub fn ids(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.tensors.len() as u32).map(TensorId)
    }

    /// The tensor of that name and home, if there is one.
    pub fn find(&self, home: Home, name: &str) -> Option<TensorId> {
        self.ids().find(|&id| self.tensor(id).home == home && self.tensor(id).name == name)
    }

    /// Says which layer of the model nodes are pushed for from now on, if any.
    pub fn set_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }

    /// The label a node called `part` would get here.
    pub fn label(&self, part: &str) -> String {
        self.layer.map_or_else(|| part.to_owned(), |layer| format!("layers.{layer}.{part}"))
    }

    fn add(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        TensorId(self.tensors.len() as u32 - 1)
    }

    /// A tensor that is shared by name: the existing one, or a new one.
    fn shared(&mut self, tensor: Tensor) -> TensorId {
        if let Some(id) = self.find(tensor.home, &tensor.name) {
            let have = self.tensor(id);
            assert!(
                have.rows == tensor.rows && have.cols == tensor.cols && have.elem == tensor.elem,
                "two shapes for `{}`",
                tensor.name
            );
            return id;
        }
        self.add(tensor)
    }

    /// A weight matrix of `rows x cols`.
    pub fn weight(
        &mut self,
        name: impl Into<String>,
        elem: Elem,
        rows: usize,
        cols: usize,
    ) -> TensorId {
        self.bank(name, elem, rows, cols, 1)
    }

    /// A weight matrix whose rows may only be parted at multiples of `granule`.
    pub fn bank(
        &mut self,
        name: impl Into<String>,
        elem: Elem,
        rows: usize,
        cols: usize,
        granule: usize,
    ) -> TensorId {
        let (name, rows) = (name.into(), Extent::fixed(rows));
        self.shared(Tensor { name, elem, rows, cols, home: Home::Weight, granule })
    }

    /// Keeps groups of `rows` rows of a weight in one part each.
    pub fn keep_together(&mut self, weight: TensorId, rows: usize) {
        let t = &mut self.tensors[weight.index()];
        assert!(
            t.granule.is_multiple_of(rows) || rows.is_multiple_of(t.granule),
            "groups of `{}`",
            t.name
        );
        t.granule = t.granule.max(rows);
    }

    /// State kept between steps: `rows x cols`, zero at first.
    pub fn state(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> TensorId {
        let (name, rows) = (name.into(), Extent::fixed(rows));
        self.shared(Tensor { name, elem: Elem::F32, rows, cols, home: Home::State, granule: 1 })
    }

    /// A temporary of the step.
    pub fn scratch(&mut self, name: &str, elem: Elem, rows: Extent, cols: usize) -> TensorId {
        let name = self.label(name);
        self.add(Tensor { name, elem, rows, cols, home: Home::Scratch, granule: 1 })
    }

    /// Something the host uploads before each step.
    pub fn input(&mut self, name: &str, elem: Elem, rows: Extent, cols: usize) -> TensorId {
        self.shared(Tensor { name: name.into(), elem, rows, cols, home: Home::Input, granule: 1 })
    }

    /// Something the host may read after each step.
    pub fn output(&mut self, name: &str, elem: Elem, rows: Extent, cols: usize) -> TensorId {
        self.shared(Tensor { name: name.into(), elem, rows, cols, home: Home::Output, granule: 1 })
    }

    /// Appends an op; `part` is its label within the present layer.
    pub fn push(&mut self, part: &str, op: impl Op + 'static) {
        let label = self.label(part);
        self.nodes.push(Node { label, layer: self.layer, op: Box::new(op) });
    }
}
