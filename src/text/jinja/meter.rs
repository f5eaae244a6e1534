//! What one rendering may make and how long it may take.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// What a value costs beyond the bytes of its text.
const NODE: usize = 32;
/// Lists in lists.
const MOST_DEPTH: usize = 64;
/// How long a rendering may take, which otherwise takes milliseconds.
pub(super) const MOST_TIME: Duration = Duration::from_secs(5);

/// An account of everything made in one rendering, in bytes: each new text, list and map with all
/// that is in it. It bounds what minijinja's fuel does not: steps that double what there is, and
/// steps over much.
pub(super) struct Meter {
    given: usize,
    left: AtomicUsize,
    end: Instant,
}

impl Meter {
    /// For `most` bytes, and the time that a rendering may take from now on.
    pub(super) fn new(most: usize) -> Self {
        Self { given: most, left: most.into(), end: Instant::now() + MOST_TIME }
    }

    /// Pays for a new value; the value, with lazy sequences made plain lists.
    pub(super) fn made(&self, value: Value) -> Result<Value, Error> {
        self.check_time()?;
        match value.kind() {
            ValueKind::Iterable => {
                let mut items = vec![];
                for item in value.try_iter()? {
                    self.pay_for(&item, 1)?;
                    items.push(item);
                }
                Ok(items.into())
            }
            ValueKind::String | ValueKind::Bytes | ValueKind::Seq | ValueKind::Map
                if !is_namespace(&value) =>
            {
                self.pay_for(&value, 0).map(|()| value)
            }
            _ => Ok(value),
        }
    }

    /// [`Self::made`], for what becomes part of a namespace.
    pub(super) fn part(&self, value: Value) -> Result<Value, Error> {
        self.check_time()?;
        self.pay_for(&value, 1).map(|()| value)
    }

    /// Pays `bytes`.
    pub(super) fn pay(&self, bytes: usize) -> Result<(), Error> {
        let spend = |left: usize| left.checked_sub(bytes);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(_) => Err(refusal(format!("it makes more than {} bytes of texts", self.given))),
        }
    }

    /// Pays for `value` and all that is in it; an error for a namespace in it. That is what could
    /// come to hold itself, and what grows after it was paid for.
    fn pay_for(&self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(refusal("its lists are too deep".into()));
        }
        if is_namespace(value) {
            return Err(refusal("a namespace in a list or in a namespace".into()));
        }
        self.pay(NODE)?;
        match value.kind() {
            ValueKind::String | ValueKind::Bytes => {
                self.pay(value.as_bytes().map_or(0, <[u8]>::len))
            }
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter()?.try_for_each(|item| self.pay_for(&item, depth + 1))
            }
            ValueKind::Map => value.try_iter()?.try_for_each(|key| {
                self.pay_for(&key, depth + 1)?;
                self.pay_for(&value.get_item(&key)?, depth + 1)
            }),
            _ => Ok(()),
        }
    }

    /// An error if time is up.
    pub(super) fn check_time(&self) -> Result<(), Error> {
        if Instant::now() < self.end {
            return Ok(());
        }
        Err(refusal(format!("it takes longer than {} s", MOST_TIME.as_secs())))
    }
}

/// The bytes of the texts in `value`, at least one.
pub(super) fn text_len(value: &Value) -> usize {
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => value.as_bytes().map_or(1, |b| b.len().max(1)),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let items = value.try_iter().into_iter().flatten();
            items.map(|item| text_len(&item)).fold(1, usize::saturating_add)
        }
        _ => 1,
    }
}

pub(super) fn refusal(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}
