//! Cutting the events out of a long answer while it comes in, so that it is never there whole.
//!
//! An answer with the state of a room is an object with a few lists of events, which make up nearly all of it, and a
//! little more. The elements of these lists are cut out one by one, as text; what remains is the same object with empty
//! lists. Only where values begin and end is looked at here: whether they are JSON is found when they are read.

/// The most bytes of one element. An event may have much less; white space is not its text.
const ELEMENT_MAX: usize = 1 << 20;
/// The most bytes of what remains.
const REST_MAX: usize = 16 << 20;
/// The longest name of a member that is compared with those of the lists.
const NAME_MAX: usize = 64;

/// Why an answer cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLists {
    /// It is not one JSON object.
    #[error("it is not one JSON object")]
    NotAnObject,
    /// An element is too long.
    #[error("one of its lists holds what has more than {ELEMENT_MAX} bytes")]
    LongElement,
    /// It is too long without its lists.
    #[error("it has more than {REST_MAX} bytes beside its lists")]
    LongRest,
}

/// Cuts lists out of an object that comes in pieces.
#[derive(Debug)]
pub(crate) struct Lists<'a> {
    /// The names of the lists.
    names: &'a [&'a str],
    /// The object without the elements of its lists.
    rest: Vec<u8>,
    /// The element that is being read.
    element: Vec<u8>,
    /// The name of the member that is being read.
    name: Vec<u8>,
    /// In so many objects and lists it is.
    depth: usize,
    /// Which list it is in.
    list: Option<usize>,
    in_string: bool,
    /// The character before was a backslash in a string.
    escaped: bool,
    /// At depth one: a member's name comes, or is being read.
    naming: bool,
    /// The object has ended.
    ended: bool,
}

impl<'a> Lists<'a> {
    /// Cuts out the lists of these names.
    pub(crate) fn new(names: &'a [&'a str]) -> Self {
        Self {
            names,
            rest: Vec::new(),
            element: Vec::new(),
            name: Vec::new(),
            depth: 0,
            list: None,
            in_string: false,
            escaped: false,
            naming: true,
            ended: false,
        }
    }

    /// Goes on with the next piece. Calls `each` with each element that ends in it, and in which list it is.
    pub(crate) fn take(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(usize, Vec<u8>),
    ) -> Result<(), NoLists> {
        for byte in piece {
            self.step(*byte, &mut each)?;
        }
        Ok(())
    }

    /// What remains when all has come in.
    pub(crate) fn end(self) -> Result<Vec<u8>, NoLists> {
        match self.ended {
            true => Ok(self.rest),
            false => Err(NoLists::NotAnObject),
        }
    }

    fn step(&mut self, byte: u8, each: &mut impl FnMut(usize, Vec<u8>)) -> Result<(), NoLists> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            if self.in_string && self.naming && self.depth == 1 && self.name.len() <= NAME_MAX {
                self.name.push(byte);
            }
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.naming && self.depth == 1 {
                    self.name.clear();
                }
            }
            b':' if self.depth == 1 => self.naming = false,
            b',' if self.depth == 1 => self.naming = true,
            b',' if self.depth == 2 && self.list.is_some() => {
                self.cut(each);
                return Ok(());
            }
            b'{' | b'[' => return self.open(byte),
            b'}' | b']' => return self.close(byte, each),
            _ if self.depth == 0 && !byte.is_ascii_whitespace() => {
                return Err(NoLists::NotAnObject);
            }
            _ => {}
        }
        self.keep(byte)
    }

    fn open(&mut self, bracket: u8) -> Result<(), NoLists> {
        if self.depth == 0 && (bracket != b'{' || self.ended) {
            return Err(NoLists::NotAnObject);
        }
        self.keep(bracket)?;
        if self.depth == 1 && bracket == b'[' && !self.naming {
            let names = self.names.iter();
            self.list = names
                .map(|name| name.as_bytes())
                .position(|name| name == self.name);
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, bracket: u8, each: &mut impl FnMut(usize, Vec<u8>)) -> Result<(), NoLists> {
        if self.depth == 2 && self.list.is_some() {
            if bracket != b']' {
                return Err(NoLists::NotAnObject);
            }
            if !self.element.iter().all(u8::is_ascii_whitespace) {
                self.cut(each);
            }
            self.element.clear();
            self.list = None;
        }
        self.depth = self.depth.checked_sub(1).ok_or(NoLists::NotAnObject)?;
        self.ended = self.depth == 0;
        self.keep(bracket)
    }

    /// An element has ended.
    fn cut(&mut self, each: &mut impl FnMut(usize, Vec<u8>)) {
        if let Some(list) = self.list {
            each(list, std::mem::take(&mut self.element));
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), NoLists> {
        if self.list.is_some() {
            if self.element.len() >= ELEMENT_MAX {
                return Err(NoLists::LongElement);
            }
            self.element.push(byte);
        } else {
            if self.rest.len() >= REST_MAX {
                return Err(NoLists::LongRest);
            }
            self.rest.push(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    type Cut = Result<(String, Vec<(usize, String)>), NoLists>;

    /// What is cut out of a text that comes in pieces of so many bytes.
    fn cut(text: &str, piece: usize) -> Cut {
        let mut lists = Lists::new(&["state", "auth_chain"]);
        let mut elements = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            lists.take(piece, |list, element| {
                elements.push((list, String::from_utf8(element).unwrap()));
            })?;
        }
        Ok((String::from_utf8(lists.end()?).unwrap(), elements))
    }

    #[test]
    fn elements_are_cut_out_wherever_the_pieces_end() {
        let text = r#" {"a":{"state":[1]},"b":"state","state": [ {"x":"],}\"\\","y":[[1],{}]} ,2,"\\"],
            "c":["state",[3]],"auth_chain":[],"d":null} "#;
        let rest = r#" {"a":{"state":[1]},"b":"state","state": [],
            "c":["state",[3]],"auth_chain":[],"d":null} "#;
        let elements = [r#" {"x":"],}\"\\","y":[[1],{}]} "#, "2", r#""\\""#];
        let elements: Vec<_> = elements.iter().map(|it| (0, (*it).to_owned())).collect();
        for piece in 1..text.len() {
            assert_eq!(cut(text, piece), Ok((rest.to_owned(), elements.clone())));
        }
    }

    #[test]
    fn each_list_has_its_elements() {
        let text = r#"{"auth_chain":[1,[2]],"state":[3]}"#;
        let elements = [(1, "1"), (1, "[2]"), (0, "3")].map(|(list, it)| (list, it.to_owned()));
        let rest = r#"{"auth_chain":[],"state":[]}"#.to_owned();
        assert_eq!(cut(text, 5), Ok((rest, elements.to_vec())));
    }

    #[test]
    fn a_list_that_is_none_stays_what_it_is() {
        for text in [r#"{"state":{"state":[1]}}"#, r#"{"state":null}"#, "{}"] {
            assert_eq!(cut(text, 3), Ok((text.to_owned(), Vec::new())));
        }
    }

    #[test]
    fn what_is_not_one_object_is_no_answer() {
        for text in [
            "",
            " ",
            "[]",
            "1",
            "{",
            r#"{"state":[1}"#,
            "{}}",
            "{}{}",
            "{} x",
            "}",
        ] {
            assert_eq!(cut(text, 2), Err(NoLists::NotAnObject), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let long = "x".repeat(ELEMENT_MAX);
        let text = format!(r#"{{"state":["{long}"]}}"#);
        assert_eq!(cut(&text, 1 << 16), Err(NoLists::LongElement));
        let long = "x".repeat(REST_MAX);
        let text = format!(r#"{{"a":"{long}"}}"#);
        assert_eq!(cut(&text, 1 << 16), Err(NoLists::LongRest));
    }
}
