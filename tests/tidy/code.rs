//! Rules about the text of the source.

use crate::rust::{Source, end_of_item, lines};
use crate::{files, none};

/// More is two things in one file.
const FILE_LINES: usize = 700;

/// More is two things in one function.
const FUNCTION_LINES: usize = 100;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = [
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "mod",
];

/// What ends the task when a stranger sends the wrong thing. Clippy sees to `unwrap` and `expect`.
const PANICS: [&str; 4] = ["panic!(", "unreachable!(", "todo!(", "unimplemented!("];

/// Lints that only tests may switch off.
const LINTS_OF_TESTS: [&str; 4] = [
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::indexing_slicing",
    "clippy::panic",
];

fn sources() -> Vec<Source> {
    files(&["src", "tests"], "rs")
        .iter()
        .map(|path| Source::read(path))
        .collect()
}

/// The source of a crate below `src`, or of the binary.
fn of_crate<'a>(sources: &'a [Source], name: &'a str) -> impl Iterator<Item = &'a Source> {
    sources
        .iter()
        .filter(move |source| source.path.starts_with(format!("src/{name}")))
}

/// Every fault in every source.
fn faults(find: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(find).collect()
}

fn word(word: &str) -> impl Fn(&str) -> bool {
    move |line| {
        line.match_indices(word).any(|(at, _)| {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            !line[..at].chars().next_back().is_some_and(is_name)
                && !line[at + word.len()..].chars().next().is_some_and(is_name)
        })
    }
}

#[test]
fn every_file_says_what_it_is() {
    let faults = faults(|source| {
        let says = source.text.starts_with("//! ") && !source.text.starts_with("//! The `");
        if says {
            vec![]
        } else {
            vec![source.path.display().to_string()]
        }
    });
    none(
        "A file begins with `//!` and a sentence on what lies in it:",
        &faults,
    );
}

#[test]
fn files_and_functions_are_short() {
    let long_files = faults(|source| match source.text.lines().count() {
        count if count > FILE_LINES => vec![format!("{} has {count}", source.path.display())],
        _ => vec![],
    });
    none(
        &format!("A file has at most {FILE_LINES} lines:"),
        &long_files,
    );
    let long_functions = faults(|source| {
        let code: Vec<char> = source.shipped().chars().collect();
        let text: String = code.iter().collect();
        let begins = text
            .match_indices("fn ")
            .map(|(at, _)| text[..at].chars().count());
        begins
            .filter(|at| *at == 0 || !code[at - 1].is_alphanumeric() && code[at - 1] != '_')
            .filter_map(|at| {
                let count = |end: usize| code[..end].iter().filter(|c| **c == '\n').count();
                let (from, to) = (count(at), count(end_of_item(&code, at)));
                let long = to - from + 1;
                (long > FUNCTION_LINES)
                    .then(|| format!("{}:{}: {long}", source.path.display(), from + 1))
            })
            .collect()
    });
    none(
        &format!("A function has at most {FUNCTION_LINES} lines:"),
        &long_functions,
    );
}

#[test]
fn names_say_something() {
    let empty_files = faults(|source| {
        let stem = source.path.file_stem().unwrap().to_str().unwrap();
        let empty = EMPTY_NAMES.contains(&stem);
        if empty {
            vec![source.path.display().to_string()]
        } else {
            vec![]
        }
    });
    none("A file is named after what lies in it:", &empty_files);
    let empty_names = faults(|source| {
        lines(source, &source.code, |line| {
            let declared = |kind: &str| {
                let (_, rest) = line.split_once(kind)?;
                rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
            };
            if let Some(name) = declared("fn ")
                && (name.starts_with("handle_") || name.starts_with("process_"))
            {
                return Some(name.to_owned());
            }
            let name = ["mod ", "struct ", "enum ", "trait "]
                .iter()
                .find_map(|kind| declared(kind))?;
            let lower = name.to_lowercase();
            EMPTY_NAMES
                .iter()
                .any(|empty| *empty != "mod" && (lower == *empty || lower.ends_with(empty)))
                .then(|| name.to_owned())
        })
    });
    none(
        "`handle_`, `process_`, managers and helpers hide what is done; name that:",
        &empty_names,
    );
}

#[test]
fn nothing_that_ships_panics() {
    let panics = faults(|source| {
        lines(source, &source.shipped(), |line| {
            PANICS
                .iter()
                .find(|panic| line.contains(**panic))
                .map(ToString::to_string)
        })
    });
    none(
        "Remote input never panics the server; return an error:",
        &panics,
    );
    let allowed = faults(|source| {
        lines(source, &source.shipped(), |line| {
            let allows = line.contains("allow(") || line.contains("expect(");
            LINTS_OF_TESTS
                .iter()
                .find(|lint| allows && line.contains(**lint))
                .map(ToString::to_string)
        })
    });
    none("These lints are off in tests only:", &allowed);
}

#[test]
fn there_is_no_state_beside_the_server() {
    let kinds = [
        "Mutex",
        "RwLock",
        "OnceLock",
        "OnceCell",
        "LazyLock<Mutex",
        "Atomic",
        "ArcSwap",
    ];
    let faults = faults(|source| {
        lines(source, &source.shipped(), |line| {
            let declares = line
                .trim_start()
                .trim_start_matches("pub ")
                .starts_with("static ");
            let changes =
                line.contains("static mut") || kinds.iter().any(|kind| line.contains(kind));
            (declares && changes || line.contains("thread_local!")).then(|| line.trim().to_owned())
        })
    });
    none(
        "Everything hangs off one `api::Server`, so that a test can have three:",
        &faults,
    );
}

#[test]
fn pdu_is_pure() {
    let sources = sources();
    let faults: Vec<_> = of_crate(&sources, "pdu/")
        .flat_map(|source| {
            lines(source, &source.shipped(), |line| {
                [
                    "std::fs",
                    "std::net",
                    "std::env",
                    "std::thread",
                    "std::process",
                    "std::time",
                    "async",
                    "await",
                ]
                .into_iter()
                .chain(["tokio", "rand", "SystemTime", "Instant", "tracing"])
                .find(|impure| word(impure)(line))
                .map(str::to_owned)
            })
        })
        .collect();
    none("`pdu` has no I/O, async, clock or randomness:", &faults);
}

#[test]
fn only_storage_names_an_engine() {
    let faults = faults(|source| {
        if source.path.starts_with("src/storage") || source.path.starts_with("tests/tidy") {
            return vec![];
        }
        lines(source, &source.code, |line| {
            word("rocksdb")(line).then(|| line.trim().to_owned())
        })
    });
    none("Engines are known in `storage` alone:", &faults);
}

#[test]
fn connections_are_opened_by_federation_only() {
    let faults = faults(|source| {
        if source.path.starts_with("src/federation") {
            return vec![];
        }
        lines(source, &source.shipped(), |line| {
            [
                "reqwest",
                "TcpStream::connect",
                "UdpSocket",
                "hyper_util::client",
                "hickory",
            ]
            .into_iter()
            .find(|dial| line.contains(dial))
            .map(str::to_owned)
        })
    });
    none(
        "Other machines are reached through `federation`, where the limits are:",
        &faults,
    );
}

#[test]
fn tests_do_not_sleep_and_are_not_skipped() {
    let sleeping = faults(|source| {
        if source.path.starts_with("tests") {
            return vec![];
        }
        lines(source, &source.tests(), |line| {
            ["time::sleep(", "thread::sleep("]
                .into_iter()
                .find(|sleep| line.contains(sleep))
                .map(str::to_owned)
        })
    });
    none("A unit test has a clock of its own:", &sleeping);
    let skipped = faults(|source| {
        lines(source, &source.code, |line| {
            line.contains("#[ignore").then(|| line.trim().to_owned())
        })
    });
    none("A test runs, or is not there:", &skipped);
}
