//! Graphs and what they share, on one device: the GPU or the CPU reference.

use std::sync::Arc;

use crate::Result;
use crate::gpu::{Gpu, GpuGraph, GpuStore, warm};
use crate::graph::reference::{Data, Host, Store};
use crate::graph::{Graph, StepSize, TensorId};
use crate::models::ModelWeights;

/// Names a graph of a [`Runner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphId(usize);

/// Runs graphs that share weights and state by name.
#[derive(Debug)]
pub enum Runner {
    /// On a GPU.
    Gpu {
        /// The device.
        gpu: Box<Gpu>,
        /// Weights, state and scratch.
        store: GpuStore,
        /// The graphs.
        graphs: Vec<GpuGraph>,
    },
    /// By the reference functions.
    Cpu {
        /// Weights and state.
        store: Store,
        /// The graphs.
        graphs: Vec<Arc<Graph>>,
    },
}

impl Runner {
    /// On `gpu`, or on the CPU if there is none.
    pub fn new(gpu: Option<Gpu>) -> Self {
        match gpu {
            Some(gpu) => {
                Self::Gpu { gpu: Box::new(gpu), store: GpuStore::default(), graphs: vec![] }
            }
            None => Self::Cpu { store: Store::default(), graphs: vec![] },
        }
    }

    /// Loads the weights of `graph` that are not loaded yet and makes it ready to run. `progress`
    /// is told what is being done, and the bytes loaded so far for this graph.
    ///
    /// # Errors
    /// If a file cannot give a weight, or the device fails.
    pub fn add(
        &mut self,
        graph: Graph,
        weights: &ModelWeights<'_>,
        progress: &mut dyn FnMut(&str, u64),
    ) -> Result<GraphId> {
        let graph = Arc::new(graph);
        match self {
            Self::Gpu { gpu, store, graphs } => {
                let mut done = 0;
                store.add(gpu, &graph, weights, &mut |n| {
                    done = n;
                    progress("weights", n);
                })?;
                progress("shaders", done);
                graphs.push(GpuGraph::new(gpu, graph, store)?);
                Ok(GraphId(graphs.len() - 1))
            }
            Self::Cpu { store, graphs } => {
                weights.fill(&graph, store, &mut |n| progress("weights", n))?;
                store.add_states(&graph)?;
                graphs.push(graph);
                Ok(GraphId(graphs.len() - 1))
            }
        }
    }

    /// Has the kernels of these graphs compiled where the driver would only do so when they first
    /// run. `progress` is told how many are done and how many there are.
    ///
    /// # Errors
    /// If the device fails.
    pub fn warm(&self, ids: &[GraphId], progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        match self {
            Self::Gpu { gpu, graphs, .. } => {
                let graphs: Vec<_> = ids.iter().map(|id| &graphs[id.0]).collect();
                warm(gpu, &graphs, progress)
            }
            Self::Cpu { .. } => Ok(()),
        }
    }

    /// The graph.
    pub fn graph(&self, id: GraphId) -> &Arc<Graph> {
        match self {
            Self::Gpu { graphs, .. } => graphs[id.0].graph(),
            Self::Cpu { graphs, .. } => &graphs[id.0],
        }
    }

    /// The graph as it is on the GPU, if that is where it runs.
    pub fn gpu_graph(&self, id: GraphId) -> Option<&GpuGraph> {
        match self {
            Self::Gpu { graphs, .. } => Some(&graphs[id.0]),
            Self::Cpu { .. } => None,
        }
    }

    /// Overwrites a state tensor of a graph, in all graphs that share it.
    pub fn write_state(&mut self, id: GraphId, tensor: TensorId, data: Data) {
        match self {
            Self::Gpu { graphs, .. } => graphs[id.0].write(tensor, &data),
            Self::Cpu { store, graphs } => {
                store.set_state(&graphs[id.0].tensor(tensor).name, data);
            }
        }
    }

    /// Runs one step and returns the outputs `wanted`. Inputs may be shorter than the graph
    /// declares where the rest is not read.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(
        &mut self,
        id: GraphId,
        step: StepSize,
        inputs: Vec<(TensorId, Data)>,
        wanted: &[TensorId],
    ) -> Result<Vec<Data>> {
        match self {
            Self::Gpu { graphs, .. } => graphs[id.0].run(step, &inputs, wanted),
            Self::Cpu { store, graphs } => {
                let host = Host::new(&graphs[id.0], store, step, inputs);
                host.run();
                Ok(wanted.iter().map(|&t| host.data(t)).collect())
            }
        }
    }
}
