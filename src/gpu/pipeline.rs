//! Compute pipelines: each distinct one is made once a model, many at a time.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{Gpu, Kernel, shader};
use crate::graph::Access;

/// What makes two kernels share a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey {
    shader: &'static str,
    flags: Vec<&'static str>,
    consts: Vec<(&'static str, u32)>,
    /// For each storage binding, whether it is read-only.
    read_only: Vec<bool>,
}

impl PipelineKey {
    pub fn of(kernel: &Kernel) -> Self {
        let read_only = |b: &super::Binding| b.used.access == Access::Read;
        Self {
            shader: kernel.shader,
            flags: kernel.flags.clone(),
            consts: kernel.consts.clone(),
            read_only: kernel.bindings.iter().map(read_only).collect(),
        }
    }

    /// Storage buffers it binds, from binding 2 on.
    pub fn buffers(&self) -> usize {
        self.read_only.len()
    }

    /// Compiles it, as far as the driver does before the first dispatch.
    pub fn make(&self, gpu: &Gpu) -> Pipeline {
        let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![
            entry(0, wgpu::BufferBindingType::Uniform),
            entry(1, wgpu::BufferBindingType::Uniform),
        ];
        for (i, &read_only) in self.read_only.iter().enumerate() {
            entries.push(entry(i + 2, wgpu::BufferBindingType::Storage { read_only }));
        }
        let (device, label) = (&gpu.device, Some(self.shader));
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let wgsl = shader::specialise(self.shader, &self.flags, &self.consts);
        let module = gpu.module(self.shader, wgsl);
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
    /// The pipelines of `kernels`, in their order; those not yet here are made in parallel.
    pub fn of<'a>(
        &mut self,
        gpu: &Gpu,
        kernels: impl Iterator<Item = &'a Kernel>,
    ) -> Vec<(PipelineKey, Pipeline)> {
        let keys: Vec<_> = kernels.map(PipelineKey::of).collect();
        let missing: HashSet<_> = keys.iter().filter(|k| !self.0.contains_key(k)).collect();
        let made: Vec<_> = missing.into_par_iter().map(|k| (k.clone(), k.make(gpu))).collect();
        if let Some(disk_cache) = &gpu.disk_cache
            && !made.is_empty()
        {
            disk_cache.save();
        }
        self.0.extend(made);
        keys.into_iter()
            .map(|key| {
                let pipeline = self.0[&key].clone();
                (key, pipeline)
            })
            .collect()
    }
}
