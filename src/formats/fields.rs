//! Reading `config.json` field by field, so that every error names the field and its value.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// No dimension of a real model comes near; it keeps products of a few of them from overflowing.
const LARGEST: usize = 1 << 28;

/// A JSON object with the file it came from. A field may go by several names: those given, in
/// order; the first that is there and not null counts.
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// Where the object is in the file, e.g. `rope_scaling.`; empty for the file itself.
    inside: String,
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Parses the object in `text`, read from `path`.
    pub fn parse(path: &'a Path, text: &str) -> Result<Self> {
        let map = serde_json::from_str(text)
            .map_err(|e| Error::file(path, format!("not a JSON object: {e}")))?;
        Ok(Self { path, inside: String::new(), map })
    }

    /// An error about the field `name` as it is in the file.
    pub fn error(&self, name: &str, what: impl std::fmt::Display) -> Error {
        let value = self.map.get(name).unwrap_or(&Value::Null);
        let what = format!("field `{}{name}` is {}: {what}", self.inside, shortened(value));
        Error::file(self.path, what)
    }

    /// The first of `names` that is there, and its value.
    fn value<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &Value)> {
        names.iter().find_map(|&name| {
            self.map.get(name).filter(|value| !value.is_null()).map(|value| (name, value))
        })
    }

    /// Whether any of `names` is there and not null.
    pub fn has(&self, names: &[&str]) -> bool {
        self.value(names).is_some()
    }

    /// Whether any field's name begins with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.map.keys().any(|name| name.starts_with(prefix))
    }

    /// The field as any type, `None` if it is not there; `kind` says what it should have been.
    pub fn get<T: DeserializeOwned>(&self, names: &[&str], kind: &str) -> Result<Option<T>> {
        let Some((name, value)) = self.value(names) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|_| self.error(name, format!("expected {kind}")))
    }

    /// The object inside a field, `None` if it is not there.
    pub fn object(&self, names: &[&str]) -> Result<Option<Self>> {
        let Some(map) = self.get(names, "an object")? else { return Ok(None) };
        let name = self.value(names).map_or("", |(name, _)| name);
        Ok(Some(Self { path: self.path, inside: format!("{}{name}.", self.inside), map }))
    }

    /// A whole number `least` or above, `None` if it is not there.
    fn whole(&self, names: &[&str], least: usize) -> Result<Option<usize>> {
        let kind = format!("a whole number from {least} to {LARGEST}");
        let found: Option<usize> = self.get(names, &kind)?;
        if found.is_none_or(|n| (least..=LARGEST).contains(&n)) {
            return Ok(found);
        }
        Err(self.error(self.value(names).map_or("", |(name, _)| name), format!("expected {kind}")))
    }

    /// A whole number of at least 1; an error if it is missing.
    pub fn size(&self, names: &[&str]) -> Result<usize> {
        self.whole(names, 1)?.ok_or_else(|| self.missing(names))
    }

    /// A whole number of at least 1, or `default` if it is missing.
    pub fn size_or(&self, names: &[&str], default: usize) -> Result<usize> {
        Ok(self.whole(names, 1)?.unwrap_or(default))
    }

    /// A whole number, 0 allowed, `None` if it is missing.
    pub fn count(&self, names: &[&str]) -> Result<Option<usize>> {
        self.whole(names, 0)
    }

    /// A finite number above 0, `None` if it is missing.
    pub fn positive(&self, names: &[&str]) -> Result<Option<f32>> {
        let found: Option<f32> = self.get(names, "a number")?;
        if found.is_none_or(|x| x.is_finite() && x > 0.0) {
            return Ok(found);
        }
        let name = self.value(names).map_or("", |(name, _)| name);
        Err(self.error(name, "expected a number above 0"))
    }

    /// Refuses the field if it is there and not `only`: the one value that is implemented.
    pub fn fixed(&self, name: &str, only: impl Into<Value>) -> Result<()> {
        let only = only.into();
        match self.value(&[name]) {
            Some((_, value)) if *value != only => {
                Err(self.error(name, format!("only {only} is supported")))
            }
            _ => Ok(()),
        }
    }

    /// The error for a field under none of its names.
    pub fn missing(&self, names: &[&str]) -> Error {
        let names: Vec<_> = names.iter().map(|n| format!("`{}{n}`", self.inside)).collect();
        Error::file(self.path, format!("field {} is missing", names.join(" or ")))
    }
}

/// A value's JSON, cut to a length that fits an error line.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'static> {
        Fields::parse(Path::new("config.json"), text).unwrap()
    }

    #[test]
    fn errors_name_field_and_value() {
        let f = fields(r#"{"a": "x", "b": 0, "c": -1.5, "d": {"e": 0}, "n": null, "big": 1e300}"#);
        let is = |e: Error, text: &str| assert_eq!(e.to_string(), format!("config.json: {text}"));
        let kind = "expected a whole number from 1 to 268435456";
        is(f.size(&["a"]).unwrap_err(), &format!("field `a` is \"x\": {kind}"));
        is(f.size(&["z", "b"]).unwrap_err(), &format!("field `b` is 0: {kind}"));
        is(f.size(&["n", "z"]).unwrap_err(), "field `n` or `z` is missing");
        is(f.positive(&["c"]).unwrap_err(), "field `c` is -1.5: expected a number above 0");
        is(f.positive(&["big"]).unwrap_err(), "field `big` is 1e+300: expected a number above 0");
        is(f.fixed("a", "y").unwrap_err(), "field `a` is \"x\": only \"y\" is supported");
        let inner = f.object(&["d"]).unwrap().unwrap();
        is(inner.size(&["e"]).unwrap_err(), &format!("field `d.e` is 0: {kind}"));
        is(inner.size(&["q"]).unwrap_err(), "field `d.q` is missing");
        assert!(f.object(&["a"]).is_err());
        assert_eq!(f.count(&["b"]).unwrap(), Some(0));
        assert_eq!(f.size_or(&["n"], 7).unwrap(), 7);
    }

    #[test]
    fn not_an_object() {
        let e = Fields::parse(Path::new("config.json"), "[]").err().unwrap().to_string();
        assert!(e.starts_with("config.json: not a JSON object: "), "{e}");
    }
}
