//! The `fathom` program from outside: whatever it is given, it answers or says in one line what is
//! wrong, and never panics or hangs.

#[path = "cli/chat.rs"]
mod chat;
#[path = "cli/media.rs"]
mod media;
#[path = "cli/models.rs"]
mod models;
#[path = "cli/quantize.rs"]
mod quantize;
#[path = "cli/released.rs"]
mod released;
#[path = "cli/tune.rs"]
mod tune;
#[path = "cli/usage.rs"]
mod usage;

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any of these commands takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command line that has not run yet.
struct Fathom(Command);

/// `fathom` with these arguments.
fn fathom<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Fathom {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["FATHOM_ADAPTER", "FATHOM_LOG", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    Fathom(command)
}

/// A subcommand on the CPU, with arguments separated by blanks.
fn on_cpu(line: &str) -> Fathom {
    let mut words = line.split_whitespace();
    fathom(words.by_ref().take(1).chain(["--backend", "cpu"])).args(words)
}

/// What a command did.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Fathom {
    fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Hides every Vulkan driver.
    fn without_drivers(self) -> Self {
        self.env("VK_DRIVER_FILES", "/nowhere").env("VK_ICD_FILENAMES", "/nowhere")
    }

    /// Lets it have 3 GiB of memory, where the system can limit that.
    fn within_memory(self) -> Self {
        if !cfg!(target_os = "linux") {
            return self;
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 3145728; exec \"$0\" \"$@\""]);
        shell.arg(self.0.get_program()).args(self.0.get_args());
        shell.current_dir(env!("CARGO_MANIFEST_DIR"));
        Self(shell)
    }

    /// Runs it with nothing on standard input.
    fn done(mut self) -> Done {
        let shown = format!("{:?}", self.0);
        self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.0.spawn().unwrap();
        let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let code = wait(&mut child, &shown);
        let done = Done { code, out: out.join().unwrap(), err: err.join().unwrap() };
        assert!(!done.err.contains("panicked"), "{shown}: {}", done.err);
        assert!(done.code.is_some(), "{shown} was ended by a signal: {}", done.err);
        done
    }

    /// Its standard output; it must succeed.
    fn succeeds(self) -> String {
        let shown = format!("{:?}", self.0);
        let done = self.done();
        assert_eq!(done.code, Some(0), "{shown}: {}", done.err);
        done.out
    }

    /// Its standard output as JSON.
    fn json(self) -> Value {
        serde_json::from_str(&self.succeeds()).unwrap()
    }

    /// It must fail with exit status 1 and one line on standard error that has all of `parts`. What
    /// a run says first, about the device or a clip, does not count.
    fn fails(self, parts: &[&str]) {
        let shown = format!("{:?}", self.0);
        let Done { code, out, err } = self.done();
        assert_eq!(code, Some(1), "{shown}: {err}");
        assert_eq!(out, "", "{shown}");
        let note = |line: &&str| {
            line.contains(" on the CPU reference path") || line.contains(" held at a time")
        };
        let lines: Vec<&str> = err.lines().skip_while(note).collect();
        assert_eq!(lines.len(), 1, "{shown}: {err}");
        for part in parts {
            assert!(lines[0].contains(part), "{shown}: `{part}` is not in: {err}");
        }
    }

    /// clap must refuse it with exit status 2, naming the argument.
    fn misused(self, part: &str) {
        let shown = format!("{:?}", self.0);
        let Done { code, err, .. } = self.done();
        assert!(code == Some(2) && err.contains(part), "{shown}: {err}");
    }
}

/// Reads all of a child's output on a thread of its own, so that no pipe fills up.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = vec![];
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The exit code of a child; one that takes too long is ended, and fails the test.
fn wait(child: &mut Child, shown: &str) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{shown} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A new folder with copies of the files of one in the repository.
fn copy_of(folder: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(repository(folder)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A new folder with one file, and the file's path.
fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}
