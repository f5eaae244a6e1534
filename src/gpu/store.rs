//! Weights and state in GPU memory, shared by name between the graphs of one model.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;

use super::Gpu;
use super::chain::dispatches;
use super::pipeline::Pipelines;
use crate::graph::{Graph, Home, Tensor};
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
    pub(super) weights: HashMap<String, Vec<wgpu::Buffer>>,
    pub(super) states: HashMap<String, wgpu::Buffer>,
    /// Scratch buffers; graphs never run at the same time, so they share them.
    pub(super) scratch: Vec<wgpu::Buffer>,
    pub(super) pipelines: Pipelines,
}

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
        let keys: Vec<_> = dispatches(gpu, graph).into_iter().map(|d| d.key).collect();
        let mut pipelines = std::mem::take(&mut self.pipelines);
        let uploaded = thread::scope(|scope| {
            scope.spawn(|| pipelines.of(gpu, &keys));
            self.upload(gpu, graph, source, progress)
        });
        self.pipelines = pipelines;
        uploaded
    }

    /// Makes the pipelines of several graphs for their devices at once, which are of one adapter.
    pub fn compile<'a>(&mut self, graphs: impl IntoIterator<Item = (&'a Gpu, &'a Graph)>) {
        let graphs: Vec<_> = graphs.into_iter().collect();
        let all = graphs.iter().flat_map(|(gpu, graph)| dispatches(gpu, graph));
        let keys: Vec<_> = all.map(|d| d.key).collect();
        if let Some((gpu, _)) = graphs.first() {
            self.pipelines.of(gpu, &keys);
        }
    }

    fn upload(
        &mut self,
        gpu: &Gpu,
        graph: &Graph,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut done = 0;
        for id in graph.ids() {
            let t = graph.tensor(id);
            match t.home {
                Home::Weight if !self.weights.contains_key(&t.name) => {
                    let mut parts = vec![];
                    for rows in gpu.limits.parts(graph, id) {
                        let buffer = storage(gpu, &t.name, t.bytes(rows.len()))?;
                        gpu.check()?;
                        upload(gpu, &buffer, t, rows, source, &mut |n| {
                            done += n;
                            progress(done);
                        })?;
                        parts.push(buffer);
                    }
                    self.weights.insert(t.name.clone(), parts);
                }
                Home::State if !self.states.contains_key(&t.name) => {
                    let buffer = storage(gpu, &t.name, t.bytes(t.rows.fixed))?;
                    self.states.insert(t.name.clone(), buffer);
                }
                _ => {}
            }
        }
        gpu.check()
    }

    /// Makes sure that there are scratch buffers of at least these sizes.
    pub(super) fn grow_scratch(&mut self, gpu: &Gpu, sizes: &[usize]) -> Result<()> {
        for (i, &size) in sizes.iter().enumerate() {
            match self.scratch.get(i) {
                Some(b) if b.size() >= size as u64 => {}
                Some(_) => self.scratch[i] = storage(gpu, "scratch", size)?,
                None => self.scratch.push(storage(gpu, "scratch", size)?),
            }
        }
        Ok(())
    }

    /// Bytes of weights, state and scratch in GPU memory.
    pub fn bytes(&self) -> [u64; 3] {
        let weights = self.weights.values().flatten().map(wgpu::Buffer::size).sum();
        let states = self.states.values().map(wgpu::Buffer::size).sum();
        [weights, states, self.scratch.iter().map(wgpu::Buffer::size).sum()]
    }
}

/// A storage buffer that is bound whole; wgpu zeroes it. Never empty, since WebGPU forbids empty
/// bindings.
///
/// # Errors
/// If it is larger than the device can bind. That it has no memory left, it says later.
pub(super) fn storage(gpu: &Gpu, label: &str, bytes: usize) -> Result<wgpu::Buffer> {
    let size = bytes.max(16) as u64;
    // The device's own limits: tests set the kernels' lower, to see weights in parts.
    let limits = gpu.device.limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
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

fn upload(
    gpu: &Gpu,
    buffer: &wgpu::Buffer,
    tensor: &Tensor,
    rows: Range<usize>,
    source: &dyn WeightSource,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let chunk = (UPLOAD_BYTES / tensor.row_bytes().max(1)).max(1);
    let mut bytes = vec![];
    let mut offset = 0;
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
