//! WGSL sources and their specialisation.
//!
//! Shader files are plain WGSL with two kinds of directive, each a comment on a line of its own:
//! `//#if FLAG` ... `//#else` ... `//#endif`, and `//#include NAME` (a file of `shaders/lib/`, once).
//! `//#include NAME W=w3` puts `w3` wherever the file says `$W`; a file may be included once for each
//! such value. `//#include FOLDER/?` includes the file of that folder that one of the flags names.
//! `//#each I CONSTANT` ... `//#end` repeats lines with 0, 1, ... in place of `$I`, that often: variables
//! where loops over an array would do, if all compilers unrolled them.
//! `@binding(next)` is the binding after the highest of those declared before.
//! `override NAME: u32 = DEFAULT;` declarations become `const` with the kernel's value, so that
//! they may size register arrays too, and so that every backend's translator sees constants.

use std::collections::{HashMap, HashSet};

use include_dir::{Dir, include_dir};
use xxhash_rust::xxh3::Xxh3;

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

/// A hash of all files of `shaders`: of their names and contents.
pub fn hash() -> u64 {
    fn add(folder: &Dir<'_>, hash: &mut Xxh3) {
        for file in folder.files() {
            hash.update(file.path().as_os_str().as_encoded_bytes());
            hash.update(file.contents());
        }
        folder.dirs().for_each(|inner| add(inner, hash));
    }
    let mut hash = Xxh3::new();
    add(&SHADERS, &mut hash);
    hash.digest()
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
    specialise_without(name, flags, consts, &[])
}

/// The same, without what these files of `shaders/lib/` would bring.
fn specialise_without(
    name: &str,
    flags: &[&str],
    consts: &[(&str, u32)],
    files: &[&str],
) -> String {
    let included = files.iter().map(|&f| f.to_owned()).collect();
    let mut expansion = Expansion { flags, consts, included, ..Default::default() };
    expansion.file(&format!("{name}.wgsl"), &[]);
    let out = expansion.out;
    let mut unused: HashSet<&str> = consts.iter().map(|c| c.0).collect();
    let mut bindings = 0;
    let text: String = out
        .lines()
        .map(|line| {
            let line = &numbered(line, &mut bindings);
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

/// The same for buffers that are bound to be read only if `read_only` says so, whatever the shader
/// declares: what it only reads may lie in a buffer that it writes as well.
pub fn specialise_bound(
    name: &str,
    flags: &[&str],
    consts: &[(&str, u32)],
    read_only: &[bool],
) -> String {
    let line = |line: &str| match Bound::declared(line) {
        Some(bound) if bound.number >= 2 => bound.storage(bound.number, read_only),
        _ => line.to_owned(),
    };
    let text = specialise(name, flags, consts);
    text.lines().map(|l| line(l) + "\n").collect()
}

/// A kernel that is to be one of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// As for [`specialise`].
    pub name: &'a str,
    /// As for [`specialise`].
    pub flags: &'a [&'a str],
    /// As for [`specialise`].
    pub consts: &'a [(&'a str, u32)],
    /// For each of its storage buffers whether it is bound to be read only.
    pub read_only: &'a [bool],
    /// For each of them whether calls have a place of their own in it.
    pub placed: &'a [bool],
    /// How many sets of parameters calls choose from.
    pub params: usize,
}

/// Bindings of a chain before those of its links: what its calls are, the step, and its progress.
pub const CHAIN_BINDINGS: usize = 3;

/// Bytes of what tells a chain about each of its calls, if links have up to this many buffers of which calls
/// have places of their own.
pub fn call_bytes(placed: usize) -> usize {
    16 * (1 + placed_fours(placed))
}

fn placed_fours(placed: usize) -> usize {
    placed.div_ceil(4).max(1)
}

/// The bit from which on a call says which of a link's parameters it has; below is which link it is of.
pub const CALL_PARAMS_BIT: u32 = 16;

/// The WGSL of one kernel that makes `calls` calls of `links`, one after the other, in workgroups of one
/// subgroup of `lanes`: see `shaders/lib/chain.wgsl`. Each link has a binding for its parameters and,
/// after it, those of its storage buffers; the first link's come after [`CHAIN_BINDINGS`].
///
/// # Panics
/// As [`specialise`].
pub fn chain(links: &[Link<'_>], lanes: u32, calls: usize) -> String {
    let placed = links.iter().map(|l| l.placed.iter().filter(|&&p| p).count()).max();
    let consts = [
        ("LINKS", links.len() as u32),
        ("CALLS", calls as u32),
        ("PLACED_FOURS", placed_fours(placed.unwrap_or(0)) as u32),
        ("PARAMS_BIT", CALL_PARAMS_BIT),
        ("WG", lanes),
    ];
    let mut text = specialise("lib/chain", &["SUBGROUPS"], &consts);
    let mut binding = CHAIN_BINDINGS;
    for (i, link) in links.iter().enumerate() {
        let wgsl = specialise_without(link.name, link.flags, link.consts, &["step"]);
        text.push_str(&linked(&wgsl, &format!("link_{i}_"), binding, link));
        binding += 1 + link.read_only.len();
    }
    text
}

/// A kernel's text with `prefix` before all its names, so that others may stand beside it, and `main` a
/// function like any other. Binding 0 becomes `first`, binding 2 the one after it. A function `begin_call`
/// sets what calls have of their own: parameters, and where their places in buffers begin.
fn linked(text: &str, prefix: &str, first: usize, link: &Link<'_>) -> String {
    let mut lines: Vec<String> = vec![];
    let mut begin_call = vec!["fn begin_call(call: u32) {".to_owned()];
    let mut placed = HashSet::new();
    let mut own_params = None;
    let mut bounds: Vec<_> = text.lines().filter_map(Bound::declared).collect();
    bounds.sort_by_key(|bound| bound.number);
    for Bound { number, name, ty } in bounds {
        if number == 0 && link.params > 1 {
            own_params = Some(ty);
            lines.push(format!("var<private> {name}: {ty};"));
            begin_call.push(format!("{name} = all_{name}[calls[call].link >> PARAMS_BIT];"));
        } else if number >= 2 && link.placed[number - 2] {
            lines.push(format!("var<private> {name}_begin: u32;"));
            let (four, at) = (placed.len() / 4, placed.len() % 4);
            let words = element_words(text, ty);
            begin_call.push(format!("{name}_begin = calls[call].places[{four}][{at}] / {words}u;"));
            placed.insert(name);
        }
    }
    begin_call.push("}".to_owned());
    let mut params_begin = false;
    for line in text.lines().filter(|line| !line.starts_with("@compute")) {
        let code = line.split("//").next().unwrap_or(line).trim_end();
        lines.push(match Bound::declared(code) {
            Some(Bound { number: 0, name, ty }) if own_params.is_some() => {
                let params = link.params;
                format!(
                    "@group(0) @binding({first}) var<uniform> all_{name}: array<{ty}, {params}>;"
                )
            }
            Some(Bound { number: 0, name, ty }) => {
                format!("@group(0) @binding({first}) var<uniform> {name}: {ty};")
            }
            Some(bound) => bound.storage(first + bound.number - 1, link.read_only),
            // What an array in a uniform is made of begins at multiples of 16 bytes.
            None if params_begin => format!("@align(16) {}", code.trim_start()),
            None => code.to_owned(),
        });
        params_begin = own_params.is_some_and(|ty| {
            code.strip_prefix("struct ").is_some_and(|c| c == format!("{ty} {{"))
        });
    }
    lines.extend(begin_call);
    let names = Names { prefix, all: lines.iter().filter_map(|l| declared(l)).collect(), placed };
    let mut out = String::new();
    let mut fields = false;
    for line in &lines {
        fields |= line.starts_with("struct ");
        names.put(line, fields, &mut out);
        out.push('\n');
        fields &= !line.ends_with('}');
    }
    out
}

/// A buffer that a kernel declares.
struct Bound<'a> {
    number: usize,
    name: &'a str,
    ty: &'a str,
}

impl<'a> Bound<'a> {
    /// That of a line, if it declares one.
    fn declared(line: &'a str) -> Option<Self> {
        let (number, rest) = line.strip_prefix("@group(0) @binding(")?.split_once(')')?;
        let (name, ty) = rest.split_once('>')?.1.split_once(';')?.0.split_once(':')?;
        Some(Self { number: number.parse().ok()?, name: name.trim(), ty: ty.trim() })
    }

    /// The declaration of a storage buffer, as binding `number`.
    fn storage(&self, number: usize, read_only: &[bool]) -> String {
        let access = if read_only[self.number - 2] { "read" } else { "read_write" };
        let Self { name, ty, .. } = self;
        format!("@group(0) @binding({number}) var<storage, {access}> {name}: {ty};")
    }
}

/// What a line at the top of a file declares.
fn declared(line: &str) -> Option<&str> {
    if let Some(bound) = Bound::declared(line) {
        return Some(bound.name);
    }
    let word = |s: &str| s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len());
    let rest = match &line[..word(line)] {
        "var" if line.starts_with("var<") => line.split_once('>')?.1,
        "fn" | "struct" | "const" | "alias" => line.split_once(' ')?.1,
        _ => return None,
    };
    let rest = rest.trim_start();
    Some(&rest[..word(rest)])
}

/// Words of an element of an array type, by the aliases of a text.
fn element_words(text: &str, array: &str) -> usize {
    let mut ty = array.strip_prefix("array<").and_then(|t| t.strip_suffix('>')).unwrap_or(array);
    let alias = |ty: &str| {
        text.lines().find_map(|line| {
            let (name, of) = line.strip_prefix("alias ")?.split_once(';')?.0.split_once(" = ")?;
            (name == ty).then_some(of)
        })
    };
    while let Some(of) = alias(ty) {
        ty = of;
    }
    let (count, scalar) = match ty.strip_prefix("vec") {
        Some(vec) => vec.split_once('<').unwrap_or((vec, "")),
        None => ("1", ty),
    };
    let words = match scalar.trim_end_matches('>') {
        "u32" | "i32" | "f32" => Some(1),
        "u64" => Some(2),
        _ => None,
    };
    count.parse().ok().zip(words).map_or_else(
        || panic!("elements of {array} are of no known size"),
        |(count, words): (usize, usize)| count * words,
    )
}

/// The names of a kernel that is a link.
struct Names<'a> {
    prefix: &'a str,
    all: HashSet<&'a str>,
    /// Of these, buffers whose places begin at `NAME_begin`.
    placed: HashSet<&'a str>,
}

impl Names<'_> {
    /// Appends `code` with the prefix before each name, but for attributes, members, and for the names of a
    /// struct's `fields` where these are declared; and with what is added to the index into a buffer.
    fn put(&self, code: &str, fields: bool, out: &mut String) {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        let mut rest = code;
        while let Some(begin) = rest.find(inside) {
            let (before, from) = rest.split_at(begin);
            let (word, after) = from.split_at(from.find(|c| !inside(c)).unwrap_or(from.len()));
            out.push_str(before);
            let member = before.ends_with(['.', '@']) || (fields && after.starts_with(':'));
            let named = self.all.contains(word) && !member;
            if named {
                out.push_str(self.prefix);
            }
            out.push_str(word);
            rest = after;
            if let Some(index) =
                after.strip_prefix('[').filter(|_| named && self.placed.contains(word))
            {
                out.push_str(&format!("[{}{word}_begin + ", self.prefix));
                rest = index;
            }
        }
        out.push_str(rest);
    }
}

/// The line with its binding's number, if it declares one. Those before it are below `bindings`.
fn numbered(line: &str, bindings: &mut u32) -> String {
    let Some((before, rest)) = line.split_once("@binding(") else { return line.to_owned() };
    let Some((number, rest)) = rest.split_once(')') else { return line.to_owned() };
    let number = number.parse().unwrap_or(*bindings);
    *bindings = (number + 1).max(*bindings);
    format!("{before}@binding({number}){rest}")
}

/// A kernel in the making.
#[derive(Default)]
struct Expansion<'a> {
    flags: &'a [&'a str],
    consts: &'a [(&'a str, u32)],
    /// Values of the overrides so far.
    overrides: HashMap<String, u32>,
    included: HashSet<String>,
    out: String,
}

impl Expansion<'_> {
    fn file(&mut self, path: &str, values: &[(&str, &str)]) {
        self.lines(path, &source(path).lines().collect::<Vec<_>>(), values);
    }

    fn lines(&mut self, path: &str, lines: &[&str], values: &[(&str, &str)]) {
        // One entry for each open `#if`: whether its lines are kept.
        let mut keep: Vec<bool> = vec![];
        let mut i = 0;
        while i < lines.len() {
            let line = &put(values, lines[i]);
            i += 1;
            let kept = keep.iter().all(|&k| k);
            let Some(directive) = line.trim_start().strip_prefix("//#") else {
                if kept {
                    self.line(line);
                }
                continue;
            };
            let (word, arg) = directive.split_once(' ').unwrap_or((directive, ""));
            match (word, arg.trim()) {
                ("if", flag) => keep.push(self.flags.contains(&flag)),
                ("else", _) => {
                    let last = keep.last_mut().unwrap_or_else(|| panic!("{path}: stray #else"));
                    *last = !*last;
                }
                ("endif", _) => {
                    keep.pop().unwrap_or_else(|| panic!("{path}: stray #endif"));
                }
                ("include", lib) => {
                    if kept && self.included.insert(lib.to_owned()) {
                        let mut words = lib.split_whitespace();
                        let file = words.next().map(|file| lib_file(file, self.flags));
                        let file = file.unwrap_or_else(|| panic!("{path}: `{line}` names no file"));
                        let values: Vec<_> = words.filter_map(|w| w.split_once('=')).collect();
                        self.file(&file, &values);
                    }
                }
                ("each", arg) => {
                    let body = &lines[i..i + body_len(path, &lines[i..])];
                    i += body.len() + 1;
                    if kept {
                        self.each(path, arg, body, values);
                    }
                }
                _ => panic!("{path}: unknown directive `{line}`"),
            }
        }
        assert!(keep.is_empty(), "{path}: #if without #endif");
    }

    fn line(&mut self, line: &str) {
        let declared = line.strip_prefix("override ").and_then(|l| l.split_once(": u32 = "));
        if let Some((key, default)) = declared {
            let given = self.consts.iter().find(|c| c.0 == key).map(|c| c.1);
            let default = default.split('u').next().and_then(|n| n.parse().ok());
            self.overrides.extend(given.or(default).map(|n| (key.to_owned(), n)));
        }
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn each(&mut self, path: &str, arg: &str, body: &[&str], values: &[(&str, &str)]) {
        let counted = arg.split_once(' ').and_then(|(name, count)| {
            Some((name, count.parse().ok().or(self.overrides.get(count).copied())?))
        });
        let (name, count) = counted.unwrap_or_else(|| panic!("{path}: `#each {arg}` has no count"));
        for i in 0..count {
            let value = i.to_string();
            let values = [values, &[(name, value.as_str())]].concat();
            self.lines(path, body, &values);
        }
    }
}

/// Lines up to the `#end` of an `#each` that began before them.
fn body_len(path: &str, lines: &[&str]) -> usize {
    let mut open = 1;
    let end = lines.iter().position(|line| {
        match line.trim_start().split(' ').next() {
            Some("//#each") => open += 1,
            Some("//#end") => open -= 1,
            _ => {}
        }
        open == 0
    });
    end.unwrap_or_else(|| panic!("{path}: #each without #end"))
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
