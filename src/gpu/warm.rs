//! Compiling on every core.
//!
//! Software drivers compile a kernel when it is first dispatched, on the one thread that runs a
//! device's queue: seconds for a model's kernels, while the other cores idle. What they compiled
//! they keep in a cache on disk. So other devices of the same adapter, one a core, dispatch their
//! share of the kernels over no workgroups at all, and the model's own device then finds them there.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::exec::Call;
use super::pipeline::PipelineKey;
use super::{Gpu, GpuGraph};
use crate::Result;

/// Longer than it takes to find a model's kernels in the driver's cache: other devices are opened
/// only after it.
const PATIENCE: Duration = Duration::from_millis(150);

/// Makes the driver compile every kernel of `graphs`, if it is one that compiles when a kernel is
/// first dispatched. `progress` is told how many are done and how many there are.
///
/// # Errors
/// If the device fails.
pub fn warm(gpu: &Gpu, graphs: &[&GpuGraph], progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    if !gpu.is_software() {
        return Ok(());
    }
    let mut calls: Vec<&Call> = vec![];
    for call in graphs.iter().flat_map(|g| g.calls()) {
        if calls.iter().all(|c| c.key != call.key) {
            calls.push(call);
        }
    }
    // The longest first, so that all end at about the same time.
    calls.sort_by_key(|call| Reverse(call.key.code()));
    let next = AtomicUsize::new(0);
    let claim = || calls.get(next.fetch_add(1, Ordering::Relaxed)).copied();
    let theirs = Mutex::new(vec![]);
    let help = |all_claimed: Receiver<()>| {
        if all_claimed.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let Ok(twin) = gpu.twin() else { return };
        while let Some(call) = claim() {
            // A failure is the twin's own; the model's device compiles what it left.
            let _ = dispatch_unbound(&twin, &call.key);
            theirs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(call);
        }
    };
    let (mut done, all) = (0, calls.len() as u64);
    let mut dispatch = |call: &Call| {
        gpu.dispatch_none(&call.pipeline, &call.group)?;
        done += 1;
        progress(done, all);
        Ok(())
    };
    thread::scope(|scope| {
        // Dropped at the end, which tells those who still wait that there is nothing left.
        let mut claiming = vec![];
        let cores = thread::available_parallelism().map_or(1, |n| n.get());
        for _ in 1..cores {
            let (sender, all_claimed) = mpsc::channel();
            claiming.push(sender);
            scope.spawn(|| help(all_claimed));
        }
        while let Some(call) = claim() {
            dispatch(call)?;
        }
        Ok(())
    })?;
    let theirs = theirs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    theirs.into_iter().try_for_each(dispatch)
}

/// Dispatches a kernel over nothing, bound to buffers of no content.
fn dispatch_unbound(gpu: &Gpu, key: &PipelineKey) -> Result<()> {
    let made = key.make(gpu);
    let buffer = |usage| {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("unbound"),
            // As much as any uniform may take.
            size: 64 << 10,
            usage,
            mapped_at_creation: false,
        })
    };
    let bound: Vec<_> = key
        .bindings()
        .into_iter()
        .map(|ty| match ty {
            wgpu::BufferBindingType::Uniform => buffer(wgpu::BufferUsages::UNIFORM),
            wgpu::BufferBindingType::Storage { .. } => buffer(wgpu::BufferUsages::STORAGE),
        })
        .collect();
    let entries: Vec<_> = bound
        .iter()
        .enumerate()
        .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
        .collect();
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("unbound"),
        layout: &made.layout,
        entries: &entries,
    });
    gpu.dispatch_none(&made.pipeline, &group)
}
