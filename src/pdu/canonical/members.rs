//! Reading canonical bytes in place.
//!
//! What an event is hashed, signed, redacted and authorised by is a handful of its members; its
//! canonical form holds them sorted and without white space, so they are found by walking over the
//! bytes. Bytes that are not canonical JSON end the walk early and never panic.

use std::{borrow::Cow, ops::Range};

/// One member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    /// The key as it is written, without its quotes but with its escapes.
    pub(crate) key: &'a [u8],
    /// The value as it is written.
    pub(crate) value: &'a [u8],
    /// Where the value lies within the object's bytes.
    pub(crate) span: Range<usize>,
    /// Where key, colon and value lie within the object's bytes.
    pub(crate) whole: Range<usize>,
}

impl<'a> Member<'a> {
    /// The key without its escapes.
    pub(crate) fn key_text(&self) -> Option<Cow<'a, str>> {
        if !self.key.contains(&b'\\') {
            return std::str::from_utf8(self.key).ok().map(Cow::Borrowed);
        }
        let quoted = [b"\"", self.key, b"\""].concat();
        serde_json::from_slice(&quoted).ok().map(Cow::Owned)
    }
}

/// The members of an object in their order; none if the bytes are no object.
pub(crate) fn members(object: &[u8]) -> Members<'_> {
    let at = if object.first() == Some(&b'{') {
        1
    } else {
        object.len()
    };
    Members { bytes: object, at }
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let start = self.at;
        let next = (|| {
            let key_end = string_end(self.bytes, start)?;
            let key = self.bytes.get(start + 1..key_end - 1)?;
            (self.bytes.get(key_end) == Some(&b':')).then_some(())?;
            let value_start = key_end + 1;
            let value_end = value_end(self.bytes, value_start)?;
            let value = self.bytes.get(value_start..value_end)?;
            matches!(self.bytes.get(value_end), Some(b',' | b'}')).then_some(())?;
            Some(Member {
                key,
                value,
                span: value_start..value_end,
                whole: start..value_end,
            })
        })();
        self.at = next
            .as_ref()
            .map_or(self.bytes.len(), |member| member.whole.end + 1);
        next
    }
}

/// The elements of an array in their order; none if the bytes are no array.
pub(crate) fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = if array.first() == Some(&b'[') {
        1
    } else {
        array.len()
    };
    std::iter::from_fn(move || {
        let end = value_end(array, at)?;
        let value = array.get(at..end).filter(|value| !value.is_empty())?;
        at = if matches!(array.get(end), Some(b',' | b']')) {
            end + 1
        } else {
            array.len()
        };
        Some(value)
    })
}

/// The value of the member with a key, which must be one that is written without escapes.
pub(crate) fn find<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    if key.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let mut written = Vec::new();
        super::write_string(key, &mut written);
        let written = written.get(1..written.len() - 1)?;
        return members(object)
            .find(|member| member.key == written)
            .map(|member| member.value);
    }
    members(object)
        .find(|member| member.key == key.as_bytes())
        .map(|member| member.value)
}

/// The text of a string.
pub(crate) fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        serde_json::from_slice(value).ok().map(Cow::Owned)
    } else {
        std::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }
}

/// The integer, if it has at most 64 bits.
pub(crate) fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The index behind the closing quote of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += bytes
            .get(at..)?
            .iter()
            .position(|b| *b == b'"' || *b == b'\\')?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The index behind the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                let rest = bytes.get(at..)?;
                at += rest
                    .iter()
                    .position(|b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']'))?;
                match bytes.get(at)? {
                    b'"' => {
                        at = string_end(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = bytes.get(at..)?;
            Some(
                at + rest
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']'))
                    .unwrap_or(rest.len()),
            )
        }
    }
}
