//! The baseline of Complement's results, and the script that holds a run against it.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{none, read, root};

#[test]
fn every_failure_of_complement_says_what_it_waits_for() {
    let page = read("complement/README.md");
    let baseline = read("complement/results.tsv");
    let faults: Vec<_> = baseline
        .lines()
        .skip(1)
        .filter(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let named = |word: &str| page.contains(&format!("| `{word}` |"));
            match columns[..] {
                [_, "PASS" | "SKIP", waits] => !waits.is_empty(),
                [_, "FAIL", waits] => !waits.split(", ").all(named),
                _ => true,
            }
        })
        .map(str::to_owned)
        .collect();
    none(
        "A failure in complement/results.tsv names parts that complement/README.md lists:",
        &faults,
    );
}

/// A run of two groups: one passes whole, of the other a part fails, a part is skipped, and one never ends.
const LOG: &str = r#"go: downloading something
{"Action":"start","Package":"github.com/matrix-org/complement/tests/csapi"}
{"Action":"run","Package":"github.com/matrix-org/complement/tests/csapi","Test":"TestA"}
{"Action":"output","Package":"github.com/matrix-org/complement/tests/csapi","Test":"TestA","Output":"hello\n"}
{"Action":"pass","Package":"github.com/matrix-org/complement/tests/csapi","Test":"TestA"}
{"Action":"run","Package":"github.com/matrix-org/complement/tests","Test":"TestB"}
{"Action":"fail","Package":"github.com/matrix-org/complement/tests","Test":"TestB/one"}
{"Action":"skip","Package":"github.com/matrix-org/complement/tests","Test":"TestB/two"}
{"Action":"run","Package":"github.com/matrix-org/complement/tests","Test":"TestB/three"}
{"Action":"pass","Package":"github.com/matrix-org/complement/tests","Test":"TestB/three","Out{"Action":"start"}
17
{"Action":"fail","Package":"github.com/matrix-org/complement/tests","Test":"TestB"}
"#;

/// A folder with that log and a baseline.
struct Run(TempDir);

impl Run {
    fn new(baseline: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("log"), LOG).unwrap();
        fs::write(folder.path().join("baseline"), baseline).unwrap();
        Self(folder)
    }

    /// Whether the script ended well, and what it said.
    fn results(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(root().join("complement/results"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said)
    }

    fn baseline(&self) -> String {
        fs::read_to_string(self.0.path().join("baseline")).unwrap()
    }
}

const COMPARE: [&str; 4] = ["compare", "baseline", "log", "run"];
const ACCEPT: [&str; 4] = ["accept", "baseline", "log", "run"];

#[test]
fn a_run_that_is_better_or_worse_than_expected_shows() {
    let run = Run::new(
        "test\tresult\twaits for\n\
         csapi/TestA\tFAIL\tmedia\n\
         csapi/TestOld\tPASS\t\n\
         tests/TestB\tFAIL\tspaces\n\
         tests/TestB/one\tPASS\t\n\
         tests/TestB/three\tFAIL\tspaces\n\
         tests/TestB/two\tSKIP\t\n",
    );
    let (same, said) = run.results(&COMPARE);
    assert!(!same);
    let expected = [
        "PASS, was FAIL: csapi/TestA (waited for media)",
        "not there, was PASS: csapi/TestOld",
        "FAIL, was PASS: tests/TestB/one",
        "groups 1 of 2, tests 1 of 4",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    let (_, said) = run.results(&["output", "log", "csapi/TestA"]);
    assert_eq!(said, "hello\n");
}

#[test]
fn a_baseline_that_is_written_anew_keeps_what_failures_wait_for() {
    let run = Run::new(
        "test\tresult\twaits for\n\
         csapi/TestElsewhere\tFAIL\tsearch\n\
         tests/TestB/three\tFAIL\tspaces\n",
    );
    let (_, said) = run.results(&[&ACCEPT[..], &["tests", "csapi/TestA"]].concat());
    assert_eq!(
        said,
        "say in baseline what this waits for: tests/TestB/one\ngroups 1 of 2, tests 1 of 4\n"
    );
    let written = "test\tresult\twaits for\n\
                   csapi/TestA\tPASS\t\n\
                   csapi/TestElsewhere\tFAIL\tsearch\n\
                   tests/TestB\tFAIL\tspaces\n\
                   tests/TestB/one\tFAIL\t\n\
                   tests/TestB/three\tFAIL\tspaces\n\
                   tests/TestB/two\tSKIP\t\n";
    assert_eq!(run.baseline(), written);
    let (same, _) = run.results(&[&COMPARE[..], &["tests", "csapi/TestA"]].concat());
    assert!(same);
}
