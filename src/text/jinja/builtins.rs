//! The filters, tests, functions and methods of chat templates.

use std::sync::Arc;

use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value, filters, functions, tests};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json::to_json;
use super::meter::{Meter, refusal, text_len};
use super::metered::{FACTOR, MADE, PART, REFUSED};

/// Bytes of a format of times.
const MOST_FORMAT: usize = 256;

/// A table of functions by their names, or by other names.
macro_rules! table {
    ($($name:literal: $function:expr,)*) => {
        [$(($name, Value::from_function($function)),)*]
    };
}

/// Adds to `env` all there is, paid from `meter`.
pub(super) fn add_to(env: &mut Environment<'static>, meter: &Arc<Meter>) {
    let m = meter.clone();
    env.add_filter(MADE, move |value: Value| m.made(value));
    let m = meter.clone();
    env.add_filter(PART, move |value: Value| m.part(value));
    env.add_filter(FACTOR, factor);
    env.add_filter(REFUSED, raise_exception);
    for (name, filter) in filters() {
        let m = meter.clone();
        env.add_filter(name, move |state: &State, args: Rest<Value>| {
            admit(&m, name, &args)?;
            m.made(filter.call(state, &args)?)
        });
    }
    for (name, test) in tests() {
        let m = meter.clone();
        env.add_test(name, move |state: &State, args: Rest<Value>| {
            m.check_time()?;
            Ok::<_, Error>(test.call(state, &args)?.is_true())
        });
    }
    for (name, function) in functions() {
        let m = meter.clone();
        env.add_function(name, move |state: &State, args: Rest<Value>| {
            // What goes into a new namespace is not seen in it.
            args.iter().try_for_each(|arg| m.part(arg.clone()).map(|_| ()))?;
            m.made(function.call(state, &args)?)
        });
    }
    let m = meter.clone();
    env.set_unknown_method_callback(move |state, value, name, args| {
        let all: Vec<Value> = [value].into_iter().chain(args).cloned().collect();
        admit(&m, name, &all)?;
        m.made(unknown_method_callback(state, value, name, args)?)
    });
}

/// Pays for what the filter or method `name` makes of `args` beyond their sum.
fn admit(meter: &Meter, name: &str, args: &[Value]) -> Result<(), Error> {
    let [value, rest @ ..] = args else { return Ok(()) };
    let items = value.as_str().map_or_else(|| value.len().unwrap_or(1), str::len);
    let arguments: usize = rest.iter().map(text_len).sum();
    match name {
        // Once for each item or letter.
        "groupby" | "join" | "lstrip" | "map" | "reject" | "rejectattr" | "rstrip" | "select"
        | "selectattr" | "sort" | "strip" | "trim" | "unique" => {
            meter.pay(items.saturating_mul(arguments))
        }
        "replace" => {
            let [what, with, ..] = rest else { return Ok(()) };
            let text = value.to_string();
            let times = text.matches(&what.to_string()).count();
            meter.pay(times.saturating_mul(text_len(with)))
        }
        "indent" => {
            let given = |arg: &Value| arg.as_usize().or(arg.get_attr("width").ok()?.as_usize());
            let width = rest.iter().find_map(given).unwrap_or(4);
            let lines = value.as_str().map_or(1, |text| text.lines().count() + 1);
            meter.pay(lines.saturating_mul(width))
        }
        // Formats of any width; and minijinja counts empty texts for ever.
        "format" => Err(refusal("format is not supported".into())),
        "count" if rest.iter().any(|what| what.as_str() == Some("")) => {
            Err(refusal("empty texts cannot be counted".into()))
        }
        _ => meter.check_time(),
    }
}

/// `value`, which is to be multiplied. Lists are not: how long they get could not be told.
fn factor(value: Value) -> Result<Value, Error> {
    if value.is_number() || value.as_str().is_some() {
        return Ok(value);
    }
    Err(refusal(format!("a {} is not multiplied here", value.kind())))
}

fn filters() -> impl IntoIterator<Item = (&'static str, Value)> {
    table! {
        "abs": filters::abs,
        "attr": filters::attr,
        "bool": filters::bool,
        "capitalize": filters::capitalize,
        "count": filters::length,
        "d": filters::default,
        "default": filters::default,
        "dictsort": filters::dictsort,
        "e": filters::escape,
        "escape": filters::escape,
        "first": filters::first,
        "float": filters::float,
        "groupby": filters::groupby,
        "indent": filters::indent,
        "int": filters::int,
        "items": filters::items,
        "join": filters::join,
        "last": filters::last,
        "length": filters::length,
        "lines": filters::lines,
        "list": filters::list,
        "lower": filters::lower,
        "map": filters::map,
        "max": filters::max,
        "min": filters::min,
        "reject": filters::reject,
        "rejectattr": filters::rejectattr,
        "replace": filters::replace,
        "reverse": filters::reverse,
        "round": filters::round,
        "safe": filters::safe,
        "select": filters::select,
        "selectattr": filters::selectattr,
        "sort": filters::sort,
        "split": filters::split,
        "string": filters::string,
        "sum": filters::sum,
        "title": filters::title,
        "tojson": to_json,
        "trim": filters::trim,
        "unique": filters::unique,
        "upper": filters::upper,
    }
}

fn tests() -> impl IntoIterator<Item = (&'static str, Value)> {
    table! {
        "!=": tests::is_ne,
        "<": tests::is_lt,
        "<=": tests::is_le,
        "==": tests::is_eq,
        ">": tests::is_gt,
        ">=": tests::is_ge,
        "boolean": tests::is_boolean,
        "defined": tests::is_defined,
        "divisibleby": tests::is_divisibleby,
        "endingwith": tests::is_endingwith,
        "eq": tests::is_eq,
        "equalto": tests::is_eq,
        "even": tests::is_even,
        "false": tests::is_false,
        "float": tests::is_float,
        "ge": tests::is_ge,
        "greaterthan": tests::is_gt,
        "gt": tests::is_gt,
        "in": tests::is_in,
        "integer": tests::is_integer,
        "iterable": tests::is_iterable,
        "le": tests::is_le,
        "lessthan": tests::is_lt,
        "lower": tests::is_lower,
        "lt": tests::is_lt,
        "mapping": tests::is_mapping,
        "ne": tests::is_ne,
        "none": tests::is_none,
        "number": tests::is_number,
        "odd": tests::is_odd,
        "sequence": tests::is_sequence,
        "startingwith": tests::is_startingwith,
        "string": tests::is_string,
        "true": tests::is_true,
        "undefined": tests::is_undefined,
        "upper": tests::is_upper,
    }
}

fn functions() -> impl IntoIterator<Item = (&'static str, Value)> {
    table! {
        "dict": functions::dict,
        "namespace": functions::namespace,
        "raise_exception": raise_exception,
        "range": functions::range,
        "strftime_now": strftime_now,
    }
}

fn raise_exception(what: String) -> Result<Value, Error> {
    Err(refusal(what))
}

/// The local time in the format of C's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > MOST_FORMAT {
        return Err(refusal("strftime_now: the format is too long".into()));
    }
    jiff::fmt::strtime::format(format, &jiff::ZonedDateTime::now())
        .map_err(|e| refusal(format!("strftime_now: {e}")))
}
