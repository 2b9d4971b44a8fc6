//! Which crate may use which: arrows point one way.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::{none, read};

/// Each crate of ours, below those it stands on, with those it may name.
const ARROWS: &str = "
    config:
    error:
    pdu:
    storage: config error pdu
    federation: config error pdu storage
    users: config error pdu storage federation
    rooms: config error pdu storage federation users
    media: config error pdu storage federation users rooms
    sync: config error pdu storage federation users rooms
    search: config error pdu storage federation users rooms
    outbox: config error pdu storage federation users rooms
    api: config error pdu storage federation users rooms media sync search outbox
    chapar: config error pdu storage federation users rooms media sync search outbox api
";

/// [`ARROWS`], read.
fn arrows() -> Vec<(&'static str, Vec<&'static str>)> {
    let lines = ARROWS.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, may_use)| (name.trim(), may_use.split_whitespace().collect()))
        .collect()
}

/// What is too heavy, or too far-reaching, to be named by more than one crate of ours; TLS by two, for it has
/// two ends: who listens and who connects.
const ONE_OWNER: [(&str, &str); 5] = [
    ("image", "media"),
    ("tantivy", "search"),
    ("rocksdb", "storage"),
    ("rustls", "api federation"),
    ("argon2", "users"),
];

/// What would make `pdu` impure.
const NOT_IN_PDU: [&str; 5] = ["tokio", "rand", "tracing", "futures-util", "reqwest"];

/// The manifest of a crate of ours.
fn manifest(name: &str) -> Table {
    let path = if name == "chapar" {
        "Cargo.toml".to_owned()
    } else {
        format!("src/{name}/Cargo.toml")
    };
    read(&path)
        .parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn keys(table: &Table, section: &str) -> BTreeSet<String> {
    match table.get(section) {
        Some(Value::Table(entries)) => entries.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

fn members() -> Vec<String> {
    let root = manifest("chapar");
    let list = root["workspace"]["members"].as_array().unwrap();
    list.iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let arrows = arrows();
    let ours: BTreeSet<&str> = arrows.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for (name, may_use) in &arrows {
        let manifest = manifest(name);
        let used: BTreeSet<String> = ["dependencies", "build-dependencies"]
            .iter()
            .flat_map(|section| keys(&manifest, section))
            .collect();
        for used in used.iter().filter(|used| ours.contains(used.as_str())) {
            if !may_use.contains(&used.as_str()) {
                faults.push(format!("{name} → {used}"));
            }
        }
    }
    none(
        "main → api → {sync, media, search} → rooms → users → federation → storage → pdu, and not back:",
        &faults,
    );
}

#[test]
fn every_member_is_known_here_and_in_dependency_order() {
    let in_src: Vec<String> = members()
        .iter()
        .filter_map(|member| member.strip_prefix("src/").map(str::to_owned))
        .collect();
    let known: Vec<&str> = arrows()
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != "chapar")
        .collect();
    assert_eq!(
        in_src, known,
        "Cargo.toml and the list above name the same crates in the same order"
    );
}

#[test]
fn heavy_crates_have_one_owner() {
    let mut faults = Vec::new();
    for (heavy, owner) in ONE_OWNER {
        for (name, _) in arrows() {
            if !owner.split(' ').any(|owner| owner == name)
                && keys(&manifest(name), "dependencies").contains(heavy)
            {
                faults.push(format!("{name} names {heavy}, which is {owner}'s"));
            }
        }
    }
    none("A heavy crate is named by one crate of ours:", &faults);
}

#[test]
fn pdu_depends_on_nothing_impure() {
    let used = keys(&manifest("pdu"), "dependencies");
    let faults: Vec<_> = NOT_IN_PDU
        .iter()
        .filter(|name| used.contains(**name))
        .map(ToString::to_string)
        .collect();
    none("`pdu` is pure:", &faults);
}

#[test]
fn crates_share_versions_and_lints() {
    let mut faults = Vec::new();
    for member in members() {
        let text = read(&format!("{member}/Cargo.toml"));
        let manifest: Table = text.parse().unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            faults.push(format!("{member} does not take the lints of the workspace"));
        }
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let entries: BTreeMap<_, _> = sections
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flatten()
            .collect();
        for (name, entry) in entries {
            let shared = entry.get("workspace").and_then(Value::as_bool) == Some(true);
            if !shared {
                faults.push(format!("{member} gives {name} a version of its own"));
            }
        }
    }
    none(
        "Versions and lints stand in the root's Cargo.toml:",
        &faults,
    );
}
