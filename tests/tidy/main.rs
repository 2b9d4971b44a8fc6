//! The rules of the house, as tests: what a reader of `src/README.md` may rely on.
//!
//! A rule that fails says where, and what to do instead. To change a rule, change it here and in the map, in
//! the same commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod code;
mod complement;
mod crates;
mod dependencies;
mod pages;
mod rust;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file, by its path from the root.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files with this extension below these folders, as paths from the root, sorted.
fn files(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What tools leave behind in the work tree is nobody's source.
            if name.starts_with('.') || ["target", "node_modules", "venv"].contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Fails with all of `faults`, if there are any.
#[track_caller]
fn none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}\n  {}", faults.join("\n  "));
}
