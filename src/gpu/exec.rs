//! Runs a [`Graph`] on the GPU.
//!
//! Everything that does not change between steps is made once: pipelines, parameter blocks, bind
//! groups. A step writes its inputs, encodes one compute pass over all kernels and submits once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::kernel::Grid;
use super::pipeline::{Pipeline, PipelineKey, Pipelines};
use super::store::storage;
use super::{Gpu, GpuStore, Kernel};
use crate::Result;
use crate::graph::reference::Data;
use crate::graph::{Elem, Graph, Home, Node, StepSize, TensorId, plan};

/// A graph made ready to run on one device.
#[derive(Debug)]
pub struct GpuGraph {
    gpu: Gpu,
    graph: Arc<Graph>,
    calls: Vec<Call>,
    step: wgpu::Buffer,
    buffers: HashMap<TensorId, Vec<wgpu::Buffer>>,
    next: Option<Recorded>,
}

/// An encoded step, and where it puts what is read back.
#[derive(Debug)]
struct Recorded {
    step: StepSize,
    wanted: Vec<TensorId>,
    commands: wgpu::CommandBuffer,
    staging: wgpu::Buffer,
}

pub(super) struct Call {
    node: usize,
    pub(super) key: PipelineKey,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    grid: Grid,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({})", self.node)
    }
}

/// Nodes timed in one submission: WebGPU's query sets hold 4,096 timestamps.
const MOST_TIMED: usize = 2048;

/// Alignment of dynamic and static uniform offsets that every device allows.
const UNIFORM_ALIGN: usize = 256;

impl GpuGraph {
    /// Compiles the kernels of `graph` and binds them to the buffers of `store`, which must already
    /// hold its weights and state ([`GpuStore::add`]).
    ///
    /// # Errors
    /// If the device runs out of memory or the driver refuses a shader.
    pub fn new(gpu: &Gpu, graph: Arc<Graph>, store: &mut GpuStore) -> Result<Self> {
        let plan = plan(&graph);
        store.grow_scratch(gpu, &plan.sizes)?;
        let mut buffers = HashMap::new();
        for id in graph.ids() {
            let t = graph.tensor(id);
            let made = match t.home {
                Home::Weight => store.weights.get(&t.name).cloned(),
                Home::State => store.states.get(&t.name).map(|b| vec![b.clone()]),
                Home::Scratch => plan.buffer(id).map(|b| vec![store.scratch[b].clone()]),
                Home::Input | Home::Output => {
                    Some(vec![storage(gpu, &t.name, t.bytes(t.rows.at(graph.max)))?])
                }
            };
            if let Some(made) = made {
                buffers.insert(id, made);
            }
        }
        let step = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let calls = bind(gpu, &mut store.pipelines, kernels(gpu, &graph), &step, &buffers);
        gpu.check()?;
        Ok(Self { gpu: gpu.clone(), graph, calls, step, buffers, next: None })
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Dispatches of a step.
    pub fn dispatches(&self) -> usize {
        self.calls.len()
    }

    /// Runs one step and returns the tensors of `wanted` (outputs) as they are after it.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the step is larger than the graph's maximum or an input is missing: the runtime's
    /// mistake, not a user's.
    pub fn run(
        &mut self,
        step: StepSize,
        inputs: &[(TensorId, Data)],
        wanted: &[TensorId],
    ) -> Result<Vec<Data>> {
        self.begin(step, inputs);
        let next = self.next.take().filter(|next| next.step == step && next.wanted == wanted);
        let Recorded { commands, staging, .. } =
            next.unwrap_or_else(|| self.record(step, wanted, None));
        self.gpu.queue.submit([commands]);
        // A token is followed by another: its step is encoded while the device runs this one.
        if step.rows == 1 {
            self.next = Some(self.record(step, wanted, Some(staging.clone())));
        }
        self.collect(step, wanted, &staging)
    }

    /// Encodes a step and the copies to `staging`, which is made if there is none.
    fn record(
        &self,
        step: StepSize,
        wanted: &[TensorId],
        staging: Option<wgpu::Buffer>,
    ) -> Recorded {
        let staging = staging.unwrap_or_else(|| self.staging(step, wanted));
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.encode(&mut pass, step, 0..self.graph.nodes().len());
        drop(pass);
        self.copy(&mut encoder, step, wanted, &staging);
        Recorded { step, wanted: wanted.to_vec(), commands: encoder.finish(), staging }
    }

    /// Uploads the inputs of a step without running it.
    pub fn begin(&self, step: StepSize, inputs: &[(TensorId, Data)]) {
        let max = self.graph.max;
        assert!(step.rows <= max.rows && step.outs <= max.outs, "{step:?} is over {max:?}");
        // The third word is `one` of shaders/lib/step.wgsl.
        let words = [step.rows as u32, step.outs as u32, 1, 0];
        self.gpu.queue.write_buffer(&self.step, 0, bytemuck::cast_slice(&words));
        for (id, data) in inputs {
            self.write(*id, data);
        }
    }

    /// Encodes and submits a range of nodes.
    pub fn submit(&self, step: StepSize, nodes: std::ops::Range<usize>) {
        self.repeat(step, nodes, 1);
    }

    /// Encodes a range of nodes `times` times over and submits once, so that a benchmark's share of
    /// the cost of submission is small.
    pub fn repeat(&self, step: StepSize, nodes: std::ops::Range<usize>, times: u32) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..times {
            self.encode(&mut pass, step, nodes.clone());
        }
        drop(pass);
        self.gpu.queue.submit([encoder.finish()]);
    }

    fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        step: StepSize,
        nodes: std::ops::Range<usize>,
    ) {
        for call in self.calls.iter().filter(|c| nodes.contains(&c.node)) {
            let [x, y, z] = (call.grid)(step);
            if [x, y, z].contains(&0) {
                continue;
            }
            pass.set_pipeline(&call.pipeline);
            pass.set_bind_group(0, &call.group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Runs a step whose inputs are uploaded, and tells how long each node took by the device's own
    /// clock; `None` if it has none.
    ///
    /// # Errors
    /// If the device fails.
    pub fn profile(&self, step: StepSize) -> Result<Option<Vec<Duration>>> {
        if !self.gpu.report.timestamps {
            return Ok(None);
        }
        let nodes = self.graph.nodes().len();
        let mut took = Vec::with_capacity(nodes);
        for first in (0..nodes).step_by(MOST_TIMED) {
            took.extend(self.profile_nodes(step, first..(first + MOST_TIMED).min(nodes))?);
        }
        Ok(Some(took))
    }

    /// A pass a node, with a timestamp at either end.
    fn profile_nodes(
        &self,
        step: StepSize,
        nodes: std::ops::Range<usize>,
    ) -> Result<Vec<Duration>> {
        let (device, count) = (&self.gpu.device, 2 * nodes.len() as u32);
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let size = u64::from(count) * wgpu::QUERY_SIZE as u64;
        let buffer = |usage| {
            let label = Some("profile");
            device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = device.create_command_encoder(&Default::default());
        for (i, node) in nodes.enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(2 * i as u32),
                    end_of_pass_write_index: Some(2 * i as u32 + 1),
                }),
            });
            self.encode(&mut pass, step, node..node + 1);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
        self.gpu.queue.submit([encoder.finish()]);
        let bytes = self.gpu.map(&staging)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let nanoseconds = f64::from(self.gpu.queue.get_timestamp_period());
        let took = |t: &[u64]| t[1].saturating_sub(t[0]) as f64 * nanoseconds;
        Ok(ticks.chunks_exact(2).map(|t| Duration::from_nanos(took(t) as u64)).collect())
    }

    /// Overwrites a tensor that is not a weight. Used for inputs, and by `verify` and tests.
    pub fn write(&self, id: TensorId, data: &Data) {
        if !data.is_empty() {
            self.gpu.queue.write_buffer(&self.buffers[&id][0], 0, data.bytes());
        }
    }

    /// Reads tensors (not weights) back as they are after everything submitted so far.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self, step: StepSize, ids: &[TensorId]) -> Result<Vec<Data>> {
        let staging = self.staging(step, ids);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.copy(&mut encoder, step, ids, &staging);
        self.gpu.queue.submit([encoder.finish()]);
        self.collect(step, ids, &staging)
    }

    /// Bytes of a tensor after a step.
    fn bytes(&self, step: StepSize, id: TensorId) -> u64 {
        let t = self.graph.tensor(id);
        t.bytes(t.rows.at(step)) as u64
    }

    /// A buffer that holds these tensors, one after the other, and that the host can read.
    fn staging(&self, step: StepSize, ids: &[TensorId]) -> wgpu::Buffer {
        let size: u64 = ids.iter().map(|&id| self.bytes(step, id)).sum();
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: size.max(wgpu::COPY_BUFFER_ALIGNMENT),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        step: StepSize,
        ids: &[TensorId],
        staging: &wgpu::Buffer,
    ) {
        let mut at = 0;
        for &id in ids {
            let size = self.bytes(step, id);
            if size > 0 {
                encoder.copy_buffer_to_buffer(&self.buffers[&id][0], 0, staging, at, size);
            }
            at += size;
        }
    }

    /// Waits for the device and takes these tensors out of `staging`.
    fn collect(
        &self,
        step: StepSize,
        ids: &[TensorId],
        staging: &wgpu::Buffer,
    ) -> Result<Vec<Data>> {
        let view = self.gpu.map(staging)?;
        let mut at = 0;
        let mut take = |&id: &TensorId| {
            let from = at;
            at += self.bytes(step, id) as usize;
            self.data(id, &view[from..at])
        };
        let out = ids.iter().map(&mut take).collect();
        drop(view);
        staging.unmap();
        Ok(out)
    }

    fn data(&self, id: TensorId, bytes: &[u8]) -> Data {
        match self.graph.tensor(id).elem {
            Elem::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
            _ => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
        }
    }
}

/// The kernels of a graph, each with the number of its node.
pub(super) fn kernels(gpu: &Gpu, graph: &Graph) -> Vec<(usize, Kernel)> {
    let nodes = graph.nodes().iter().enumerate();
    let of =
        |(i, n): (usize, &Node)| n.op.kernels(graph, &gpu.limits).into_iter().map(move |k| (i, k));
    nodes.flat_map(of).collect()
}

/// Makes pipelines, parameter blocks and bind groups.
fn bind(
    gpu: &Gpu,
    pipelines: &mut Pipelines,
    kernels: Vec<(usize, Kernel)>,
    step: &wgpu::Buffer,
    buffers: &HashMap<TensorId, Vec<wgpu::Buffer>>,
) -> Vec<Call> {
    let made = pipelines.of(gpu, kernels.iter().map(|(_, k)| k));

    let slot = |i: usize| (i * UNIFORM_ALIGN) as u64;
    let mut blocks = vec![0; kernels.len() * UNIFORM_ALIGN];
    for (i, (_, kernel)) in kernels.iter().enumerate() {
        let at = i * UNIFORM_ALIGN;
        blocks[at..at + kernel.params.len()].copy_from_slice(&kernel.params);
    }
    let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("params"),
        size: blocks.len().max(UNIFORM_ALIGN) as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&params, 0, &blocks);

    let calls = kernels.into_iter().zip(made).enumerate();
    let calls = calls.map(|(i, ((node, kernel), (key, Pipeline { layout, pipeline })))| {
        let uniform = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: std::num::NonZeroU64::new(size),
            })
        };
        let block = kernel.params.len().next_multiple_of(16) as u64;
        let mut entries = vec![
            wgpu::BindGroupEntry { binding: 0, resource: uniform(&params, slot(i), block) },
            wgpu::BindGroupEntry { binding: 1, resource: uniform(step, 0, 16) },
        ];
        for (j, b) in kernel.bindings.iter().enumerate() {
            let buffer = &buffers[&b.used.tensor][b.part];
            entries.push(wgpu::BindGroupEntry {
                binding: j as u32 + 2,
                resource: buffer.as_entire_binding(),
            });
        }
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.shader),
            layout: &layout,
            entries: &entries,
        });
        Call { node, key, pipeline, group, grid: kernel.grid }
    });
    calls.collect()
}
