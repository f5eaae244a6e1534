//! Values of a GGUF file's metadata.

/// One metadata value, in the type the file gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Str(String),
    /// Type 9.
    Array(Array),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Of type 0.
    U8(Vec<u8>),
    /// Of type 1.
    I8(Vec<i8>),
    /// Of type 2.
    U16(Vec<u16>),
    /// Of type 3.
    I16(Vec<i16>),
    /// Of type 4.
    U32(Vec<u32>),
    /// Of type 5.
    I32(Vec<i32>),
    /// Of type 6.
    F32(Vec<f32>),
    /// Of type 7.
    Bool(Vec<bool>),
    /// Of type 8.
    Str(Strings),
    /// Of type 9: arrays, each with a type of its own.
    Array(Vec<Array>),
    /// Of type 10.
    U64(Vec<u64>),
    /// Of type 11.
    I64(Vec<i64>),
    /// Of type 12.
    F64(Vec<f64>),
}

/// Many texts in one allocation: vocabularies have hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each ends in `text`; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Strings {
    /// Appends one.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The `i`-th, if there are so many.
    pub fn get(&self, i: usize) -> Option<&str> {
        let start = if i == 0 { 0 } else { *self.ends.get(i - 1)? };
        self.text.get(start..*self.ends.get(i)?)
    }

    /// All in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut strings = Self::default();
        texts.into_iter().for_each(|text| strings.push(text));
        strings
    }
}

impl Value {
    /// What it is, for an error line.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a truth value",
            Self::Str(_) => "a text",
            Self::Array(_) => "an array",
            Self::F32(_) | Self::F64(_) => "a fraction",
            _ => "a whole number",
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The number, if it is a whole one of any width that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::I8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U64(n) => n.try_into().ok(),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }

    /// The number, if it is a whole one of any width that fits.
    pub fn as_u32(&self) -> Option<u32> {
        self.as_i64()?.try_into().ok()
    }

    /// The number, if it is a fraction of either width.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(x) => Some(x),
            Self::F64(x) => Some(x as f32),
            _ => None,
        }
    }

    /// The texts, if it is an array of these.
    pub fn as_strings(&self) -> Option<&Strings> {
        match self {
            Self::Array(Array::Str(strings)) => Some(strings),
            _ => None,
        }
    }

    /// The numbers, if it is an array of `f32`.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        match self {
            Self::Array(Array::F32(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// The numbers, if it is an array of whole ones of any width and all fit.
    pub fn to_i32s(&self) -> Option<Vec<i32>> {
        fn all<T: Copy + TryInto<i32>>(numbers: &[T]) -> Option<Vec<i32>> {
            numbers.iter().map(|&n| n.try_into().ok()).collect()
        }
        let Self::Array(array) = self else { return None };
        match array {
            Array::U8(n) => all(n),
            Array::I8(n) => all(n),
            Array::U16(n) => all(n),
            Array::I16(n) => all(n),
            Array::U32(n) => all(n),
            Array::I32(n) => all(n),
            Array::U64(n) => all(n),
            Array::I64(n) => all(n),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        let texts = ["a", "", "ß", "bc"];
        let strings: Strings = texts.into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), texts);
        assert_eq!(
            (0..5).map(|i| strings.get(i)).collect::<Vec<_>>()[1..],
            [Some(""), Some("ß"), Some("bc"), None]
        );
        assert_eq!((strings.len(), strings.is_empty()), (4, false));
    }

    #[test]
    fn numbers_of_any_width_that_fit() {
        assert_eq!(Value::U64(7).as_u32(), Some(7));
        assert_eq!(Value::U64(u64::MAX).as_i64(), None);
        assert_eq!(Value::I8(-1).as_u32(), None);
        assert_eq!(Value::F64(0.5).as_f32(), Some(0.5));
        assert_eq!(Value::U32(1).as_f32(), None);
        assert_eq!(Value::Array(Array::U32(vec![1, 2])).to_i32s(), Some(vec![1, 2]));
        assert_eq!(Value::Array(Array::U32(vec![u32::MAX])).to_i32s(), None);
        assert_eq!(Value::Array(Array::F32(vec![1.0])).to_i32s(), None);
    }
}
