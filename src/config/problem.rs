//! Reading the tree, and saying what is wrong with it: all of it, not only the first thing.

use std::{collections::BTreeMap, fmt};

use toml::de::DeValue;

use crate::{
    declare::{Declaration, Kind, Section},
    nearest,
    node::{Lines, Node, Origin, Value},
};

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    origin: Option<Origin>,
    message: String,
}

impl Problem {
    /// Wrong in itself, wherever it was written.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            origin: None,
            message: message.into(),
        }
    }

    /// Wrong where it was written.
    pub(crate) fn at(origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            origin: Some(origin.clone()),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with the settings, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// An error if there are any. In the order of the file, for who goes through it.
    pub(crate) fn unless_empty(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort_by_key(|problem| match &problem.origin {
            Some(Origin::File(_, line)) => *line,
            _ => usize::MAX,
        });
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

/// Collects problems while the tree is read.
#[derive(Default)]
pub(crate) struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    /// Notes a problem.
    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// An error if there were problems.
    pub(crate) fn finish(self) -> Result<(), Problems> {
        Problems::unless_empty(self.problems)
    }

    /// Reads the section at `key`.
    pub(crate) fn section<S: Section>(
        &mut self,
        root: &BTreeMap<String, Node>,
        key: &'static str,
    ) -> S {
        match root.get(key) {
            None => S::default(),
            Some(node) => self.table(key, node),
        }
    }

    /// Reads the sections in the list at `key`. No list is one section of defaults; an empty list
    /// is none.
    pub(crate) fn list<S: Section>(
        &mut self,
        root: &BTreeMap<String, Node>,
        key: &'static str,
    ) -> Vec<S> {
        let Some(node) = root.get(key) else {
            return vec![S::default()];
        };
        let parsed;
        let value = match &node.value {
            Value::Raw(text) => {
                parsed = raw_toml(text, &node.origin);
                parsed.as_ref().unwrap_or(&node.value)
            }
            value => value,
        };
        match value {
            Value::List(items) => items.iter().map(|item| self.table(key, item)).collect(),
            other => {
                let message = format!("{key} must be a list of tables, {}", other.found());
                self.problem(Problem::at(&node.origin, message));
                Vec::new()
            }
        }
    }

    fn table<S: Section>(&mut self, key: &'static str, node: &Node) -> S {
        match &node.value {
            Value::Table(entries) => S::read(&mut Fields {
                reader: self,
                key,
                entries,
            }),
            other => {
                let message = format!("{key} must be a table, {}", other.found());
                self.problem(Problem::at(&node.origin, message));
                S::default()
            }
        }
    }

    /// Complains about every key that no section declares, and names the nearest one that is.
    pub(crate) fn unknown_keys(&mut self, root: &Node, declared: &[Declaration]) {
        let Value::Table(entries) = &root.value else {
            return;
        };
        for (key, node) in entries {
            match declared.iter().find(|section| section.key == key) {
                Some(section) => self.unknown_in(section, node, declared),
                None => {
                    let nearest = nearest::to_section(key, declared);
                    self.problem(Problem::at(&node.origin, unknown(key, &nearest)));
                }
            }
        }
    }

    fn unknown_in(&mut self, section: &Declaration, node: &Node, declared: &[Declaration]) {
        match &node.value {
            Value::Table(entries) => {
                for (key, node) in entries {
                    if section.settings.iter().any(|setting| setting.name == key) {
                        continue;
                    }
                    let name = format!("{}.{key}", section.key);
                    let nearest = nearest::to_setting(section.key, key, declared);
                    self.problem(Problem::at(&node.origin, unknown(&name, &nearest)));
                }
            }
            Value::List(items) if section.list => {
                for item in items {
                    self.unknown_in(section, item, declared);
                }
            }
            Value::Raw(text) if section.list => {
                if let Some(value) = raw_toml(text, &node.origin) {
                    let node = Node {
                        origin: node.origin.clone(),
                        value,
                    };
                    if !matches!(node.value, Value::Raw(_)) {
                        self.unknown_in(section, &node, declared);
                    }
                }
            }
            // Not a table: the reader has complained.
            _ => {}
        }
    }
}

fn unknown(key: &str, nearest: &str) -> String {
    format!("unknown key `{key}`; the nearest known one is `{nearest}`")
}

/// The text of a variable as a TOML value, if it is one.
fn raw_toml(text: &str, origin: &Origin) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let mut node = Node::from_toml(value, 0, &Lines::new("", text));
    relocate(&mut node, origin);
    Some(node.value)
}

/// Everything in a variable was written in that variable.
fn relocate(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, origin)),
        Value::Table(entries) => entries.values_mut().for_each(|item| relocate(item, origin)),
        _ => {}
    }
}

/// The settings of one section, while it is read.
pub(crate) struct Fields<'a> {
    reader: &'a mut Reader,
    key: &'static str,
    entries: &'a BTreeMap<String, Node>,
}

impl Fields<'_> {
    /// The setting `name`, or `default` where it is not set or wrong.
    pub(crate) fn setting<T: Kind>(&mut self, name: &str, default: T) -> T {
        let Some(node) = self.entries.get(name) else {
            return default;
        };
        match read::<T>(node) {
            Ok(value) => value,
            Err(why) => {
                let message = format!("{}.{name} must be {}, {why}", self.key, T::KIND);
                self.reader.problem(Problem::at(&node.origin, message));
                default
            }
        }
    }
}

/// Text of a variable is first taken as it stands, then as TOML.
fn read<T: Kind>(node: &Node) -> Result<T, String> {
    let Value::Raw(text) = &node.value else {
        return T::read(&node.value);
    };
    T::read(&Value::Text(text.clone())).or_else(|why| match raw_toml(text, &node.origin) {
        Some(value) => T::read(&value),
        None => Err(why),
    })
}
