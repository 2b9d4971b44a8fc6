//! The layers settings come from.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue, Error};

use crate::{
    Config,
    node::{Lines, Node, Origin, Value},
    problem::{Problem, Reader},
};

/// What every variable of ours begins with.
const PREFIX: &str = "CHAPAR_";

/// Names the file itself; read by the command line, not a setting.
const CONFIG_VARIABLE: &str = "CHAPAR_CONFIG";

/// Where settings come from, the later layer over the earlier: a file, the environment, the command
/// line. Nothing is read from the process by itself: what is not given here does not count.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<File>,
    variables: Vec<(OsString, OsString)>,
    arguments: Vec<(String, Vec<String>, String)>,
}

#[derive(Clone, Debug)]
enum File {
    Path(PathBuf),
    Text { name: String, text: String },
}

impl Sources {
    /// A TOML file.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(File::Path(path.into()));
        self
    }

    /// The text of a TOML file, which messages call `name`.
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.file = Some(File::Text {
            name: name.into(),
            text: text.into(),
        });
        self
    }

    /// Environment variables, as of `std::env::vars_os()`. Those that begin with `CHAPAR_` and have
    /// a `__`, or name a whole section, are settings; `CHAPAR_SERVER__NAME` is `server.name`,
    /// `CHAPAR_LISTENERS__0__ADDRESS` the first listener's address. Others are left alone: some
    /// orchestrators put variables of their own under the name of a service.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        self.variables = variables.into_iter().collect();
        // The order of the environment is nobody's intention.
        self.variables.sort();
        self
    }

    /// Something on the command line: `flag` for messages, the setting's path, its value. The path
    /// `["listeners"]` with an address replaces all listeners by one.
    pub fn argument(mut self, flag: &str, path: &[&str], value: impl Into<String>) -> Self {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        self.arguments.push((flag.to_owned(), path, value.into()));
        self
    }

    /// All layers in one tree.
    pub(crate) fn layers(&self, reader: &mut Reader) -> Node {
        let mut root = match &self.file {
            None => Node::empty(Origin::File("".into(), 0)),
            Some(File::Text { name, text }) => parse(name, text, reader),
            Some(File::Path(path)) => match read_file(path) {
                Ok(text) => parse(&path.to_string_lossy(), &text, reader),
                Err(message) => {
                    reader.problem(Problem::new(message));
                    Node::empty(Origin::File("".into(), 0))
                }
            },
        };
        for (name, value) in &self.variables {
            add_variable(&mut root, name, value, reader);
        }
        for (flag, path, value) in &self.arguments {
            let origin = Origin::Argument(flag.clone());
            let mut path = path.clone();
            if path == ["listeners"] {
                let list = Node {
                    origin: origin.clone(),
                    value: Value::List(Vec::new()),
                };
                add(&mut root, &path, list, reader);
                path.extend(["0".to_owned(), "address".to_owned()]);
            }
            let value = Value::Raw(value.clone());
            add(&mut root, &path, Node { origin, value }, reader);
        }
        root
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8", path.display()))
}

/// A text that is not TOML is one problem for each thing wrong, and an empty tree.
fn parse(name: &str, text: &str, reader: &mut Reader) -> Node {
    let lines = Lines::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let span = table.span();
        let value = toml::Spanned::new(span, DeValue::Table(table.into_inner()));
        return Node::from_toml(value, 0, &lines);
    }
    for error in &errors {
        let origin = lines.origin(error.span().map_or(0, |span| span.start));
        reader.problem(Problem::at(&origin, Error::message(error)));
    }
    Node::empty(lines.origin(0))
}

fn add(root: &mut Node, path: &[String], node: Node, reader: &mut Reader) {
    let origin = node.origin.clone();
    if let Err(why) = root.set(path, node) {
        reader.problem(Problem::at(&origin, why));
    }
}

fn add_variable(root: &mut Node, name: &OsString, value: &OsString, reader: &mut Reader) {
    let Some(name) = name.to_str() else { return };
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return;
    };
    let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
    let sections = Config::sections();
    if let [only] = path.as_slice() {
        let is_section = sections.iter().any(|section| section.key == only);
        if name == CONFIG_VARIABLE || !is_section {
            let meant = sections.iter().find_map(|section| {
                let setting = only.strip_prefix(section.key)?.strip_prefix('_')?;
                let known = section
                    .settings
                    .iter()
                    .any(|declared| declared.name == setting);
                known.then(|| format!("{PREFIX}{}__{setting}", section.key).to_uppercase())
            });
            if let Some(meant) = meant {
                let message = format!("not a setting; did you mean {meant}?");
                reader.problem(Problem::at(&Origin::Variable(name.to_owned()), message));
            }
            return;
        }
    }
    let origin = Origin::Variable(name.to_owned());
    let Some(value) = value.to_str() else {
        return reader.problem(Problem::at(&origin, "not UTF-8"));
    };
    add(
        root,
        &path,
        Node {
            origin,
            value: Value::Raw(value.to_owned()),
        },
        reader,
    );
}
