//! A model's files, mapped rather than read: a folder of `config.json` and safetensors files, or a
//! GGUF file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::gguf::{self, config_text};
use super::shard::{Bytes, Entry, Shard};
use super::{Gguf, TensorView};
use crate::{Error, Result};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's opened files, or a model embedded in the program. Opening checks every header; tensor
/// bytes are only paged in when they are looked at.
pub struct Checkpoint {
    config_path: PathBuf,
    config: String,
    gguf: Option<Gguf>,
    shards: Vec<Shard>,
    /// Every tensor by its name in the files: which shard, and what the shard's header says.
    tensors: BTreeMap<String, (usize, Entry)>,
}

impl Checkpoint {
    /// Opens the model at `path`.
    ///
    /// A folder: its `config.json`, and the weights in `model.safetensors`, or in the files
    /// `model.safetensors.index.json` names, or else in every `*.safetensors` there. A GGUF file,
    /// or any of the files of a split one. A folder without safetensors files but with one GGUF
    /// model.
    ///
    /// Errors name the file and, where there is one, the tensor: a missing or truncated file, a
    /// bad header, an index that disagrees with its files, a tensor that is in two files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            if has_extension(path, "gguf") {
                return Self::add_parts(Gguf::open(path)?);
            }
            let what = "not a model: neither a GGUF file nor a folder with config.json and \
                        *.safetensors files";
            return Err(Error::file(path, what));
        }
        if files_with(path, "safetensors")?.is_empty() && !path.join(INDEX).exists() {
            let found = files_with(path, "gguf")?;
            if !found.is_empty() {
                return Self::add_parts(Gguf::open(gguf::only_model(path, &found)?)?);
            }
        }
        Self::open_folder(path)
    }

    /// Opens a folder of safetensors files.
    fn open_folder(folder: &Path) -> Result<Self> {
        let config_path = folder.join(CONFIG);
        let config = read_text(&config_path)?;
        let index = folder.join(INDEX);
        let mut checkpoint = Self::empty(config_path, config);
        if folder.join(SINGLE).exists() {
            checkpoint.add(Shard::open(&folder.join(SINGLE))?)?;
        } else if index.exists() {
            checkpoint.add_indexed(folder, &index)?;
        } else {
            let files = files_with(folder, "safetensors")?;
            if files.is_empty() {
                return Err(Error::file(folder, "no *.safetensors file in this folder"));
            }
            for path in files {
                checkpoint.add(Shard::open(&path)?)?;
            }
        }
        Ok(checkpoint)
    }

    /// A model that is part of the program: the text of its `config.json` and the bytes of its one
    /// safetensors file. Errors as [`Self::open`]; they call the two `embedded config.json` and
    /// `embedded model.safetensors`.
    pub fn from_static(config: &str, weights: &'static [u8]) -> Result<Self> {
        Self::embedded(config, Bytes::Static(weights))
    }

    /// A model in memory; otherwise as [`Self::from_static`].
    pub fn from_bytes(config: &str, weights: Vec<u8>) -> Result<Self> {
        Self::embedded(config, Bytes::Owned(weights))
    }

    /// A GGUF file in memory. Errors as [`Self::open`]; they call it `label`.
    pub fn from_gguf_bytes(label: &str, file: Vec<u8>) -> Result<Self> {
        Self::add_parts(Gguf::from_bytes(label, file)?)
    }

    fn embedded(config: &str, weights: Bytes) -> Result<Self> {
        let mut checkpoint = Self::empty(format!("embedded {CONFIG}").into(), config.to_owned());
        checkpoint.add(Shard::new(format!("embedded {SINGLE}").into(), weights).read()?)?;
        Ok(checkpoint)
    }

    fn empty(config_path: PathBuf, config: String) -> Self {
        Self { config_path, config, gguf: None, shards: Vec::new(), tensors: BTreeMap::new() }
    }

    /// The model in the parts of a GGUF file.
    fn add_parts((gguf, parts): (Gguf, Vec<gguf::Part>)) -> Result<Self> {
        let mut checkpoint = Self::empty(gguf.path().to_owned(), String::new());
        for part in parts {
            checkpoint.add(part)?;
        }
        checkpoint.config = config_text(&gguf, &|name| checkpoint.get(name))?;
        checkpoint.gguf = Some(gguf);
        Ok(checkpoint)
    }

    /// The metadata, if the model is in a GGUF file.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_ref()
    }

    /// The text of `config.json`; of a GGUF file, one made from its metadata.
    pub fn config_text(&self) -> &str {
        &self.config
    }

    /// Where the configuration was read from: what errors about its contents should name.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Whether a tensor is called exactly `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Lets the system take back the memory that tensors were read into, for those who go through a
    /// model larger than memory. Views stay usable.
    pub fn release(&self) {
        self.shards.iter().for_each(Shard::release);
    }

    /// Every tensor's name as the files spell it, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called exactly `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (shard, entry) = self.tensors.get(name)?;
        Some(self.shards[*shard].view(name, entry))
    }

    /// The tensor called exactly `name`; an error if there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.get(name).ok_or_else(|| Error::tensor(name, "not in the checkpoint"))
    }

    /// Every tensor, sorted by name.
    pub fn views(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|(name, (shard, entry))| self.shards[*shard].view(name, entry))
    }

    /// Adds a shard and its tensors.
    fn add(&mut self, (shard, entries): (Shard, Vec<(String, Entry)>)) -> Result<()> {
        for (name, entry) in entries {
            if let Some((other, _)) = self.tensors.get(&name) {
                let other = self.shards[*other].path.display();
                let what = format!("tensor `{name}` is also in {other}");
                return Err(Error::file(&shard.path, what));
            }
            self.tensors.insert(name, (self.shards.len(), entry));
        }
        self.shards.push(shard);
        Ok(())
    }

    /// Adds the shards that the index file at `path` names, and holds them against it.
    fn add_indexed(&mut self, folder: &Path, path: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let index: Index = serde_json::from_str(&read_text(path)?)
            .map_err(|e| Error::file(path, format!("not a safetensors index: {e}")))?;
        let mut numbers = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            let number = match numbers.get(file) {
                Some(&number) => number,
                None => {
                    // Only a bare file name: an index must not reach outside its folder.
                    let name = Path::new(file);
                    if name.file_name() != Some(file.as_ref())
                        || !has_extension(name, "safetensors")
                    {
                        let what = format!(
                            "tensor `{tensor}`: `{file}` is not the name of a *.safetensors file"
                        );
                        return Err(Error::file(path, what));
                    }
                    if !folder.join(file).is_file() {
                        let what =
                            format!("tensor `{tensor}` should be in `{file}`, which is missing");
                        return Err(Error::file(path, what));
                    }
                    self.add(Shard::open(&folder.join(file))?)?;
                    numbers.insert(file, self.shards.len() - 1);
                    self.shards.len() - 1
                }
            };
            if self.tensors.get(tensor).is_none_or(|(shard, _)| *shard != number) {
                let what = format!("tensor `{tensor}` should be in `{file}`, which lacks it");
                return Err(Error::file(path, what));
            }
        }
        Ok(())
    }
}

/// Shows the shape of a checkpoint, not its contents.
impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("config", &self.config_path)
            .field("files", &self.shards.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Every file in `folder` with this extension, sorted.
fn files_with(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if has_extension(&path, extension) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::DType;
    use super::*;
    use safetensors::tensor::{Dtype, TensorView as Raw, serialize};

    /// A safetensors file of `U8` vectors.
    fn file(tensors: &[(&str, &[u8])]) -> Vec<u8> {
        let views = tensors
            .iter()
            .map(|(name, bytes)| (*name, Raw::new(Dtype::U8, vec![bytes.len()], bytes).unwrap()));
        serialize(views, None).unwrap()
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn fault(files: &[(&str, &[u8])]) -> String {
        let dir = folder(files);
        let text = Checkpoint::open(dir.path()).unwrap_err().to_string();
        text.replace(&format!("{}{}", dir.path().display(), std::path::MAIN_SEPARATOR), "")
    }

    #[test]
    fn opens_one_file_an_index_or_whatever_is_there() {
        let (a, b) = (file(&[("x", &[1, 2])]), file(&[("y", &[3])]));
        let index =
            br#"{"metadata":{},"weight_map":{"x":"one.safetensors","y":"two.safetensors"}}"#;
        for files in [
            &[("one.safetensors", &a[..]), ("two.safetensors", &b), (INDEX, index)][..],
            &[("one.safetensors", &a), ("two.safetensors", &b)],
            &[(SINGLE, &file(&[("x", &[1, 2]), ("y", &[3])])), ("other.safetensors", b"?")],
        ] {
            let dir = folder(files);
            fs::write(dir.path().join(CONFIG), "{}").unwrap();
            let c = Checkpoint::open(dir.path()).unwrap();
            assert_eq!(c.names().collect::<Vec<_>>(), ["x", "y"]);
            assert_eq!(c.tensor("x").unwrap().bytes, [1, 2]);
            let sizes: Vec<_> = c.views().map(|view| (view.dtype, view.bytes.len())).collect();
            assert_eq!(sizes, [(DType::U8, 2), (DType::U8, 1)]);
            assert_eq!(c.config_text(), "{}");
            assert!(c.contains("y") && !c.contains("z"));
            assert_eq!(c.tensor("z").unwrap_err().to_string(), "tensor `z`: not in the checkpoint");
        }
    }

    #[test]
    fn embedded_weights_open_at_any_alignment() {
        let mut bytes = vec![0];
        bytes.extend(file(&[("x", &[9, 0, 0])]));
        let c = Checkpoint::from_static("{}", &bytes.leak()[1..]).unwrap();
        assert_eq!(c.tensor("x").unwrap().to_i64().unwrap(), [9, 0, 0]);
        let e = Checkpoint::from_static("{}", b"short").unwrap_err().to_string();
        assert_eq!(e, "embedded model.safetensors: not a safetensors file: only 5 bytes long");
    }

    #[test]
    fn faults_of_a_folder_are_named() {
        let config = (CONFIG, &b"{}"[..]);
        let x = file(&[("x", &[1])]);
        let index = |map: &str| format!("{{\"weight_map\":{{{map}}}}}").into_bytes();
        assert!(fault(&[]).starts_with("config.json: "));
        assert!(fault(&[config]).ends_with("no *.safetensors file in this folder"));
        assert_eq!(
            fault(&[config, ("a.safetensors", &x), ("b.safetensors", &x)]),
            "b.safetensors: tensor `x` is also in a.safetensors"
        );
        assert_eq!(
            fault(&[config, (INDEX, &index(r#""x":"a.safetensors""#))]),
            "model.safetensors.index.json: tensor `x` should be in `a.safetensors`, which is missing"
        );
        assert_eq!(
            fault(&[config, ("a.safetensors", &x), (INDEX, &index(r#""y":"a.safetensors""#))]),
            "model.safetensors.index.json: tensor `y` should be in `a.safetensors`, which lacks it"
        );
        assert_eq!(
            fault(&[config, (INDEX, &index(r#""y":"../a""#))]),
            "model.safetensors.index.json: tensor `y`: `../a` is not the name of a *.safetensors file"
        );
        for elsewhere in ["/a.safetensors", "b/a.safetensors", INDEX] {
            let found = fault(&[config, (INDEX, &index(&format!("\"y\":\"{elsewhere}\"")))]);
            assert!(found.contains("is not the name of a *.safetensors file"), "{found}");
        }
        let z = file(&[("z", &[1])]);
        assert_eq!(
            fault(&[
                config,
                ("a.safetensors", &x),
                ("b.safetensors", &z),
                (INDEX, &index(r#""x":"b.safetensors","z":"a.safetensors""#))
            ]),
            "model.safetensors.index.json: tensor `x` should be in `b.safetensors`, which lacks it"
        );
        assert!(fault(&[config, (INDEX, b"{}")]).contains("missing field `weight_map`"));
        let cut = &x[..x.len() - 1];
        assert_eq!(
            fault(&[config, (SINGLE, cut)]),
            "model.safetensors: truncated: tensor `x` ends at byte 1 of the data, 0 are there"
        );
        let e = Checkpoint::open("/nowhere/at/all").unwrap_err().to_string();
        assert!(e.contains("not a model: neither"), "{e}");
    }
}
