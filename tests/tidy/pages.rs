//! What is written for people is true.

use config::Config;

use crate::{files, none, read, root};

/// The lines of the first fenced block under a heading of the README.
fn block(heading: &str) -> Vec<String> {
    let page = read("README.md");
    let mut lines = page
        .lines()
        .skip_while(|line| *line != format!("## {heading}"));
    assert!(
        lines.next().is_some(),
        "README.md has no heading {heading:?}"
    );
    lines
        .take_while(|line| !line.starts_with("## "))
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_readme_runs_and_tests_with_one_line_each() {
    for heading in ["Run it", "Test it"] {
        let lines = block(heading);
        assert_eq!(lines.len(), 1, "{heading}: {lines:?}");
        let script = root().join(&lines[0]);
        assert!(
            script.is_file(),
            "{heading}: {} is not a script of ours",
            lines[0]
        );
    }
}

#[test]
fn ci_runs_what_the_readme_says() {
    let ci = read(".ci/run");
    for part in [
        "cargo fmt",
        "cargo clippy",
        "-D warnings",
        "readme_command 'Test it'",
    ] {
        assert!(ci.contains(part), ".ci/run lacks {part}");
    }
}

#[test]
fn the_map_names_every_crate_and_every_invariant_test() {
    let map = read("src/README.md");
    let root: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = root["workspace"]["members"].as_array().unwrap().iter();
    let faults: Vec<_> = members
        .filter_map(|member| member.as_str().unwrap().strip_prefix("src/"))
        .filter(|name| !map.contains(&format!("`{name}`")) && !map.contains(&format!("`{name}/`")))
        .map(str::to_owned)
        .collect();
    none("src/README.md is the map; it lacks:", &faults);
}

#[test]
fn links_and_paths_of_the_pages_lead_somewhere() {
    let mut faults = Vec::new();
    let mut pages = files(&["src", "tests", "deploy", "complement"], "md");
    pages.push("README.md".into());
    for page in pages {
        let folder = page.parent().unwrap();
        let text = read(page.to_str().unwrap());
        for (_, rest) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let target = rest.split([')', '#']).next().unwrap();
            let local = !target.is_empty() && !target.contains("://");
            if local && !root().join(folder).join(target).exists() {
                faults.push(format!("{}: {target}", page.display()));
            }
        }
    }
    none("Links that lead nowhere:", &faults);
}

#[test]
fn example_settings_are_settings() {
    let examples = files(&["deploy", "complement"], "toml");
    assert!(!examples.is_empty());
    for example in examples {
        let text = read(example.to_str().unwrap());
        if let Err(problems) = Config::from_toml(&text) {
            panic!("{}: {problems}", example.display());
        }
    }
}

#[test]
fn the_example_for_load_is_open_and_logs_as_shipped() {
    let config = Config::from_toml(&read("deploy/examples/load.toml")).unwrap();
    assert!(config.registration.enabled && !config.registration.require_token);
    assert!(config.presence.enabled && !config.rate_limits.enabled);
    assert_eq!(config.log, Config::default().log);
}
