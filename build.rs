//! Rebuilds the crate when a shader is added: `include_dir!` only notices changed files.

fn main() {
    println!("cargo:rerun-if-changed=shaders");
}
