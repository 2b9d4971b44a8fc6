//! JSON as Matrix hashes and signs it: our own value, parser and encoder.
//!
//! Ruma's canonical JSON refuses what room versions 1–5 allow (fractions, integers of any size), and
//! hashing needs bytes, not trees of owned strings. A [`Value`] borrows from the text it was parsed
//! from, and is written straight to bytes: keys sorted by code point, no white space, the shortest
//! escapes ([spec](https://spec.matrix.org/v1.19/appendices/#canonical-json)).

mod encode;
mod float;
pub(crate) mod members;
mod parse;

use std::borrow::Cow;

pub use self::parse::{JsonError, MAX_NESTING};

/// The largest integer of canonical JSON, 2^53 - 1; the smallest is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Which numbers a text may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Integers between -(2^53 - 1) and 2^53 - 1, without fraction or exponent and never `-0`:
    /// canonical JSON, which room versions enforce since version 6.
    Canonical,
    /// Whatever JSON allows and a double can hold: room versions 1–5. Fractions are written the way
    /// Python does it, since that is what the network has been hashing; integers keep all digits.
    Any,
}

/// A JSON value, borrowed from the text it was parsed from where that is possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of at most 64 bits.
    Integer(i64),
    /// The canonical text of any other number, which only [`Numbers::Any`] lets in.
    Number(Cow<'a, str>),
    /// A string, without escapes.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

impl<'a> Value<'a> {
    /// Parses a JSON text that holds one value.
    ///
    /// # Errors
    ///
    /// Says what is wrong and where when the text is not JSON, holds a number that `numbers` does not
    /// allow or half a surrogate pair, or nests deeper than [`MAX_NESTING`].
    pub fn parse(text: &'a [u8], numbers: Numbers) -> Result<Self, JsonError> {
        parse::parse(text, numbers, MAX_NESTING)
    }

    /// The same for a text that nests up to `nesting` deep. The stack grows with that: it is for what was
    /// counted before, and a thousand is not too much.
    ///
    /// # Errors
    ///
    /// As [`Value::parse`].
    pub fn parse_nested(
        text: &'a [u8],
        numbers: Numbers,
        nesting: usize,
    ) -> Result<Self, JsonError> {
        parse::parse(text, numbers, nesting)
    }

    /// The canonical text of this value, as bytes of UTF-8.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Appends the canonical text of this value.
    pub fn write(&self, out: &mut Vec<u8>) {
        encode::write(self, out);
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if this is one of at most 64 bits.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The object, if this is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// A JSON object: its members sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// An empty object.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an object of members in any order; of several with one key the last one counts, as in
    /// Python's parser and hence in Synapse.
    fn from_members(mut members: Vec<(Cow<'a, str>, Value<'a>)>) -> Self {
        let sorted = members
            .iter()
            .zip(members.iter().skip(1))
            .all(|(a, b)| a.0 < b.0);
        if !sorted {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    std::mem::swap(later, kept);
                }
                same
            });
        }
        Self { members }
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(k, _)| k.as_ref().cmp(key))
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.members
            .get(self.position(key).ok()?)
            .map(|(_, value)| value)
    }

    /// Puts a value under a key, and gives back what was there.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) -> Option<Value<'a>> {
        let key = key.into();
        match self.position(&key) {
            Ok(at) => self
                .members
                .get_mut(at)
                .map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.members.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes the value under a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        self.position(key).ok().map(|at| self.members.remove(at).1)
    }

    /// The members, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.members
            .iter()
            .map(|(key, value)| (key.as_ref(), value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The canonical text of this object, as bytes of UTF-8.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode::write_object(self, out.as_mut());
        out
    }
}

/// Appends a string as canonical JSON writes it, quotes and escapes included.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    encode::write_string(text, out);
}

/// The value under `key` of an object in canonical form, itself in canonical form.
///
/// `None` when there is no such key, or the bytes are no object. Costs one pass over the bytes and no
/// allocation, so it is the way to read a few fields of an event that is in canonical form already.
pub fn member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    members::find(object, key)
}

/// The text of a string in canonical form; `None` when the bytes are no string.
pub fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    members::string(value)
}

#[cfg(test)]
mod tests;
