//! The one error type of the library: every variant is a sentence that says what went wrong, where,
//! and, where it can, what to do about it.

use std::path::{Path, PathBuf};

/// What can go wrong in Fathom. `Display` gives one line fit to be shown to a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read but its contents are not what they should be.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, naming the field or tensor.
        what: String,
    },
    /// A model's tensor is missing or has the wrong shape or type.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor's name in the checkpoint.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A model's configuration cannot be run.
    #[error("model config: {0}")]
    Config(String),
    /// A picture or clip cannot be used.
    #[error("{}: {what}", path.display())]
    Media {
        /// The picture, clip or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A request cannot be served as asked (too long, a bad option value, a bad token id ...).
    #[error("{0}")]
    Request(String),
    /// No adapter fits, or the device was lost or ran out of memory.
    #[error("GPU: {0}")]
    Gpu(String),
}

/// [`std::result::Result`] with Fathom's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), what: shown(what.into()) }
    }

    /// An [`Error::Media`] for `path`.
    pub fn media(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Media { path: path.as_ref().to_owned(), what: shown(what.into()) }
    }

    /// An [`Error::Tensor`] for the tensor called `name`.
    pub fn tensor(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Tensor { name: shown(name.into()), what: shown(what.into()) }
    }
}

/// A sentence fit for one line of a terminal: names in files can hold line ends and commands to the
/// terminal, which are shown as escapes.
fn shown(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let e = Error::file("f", "tensor `a\n\u{1b}[31mß`: bad");
        assert_eq!(e.to_string(), "f: tensor `a\\n\\u{1b}[31mß`: bad");
        assert_eq!(Error::tensor("\t", "\0").to_string(), "tensor `\\t`: \\u{0}");
    }
}
