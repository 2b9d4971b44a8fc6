//! What `deny.toml` says about the crates that are built in, held without `cargo deny`.

use std::process::Command;

use serde_json::Value;
use toml::Table;

use crate::{none, read, root};

fn packages() -> Vec<Value> {
    // `--locked` and not `--offline`: packages for other systems may not have been fetched yet.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn deny() -> Table {
    read("deny.toml").parse().unwrap()
}

fn strings(list: &toml::Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| entry.as_str().unwrap())
        .collect()
}

#[test]
fn licences_are_those_that_deny_toml_allows() {
    let deny = deny();
    let allowed = strings(&deny["licenses"]["allow"]);
    let faults: Vec<_> = packages()
        .iter()
        .filter(|package| {
            !package["license"]
                .as_str()
                .is_some_and(|licence| satisfied(licence, &allowed))
        })
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    none("Licences that deny.toml does not allow:", &faults);
}

#[test]
fn banned_crates_and_foreign_sources_stay_out() {
    let deny = deny();
    let registries = strings(&deny["sources"]["allow-registry"]);
    let bans: Vec<&toml::Value> = deny["bans"]["deny"].as_array().unwrap().iter().collect();
    let packages = packages();
    let mut faults = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        if let Some(source) = package["source"].as_str()
            && !registries
                .iter()
                .any(|registry| source == format!("registry+{registry}"))
        {
            faults.push(format!("{name} comes from {source}"));
        }
        let Some(ban) = bans.iter().find(|ban| ban["name"].as_str() == Some(name)) else {
            continue;
        };
        let wrappers = ban.get("wrappers").map(strings).unwrap_or_default();
        let users = packages.iter().filter(|user| {
            let list = user["dependencies"].as_array().unwrap();
            let shipped = |entry: &&Value| {
                entry["name"] == name && entry["kind"].is_null() && entry["optional"] == false
            };
            list.iter().any(|entry| shipped(&entry))
        });
        for user in users {
            let user = user["name"].as_str().unwrap();
            if !wrappers.contains(&user) {
                faults.push(format!("{user} uses {name}; instead: {}", ban["reason"]));
            }
        }
    }
    none("deny.toml keeps these out:", &faults);
}

/// Whether an SPDX expression can be met with these licences. `/` is an old way to write `OR`.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &tokens[..];
    let met = any(&mut rest, allowed);
    met && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = all(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        // Not `||`: the other side must be read in any case.
        met |= all(rest, allowed);
    }
    met
}

fn all(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let Some((first, more)) = rest.split_first() else {
        return false;
    };
    *rest = more;
    if *first == "(" {
        let met = any(rest, allowed);
        let closed = rest.first() == Some(&")");
        *rest = rest.get(1..).unwrap_or_default();
        return met && closed;
    }
    if let Some((&"WITH", [exception, more @ ..])) = rest.split_first() {
        *rest = more;
        return allowed.contains(&format!("{first} WITH {exception}").as_str());
    }
    allowed.contains(first)
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT", "ISC"];
    for met in [
        "MIT",
        "MIT OR X",
        "X/MIT",
        "MIT AND ISC",
        "(X OR MIT) AND ISC",
        "X WITH y OR MIT",
    ] {
        assert!(satisfied(met, &allowed), "{met}");
    }
    for not in [
        "",
        "X",
        "MIT AND X",
        "(MIT OR ISC) AND X",
        "MIT WITH y",
        "MIT)",
        "(MIT",
        "MIT MIT",
    ] {
        assert!(!satisfied(not, &allowed), "{not}");
    }
}
