//! Keeps what people wrote from being read as a template's own tokens.

use std::collections::HashMap;

use crate::{Error, Result};

/// A character put inside every special token that a text spells, so that a template that copies
/// the text does not write the token. It is taken out again from what is no token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard(char);

impl Guard {
    /// A guard that occurs in none of `texts`. An error if they have every character that could be
    /// one.
    pub fn absent_from<'t>(texts: impl Iterator<Item = &'t str> + Clone) -> Result<Self> {
        // Characters that Unicode assigns no meaning and never will, and private ones.
        let candidates = ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}');
        candidates
            .map(Self)
            .find(|guard| texts.clone().all(|text| !text.contains(guard.0)))
            .ok_or_else(|| Error::Request("a text has every private character of Unicode".into()))
    }

    /// `text` with a guard inside every spelling of `marks`.
    pub fn protect(self, text: &str, marks: &Marks) -> String {
        let mut out = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            out.push(c);
            if marks.begins(&text[at..], c) {
                out.push(self.0);
            }
        }
        out
    }

    /// `text` without guards.
    pub fn remove(self, text: &str) -> String {
        text.replace(self.0, "")
    }

    /// What marks a place in a text that a template copies: nothing that [`Self::protect`] writes.
    pub fn place(self) -> String {
        String::from_iter([self.0, self.0])
    }
}

/// The spellings of special tokens, by their first character.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(HashMap<char, Vec<String>>);

impl Marks {
    /// Those of `spellings` that have more than one character, and so an inside.
    pub fn new<'s>(spellings: impl IntoIterator<Item = &'s str>) -> Self {
        let mut marks = HashMap::<_, Vec<_>>::new();
        for spelling in spellings {
            let mut characters = spelling.chars();
            if let (Some(first), Some(_)) = (characters.next(), characters.next()) {
                marks.entry(first).or_default().push(spelling.to_owned());
            }
        }
        Self(marks)
    }

    /// Whether one of them stands at the beginning of `text`, whose first character is `first`.
    fn begins(&self, text: &str, first: char) -> bool {
        self.0.get(&first).is_some_and(|marks| marks.iter().any(|mark| text.starts_with(mark)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlapping_spellings_are_all_broken() {
        let marks = Marks::new(["aa", "<a>", "a"]);
        let guard = Guard::absent_from(["x"].into_iter()).unwrap();
        assert_eq!(guard.protect("aaa<a>a", &marks), "a\u{fdd0}a\u{fdd0}a<\u{fdd0}a>a");
        let other = Guard::absent_from(["\u{fdd0}", "\u{fdd1}"].into_iter()).unwrap();
        assert_eq!(other.protect("aa", &marks), "a\u{fdd2}a");
    }

    proptest! {
        #[test]
        fn no_spelling_survives_and_nothing_is_lost(text in "[<>a|\u{fdd0}]{0,24}") {
            let spellings = ["<a>", "<|a|>", "|>", "aa", "<<", ">a<"];
            let guard = Guard::absent_from([text.as_str()].into_iter()).unwrap();
            let protected = guard.protect(&text, &Marks::new(spellings));
            prop_assert!(spellings.iter().all(|mark| !protected.contains(mark)));
            prop_assert_eq!(guard.remove(&protected), text);
        }
    }
}
