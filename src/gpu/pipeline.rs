//! Compute pipelines: each distinct one is made once a model, many at a time.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::kernel::Binding;
use super::shader::{self, Link};
use super::{Gpu, Kernel, Limits};
use crate::graph::{Access, Graph, Home};

/// What makes two kernels, or two chains of them, share a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey {
    links: Vec<LinkKey>,
    /// If it is a chain.
    chain: Option<ChainKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ChainKey {
    /// Of a workgroup.
    lanes: u32,
    calls: usize,
}

/// A kernel, alone or as a link of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LinkKey {
    pub kernel: KernelKey,
    /// For each storage binding, whether calls have places of their own in what is bound.
    pub placed: Vec<bool>,
    /// How many sets of parameters calls choose from.
    pub params: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KernelKey {
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
            // What it tells others it writes.
            read_only: kernel
                .bindings
                .iter()
                .map(read_only)
                .chain(kernel.tells.map(|_| false))
                .collect(),
        }
    }

    /// About how long a software adapter's compiler takes for it, where a small kernel is 1.
    pub fn code(&self) -> usize {
        match self.shader {
            "matmul_lanes_ring" if self.flags.contains(&"GATED") => 32,
            "matmul_lanes_ring" => 16,
            "attention" | "causal_attention" if self.flags.contains(&"SAME_KEYS") => 16,
            "attention" | "causal_attention" | "matmul_lanes_pairs" => 8,
            "matmul_lanes_rows" if self.flags.contains(&"GATED") => 6,
            "matmul_lanes" | "matmul_lanes_rows" => 4,
            _ => 1,
        }
    }

    /// Of a link. What any kernel of the chain could write none can bind as read-only, since it may be of the
    /// same buffer.
    pub fn in_chain(kernel: &Kernel, graph: &Graph) -> Self {
        Self::of(kernel, |b| matches!(graph.tensor(b.used.tensor).home, Home::Weight | Home::Input))
    }
}

impl PipelineKey {
    /// Of a kernel alone. What it reads it binds as read-only, unless it might write the same buffer: state
    /// where there are chains, and with `one_scratch` scratch.
    pub fn of(kernel: &Kernel, graph: &Graph, limits: &Limits, one_scratch: bool) -> Self {
        let may_write = |home| match home {
            Home::State => limits.chains_from > 0,
            Home::Scratch => one_scratch,
            Home::Weight | Home::Input | Home::Output => false,
        };
        let kernel = KernelKey::of(kernel, |b| {
            b.used.access == Access::Read && !may_write(graph.tensor(b.used.tensor).home)
        });
        let placed = vec![false; kernel.read_only.len()];
        Self { links: vec![LinkKey { kernel, placed, params: 1 }], chain: None }
    }

    /// Of a chain of so many calls in workgroups of `lanes`.
    pub fn chain(links: Vec<LinkKey>, lanes: u32, calls: usize) -> Self {
        Self { links, chain: Some(ChainKey { lanes, calls }) }
    }

    /// The buffers it binds, in the order of [`super::exec`]: of a chain what its calls are, the step and
    /// the chain's progress, then of each link its parameters and storage buffers. A kernel alone has the
    /// step after its parameters.
    pub fn bindings(&self) -> Vec<wgpu::BufferBindingType> {
        let uniform = wgpu::BufferBindingType::Uniform;
        let storage = |&read_only: &bool| wgpu::BufferBindingType::Storage { read_only };
        let buffers = |l: &LinkKey| l.kernel.read_only.iter().map(storage).collect::<Vec<_>>();
        match self.chain {
            None => {
                [uniform, uniform].into_iter().chain(self.links.iter().flat_map(buffers)).collect()
            }
            Some(_) => {
                let links = self.links.iter().flat_map(|l| [vec![uniform], buffers(l)].concat());
                [uniform, uniform, storage(&false)].into_iter().chain(links).collect()
            }
        }
    }

    /// About how long a software adapter's compiler takes for it.
    pub fn code(&self) -> usize {
        let code = self.links.iter().map(|l| l.kernel.code()).sum::<usize>();
        if self.chain.is_some() { 2 * code } else { code }
    }

    /// What reports call it: its kernels' names.
    pub fn label(&self) -> String {
        self.links.iter().map(|l| l.kernel.shader).collect::<Vec<_>>().join(", ")
    }

    fn wgsl(&self) -> String {
        let links: Vec<_> = self
            .links
            .iter()
            .map(|LinkKey { kernel, placed, params }| Link {
                name: kernel.shader,
                flags: &kernel.flags,
                consts: &kernel.consts,
                read_only: &kernel.read_only,
                placed,
                params: *params,
            })
            .collect();
        match self.chain {
            None => {
                let text =
                    |k: &Link<'_>| shader::specialise_bound(k.name, k.flags, k.consts, k.read_only);
                links.iter().map(text).collect()
            }
            Some(ChainKey { lanes, calls }) => shader::chain(&links, lanes, calls),
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
