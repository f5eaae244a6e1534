//! A [`Tuning`] on disk: one small JSON file an adapter in the user's cache folder, of choices in
//! words.
//!
//! It is taken only by the same build of the kernels on the same driver. What can't be read, or is for
//! others, is told and left alone; kernels are then the defaults.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::tuning::{Choice, Tuning};
use super::{AdapterReport, shader};
use crate::{Error, Result};

/// Where an adapter's tuning is kept.
#[derive(Debug)]
pub struct TuningFile {
    path: PathBuf,
    adapter: String,
}

/// A choice in words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Chosen {
    /// The kernel.
    pub kernel: String,
    /// The class of shapes.
    pub class: String,
    /// The candidate.
    pub chosen: String,
}

impl Chosen {
    /// This candidate of `choice`.
    pub fn new(choice: Choice, candidate: usize) -> Self {
        let chosen = choice.candidates().swap_remove(candidate);
        Self { kernel: choice.kernel().into(), class: choice.class(), chosen }
    }

    /// The choices of `tuning` that are not the defaults.
    pub fn changes(tuning: &Tuning) -> Vec<Self> {
        tuning.changes().into_iter().map(|(choice, taken)| Self::new(choice, taken)).collect()
    }

    /// The choice and the candidate, if there are such.
    fn find(&self) -> Option<(Choice, usize)> {
        let choice =
            Choice::all().find(|c| c.kernel() == self.kernel && c.class() == self.class)?;
        let candidate = choice.candidates().iter().position(|c| *c == self.chosen)?;
        Some((choice, candidate))
    }
}

#[derive(Deserialize, Serialize)]
struct Contents {
    /// The adapter, its driver and the tier.
    adapter: String,
    /// Fathom's version and a hash of all shaders.
    kernels: String,
    choices: Vec<Chosen>,
}

/// What results depend on beside the adapter.
fn kernels() -> String {
    format!("{} {:016x}", env!("CARGO_PKG_VERSION"), shader::hash())
}

impl TuningFile {
    /// That of an adapter; `None` if the user has no cache folder.
    pub fn of(adapter: &AdapterReport) -> Option<Self> {
        let folder = choose_native_strategy().ok()?.cache_dir().join("fathom");
        Some(Self::within(&folder, adapter))
    }

    /// Another driver's or build's file has the same name, so that none is left behind.
    fn within(folder: &Path, adapter: &AdapterReport) -> Self {
        let AdapterReport { name, backend, tier, .. } = adapter;
        let hash = xxh3_64(format!("{name}\n{backend}\n{tier}").as_bytes());
        let path = folder.join(format!("tuning-{hash:016x}.json"));
        Self { path, adapter: adapter.to_string() }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept; `None` if nothing is.
    ///
    /// # Errors
    /// If it can't be read, is broken, or is for another driver or other kernels.
    pub fn load(&self) -> Result<Option<Tuning>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&self.path, e)),
        };
        let bad = |what: String| Error::file(&self.path, what);
        let contents: Contents = serde_json::from_str(&text)
            .map_err(|e| bad(format!("not written by `fathom tune`: {e}")))?;
        if contents.adapter != self.adapter {
            return Err(bad(format!("tuned for {}; `fathom tune` does it anew", contents.adapter)));
        }
        if contents.kernels != kernels() {
            return Err(bad("tuned for other kernels; `fathom tune` does it anew".into()));
        }
        let mut tuning = Tuning::DEFAULT;
        for chosen in &contents.choices {
            let Some((choice, candidate)) = chosen.find() else {
                return Err(bad(format!("`{}` has no such choice", chosen.kernel)));
            };
            tuning = tuning.with(choice, candidate);
        }
        Ok(Some(tuning))
    }

    /// Keeps `tuning`. Whoever reads the file meanwhile finds the old one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save(&self, tuning: &Tuning) -> Result<()> {
        let contents = Contents {
            adapter: self.adapter.clone(),
            kernels: kernels(),
            choices: Chosen::changes(tuning),
        };
        let text = serde_json::to_string_pretty(&contents)
            .map_err(|e| Error::file(&self.path, format!("cannot be written as JSON: {e}")))?;
        let part = self.path.with_extension(std::process::id().to_string());
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let saved = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&part, text))
            .and_then(|()| fs::rename(&part, &self.path));
        saved.map_err(|e| {
            // Whether there is a part of a file to remove is not known.
            let _ = fs::remove_file(&part);
            Error::io(&self.path, e)
        })
    }

    /// Forgets what is kept; tells whether anything was.
    ///
    /// # Errors
    /// If the file can't be removed.
    pub fn remove(&self) -> Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(&self.path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Tier;
    use crate::gpu::tuning::{Numbers, Outputs};

    fn adapter(name: &str, driver: &str) -> AdapterReport {
        AdapterReport {
            index: 0,
            name: name.into(),
            backend: "Vulkan".into(),
            kind: "Cpu".into(),
            driver: driver.into(),
            tier: Tier::Core,
            subgroup_sizes: [8, 8],
            max_buffer_bytes: 0,
            max_binding_bytes: 0,
            workgroup_bytes: 0,
            workgroup_invocations: 0,
            storage_buffers: 0,
            f16: false,
            timestamps: false,
            matrices: vec![],
        }
    }

    fn tuning() -> Tuning {
        let rows = Choice::MatmulRows(Numbers::EightBits, Outputs::Wide);
        Tuning::DEFAULT.with(rows, 3).with(Choice::CausalAttention, 1)
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let within = folder.path().join("a/cache");
        let file = TuningFile::within(&within, &adapter("card", "1"));
        assert_eq!(file.load().unwrap(), None);
        assert!(!file.remove().unwrap());
        for tuning in [tuning(), Tuning::DEFAULT] {
            file.save(&tuning).unwrap();
            assert_eq!(file.load().unwrap(), Some(tuning));
        }
        assert_eq!(fs::read_dir(&within).unwrap().count(), 1);
        // Another adapter, or another tier of the same, has a file of its own.
        let other = AdapterReport { tier: Tier::Subgroups, ..adapter("card", "1") };
        for other in [adapter("another", "1"), other] {
            assert_eq!(TuningFile::within(&within, &other).load().unwrap(), None);
        }
        assert!(file.remove().unwrap());
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn what_is_not_for_this_device_and_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = TuningFile::within(folder.path(), &adapter("card", "1"));
        file.save(&tuning()).unwrap();
        let updated = TuningFile::within(folder.path(), &adapter("card", "2"));
        let said = updated.load().unwrap_err().to_string();
        assert!(said.contains("tuned for card (Vulkan, 1, tier core)"), "{said}");

        let text = fs::read_to_string(file.path()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            fs::write(file.path(), text.replace(from, to)).unwrap();
            file.load().unwrap_err().to_string()
        };
        assert!(with(&kernels(), "0.0.1 0").contains("tuned for other kernels"));
        assert!(with("teams of 16", "teams of 1000").contains("`matmul_rows` has no such choice"));
        assert!(with("matmul_rows", "matmul").contains("`matmul` has no such choice"));
        assert!(with("\"choices\"", "\"others\"").contains("not written by `fathom tune`"));
        for broken in ["", "{", "[]", "\0", &text[..text.len() / 2]] {
            fs::write(file.path(), broken).unwrap();
            let said = file.load().unwrap_err().to_string();
            assert!(said.contains("not written by `fathom tune`"), "{said}");
        }
        fs::write(file.path(), [0xff, 0xfe]).unwrap();
        assert!(file.load().is_err());
    }
}
