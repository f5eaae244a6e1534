//! Choosing an adapter, and the device opened on it.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::disk_cache::DiskCache;
use super::processors::{self, Threads};
use super::store::most_bytes;
use super::{Limits, Matrices, Tuning, TuningFile};
use crate::{Error, Result};

/// A set of GPU abilities that kernels are written for. Each tier includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// What every WebGPU device has: 256 invocations a workgroup, 16 KiB of workgroup memory, 8
    /// storage buffers a stage, 128 MiB a binding.
    Core,
    /// Subgroup operations of any width, and the adapter's own limits on buffers and bindings.
    Subgroups,
    /// Subgroups that multiply [`Matrices`].
    Matrices,
}

impl Tier {
    const ALL: [Self; 3] = [Self::Core, Self::Subgroups, Self::Matrices];

    fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Subgroups => "subgroups",
            Self::Matrices => "matrices",
        }
    }

    /// The tier that the environment variable `FATHOM_TIER` limits us to, if it is set.
    fn from_env() -> Result<Option<Self>> {
        let Ok(want) = std::env::var("FATHOM_TIER") else { return Ok(None) };
        let found = Self::ALL.into_iter().find(|t| t.name() == want.to_lowercase());
        found.map(Some).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Request(format!("FATHOM_TIER={want}: no such tier; there are {names}"))
        })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `fathom devices` tells of an adapter.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    /// Position in the list; accepted by `--adapter`.
    pub index: usize,
    /// The adapter's own name; any part of it is accepted by `--adapter`.
    pub name: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `VirtualGpu`, `Cpu` or `Other`.
    pub kind: String,
    /// The driver and its version.
    pub driver: String,
    /// The tier Fathom uses on it.
    pub tier: Tier,
    /// The narrowest and widest subgroup.
    pub subgroup_sizes: [u32; 2],
    /// Bytes the largest buffer may have.
    pub max_buffer_bytes: u64,
    /// Bytes the largest storage binding may span.
    pub max_binding_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Invocations a workgroup.
    pub workgroup_invocations: u32,
    /// Storage buffers a stage.
    pub storage_buffers: u32,
    /// Whether shaders may compute in 16-bit floats.
    pub f16: bool,
    /// Whether dispatches can be timed.
    pub timestamps: bool,
    /// Cooperative matrices that it claims and kernels are written for.
    pub matrices: Vec<Matrices>,
}

impl AdapterReport {
    fn new(index: usize, adapter: &wgpu::Adapter, cap: Option<Tier>) -> Self {
        let info = adapter.get_info();
        let (limits, features) = (adapter.limits(), adapter.features());
        let matrices = Matrices::of(adapter);
        Self {
            index,
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            kind: format!("{:?}", info.device_type),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            tier: tier(adapter, &matrices, cap),
            subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
            max_buffer_bytes: limits.max_buffer_size,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            matrices,
        }
    }

    /// See [`Limits::serial_lanes`].
    fn serial_lanes(&self) -> u32 {
        let [least, most] = self.subgroup_sizes;
        let known = self.kind == "Cpu" && self.tier >= Tier::Subgroups && least == most;
        if known { most } else { 0 }
    }
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}, tier {})", self.name, self.backend, self.driver, self.tier)
    }
}

fn tier(adapter: &wgpu::Adapter, matrices: &[Matrices], cap: Option<Tier>) -> Tier {
    let has = match adapter.features().contains(wgpu::Features::SUBGROUP) {
        false => Tier::Core,
        true if matrices.is_empty() => Tier::Subgroups,
        true => Tier::Matrices,
    };
    cap.map_or(has, |c| c.min(has))
}

fn instance() -> wgpu::Instance {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    // OpenGL beside Vulkan has deadlocked on some Windows drivers, and lacks what we need.
    desc.backends = wgpu::Backends::PRIMARY;
    // Grids that the device counts would be checked by a dispatch of their own, each. Our own kernel counts
    // them, and never more than a graph has rows for experts.
    desc.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    wgpu::Instance::new(desc)
}

/// Real GPUs come before software ones; within a kind the system's order stays.
fn rank(adapter: &wgpu::Adapter) -> u8 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn ranked() -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    found.retain(meets_core);
    found.sort_by_key(rank);
    found
}

fn meets_core(adapter: &wgpu::Adapter) -> bool {
    let needed = wgpu::DownlevelFlags::COMPUTE_SHADERS | wgpu::DownlevelFlags::INDIRECT_EXECUTION;
    let able = adapter.get_downlevel_capabilities().flags.contains(needed);
    able && wgpu::Limits::default().check_limits(&adapter.limits())
}

/// Every adapter that meets WebGPU's core limits, in the order of preference.
///
/// # Errors
/// If `FATHOM_TIER` names no tier.
pub fn adapters() -> Result<Vec<AdapterReport>> {
    let cap = Tier::from_env()?;
    Ok(ranked().iter().enumerate().map(|(i, a)| AdapterReport::new(i, a, cap)).collect())
}

/// See [`Limits::chains_from`].
const CHAINS_FROM: usize = 6;

/// An open device.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) checked: bool,
    software: bool,
    /// What kernels may count on.
    pub limits: Limits,
    /// What was chosen.
    pub report: AdapterReport,
    /// Why it was chosen.
    pub reason: String,
    /// Whether kernels are those that `fathom tune` has chosen.
    pub tuned: bool,
    failure: Arc<Mutex<Option<String>>>,
    pub(super) disk_cache: Option<Arc<DiskCache>>,
}

impl Gpu {
    /// Opens the adapter that `wanted` (or `FATHOM_ADAPTER`) names by index or by part of its name,
    /// or the first in the order of preference.
    ///
    /// # Errors
    /// If there is no adapter (the message says how to get a driver), none of that name, or the
    /// driver refuses to open it.
    pub fn open(wanted: Option<&str>) -> Result<Self> {
        let cap = Tier::from_env()?;
        let found = ranked();
        if found.is_empty() {
            return Err(Error::Gpu(no_adapter().into()));
        }
        let from_env = std::env::var("FATHOM_ADAPTER").ok().filter(|s| !s.is_empty());
        let (wanted, source) = match (wanted, &from_env) {
            (Some(w), _) => (Some(w), "--adapter"),
            (None, Some(w)) => (Some(w.as_str()), "FATHOM_ADAPTER"),
            (None, None) => (None, ""),
        };
        let (index, reason) = match wanted {
            Some(w) => (choose(&found, w)?, format!("chosen by {source}={w}")),
            None => (0, format!("the first of {} found", found.len())),
        };
        let report = AdapterReport::new(index, &found[index], cap);
        Self::open_adapter(&found[index], report, reason)
    }

    fn open_adapter(
        adapter: &wgpu::Adapter,
        report: AdapterReport,
        reason: String,
    ) -> Result<Self> {
        let has = adapter.limits();
        let mut required_limits = wgpu::Limits::default();
        let mut required_features = adapter.features() & wgpu::Features::PIPELINE_CACHE;
        if report.timestamps {
            required_features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        if report.tier >= Tier::Subgroups {
            required_features |= wgpu::Features::SUBGROUP;
            required_limits.max_buffer_size = has.max_buffer_size;
            required_limits.max_storage_buffer_binding_size = has.max_storage_buffer_binding_size;
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if report.tier >= Tier::Matrices {
            required_features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            required_features |= adapter.features() & wgpu::Features::SHADER_F16;
            // SAFETY: of what is experimental only cooperative matrices are used, by kernels that are
            // validated as all others, and not before a product of two has come out right. What is left
            // are bugs of wgpu's, for which FATHOM_TIER=subgroups does without.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let mut wide_loads = false;
        if report.serial_lanes() > 0 {
            // For chains of kernels.
            required_limits.max_storage_buffers_per_shader_stage =
                has.max_storage_buffers_per_shader_stage;
            required_limits.max_uniform_buffers_per_shader_stage =
                has.max_uniform_buffers_per_shader_stage;
            required_limits.max_buffers_and_acceleration_structures_per_shader_stage =
                has.max_buffers_and_acceleration_structures_per_shader_stage;
            wide_loads = adapter.features().contains(wgpu::Features::SHADER_INT64);
            required_features.set(wgpu::Features::SHADER_INT64, wide_loads);
        }
        let desc = wgpu::DeviceDescriptor {
            label: Some("fathom"),
            required_features,
            required_limits: required_limits.clone(),
            experimental_features,
            ..Default::default()
        };
        let info = adapter.get_info();
        let before = processors::helps(&info).then(Threads::now);
        let (device, queue) = pollster::block_on(adapter.request_device(&desc))
            .map_err(|e| Error::Gpu(format!("{} cannot be opened: {e}", report.name)))?;
        if let Some(before) = before {
            processors::settle(&before);
        }
        let failure = Arc::new(Mutex::new(None));
        let note = |failure: &Arc<Mutex<Option<String>>>, what: String| {
            let mut slot = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            slot.get_or_insert(what);
        };
        let sink = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |e| note(&sink, e.to_string())));
        let sink = Arc::clone(&failure);
        device.set_device_lost_callback(move |reason, what| {
            // Dropping the device also "loses" it; nobody is left to be told then.
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&sink, format!("the device was lost: {what}"));
            }
        });
        let limits = Limits {
            max_binding_bytes: required_limits.max_storage_buffer_binding_size,
            subgroups: report.tier >= Tier::Subgroups,
            serial_lanes: report.serial_lanes(),
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            chains_from: if report.serial_lanes() > 0 { CHAINS_FROM } else { 0 },
            shared_bytes: most_bytes(&required_limits),
            wide_loads,
            matrices: None,
            tuning: Tuning::DEFAULT,
        };
        let checked = std::env::var_os("FATHOM_CHECKED").is_some_and(|v| v != "0");
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let disk_cache = DiskCache::open(&device, &info).map(Arc::new);
        let mut gpu = Self {
            device,
            queue,
            checked,
            software,
            limits,
            report,
            reason,
            tuned: false,
            failure,
            disk_cache,
        };
        if gpu.report.tier >= Tier::Matrices && !software {
            gpu.multiply_matrices(false);
        }
        Ok(gpu)
    }

    /// Has products of many rows made by cooperative matrices, if the adapter has such that multiply
    /// numbers in f32, or, with `half`, rounded to f16; tells whether. Where those in f32 are, an open
    /// device does so from the start, unless it is software.
    pub fn multiply_matrices(&mut self, half: bool) -> bool {
        let able = self.report.tier >= Tier::Matrices;
        let all = self.report.matrices.iter().filter(|m| able && m.half == half);
        // Larger ones come last.
        let found = all.rev().find_map(|m| m.tried(self));
        if found.is_some() {
            self.limits.matrices = found;
        }
        found.is_some()
    }

    /// Takes the kernels that `fathom tune` has chosen for this adapter instead of the defaults, which
    /// it keeps if nothing was chosen; tells whether it was.
    ///
    /// # Errors
    /// If what was kept is of no use: see [`TuningFile::load`].
    pub fn load_tuning(&mut self) -> Result<bool> {
        let kept = TuningFile::of(&self.report).map_or(Ok(None), |file| file.load())?;
        self.tuned = kept.is_some();
        self.limits.tuning = kept.unwrap_or_default();
        Ok(self.tuned)
    }

    /// Whether the adapter is a program that runs on the CPU.
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// Another device on the same adapter.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub(super) fn twin(&self) -> Result<Self> {
        Self::open(Some(&self.report.index.to_string()))
    }

    /// Runs a kernel over no workgroups: whatever the driver does before a first dispatch is done.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub(super) fn dispatch_none(
        &self,
        pipeline: &wgpu::ComputePipeline,
        group: &wgpu::BindGroup,
    ) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(0, 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        self.wait()
    }

    /// What is underneath, for work that is no graph's: a benchmark's own kernels. Errors of it are
    /// told by [`Gpu::check`] too.
    pub fn wgpu(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.device, &self.queue)
    }

    /// What the driver has complained of since the last call, as an error.
    ///
    /// # Errors
    /// If the device was lost, ran out of memory, or something invalid was asked of it.
    pub fn check(&self) -> Result<()> {
        let mut slot = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match slot.take() {
            Some(what) => Err(Error::Gpu(format!("{}: {what}", self.report.name))),
            None => Ok(()),
        }
    }

    /// Waits until everything submitted so far is done.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub fn wait(&self) -> Result<()> {
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| Error::Gpu(format!("{}: {e}", self.report.name)))?;
        self.check()
    }

    /// The bytes of a buffer that can be mapped, once everything submitted is done.
    pub(super) fn map(&self, buffer: &wgpu::Buffer) -> Result<wgpu::BufferView> {
        buffer.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.wait()?;
        let lost = |_| Error::Gpu(format!("{}: read-back failed", self.report.name));
        buffer.slice(..).get_mapped_range().map_err(lost)
    }

    /// A shader module without run-time bounds checks, or with them if `FATHOM_CHECKED` is set.
    pub(super) fn module(&self, label: &str, wgsl: String) -> wgpu::ShaderModule {
        let desc = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        };
        if self.checked {
            return self.device.create_shader_module(desc);
        }
        // SAFETY: only Fathom's own shaders come here. They bound every index by sizes from their
        // Params, which are those of the bound buffers, and every loop by such a size, but for the one
        // in which a chain's workgroup waits for others that have begun; the op tests run the same
        // shaders in checked form. Divisors are sizes too, and never zero.
        unsafe {
            self.device.create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }
}

fn choose(found: &[wgpu::Adapter], wanted: &str) -> Result<usize> {
    if let Ok(index) = wanted.parse::<usize>() {
        if index < found.len() {
            return Ok(index);
        }
        let n = found.len();
        return Err(Error::Gpu(format!("no adapter {index}: `fathom devices` lists {n}")));
    }
    let names: Vec<_> = found.iter().map(|a| a.get_info().name).collect();
    names.iter().position(|n| n.to_lowercase().contains(&wanted.to_lowercase())).ok_or_else(|| {
        Error::Gpu(format!("no adapter called `{wanted}`; there are: {}", names.join("; ")))
    })
}

fn no_adapter() -> &'static str {
    if cfg!(target_os = "linux") {
        "no adapter found; install your card's Vulkan driver, or the software one \
         (Debian and Ubuntu: apt install mesa-vulkan-drivers libvulkan1), or use --backend cpu"
    } else {
        "no adapter found; update your graphics driver, or use --backend cpu"
    }
}
