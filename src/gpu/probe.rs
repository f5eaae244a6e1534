//! What the device can do at best: one kernel that only copies, one that only multiplies and adds, one that
//! only adds up products of bytes, four at a time, and, where products are made by cooperative matrices, one
//! that only multiplies these. Every other kernel is measured against these, on the same device in the same
//! run.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Gpu, Limits, Matrices};
use crate::Result;
use crate::graph::Cost;

/// A kernel that is nobody's op.
#[derive(Debug)]
pub struct Probe {
    /// For reports.
    pub name: &'static str,
    /// What a dispatch moves and computes.
    pub cost: Cost,
    groups: u32,
    wgsl: String,
    buffers: usize,
}

/// A [`Probe`] that is compiled and bound.
#[derive(Debug)]
pub struct ReadyProbe {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: u32,
}

/// The most that a device was seen to do.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Roofline {
    /// Bytes a second, read and written, by a kernel that copies.
    pub bytes_per_second: f64,
    /// Floating-point operations a second, by one that multiplies and adds.
    pub flops_per_second: f64,
    /// Operations on bytes a second, by one that adds up their products.
    #[serde(default)]
    pub byte_ops_per_second: f64,
    /// Floating-point operations a second, by one that multiplies cooperative matrices, of the kind that
    /// products are made by; 0 if none are.
    #[serde(default)]
    pub matrix_flops_per_second: f64,
}

/// How long [`roofline`] runs each probe at least.
const LONG_ENOUGH: Duration = Duration::from_millis(200);

/// Measures the device: the best of a few runs of each probe.
///
/// # Errors
/// If the device fails.
pub fn roofline(gpu: &Gpu) -> Result<Roofline> {
    let mut best = [0.0f64; 4];
    for (probe, best) in probes(&gpu.limits).iter().zip(&mut best) {
        let ready = probe.prepare(gpu);
        ready.submit(gpu, 1);
        gpu.wait()?;
        let mut times = 1;
        for _ in 0..4 {
            let start = Instant::now();
            ready.submit(gpu, times);
            gpu.wait()?;
            let took = start.elapsed();
            let work = (probe.cost.bytes + probe.cost.flops) as f64 * f64::from(times);
            *best = best.max(work / took.as_secs_f64());
            if took < LONG_ENOUGH {
                let short = LONG_ENOUGH.as_secs_f64() / took.as_secs_f64().max(1e-6);
                times = (f64::from(times) * short).ceil().min(4096.0) as u32;
            }
        }
    }
    let [bytes_per_second, flops_per_second, byte_ops_per_second, matrix_flops_per_second] = best;
    Ok(Roofline {
        bytes_per_second,
        flops_per_second,
        byte_ops_per_second,
        matrix_flops_per_second,
    })
}

impl ReadyProbe {
    /// Encodes the probe `times` times over and submits once.
    pub fn submit(&self, gpu: &Gpu, times: u32) {
        let (device, queue) = gpu.wgpu();
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        (0..times).for_each(|_| pass.dispatch_workgroups(self.groups, 1, 1));
        drop(pass);
        queue.submit([encoder.finish()]);
    }
}

/// More than the caches of large GPUs hold, as much as a core device binds.
const PROBE_BYTES: u64 = 64 << 20;

/// The copy, then the multiply-and-add, then the products of bytes, then, if there are, those of matrices.
pub fn probes(limits: &Limits) -> Vec<Probe> {
    // As wide as the kernels load.
    let element = if limits.wide_loads { "vec2<u64>" } else { "vec4<f32>" };
    let copy = Probe {
        name: "possible/copy 64 MiB",
        cost: Cost { bytes: 2 * PROBE_BYTES, flops: 0 },
        groups: (PROBE_BYTES / 16 / 256) as u32,
        wgsl: format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<{element}>;
            @group(0) @binding(1) var<storage, read> x: array<{element}>;
            @compute @workgroup_size(256)
            fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                y[id.x] = x[id.x];
            }}"
        ),
        buffers: 2,
    };
    let (groups, loops, unrolled) = (8192, 16, 4);
    // Chains of which one may wait for its result while others go on: eight, in two vectors, which even
    // a processor of 16 vector registers keeps in them. The compiler cannot know that `y` holds zeros.
    let each = |line: &dyn Fn(u32) -> String, n| (0..n).map(line).collect::<String>();
    let start = each(&|i| format!("var a{i} = y[id.x % 8u + {i}u] + f32(id.x + {i}u);\n"), 2);
    let step = each(&|i| format!("a{i} = fma(a{i}, m, a{i});\n"), 2).repeat(4 * unrolled);
    let loop_head = format!("for (var i = 0; i < {loops}; i++)");
    let fma = Probe {
        name: "possible/multiply and add",
        cost: Cost { bytes: 0, flops: u64::from(groups) * 64 * loops * unrolled as u64 * 8 * 8 },
        groups,
        wgsl: format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
            @compute @workgroup_size(64)
            fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                let m = y[0];
                {start}
                {loop_head} {{ {step} }}
                y[id.x + 16u] = a0 + a1;
            }}"
        ),
        buffers: 1,
    };
    // Each sum is a factor of the next product: nothing can be made once for all.
    let start = each(&|i| format!("var a{i} = i32(y[id.x % 8u + {i}u] + id.x);\n"), 8);
    let step = each(&|i| format!("a{i} += dot4I8Packed(u32(a{i}), m);\n"), 8).repeat(unrolled);
    let dots = Probe {
        name: "possible/products of bytes",
        cost: Cost { bytes: 0, flops: u64::from(groups) * 64 * loops * unrolled as u64 * 8 * 8 },
        groups,
        wgsl: format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
            @compute @workgroup_size(64)
            fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                let m = y[0] + 0x1020304u;
                {start}
                {loop_head} {{ {step} }}
                y[id.x + 16u] = u32(a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7);
            }}"
        ),
        buffers: 1,
    };
    [copy, fma, dots].into_iter().chain(limits.matrices.map(of_matrices)).collect()
}

fn of_matrices(matrices: Matrices) -> Probe {
    let Matrices { size, half, lanes } = matrices;
    let (groups, waves, loops, unrolled, chains) = (2048, 4, 64, 4, 8);
    let enable = if half { "enable f16;" } else { "" };
    let number = if half { "f16" } else { "f32" };
    let ty = |number: &str, role: &str| format!("coop_mat{size}x{size}<{number}, {role}>");
    let (rows, columns, sums) = (ty(number, "A"), ty(number, "B"), ty("f32", "C"));
    let (area, invocations) = (size * size, waves * lanes);
    let each = |line: &dyn Fn(u32) -> String| (0..chains).map(line).collect::<String>();
    let start =
        each(&|i| format!("var s{i} = coopLoadT<{sums}>(&sums[{i}u * {area}u], {size}u);\n"));
    let step = each(&|i| format!("s{i} = coopMultiplyAdd(a, b, s{i});\n")).repeat(unrolled);
    let all = each(&|i| format!("+ s{i}"));
    let all = all.trim_start_matches("+ ");
    let flops = u64::from(groups * waves * loops * chains) * unrolled as u64 * 2;
    Probe {
        name: "possible/products of matrices",
        cost: Cost { bytes: 0, flops: flops * u64::from(size).pow(3) },
        groups,
        wgsl: format!(
            "{enable}
            enable wgpu_cooperative_matrix;
            @group(0) @binding(0) var<storage, read_write> y: array<f32>;
            var<workgroup> tile: array<{number}, {area}>;
            var<workgroup> sums: array<f32, {chains} * {area}>;
            @compute @workgroup_size({invocations})
            fn main(
                @builtin(local_invocation_index) lane: u32,
                @builtin(workgroup_id) group: vec3<u32>,
            ) {{
                for (var i = lane; i < {chains}u * {area}u; i += {invocations}u) {{
                    tile[i % {area}u] = {number}(y[i % {area}u]);
                    sums[i] = y[i];
                }}
                workgroupBarrier();
                let a = coopLoadT<{rows}>(&tile[0], {size}u);
                let b = coopLoad<{columns}>(&tile[0], {size}u);
                {start}
                for (var i = 0; i < {loops}; i++) {{ {step} }}
                let all = {all};
                workgroupBarrier();
                coopStoreT(all, &sums[0], {size}u);
                workgroupBarrier();
                for (var i = lane; i < {area}u; i += {invocations}u) {{
                    y[(group.x + {chains}u) * {area}u + i] = sums[i];
                }}
            }}"
        ),
        buffers: 1,
    }
}

impl Probe {
    /// Compiles and binds it.
    pub fn prepare(&self, gpu: &Gpu) -> ReadyProbe {
        let (device, _) = gpu.wgpu();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(self.name),
            source: wgpu::ShaderSource::Wgsl(self.wgsl.as_str().into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(self.name),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let buffer = |_| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(self.name),
                size: PROBE_BYTES,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        let buffers: Vec<_> = (0..self.buffers).map(buffer).collect();
        let entries = buffers.iter().zip(0..).map(|(buffer, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        ReadyProbe { pipeline, group, groups: self.groups }
    }
}
