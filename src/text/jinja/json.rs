//! JSON as Python writes it.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::meter::refusal;

/// `value` as Python's `json.dumps` writes it, in Unicode. (minijinja's own filter writes it for
/// HTML.)
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(refusal("tojson: ensure_ascii is not supported".into()));
    }
    options.assert_all_used()?;
    match indent {
        None => json(value, OneLine),
        Some(n) => json(value, PrettyFormatter::with_indent(" ".repeat(n.min(16)).as_bytes())),
    }
}

fn json(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let mut out = vec![];
    let fault = |what: String| refusal(format!("tojson: {what}"));
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        .map_err(|e| fault(e.to_string()))?;
    String::from_utf8(out).map_err(|e| fault(e.to_string()))
}

/// JSON in one line, with spaces after commas and colons.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(out, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
