//! Cooperative matrices: what an adapter says that its subgroups can multiply, and whether they do.

use serde::Serialize;

use super::{Gpu, shader};
use crate::Result;

/// Square matrices that the lanes of a subgroup hold together and multiply; sums are in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Matrices {
    /// Rows and columns: 8, or of those in f16 16.
    pub size: u32,
    /// Whether what is multiplied is in f16 rather than f32.
    pub half: bool,
    /// Lanes of a subgroup that multiplies them; at most, before the device was asked.
    pub lanes: u32,
}

impl Matrices {
    /// A workgroup of four subgroups has 256 invocations then, as all devices allow.
    const MOST_LANES: u32 = 64;

    /// Those of an adapter that kernels are written for.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Vec<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let lanes = adapter.get_info().subgroup_max_size;
        let features = adapter.features();
        if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            return vec![];
        }
        let f16 = features.contains(wgpu::Features::SHADER_F16);
        let all = adapter.cooperative_matrix_properties().into_iter().filter_map(|p| {
            let size = p.m_size;
            let able = p.n_size == size && p.k_size == size && p.cr_type == F32;
            let half = match (p.ab_type, size) {
                (F16, 8 | 16) if f16 => true,
                (F32, 8) => false,
                _ => return None,
            };
            able.then_some(Self { size, half, lanes })
        });
        let mut found: Vec<_> = all.collect();
        found.sort_by_key(|m| (m.half, m.size));
        found.dedup();
        found
    }

    /// The flags of kernels that multiply them.
    pub fn flags(self) -> impl Iterator<Item = &'static str> {
        let flags = [("SUBGROUPS", true), ("EIGHTS", self.size == 8), ("HALF", self.half)];
        flags.into_iter().filter(|f| f.1).map(|f| f.0)
    }

    /// Multiplies two, and tells how wide the subgroups are that did it; nothing if the result is wrong or
    /// there is none, since drivers are new to this.
    pub(super) fn tried(self, gpu: &Gpu) -> Option<Self> {
        let n = self.size as usize;
        let area = n * n;
        // Integers, so that sums are exact in any order, and small enough to be so in f16.
        let number = |i: usize| ((i * (7 + 4 * (i / area))) % 31) as f32 - 15.0;
        let numbers: Vec<_> = (0..3 * area).map(number).collect();
        let at = |matrix: usize, row: usize, col: usize| numbers[(matrix * n + row) * n + col];
        let flags: Vec<_> = self.flags().collect();
        let wgsl = shader::specialise("try_matrices", &flags, &[("WG", 2 * self.lanes)]);
        let results = run(gpu, wgsl, &numbers, area + 1).ok()?;
        let is_right = |i: usize| {
            let (row, col) = (i / n, i % n);
            let sum: f32 = (0..n).map(|k| at(0, row, k) * at(1, k, col)).sum();
            results[i] == at(2, row, col) + sum
        };
        let lanes = results[area] as u32;
        let fits = (1..=Self::MOST_LANES).contains(&lanes);
        (fits && (0..area).all(is_right)).then_some(Self { lanes, ..self })
    }
}

/// One workgroup of a shader that reads `numbers` and writes so many results.
fn run(gpu: &Gpu, wgsl: String, numbers: &[f32], results: usize) -> Result<Vec<f32>> {
    let (device, queue) = gpu.wgpu();
    let label = Some("try_matrices");
    let module = gpu.module("try_matrices", wgsl);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    gpu.check()?;
    let buffer = |floats: usize, usage| {
        let size = 4 * floats as u64;
        device.create_buffer(&wgpu::BufferDescriptor {
            label,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    use wgpu::BufferUsages as Usage;
    let read = buffer(numbers.len(), Usage::STORAGE | Usage::COPY_DST);
    let written = buffer(results, Usage::STORAGE | Usage::COPY_SRC);
    let staging = buffer(results, Usage::MAP_READ | Usage::COPY_DST);
    queue.write_buffer(&read, 0, bytemuck::cast_slice(numbers));
    let resources = [&read, &written].map(wgpu::Buffer::as_entire_binding);
    let entries = resources.into_iter().zip(2..);
    let entries = entries.map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries.collect::<Vec<_>>(),
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&written, 0, &staging, 0, written.size());
    queue.submit([encoder.finish()]);
    Ok(bytemuck::cast_slice(&gpu.map(&staging)?).to_vec())
}
