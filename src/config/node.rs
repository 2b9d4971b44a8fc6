//! The layers merged into one tree, in which each value still knows where it came from.

use std::{collections::BTreeMap, fmt, sync::Arc};

use toml::{Spanned, de::DeValue};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In a file, on a line (from 1).
    File(Arc<str>, usize),
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Argument(flag) => write!(f, "argument {flag}"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// A value, not yet of any setting's type.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A string.
    Text(String),
    /// Text of a variable or an argument: a string, or TOML, whichever the setting takes.
    Raw(String),
    Integer(i64),
    Boolean(bool),
    /// What no setting takes: a float, a date, an integer beyond 64 bits.
    Other(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// The text of a string.
    ///
    /// # Errors
    ///
    /// What it is instead, as a part of a sentence.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) | Self::Raw(text) => Ok(text),
            other => Err(other.found()),
        }
    }

    /// `found …`, for messages.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::Text(text) | Self::Raw(text) => format!("found {text:?}"),
            Self::Integer(number) => format!("found {number}"),
            Self::Boolean(value) => format!("found {value}"),
            Self::Other(text) => format!("found {text}"),
            Self::List(_) => "found a list".to_owned(),
            Self::Table(_) => "found a table".to_owned(),
        }
    }
}

/// Turns byte offsets of a text into lines.
pub(crate) struct Lines {
    file: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    /// The lines of `text`, which calls itself `file` in messages.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Self {
            file: file.into(),
            starts,
        }
    }

    /// The place of a byte.
    pub(crate) fn origin(&self, at: usize) -> Origin {
        Origin::File(
            self.file.clone(),
            self.starts.partition_point(|start| *start <= at) + 1,
        )
    }
}

impl Node {
    /// An empty table, to be filled by layers.
    pub(crate) fn empty(origin: Origin) -> Self {
        Self {
            origin,
            value: Value::Table(BTreeMap::new()),
        }
    }

    /// A parsed TOML value. `key` is where its key stands: that is the line people look for.
    pub(crate) fn from_toml(value: Spanned<DeValue<'_>>, key: usize, lines: &Lines) -> Self {
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Other(number.to_string()), Value::Integer),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Float(number) => Value::Other(number.to_string()),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(list) => Value::List(
                list.into_iter()
                    .map(|item| {
                        let at = item.span().start;
                        Self::from_toml(item, at, lines)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| {
                        let at = key.span().start;
                        (
                            key.into_inner().into_owned(),
                            Self::from_toml(value, at, lines),
                        )
                    })
                    .collect(),
            ),
        };
        Self {
            origin: lines.origin(key),
            value,
        }
    }

    /// Puts `new` at `path`, over what stood there: tables are made on the way, a number names an
    /// item of a list, the item after the last one adds to it.
    ///
    /// # Errors
    ///
    /// Why there is no such place, as a sentence.
    pub(crate) fn set(&mut self, path: &[String], new: Node) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else {
            *self = new;
            return Ok(());
        };
        if let (Value::Table(entries), Ok(0)) = (&self.value, key.parse::<usize>())
            && entries.is_empty()
        {
            self.value = Value::List(Vec::new());
        }
        match &mut self.value {
            Value::Table(entries) => entries
                .entry(key.clone())
                .or_insert_with(|| Self::empty(new.origin.clone()))
                .set(rest, new),
            Value::List(items) => {
                let index: usize = key
                    .parse()
                    .map_err(|_| format!("{key:?} is not the number of an item"))?;
                if index == items.len() {
                    items.push(Self::empty(new.origin.clone()));
                }
                let count = items.len();
                let item = items
                    .get_mut(index)
                    .ok_or_else(|| format!("there are {count} items, {index} is too far"))?;
                item.set(rest, new)
            }
            other => Err(format!(
                "{key:?} cannot be set within a value, {}",
                other.found()
            )),
        }
    }
}
