//! GGUF models in several files: `NAME-00002-of-00005.gguf`.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The name of one part among its siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    /// What precedes the numbers.
    pub stem: String,
    /// Its number, from 1.
    pub number: usize,
    /// How many there are.
    pub count: usize,
}

impl PartName {
    /// Reads a file name; `None` if it is not that of a part.
    pub fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let all = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
            all.then(|| text.parse::<usize>().ok()).flatten()
        };
        let (number, count) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then(|| Self { stem: stem.to_owned(), number, count })
    }

    /// Part `number` of the same model, beside the part at `path`.
    pub fn sibling(&self, path: &Path, number: usize) -> PathBuf {
        path.with_file_name(format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count))
    }
}

/// The one model among the GGUF files found in `folder`: its file, or its first part.
pub(in crate::formats) fn only_model<'a>(folder: &Path, found: &'a [PathBuf]) -> Result<&'a Path> {
    let model = |path: &Path| match PartName::parse(path) {
        Some(part) => part.stem,
        None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    match found {
        [] => Err(Error::file(folder, "no *.gguf file in this folder")),
        [first, rest @ ..] => match rest.iter().find(|path| model(path) != model(first)) {
            None => Ok(first),
            Some(other) => {
                let (a, b) = (model(first), model(other));
                let what = format!("holds several GGUF models, `{a}` and `{b}`: name one's file");
                Err(Error::file(folder, what))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let part = PartName::parse(Path::new("/m/a-b-00002-of-00013.gguf")).unwrap();
        assert_eq!(part, PartName { stem: "a-b".into(), number: 2, count: 13 });
        let sibling = part.sibling(Path::new("/m/a-b-00002-of-00013.gguf"), 11);
        assert_eq!(sibling, Path::new("/m/a-b-00011-of-00013.gguf"));
        for other in ["a.gguf", "a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-1-of-2.gguf"] {
            assert_eq!(PartName::parse(Path::new(other)), None, "{other}");
        }
    }
}
