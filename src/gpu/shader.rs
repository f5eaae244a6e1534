//! WGSL sources and their specialisation.
//!
//! Shader files are plain WGSL with two kinds of directive, each a comment on a line of its own:
//! `//#if FLAG` ... `//#else` ... `//#endif`, and `//#include NAME` (a file of `shaders/lib/`, once).
//! `//#include NAME W=w3` puts `w3` wherever the file says `$W`; a file may be included once for each
//! such value. `//#include FOLDER/?` includes the file of that folder that one of the flags names.
//! `override NAME: u32 = DEFAULT;` declarations become `const` with the kernel's value, so that
//! they may size register arrays too, and so that every backend's translator sees constants.

use std::collections::HashSet;

use include_dir::{Dir, include_dir};

static SHADERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/shaders");

/// Names of all kernels, without `.wgsl`, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = SHADERS
        .files()
        .filter_map(|f| f.path().file_name()?.to_str()?.strip_suffix(".wgsl"))
        .collect();
    names.sort_unstable();
    names
}

fn source(path: &str) -> &'static str {
    SHADERS
        .get_file(path)
        .and_then(|f| f.contents_utf8())
        .unwrap_or_else(|| panic!("no shader `{path}`"))
}

/// The WGSL of kernel `name` with `flags` set and `consts` put in.
///
/// # Panics
/// If there is no such shader, a directive is malformed or a constant is not declared: mistakes in
/// the shaders or ops, found by the first test that builds them.
pub fn specialise(name: &str, flags: &[&str], consts: &[(&str, u32)]) -> String {
    let mut out = String::new();
    let mut included = HashSet::new();
    expand(&format!("{name}.wgsl"), flags, &[], &mut included, &mut out);
    let mut unused: HashSet<&str> = consts.iter().map(|c| c.0).collect();
    let text: String = out
        .lines()
        .map(|line| {
            let Some(decl) = line.strip_prefix("override ") else { return format!("{line}\n") };
            let Some((key, rest)) = decl.split_once(':') else {
                panic!("{name}: `{line}` declares no type")
            };
            match consts.iter().find(|c| c.0 == key) {
                Some(&(_, value)) => {
                    unused.remove(key);
                    format!("const {key}: u32 = {value}u;\n")
                }
                None => format!("const {key}:{rest}\n"),
            }
        })
        .collect();
    assert!(unused.is_empty(), "{name} declares no override {unused:?}");
    text
}

fn expand(
    path: &str,
    flags: &[&str],
    values: &[(&str, &str)],
    included: &mut HashSet<String>,
    out: &mut String,
) {
    // One entry for each open `#if`: whether its lines are kept.
    let mut keep: Vec<bool> = vec![];
    for line in source(path).lines() {
        let line = &put(values, line);
        let Some(directive) = line.trim_start().strip_prefix("//#") else {
            if keep.iter().all(|&k| k) {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        };
        let (word, arg) = directive.split_once(' ').unwrap_or((directive, ""));
        match (word, arg.trim()) {
            ("if", flag) => keep.push(flags.contains(&flag)),
            ("else", _) => {
                let last = keep.last_mut().unwrap_or_else(|| panic!("{path}: stray #else"));
                *last = !*last;
            }
            ("endif", _) => {
                keep.pop().unwrap_or_else(|| panic!("{path}: stray #endif"));
            }
            ("include", lib) => {
                if keep.iter().all(|&k| k) && included.insert(lib.to_owned()) {
                    let mut words = lib.split_whitespace();
                    let file = words.next().map(|file| lib_file(file, flags));
                    let file = file.unwrap_or_else(|| panic!("{path}: `{line}` names no file"));
                    let values: Vec<_> = words.filter_map(|w| w.split_once('=')).collect();
                    expand(&file, flags, &values, included, out);
                }
            }
            _ => panic!("{path}: unknown directive `{line}`"),
        }
    }
    assert!(keep.is_empty(), "{path}: #if without #endif");
}

/// The line with every `$KEY` replaced.
fn put(values: &[(&str, &str)], line: &str) -> String {
    values.iter().fold(line.to_owned(), |s, (key, value)| s.replace(&format!("${key}"), value))
}

/// The path of an included file.
fn lib_file(name: &str, flags: &[&str]) -> String {
    let Some(folder) = name.strip_suffix('?') else { return format!("lib/{name}.wgsl") };
    let mut files = flags.iter().map(|f| format!("lib/{folder}{}.wgsl", f.to_lowercase()));
    let found = files.find(|f| SHADERS.get_file(f).is_some());
    found.unwrap_or_else(|| panic!("none of {flags:?} names a file of `lib/{folder}`"))
}
