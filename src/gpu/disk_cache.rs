//! Compiled pipelines on disk, for drivers that keep no cache of their own.
//!
//! The file lies in the user's cache folder, one an adapter. That it can't be read or written costs
//! time and nothing else.

use std::fs;
use std::path::PathBuf;

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

/// A driver's pipeline cache and the file it is kept in.
#[derive(Debug)]
pub(super) struct DiskCache {
    cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl DiskCache {
    /// The cache of this adapter; `None` where the backend has none, or the user no cache folder.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(info)?;
        let path = choose_native_strategy().ok()?.cache_dir().join("fathom").join(name);
        let data = fs::read(&path).ok();
        let desc = wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: the file has a name that wgpu gave for this adapter, and what is written to it is
        // what wgpu gave. wgpu looks at its header, and the driver takes only its own version's.
        let cache = unsafe { device.create_pipeline_cache(&desc) };
        Some(Self { cache, path })
    }

    /// The cache, for new pipelines.
    pub fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the cache down if it has grown. Whoever reads the file meanwhile finds the old one.
    pub fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let old = fs::metadata(&self.path).map_or(0, |m| m.len());
        if data.len() as u64 <= old {
            return;
        }
        let Some(folder) = self.path.parent() else { return };
        let part = self.path.with_extension(std::process::id().to_string());
        let saved = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&part, data))
            .and_then(|()| fs::rename(&part, &self.path));
        if saved.is_err() {
            // Whether there is a part of a file to remove is as unsure as all else here.
            let _ = fs::remove_file(&part);
        }
    }
}
