//! Weights and state in GPU memory, shared by name between the graphs of one model.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::{slice, thread};

use super::Gpu;
use super::chain::{apart, dispatches};
use super::pipeline::Pipelines;
use crate::graph::{Graph, Home, Plan, Tensor, TensorId, plan};
use crate::{Error, Result};

/// Where weights come from: the files of a model, or a test's random numbers.
pub trait WeightSource {
    /// Appends rows `rows` of weight `tensor` to `out`, in the tensor's element type, each row
    /// padded with zeros to [`Tensor::row_bytes`].
    ///
    /// # Errors
    /// If the file cannot give them.
    fn read(&self, tensor: &Tensor, rows: Range<usize>, out: &mut Vec<u8>) -> Result<()>;
}

/// Buffers of weights (in parts where one is larger than a binding) and of state, and pipelines.
#[derive(Debug, Default)]
pub struct GpuStore {
    weights: HashMap<String, Vec<Place>>,
    states: HashMap<String, Place>,
    /// What these are in.
    buffers: Vec<wgpu::Buffer>,
    /// Scratch buffers; graphs never run at the same time, so they share them.
    scratch: Vec<wgpu::Buffer>,
    pub(super) pipelines: Pipelines,
}

/// A range of one of a store's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub room: Room,
    pub offset: u64,
    pub size: u64,
}

/// One of a store's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Room {
    /// Of weights or state.
    Kept(usize),
    /// Of scratch.
    Scratch(usize),
}

impl Place {
    pub fn end(self) -> u64 {
        self.offset + self.size
    }
}

/// The alignment of a binding's offset that every device allows.
const ALIGN: u64 = 256;
/// The size of the smallest buffer.
const LEAST_BYTES: u64 = 16;

/// Bytes uploaded between two submissions: what wgpu stages in host memory at a time.
const UPLOAD_BYTES: usize = 32 << 20;

impl GpuStore {
    /// Uploads every weight of `graph` that is not here yet, makes its state, zeroed, and has its
    /// kernels compiled meanwhile. `progress` is told the bytes of weights uploaded so far.
    ///
    /// # Errors
    /// If `source` cannot give a weight or the device runs out of memory.
    pub fn add(
        &mut self,
        gpu: &Gpu,
        graph: &Graph,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let new = self.make_room(gpu, graph)?;
        let (dispatches, _) = dispatches(gpu, graph, self);
        let keys: Vec<_> = dispatches.into_iter().map(|d| d.key).collect();
        let mut pipelines = std::mem::take(&mut self.pipelines);
        let uploaded = thread::scope(|scope| {
            scope.spawn(|| pipelines.of(gpu, &keys));
            self.upload(gpu, graph, &new, source, progress)
        });
        self.pipelines = pipelines;
        uploaded
    }

    /// Makes the pipelines of the kernels of several graphs for their devices at once, which are of one
    /// adapter.
    pub fn compile<'a>(&mut self, graphs: impl IntoIterator<Item = (&'a Gpu, &'a Graph)>) {
        let graphs: Vec<_> = graphs.into_iter().collect();
        let all = graphs.iter().flat_map(|(gpu, graph)| apart(gpu, graph, false));
        let keys: Vec<_> = all.map(|d| d.key).collect();
        if let Some((gpu, _)) = graphs.first() {
            self.pipelines.of(gpu, &keys);
        }
    }

    /// Makes buffers for weights and state of `graph` that are not here yet; returns the weights.
    fn make_room(&mut self, gpu: &Gpu, graph: &Graph) -> Result<Vec<TensorId>> {
        let new = |store: &Self, home| -> Vec<TensorId> {
            let there = |name| match home {
                Home::Weight => store.weights.contains_key(name),
                _ => store.states.contains_key(name),
            };
            let of = |id: &TensorId| {
                let t = graph.tensor(*id);
                t.home == home && !there(t.name.as_str())
            };
            graph.ids().filter(of).collect()
        };
        let (weights, states) = (new(self, Home::Weight), new(self, Home::State));
        let parts: Vec<_> = weights.iter().map(|&id| gpu.limits.parts(graph, id)).collect();
        let each = weights.iter().zip(&parts).flat_map(|(&id, parts)| {
            let t = graph.tensor(id);
            parts.iter().map(|rows| (t.name.as_str(), t.bytes(rows.len())))
        });
        let mut places = self.pack(gpu, &each.collect::<Vec<_>>())?.into_iter();
        for (&id, parts) in weights.iter().zip(&parts) {
            let places = places.by_ref().take(parts.len()).collect();
            self.weights.insert(graph.tensor(id).name.clone(), places);
        }
        let each = states.iter().map(|&id| {
            let t = graph.tensor(id);
            (t.name.as_str(), t.bytes(t.rows.fixed))
        });
        let places = self.pack(gpu, &each.collect::<Vec<_>>())?;
        for (id, place) in states.into_iter().zip(places) {
            self.states.insert(graph.tensor(id).name.clone(), place);
        }
        Ok(weights)
    }

    /// Makes buffers that hold tensors of these names and sizes: one each, or as many as can be bound
    /// together if there are chains, which go from one to the next in one binding.
    fn pack(&mut self, gpu: &Gpu, tensors: &[(&str, usize)]) -> Result<Vec<Place>> {
        let most = if gpu.limits.chains_from > 0 { gpu.limits.shared_bytes } else { 0 };
        // Each one's first tensor and size.
        let mut rooms: Vec<(&str, u64)> = vec![];
        let mut places = Vec::with_capacity(tensors.len());
        for &(name, bytes) in tensors {
            let size = (bytes as u64).max(LEAST_BYTES);
            let end = rooms.last().map_or(most, |room| room.1.next_multiple_of(ALIGN));
            let offset = if end + size > most { 0 } else { end };
            if offset == 0 {
                rooms.push((name, 0));
            }
            let last = rooms.len() - 1;
            rooms[last].1 = offset + size;
            let room = Room::Kept(self.buffers.len() + last);
            places.push(Place { room, offset, size });
        }
        for (name, size) in rooms {
            self.buffers.push(storage(gpu, name, size)?);
            gpu.check()?;
        }
        Ok(places)
    }

    fn upload(
        &self,
        gpu: &Gpu,
        graph: &Graph,
        weights: &[TensorId],
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut done = 0;
        for &id in weights {
            let t = graph.tensor(id);
            for (rows, &place) in
                gpu.limits.parts(graph, id).into_iter().zip(&self.weights[&t.name])
            {
                upload(gpu, (self.buffer(place.room), place.offset), t, rows, source, &mut |n| {
                    done += n;
                    progress(done);
                })?;
            }
        }
        gpu.check()
    }

    pub(super) fn buffer(&self, room: Room) -> &wgpu::Buffer {
        match room {
            Room::Kept(i) => &self.buffers[i],
            Room::Scratch(i) => &self.scratch[i],
        }
    }

    /// Makes the scratch buffers that these places are in, or larger ones.
    pub(super) fn grow_scratch(&mut self, gpu: &Gpu, places: &[Place]) -> Result<()> {
        let mut ends = BTreeMap::new();
        for place in places {
            if let Room::Scratch(i) = place.room {
                let end = ends.entry(i).or_insert(0);
                *end = place.end().max(*end);
            }
        }
        for (i, end) in ends {
            match self.scratch.get(i) {
                Some(b) if b.size() >= end => {}
                Some(_) => self.scratch[i] = storage(gpu, "scratch", end)?,
                None => self.scratch.push(storage(gpu, "scratch", end)?),
            }
        }
        Ok(())
    }

    /// Bytes of weights, state and scratch in GPU memory.
    pub fn bytes(&self) -> [u64; 3] {
        let weights = self.weights.values().flatten().map(|p| p.size).sum();
        let states = self.states.values().map(|p| p.size).sum();
        [weights, states, self.scratch.iter().map(wgpu::Buffer::size).sum()]
    }
}

/// Where the tensors of a graph are in a store's buffers; nowhere if they are inputs or outputs, which have
/// their own.
#[derive(Debug)]
pub(super) struct Homes {
    /// Weights, in parts, and states.
    kept: HashMap<TensorId, Vec<Place>>,
    plan: Plan,
    /// Each buffer of the plan.
    pub scratch: Vec<Place>,
    /// Whether all scratch is in one buffer.
    pub one_scratch: bool,
}

impl Homes {
    /// Of a graph whose weights and states are in `store` already.
    pub fn new(graph: &Graph, store: &GpuStore, one_scratch: bool) -> Self {
        let kept = graph.ids().filter_map(|id| {
            let t = graph.tensor(id);
            let places = match t.home {
                Home::Weight => store.weights.get(&t.name).cloned(),
                Home::State => store.states.get(&t.name).map(|&place| vec![place]),
                _ => None,
            };
            Some((id, places?))
        });
        let kept = kept.collect();
        let plan = plan(graph);
        let mut end = 0;
        let place = |(i, &bytes): (usize, &usize)| {
            let size = (bytes as u64).max(LEAST_BYTES);
            let (room, offset) = if one_scratch { (0, end) } else { (i, 0) };
            end = (offset + size).next_multiple_of(ALIGN);
            Place { room: Room::Scratch(room), offset, size }
        };
        let scratch = plan.sizes.iter().enumerate().map(place).collect();
        Self { kept, plan, scratch, one_scratch }
    }

    /// The parts of a tensor.
    pub fn of(&self, id: TensorId) -> &[Place] {
        let scratch = || self.plan.buffer(id).map(|b| slice::from_ref(&self.scratch[b]));
        self.kept.get(&id).map(Vec::as_slice).or_else(scratch).unwrap_or_default()
    }
}

/// The largest storage buffer that can be bound whole. The device's own limits: tests set the kernels'
/// lower, to see weights in parts.
pub(super) fn most_bytes(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// A storage buffer that can be bound whole; wgpu zeroes it. Never empty, since WebGPU forbids empty
/// bindings.
///
/// # Errors
/// If it is larger than the device can bind. That it has no memory left, it says later.
pub(super) fn storage(gpu: &Gpu, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let size = bytes.max(LEAST_BYTES);
    let most = most_bytes(&gpu.device.limits());
    if size > most {
        return Err(Error::Gpu(format!(
            "{}: `{label}` takes {} MiB, more than the {} MiB of a buffer; a smaller --context \
             takes less",
            gpu.report.name,
            size >> 20,
            most >> 20
        )));
    }
    Ok(gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size,
        usage: wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    }))
}

/// Writes rows of a weight to a buffer from `offset` on.
fn upload(
    gpu: &Gpu,
    (buffer, mut offset): (&wgpu::Buffer, u64),
    tensor: &Tensor,
    rows: Range<usize>,
    source: &dyn WeightSource,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let chunk = (UPLOAD_BYTES / tensor.row_bytes().max(1)).max(1);
    let mut bytes = vec![];
    for first in rows.clone().step_by(chunk) {
        bytes.clear();
        source.read(tensor, first..(first + chunk).min(rows.end), &mut bytes)?;
        gpu.queue.write_buffer(buffer, offset, &bytes);
        offset += bytes.len() as u64;
        if bytes.len() >= UPLOAD_BYTES / 2 {
            gpu.queue.submit([]);
            gpu.wait()?;
        }
        progress(bytes.len() as u64);
    }
    Ok(())
}
