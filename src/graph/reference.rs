//! The CPU reference executor: the graph's ops, one after another, in plain loops over host memory.
//!
//! It is the specification the kernels are checked against and is never tuned. Weights are expanded
//! to f32 and dense (no row padding).

use std::cell::{Ref, RefCell, RefMut};
use std::collections::HashMap;

use super::{Elem, Graph, Home, StepSize, TensorId};
use crate::{Error, Result};

/// A tensor's elements in host memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats; 16-bit weights are held expanded.
    F32(Vec<f32>),
    /// Integers.
    U32(Vec<u32>),
}

impl Data {
    /// `len` zeros for a tensor of element type `elem`.
    pub fn zeros(elem: Elem, len: usize) -> Self {
        match elem {
            Elem::U32 => Self::U32(vec![0; len]),
            _ => Self::F32(vec![0.0; len]),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U32(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats, if that is what it holds.
    pub fn f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(v) => Some(v),
            Self::U32(_) => None,
        }
    }

    /// The integers, if that is what it holds.
    pub fn u32(&self) -> Option<&[u32]> {
        match self {
            Self::U32(v) => Some(v),
            Self::F32(_) => None,
        }
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::U32(v) => bytemuck::cast_slice(v),
        }
    }
}

/// Weights and state, shared by name between the graphs of one model.
#[derive(Debug, Default)]
pub struct Store {
    weights: HashMap<String, RefCell<Data>>,
    states: HashMap<String, RefCell<Data>>,
}

impl Store {
    /// Puts a weight in.
    pub fn set_weight(&mut self, name: impl Into<String>, data: Data) {
        self.weights.insert(name.into(), RefCell::new(data));
    }

    /// Whether there is a weight of that name.
    pub fn has_weight(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// Replaces a state.
    pub fn set_state(&mut self, name: impl Into<String>, data: Data) {
        self.states.insert(name.into(), RefCell::new(data));
    }

    /// Makes zeroed state for every state tensor of `graph` that is not there yet.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn add_states(&mut self, graph: &Graph) -> Result<()> {
        for t in graph.tensors().iter().filter(|t| t.home == Home::State) {
            if self.states.contains_key(&t.name) {
                continue;
            }
            // Asked for once where a refusal is no abort, then given back for zeroed memory, which
            // costs nothing before it is touched.
            let len = t.rows.fixed * t.cols;
            Vec::<f32>::new().try_reserve_exact(len).map_err(|_| {
                let mib = t.bytes(t.rows.fixed) >> 20;
                let what = format!("no memory for the {mib} MiB of `{}`", t.name);
                Error::Request(format!("{what}; a smaller --context takes less"))
            })?;
            self.states.insert(t.name.clone(), RefCell::new(Data::zeros(t.elem, len)));
        }
        Ok(())
    }
}

/// What ops see of host memory during one step.
#[derive(Debug)]
pub struct Host<'a> {
    /// The graph that runs.
    pub graph: &'a Graph,
    /// The present step's size.
    pub step: StepSize,
    store: &'a Store,
    local: HashMap<TensorId, RefCell<Data>>,
}

impl<'a> Host<'a> {
    /// Host memory for one step of `graph`: scratch and outputs are allocated and zeroed, `inputs`
    /// are taken as given; one that is shorter than the graph declares is padded with zeros.
    ///
    /// # Panics
    /// If an input is missing or too long: the runtime's mistake, not a user's.
    pub fn new(
        graph: &'a Graph,
        store: &'a Store,
        step: StepSize,
        inputs: impl IntoIterator<Item = (TensorId, Data)>,
    ) -> Self {
        let mut local: HashMap<_, _> =
            inputs.into_iter().map(|(id, data)| (id, RefCell::new(data))).collect();
        for id in graph.ids() {
            let t = graph.tensor(id);
            let len = t.rows.at(step) * t.cols;
            match t.home {
                Home::Weight | Home::State => {}
                Home::Input => {
                    let Some(data) = local.get_mut(&id) else { panic!("no input `{}`", t.name) };
                    let data = data.get_mut();
                    assert!(data.len() <= len, "input `{}` is too long", t.name);
                    match data {
                        Data::F32(v) => v.resize(len, 0.0),
                        Data::U32(v) => v.resize(len, 0),
                    }
                }
                Home::Scratch | Home::Output => {
                    local.insert(id, RefCell::new(Data::zeros(t.elem, len)));
                }
            }
        }
        Self { graph, step, store, local }
    }

    fn cell(&self, id: TensorId) -> &RefCell<Data> {
        let t = self.graph.tensor(id);
        let cell = match t.home {
            Home::Weight => self.store.weights.get(&t.name),
            Home::State => self.store.states.get(&t.name),
            _ => self.local.get(&id),
        };
        cell.unwrap_or_else(|| panic!("`{}` is in no store", t.name))
    }

    /// A tensor's floats.
    ///
    /// # Panics
    /// As all of these: if the tensor is of another type or borrowed against the rules, which would
    /// be a mistake in an op.
    pub fn f32(&self, id: TensorId) -> Ref<'_, [f32]> {
        Ref::map(self.cell(id).borrow(), |d| d.f32().expect("an f32 tensor"))
    }

    /// A tensor's integers.
    pub fn u32(&self, id: TensorId) -> Ref<'_, [u32]> {
        Ref::map(self.cell(id).borrow(), |d| d.u32().expect("a u32 tensor"))
    }

    /// A tensor's floats, to write.
    pub fn f32_mut(&self, id: TensorId) -> RefMut<'_, [f32]> {
        RefMut::map(self.cell(id).borrow_mut(), |d| match d {
            Data::F32(v) => v.as_mut_slice(),
            Data::U32(_) => panic!("not an f32 tensor"),
        })
    }

    /// A tensor's integers, to write.
    pub fn u32_mut(&self, id: TensorId) -> RefMut<'_, [u32]> {
        RefMut::map(self.cell(id).borrow_mut(), |d| match d {
            Data::U32(v) => v.as_mut_slice(),
            Data::F32(_) => panic!("not a u32 tensor"),
        })
    }

    /// A copy of a tensor.
    pub fn data(&self, id: TensorId) -> Data {
        self.cell(id).borrow().clone()
    }

    /// Replaces a tensor's contents, as `verify` does with what the GPU held before a node ran.
    pub fn set(&self, id: TensorId, data: Data) {
        *self.cell(id).borrow_mut() = data;
    }

    /// Columns of a tensor.
    pub fn cols(&self, id: TensorId) -> usize {
        self.graph.tensor(id).cols
    }

    /// Rows of a tensor in this step.
    pub fn rows(&self, id: TensorId) -> usize {
        self.graph.tensor(id).rows.at(self.step)
    }

    /// Runs every node in order.
    pub fn run(&self) {
        for node in self.graph.nodes() {
            node.op.reference(self);
        }
    }
}
