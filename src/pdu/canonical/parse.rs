//! JSON text to values.

use std::borrow::Cow;

use super::{MAX_INTEGER, Numbers, Object, Value, float::python_repr};

/// How deep arrays and objects may nest.
///
/// NOTSPEC: the spec has no limit; this is the depth up to which serde_json, hence every peer written
/// in Rust and a good part of the clients, reads JSON.
pub const MAX_NESTING: usize = 127;

/// The longest integer, in digits, that Python reads and hence Synapse lets into rooms of version 1–5.
const MAX_DIGITS: usize = 4300;

/// Why a text is not the JSON we accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct JsonError {
    /// Where in the text, in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

pub(super) fn parse(text: &[u8], numbers: Numbers, nesting: usize) -> Result<Value<'_>, JsonError> {
    let text = std::str::from_utf8(text).map_err(|e| JsonError {
        offset: e.valid_up_to(),
        reason: "invalid UTF-8",
    })?;
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        left: nesting,
        numbers,
    };
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.peek().is_some() {
        return Err(parser.error("unexpected characters after the value"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// How much deeper arrays and objects may still nest.
    left: usize,
    numbers: Numbers,
}

impl<'a> Parser<'a> {
    fn error(&self, reason: &'static str) -> JsonError {
        JsonError {
            offset: self.at,
            reason,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.error(reason));
        }
        self.at += 1;
        Ok(())
    }

    fn slice(&self, from: usize, to: usize) -> Result<&'a str, JsonError> {
        self.text
            .get(from..to)
            .ok_or_else(|| self.error("invalid UTF-8"))
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.error("expected a JSON value")),
            None => Err(self.error("the JSON text ends too early")),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if !self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return Err(self.error("expected a JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn nested(
        &mut self,
        inner: fn(&mut Self) -> Result<Value<'a>, JsonError>,
    ) -> Result<Value<'a>, JsonError> {
        let too_deep = || self.error("JSON is nested too deep");
        self.left = self.left.checked_sub(1).ok_or_else(too_deep)?;
        self.at += 1;
        let value = inner(self)?;
        self.left += 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        let mut members = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Object::new()));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in quotes"));
            }
            let key = self.string()?;
            self.skip_space();
            self.expect(b':', "expected `:` after a key")?;
            self.skip_space();
            members.push((key, self.value()?));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("expected `,` or `}` in an object")),
            }
        }
        self.at += 1;
        Ok(Value::Object(Object::from_members(members)))
    }

    fn array(&mut self) -> Result<Value<'a>, JsonError> {
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        loop {
            self.skip_space();
            elements.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("expected `,` or `]` in an array")),
            }
        }
        self.at += 1;
        Ok(Value::Array(elements))
    }

    /// Moves to the next quote, backslash or control character of a string.
    fn plain_part(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        match rest
            .iter()
            .position(|b| *b < 0x20 || *b == b'"' || *b == b'\\')
        {
            Some(length) => {
                self.at += length;
                self.slice(start, self.at)
            }
            None => {
                self.at = self.bytes.len();
                Err(self.error("a string is not closed"))
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let first = self.plain_part()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(first));
        }
        let mut text = first.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return Err(self.error("control characters must be escaped")),
            }
            text.push_str(self.plain_part()?);
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let letter = self.peek();
        let simple = match letter {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("unknown escape in a string")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let unit = self.hex4()?;
        let code = match unit {
            0xd800..=0xdbff => {
                let pair = self.bytes.get(self.at..self.at + 2) == Some(b"\\u");
                if pair {
                    self.at += 2;
                }
                match if pair { self.hex4()? } else { 0 } {
                    low @ 0xdc00..=0xdfff => 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                    _ => unit,
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or(JsonError {
            offset: start,
            reason: "half of a surrogate pair in a string",
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.error("expected four hex digits"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return Err(JsonError {
                offset: start,
                reason: "invalid number",
            });
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(JsonError {
                    offset: start,
                    reason: "invalid number",
                });
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(JsonError {
                    offset: start,
                    reason: "invalid number",
                });
            }
        }
        let text = self.slice(start, self.at)?;
        let value = match self.numbers {
            Numbers::Canonical => canonical_number(text, integer),
            Numbers::Any => any_number(text, integer, digits),
        };
        value.map_err(|reason| JsonError {
            offset: start,
            reason,
        })
    }
}

fn canonical_number(text: &str, integer: bool) -> Result<Value<'_>, &'static str> {
    if !integer {
        return Err("numbers must be integers, without fraction or exponent");
    }
    if text == "-0" {
        return Err("negative zero is not allowed");
    }
    match text.parse::<i64>() {
        Ok(integer) if (-MAX_INTEGER..=MAX_INTEGER).contains(&integer) => {
            Ok(Value::Integer(integer))
        }
        _ => Err("integers must lie between -(2^53 - 1) and 2^53 - 1"),
    }
}

fn any_number(text: &str, integer: bool, digits: usize) -> Result<Value<'_>, &'static str> {
    if integer {
        if digits > MAX_DIGITS {
            return Err("an integer has too many digits");
        }
        // Also what turns `-0` into 0, as Python does.
        return Ok(match text.parse::<i64>() {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Number(Cow::Borrowed(text)),
        });
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Number(Cow::Owned(python_repr(number)))),
        _ => Err("a number is larger than a double can hold"),
    }
}
