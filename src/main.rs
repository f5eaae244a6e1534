//! The `fathom` command: hands its arguments to [`fathom::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    fathom::cli::main()
}
