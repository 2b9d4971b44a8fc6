//! What every JSON body has to be before anybody looks at what it says, and where in it a fault is.

use std::fmt;

use error::Result;
use federation::BODY_NESTING_MAX;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// How deep arrays and objects may lie in each other. An event puts a body's content one level
/// deeper, and `serde_json` reads no more than 128 levels: what passes here can be read again.
pub(crate) const DEPTH: usize = 100;

/// Checks that `body` is a JSON object, as all bodies of the specification are, and not too deep.
/// (Serde would take an array for a list of an object's fields.)
///
/// # Errors
///
/// `M_NOT_JSON` when it is not UTF-8 or not JSON, `M_BAD_JSON` when it is no object, too deep, or holds
/// what nobody can read: a number beyond those of a double, half a surrogate pair.
pub(crate) fn check(body: &[u8]) -> Result<()> {
    let text = shallow(body, DEPTH)?;
    if let Err(fault) = serde_json::from_str::<Readable>(text) {
        // What serde passes over need not be readable.
        is_json(text)?;
        return Err(error::bad_json(format!(
            "The body of the request holds what cannot be read: {fault}"
        )));
    }
    is_object(text)
}

/// The same for events that servers send: one of them that is nested too deep is no reason to refuse the
/// others. Each is looked at by itself.
///
/// # Errors
///
/// As [`check`], but for what cannot be read: nobody can sign that.
pub(crate) fn check_of_events(body: &[u8]) -> Result<()> {
    let text = shallow(body, BODY_NESTING_MAX)?;
    is_json(text)?;
    is_object(text)
}

/// The text of a body that is not too deep. Neither this nor what reads it uses the stack for what lies deeper.
fn shallow(body: &[u8], most: usize) -> Result<&str> {
    let Ok(text) = str::from_utf8(body) else {
        return Err(error::not_json("The body of the request is not UTF-8"));
    };
    if depth(body) > most {
        return Err(error::bad_json(format!(
            "The body of the request is nested deeper than {most} levels"
        )));
    }
    Ok(text)
}

fn is_json(text: &str) -> Result<()> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(fault) => Err(error::not_json(format!(
            "The body of the request is not JSON: {fault}"
        ))),
    }
}

fn is_object(text: &str) -> Result<()> {
    if !text.trim_start().starts_with('{') {
        return Err(error::bad_json(
            "The body of the request is not a JSON object",
        ));
    }
    Ok(())
}

/// JSON in which every number and every string can be read: whoever keeps a part of it as it lies can make
/// a value of that later.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<Self, A::Error> {
        while object.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// The largest number of arrays and objects open at once.
fn depth(body: &[u8]) -> usize {
    let mut walk = Walk::default();
    let (mut now, mut most) = (0_usize, 0);
    for byte in body {
        match walk.step(*byte) {
            Some(b'{' | b'[') => {
                now += 1;
                most = most.max(now);
            }
            Some(b'}' | b']') => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Tells the bytes that give JSON its shape from those within strings.
#[derive(Default)]
struct Walk {
    in_string: bool,
    escaped: bool,
}

impl Walk {
    /// The byte, unless it is a part of a string; quotes are not.
    fn step(&mut self, byte: u8) -> Option<u8> {
        if !self.in_string {
            self.in_string = byte == b'"';
            return Some(byte);
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                return Some(byte);
            }
            _ => {}
        }
        None
    }
}

/// Names the field at a place in valid JSON, as `creation_content.predecessor` or `invite[3]`;
/// empty at the top. `line` and `column` are as `serde_json` counts them: from 1, the column that of
/// the last byte it looked at, and 0 where it does not know.
pub(crate) fn field_at(body: &[u8], line: usize, column: usize) -> String {
    let before_line: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let end = before_line.saturating_add(column).min(body.len());
    if line == 0 {
        return String::new();
    }
    let mut way: Vec<Step> = Vec::new();
    let mut walk = Walk::default();
    // Where the last string began, and the string itself once it has ended.
    let (mut began, mut last) = (0, &[][..]);
    for (at, byte) in body.iter().enumerate().take(end) {
        let was_in_string = walk.in_string;
        let last_byte = at + 1 == end;
        match walk.step(*byte) {
            Some(b'"') if was_in_string => last = body.get(began..at).unwrap_or_default(),
            Some(b'"') => began = at + 1,
            Some(b'{') => way.push(Step::Field(&[])),
            Some(b'[') => way.push(Step::Item(0)),
            Some(b':') => {
                if let Some(Step::Field(name)) = way.last_mut() {
                    *name = last;
                }
            }
            // The comma or bracket behind a wrong value still belongs to it.
            Some(b',') if !last_byte => match way.last_mut() {
                Some(Step::Item(index)) => *index += 1,
                Some(Step::Field(name)) => *name = &[],
                None => {}
            },
            Some(b'}' | b']') if !last_byte => {
                way.pop();
            }
            _ => {}
        }
    }
    written(&way)
}

enum Step<'a> {
    Field(&'a [u8]),
    Item(usize),
}

fn written(way: &[Step<'_>]) -> String {
    /// Names are the sender's; the message is to stay a sentence.
    const NAME: usize = 64;
    let mut path = String::new();
    for step in way {
        match step {
            Step::Field([]) => {}
            Step::Field(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.extend(String::from_utf8_lossy(name).chars().take(NAME));
            }
            Step::Item(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused(body: &[u8]) -> String {
        check(body)
            .unwrap_err()
            .kind()
            .unwrap()
            .errcode()
            .to_string()
    }

    #[test]
    fn takes_objects_only() {
        for body in ["{}", " \n{ } ", r#"{"a":{"b":[{}, "\"[[[", -1.5e3]}}"#] {
            check(body.as_bytes()).unwrap();
        }
        for body in ["[]", " null ", "7", "\"text\"", "[{}]"] {
            assert_eq!(refused(body.as_bytes()), "M_BAD_JSON", "{body}");
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        let bodies: [&[u8]; 9] = [
            b"{not json",
            b"",
            b"{\"a\":1",
            b"\"\xff\"",
            b"{\"a\":\"\xff\"}",
            b"{} {}",
            b"{'a':1}",
            b"{\"a\":01}",
            b"{\"a\":\"\n\"}",
        ];
        for body in bodies {
            assert_eq!(refused(body), "M_NOT_JSON", "{body:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_read() {
        for value in ["1e400", "-1e400", r#""\ud800""#, r#"[{"x":[1e999]}]"#] {
            let body = format!(r#"{{"a":{value}}}"#);
            assert_eq!(refused(body.as_bytes()), "M_BAD_JSON", "{body}");
        }
        assert_eq!(refused(br#"{"\ud800":1}"#), "M_BAD_JSON");
        for value in [
            "1e-999",
            "1e308",
            "123456789012345678901234567890",
            r#""\ud83d\ude00""#,
        ] {
            check(format!(r#"{{"a":{value}}}"#).as_bytes()).unwrap();
        }
    }

    #[test]
    fn refuses_what_is_deep_and_does_not_run_out_of_stack() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            format!("{{\"a\":{open}{close}}}").into_bytes()
        };
        check(&nested(DEPTH)).unwrap();
        assert_eq!(refused(&nested(DEPTH + 1)), "M_BAD_JSON");
        assert_eq!(refused(&nested(4_000_000)), "M_BAD_JSON");
        let wide = format!("{{\"a\":[{}[]]}}", "[],".repeat(10_000));
        check(wide.as_bytes()).unwrap();
        check_of_events(&nested(BODY_NESTING_MAX)).unwrap();
        for levels in [BODY_NESTING_MAX + 1, 4_000_000] {
            let fault = check_of_events(&nested(levels)).unwrap_err();
            assert_eq!(fault.status(), 400);
        }
        for body in ["[]", "{", "7", "{} {}"] {
            assert!(check_of_events(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn names_the_field_of_a_fault() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Room {
            name: Option<String>,
            invite: Option<Vec<String>>,
            inner: Option<Box<Room>>,
            list: Option<Vec<Room>>,
        }
        for (body, field) in [
            (r#"{"name": 7}"#, "name"),
            (r#"{"name": 7, "invite": []}"#, "name"),
            (
                r#"{"x": ["a", {"b": 2}], "invite": ["a", "b\"]", 3, "c"]}"#,
                "invite[2]",
            ),
            (r#"{"invite": "a"}"#, "invite"),
            ("{\n  \"inner\":\n    {\"name\": true}}", "inner.name"),
            (
                r#"{"list": [{}, {"inner": {"name": {}}}]}"#,
                "list[1].inner.name",
            ),
            ("[7]", "[0]"),
            ("7", ""),
        ] {
            let fault = serde_json::from_str::<Room>(body).unwrap_err();
            assert_eq!(
                field_at(body.as_bytes(), fault.line(), fault.column()),
                field,
                "{body} {fault}"
            );
        }
        assert_eq!(field_at(b"{\"a\": 1}", 0, 0), "");
        assert_eq!(field_at(b"", 99, 99), "");
    }
}
