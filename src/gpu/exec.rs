//! Runs a [`Graph`] on the GPU.
//!
//! Everything that does not change between steps is made once: pipelines, parameter blocks, bind
//! groups. A step writes its inputs, encodes one compute pass over all kernels and submits once.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::chain::{Bound, Chain, Dispatch, apart, dispatches};
use super::kernel::Grid;
use super::pipeline::{Pipeline, PipelineKey, Pipelines};
use super::shader::CALL_PARAMS_BIT;
use super::store::{Homes, Place, Room, storage};
use super::{Gpu, GpuStore, Kernel};
use crate::Result;
use crate::graph::reference::Data;
use crate::graph::{Elem, Graph, Home, StepSize, TensorId};

/// A graph made ready to run on one device.
#[derive(Debug)]
pub struct GpuGraph {
    gpu: Gpu,
    graph: Arc<Graph>,
    calls: Calls,
    /// The same with a dispatch for each kernel, once parts of the graph are asked for.
    apart: OnceLock<Calls>,
    step: wgpu::Buffer,
    buffers: Buffers,
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

/// What kernels bind.
#[derive(Debug, Default)]
struct Buffers {
    /// Tensors, in parts.
    tensors: HashMap<TensorId, Vec<Slice>>,
    /// What these are in, but for inputs and outputs.
    rooms: HashMap<Room, wgpu::Buffer>,
    one_scratch: bool,
}

/// A range of a buffer.
#[derive(Clone, Debug)]
struct Slice {
    buffer: wgpu::Buffer,
    offset: u64,
    size: u64,
}

impl Slice {
    fn whole(buffer: wgpu::Buffer) -> Self {
        Self { offset: 0, size: buffer.size(), buffer }
    }

    fn resource(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset,
            size: NonZeroU64::new(self.size),
        })
    }
}

impl Buffers {
    /// All tensors of a graph, and new buffers for its inputs and outputs.
    fn new(gpu: &Gpu, graph: &Graph, store: &GpuStore, homes: &Homes) -> Result<Self> {
        let mut made = Self { one_scratch: homes.one_scratch, ..Self::default() };
        for id in graph.ids() {
            let t = graph.tensor(id);
            let slices = if matches!(t.home, Home::Input | Home::Output) {
                let bytes = t.bytes(t.rows.at(graph.max));
                vec![Slice::whole(storage(gpu, &t.name, bytes as u64)?)]
            } else {
                let places = homes.of(id);
                let rooms = places.iter().map(|p| (p.room, store.buffer(p.room).clone()));
                made.rooms.extend(rooms);
                places.iter().map(|&p| made.place(p)).collect()
            };
            made.tensors.insert(id, slices);
        }
        Ok(made)
    }

    fn place(&self, Place { room, offset, size }: Place) -> Slice {
        Slice { buffer: self.rooms[&room].clone(), offset, size }
    }

    fn bound(&self, bound: Bound) -> Slice {
        match bound {
            Bound::Tensor(id, part) => self.tensors[&id][part].clone(),
            Bound::Place(place) => self.place(place),
            Bound::Room(room) => Slice::whole(self.rooms[&room].clone()),
        }
    }
}

/// What a graph dispatches.
#[derive(Debug)]
struct Calls {
    each: Vec<Call>,
    /// What tells chains about their calls.
    chains: wgpu::Buffer,
}

impl Calls {
    fn chained(&self) -> bool {
        self.each.iter().any(|c| c.chain.is_some())
    }
}

/// A dispatch.
pub(super) struct Call {
    /// The first node of which it runs a kernel.
    node: usize,
    pub(super) key: PipelineKey,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    grids: Vec<Grid>,
    /// Where its grid is, if the device has counted it.
    told: Option<(wgpu::Buffer, u64)>,
    /// If it is a chain, which finds its grids itself.
    chain: Option<ChainTable>,
}

/// What tells a chain about its calls: `calls` of `shaders/lib/chain.wgsl`.
struct ChainTable {
    /// Workgroups of the chain.
    threads: u32,
    /// All but the grids.
    words: Vec<u32>,
    /// Words of a call.
    pitch: usize,
}

impl ChainTable {
    fn new(gpu: &Gpu, chain: &Chain) -> Self {
        let pitch = chain.call_bytes() / size_of::<u32>();
        // Calls of none are of no blocks.
        let mut words = vec![0; pitch * chain.room_for()];
        for (of, call) in words.chunks_exact_mut(pitch).zip(&chain.calls) {
            of[3] = (call.link | call.params << CALL_PARAMS_BIT) as u32;
            for (to, bytes) in of[4..].iter_mut().zip(chain.places(call)) {
                // Buffers have no more words than 32 bits count.
                *to = (bytes / size_of::<u32>() as u64) as u32;
            }
        }
        Self { threads: gpu.limits.threads as u32, words, pitch }
    }

    /// What a chain's table takes in the buffer of all.
    fn bytes(&self) -> usize {
        size_of_val(&*self.words).next_multiple_of(UNIFORM_ALIGN)
    }
}

impl Call {
    fn workgroups(&self, step: StepSize) -> [u32; 3] {
        match &self.chain {
            Some(chain) => [chain.threads, 1, 1],
            None => self.grids[0](step),
        }
    }
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
        let (dispatches, homes) = dispatches(gpu, &graph, store);
        store.grow_scratch(gpu, &homes.scratch)?;
        let buffers = Buffers::new(gpu, &graph, store, &homes)?;
        let step = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let calls = bind(gpu, &mut store.pipelines, dispatches, &step, &buffers, graph.max);
        gpu.check()?;
        let apart = OnceLock::new();
        Ok(Self { gpu: gpu.clone(), graph, calls, apart, step, buffers, next: None })
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls.each
    }

    /// Dispatches of a step.
    pub fn dispatches(&self) -> usize {
        self.calls.each.len()
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
        dispatch(&mut pass, step, &self.calls.each);
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
        self.write_grids(step);
        for (id, data) in inputs {
            self.write(*id, data);
        }
    }

    /// Tells chains the grids of their kernels.
    fn write_grids(&self, step: StepSize) {
        if !self.calls.chained() {
            return;
        }
        let mut words: Vec<u32> = vec![];
        for call in &self.calls.each {
            let Some(chain) = &call.chain else { continue };
            let begin = words.len();
            words.extend(&chain.words);
            for (to, grid) in words[begin..].chunks_exact_mut(chain.pitch).zip(&call.grids) {
                to[..3].copy_from_slice(&grid(step));
            }
            words.resize(begin + chain.bytes() / size_of::<u32>(), 0);
        }
        self.gpu.queue.write_buffer(&self.calls.chains, 0, bytemuck::cast_slice(&words));
    }

    /// Encodes and submits a range of nodes.
    pub fn submit(&self, step: StepSize, nodes: Range<usize>) {
        self.repeat(step, nodes, 1);
    }

    /// Encodes a range of nodes `times` times over and submits once, so that a benchmark's share of
    /// the cost of submission is small.
    pub fn repeat(&self, step: StepSize, nodes: Range<usize>, times: u32) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..times {
            self.encode(&mut pass, step, nodes.clone());
        }
        drop(pass);
        self.gpu.queue.submit([encoder.finish()]);
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, step: StepSize, nodes: Range<usize>) {
        let calls = match self.calls.chained() {
            false => &self.calls,
            true => self.apart.get_or_init(|| {
                let (gpu, one_scratch) = (&self.gpu, self.buffers.one_scratch);
                let each = apart(gpu, &self.graph, one_scratch);
                let (step, max) = (&self.step, self.graph.max);
                bind(gpu, &mut Pipelines::default(), each, step, &self.buffers, max)
            }),
        };
        dispatch(pass, step, calls.each.iter().filter(|c| nodes.contains(&c.node)));
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
    fn profile_nodes(&self, step: StepSize, nodes: Range<usize>) -> Result<Vec<Duration>> {
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
            let to = &self.buffers.tensors[&id][0];
            self.gpu.queue.write_buffer(&to.buffer, to.offset, data.bytes());
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
                let of = &self.buffers.tensors[&id][0];
                encoder.copy_buffer_to_buffer(&of.buffer, of.offset, staging, at, size);
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

fn dispatch<'a>(
    pass: &mut wgpu::ComputePass<'_>,
    step: StepSize,
    calls: impl IntoIterator<Item = &'a Call>,
) {
    for call in calls {
        let [x, y, z] = call.workgroups(step);
        if [x, y, z].contains(&0) {
            continue;
        }
        pass.set_pipeline(&call.pipeline);
        pass.set_bind_group(0, &call.group, &[]);
        match &call.told {
            Some((grids, at)) => pass.dispatch_workgroups_indirect(grids, *at),
            None => pass.dispatch_workgroups(x, y, z),
        }
    }
}

/// The grids that kernels tell each other, in one buffer.
struct ToldGrids {
    /// Each a grid and [`Told::which`](super::Told::which).
    all: Vec<[u32; 4]>,
    /// For each dispatch the byte where its own begins, if another tells it.
    told: Vec<Option<usize>>,
    /// For each dispatch what it tells: the byte where that begins, and its size.
    tells: Vec<Option<(usize, usize)>>,
}

impl ToldGrids {
    fn new(dispatches: &[Dispatch], max: StepSize) -> Self {
        let mut all: Vec<[u32; 4]> = vec![];
        let mut told = vec![None; dispatches.len()];
        let mut tells = vec![None; dispatches.len()];
        for (teller, tells) in dispatches.iter().zip(&mut tells) {
            let [Kernel { tells: Some(counts), .. }] = &teller.kernels[..] else { continue };
            let begin = size_of_val(&*all);
            for (listener, told) in dispatches.iter().zip(&mut told) {
                let [kernel] = &listener.kernels[..] else { continue };
                if let Some(by) = kernel.told.filter(|told| told.by == *counts) {
                    let [x, _, z] = (kernel.grid)(max);
                    *told = Some(size_of_val(&*all));
                    all.push([x, 0, z, by.which]);
                }
            }
            if size_of_val(&*all) == begin {
                // Bindings can't be empty.
                all.push([0; 4]);
            }
            *tells = Some((begin, size_of_val(&*all) - begin));
            all.resize(all.len().next_multiple_of(UNIFORM_ALIGN / size_of::<[u32; 4]>()), [0; 4]);
        }
        let heard = dispatches.iter().zip(&told).all(|(d, told)| {
            told.is_some() || d.kernels.iter().all(|kernel| kernel.told.is_none())
        });
        assert!(heard, "a kernel tells what others are told");
        Self { all, told, tells }
    }
}

/// Makes pipelines, parameter blocks and bind groups.
fn bind(
    gpu: &Gpu,
    pipelines: &mut Pipelines,
    dispatches: Vec<Dispatch>,
    step: &wgpu::Buffer,
    buffers: &Buffers,
    max: StepSize,
) -> Calls {
    let keys: Vec<_> = dispatches.iter().map(|d| d.key.clone()).collect();
    let made = pipelines.of(gpu, &keys);

    // All parameters, and all tables of chains, each in one buffer.
    let mut params: Vec<u8> = vec![];
    let mut add_params = |of: &mut dyn Iterator<Item = &Vec<u8>>| {
        let offset = params.len();
        for one in of {
            params.extend(one);
            params.resize(params.len().next_multiple_of(16), 0);
        }
        let size = params.len() - offset;
        params.resize(params.len().next_multiple_of(UNIFORM_ALIGN), 0);
        (offset, size)
    };
    let mut table_end = 0;
    let blocks = dispatches.iter().map(|dispatch| match &dispatch.chain {
        Some(chain) => {
            let table = ChainTable::new(gpu, chain);
            let begin = table_end;
            table_end += table.bytes();
            let of_links = chain.links.iter().map(|link| add_params(&mut link.params.iter()));
            (of_links.collect::<Vec<_>>(), Some((begin, table)))
        }
        None => {
            let kernels = dispatch.kernels.iter().map(|k| &k.params);
            (kernels.map(|p| add_params(&mut [p].into_iter())).collect(), None)
        }
    });
    let blocks: Vec<_> = blocks.collect();
    let buffer = |label, size: usize, usage| {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: size.max(UNIFORM_ALIGN) as u64,
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    };
    let uniforms = buffer("params", params.len(), wgpu::BufferUsages::UNIFORM);
    gpu.queue.write_buffer(&uniforms, 0, &params);
    let chains = buffer("chains", table_end, wgpu::BufferUsages::UNIFORM);
    let progress = buffer("progress", 0, wgpu::BufferUsages::STORAGE);
    let ToldGrids { all, told, tells } = ToldGrids::new(&dispatches, max);
    let usage = wgpu::BufferUsages::INDIRECT | wgpu::BufferUsages::STORAGE;
    let told_grids = buffer("grids", size_of_val(&*all), usage);
    gpu.queue.write_buffer(&told_grids, 0, bytemuck::cast_slice(&all));

    let range = |buffer: &wgpu::Buffer, offset: usize, size: usize| Slice {
        buffer: buffer.clone(),
        offset: offset as u64,
        size: size as u64,
    };
    let calls = dispatches.into_iter().zip(made).zip(blocks).enumerate();
    let calls = calls.map(|(i, ((dispatch, Pipeline { layout, pipeline }), (params, table)))| {
        let Dispatch { node, kernels, key, chain } = dispatch;
        let params = params.into_iter().map(|(offset, size)| range(&uniforms, offset, size));
        let step = Slice::whole(step.clone());
        let mut bound = vec![];
        match (&chain, &table) {
            (Some(chain), Some((begin, table))) => {
                let table = range(&chains, *begin, size_of_val(&*table.words));
                bound.extend([table, step, Slice::whole(progress.clone())]);
                for (link, params) in chain.links.iter().zip(params) {
                    bound.push(params);
                    bound.extend(link.bound.iter().map(|&b| buffers.bound(b)));
                }
            }
            _ => {
                bound.extend(params.chain([step]));
                let tensors = kernels.iter().flat_map(|k| &k.bindings);
                bound.extend(tensors.map(|b| buffers.tensors[&b.used.tensor][b.part].clone()));
                bound.extend(tells[i].map(|(offset, size)| range(&told_grids, offset, size)));
            }
        }
        let entries: Vec<_> = bound
            .iter()
            .enumerate()
            .map(|(i, slice)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: slice.resource(),
            })
            .collect();
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&key.label()),
            layout: &layout,
            entries: &entries,
        });
        let told = told[i].map(|at| (told_grids.clone(), at as u64));
        let grids = kernels.into_iter().map(|k| k.grid).collect();
        Call { node, key, pipeline, group, grids, told, chain: table.map(|(_, table)| table) }
    });
    let each = calls.collect();
    Calls { each, chains }
}
