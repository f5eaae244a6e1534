//! Compute pipelines: each distinct one is made once a model, many at a time.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::kernel::Binding;
use super::shader::{self, Link};
use super::{Gpu, Kernel};
use crate::graph::{Access, Graph, Home};

/// What makes two kernels, or two chains of them, share a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey {
    kernels: Vec<KernelKey>,
    /// Lanes of a workgroup, if it is a chain.
    lanes: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KernelKey {
    shader: &'static str,
    flags: Vec<&'static str>,
    consts: Vec<(&'static str, u32)>,
    /// For each storage binding, whether it is read-only.
    read_only: Vec<bool>,
}

impl KernelKey {
    fn of(kernel: &Kernel, read_only: impl Fn(&Binding) -> bool) -> Self {
        Self {
            shader: kernel.shader,
            flags: kernel.flags.clone(),
            consts: kernel.consts.clone(),
            read_only: kernel.bindings.iter().map(read_only).collect(),
        }
    }
}

impl PipelineKey {
    pub fn of(kernel: &Kernel) -> Self {
        Self { kernels: vec![KernelKey::of(kernel, reads)], lanes: None }
    }

    /// Of several kernels in one dispatch of workgroups of `lanes`. What any of them could write none can
    /// bind as read-only, since scratch tensors share buffers.
    pub fn chain(kernels: &[&Kernel], lanes: u32, graph: &Graph) -> Self {
        let read_only =
            |b: &Binding| matches!(graph.tensor(b.used.tensor).home, Home::Weight | Home::Input);
        let kernels = kernels.iter().map(|k| KernelKey::of(k, read_only)).collect();
        Self { kernels, lanes: Some(lanes) }
    }

    /// The buffers it binds, in the order of [`super::exec`]: of a chain where the links' grids are, the
    /// step and the chain's progress, then of each link its parameters and storage buffers. A kernel
    /// alone has the step after its parameters.
    pub fn bindings(&self) -> Vec<wgpu::BufferBindingType> {
        let uniform = wgpu::BufferBindingType::Uniform;
        let storage = |&read_only: &bool| wgpu::BufferBindingType::Storage { read_only };
        let buffers = |k: &KernelKey| k.read_only.iter().map(storage).collect::<Vec<_>>();
        match self.lanes {
            None => [uniform, uniform]
                .into_iter()
                .chain(self.kernels.iter().flat_map(buffers))
                .collect(),
            Some(_) => {
                let links = self.kernels.iter().flat_map(|k| [vec![uniform], buffers(k)].concat());
                [uniform, uniform, storage(&false)].into_iter().chain(links).collect()
            }
        }
    }

    /// What reports call it: its kernels' names.
    pub fn label(&self) -> String {
        self.kernels.iter().map(|k| k.shader).collect::<Vec<_>>().join(", ")
    }

    fn wgsl(&self) -> String {
        let links: Vec<_> = self
            .kernels
            .iter()
            .map(|k| Link {
                name: k.shader,
                flags: &k.flags,
                consts: &k.consts,
                read_only: &k.read_only,
            })
            .collect();
        match self.lanes {
            None => links.iter().map(|k| shader::specialise(k.name, k.flags, k.consts)).collect(),
            Some(lanes) => shader::chain(&links, lanes),
        }
    }

    /// Compiles it, as far as the driver does before the first dispatch.
    pub fn make(&self, gpu: &Gpu) -> Pipeline {
        let entry = |(binding, ty): (usize, wgpu::BufferBindingType)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let entries: Vec<_> = self.bindings().into_iter().enumerate().map(entry).collect();
        let name = self.label();
        let (device, label) = (&gpu.device, Some(name.as_str()));
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = gpu.module(&name, self.wgsl());
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: gpu.disk_cache.as_ref().map(|c| c.cache()),
        });
        Pipeline { layout, pipeline }
    }
}

fn reads(binding: &Binding) -> bool {
    binding.used.access == Access::Read
}

/// A pipeline and what it binds.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub layout: wgpu::BindGroupLayout,
    pub pipeline: wgpu::ComputePipeline,
}

/// The pipelines that were made for the graphs of a model.
#[derive(Debug, Default)]
pub(super) struct Pipelines(HashMap<PipelineKey, Pipeline>);

impl Pipelines {
    /// The pipelines of `keys`, in their order; those not yet here are made in parallel.
    pub fn of(&mut self, gpu: &Gpu, keys: &[PipelineKey]) -> Vec<Pipeline> {
        let missing: HashSet<_> = keys.iter().filter(|k| !self.0.contains_key(k)).collect();
        let made: Vec<_> = missing.into_par_iter().map(|k| (k.clone(), k.make(gpu))).collect();
        if let Some(disk_cache) = &gpu.disk_cache
            && !made.is_empty()
        {
            disk_cache.save();
        }
        self.0.extend(made);
        keys.iter().map(|key| self.0[key].clone()).collect()
    }
}
