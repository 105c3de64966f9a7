//! The table of attacks in SPEC §2.2: no defence is claimed that no test holds, and no attack is
//! carried out here that the threat model does not speak of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of Rust below a directory.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names of the tests in some text of Rust: functions below `#[test]`.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let functions = text.split("#[test]").skip(1).filter_map(|after| after.split_once("fn "));
    functions.filter_map(|(_, rest)| rest.split_once('(')).map(|(name, _)| name)
}

/// The rows of the tables behind the marker: cells between bars.
fn rows(spec: &str) -> Vec<Vec<&str>> {
    let (_, behind) = spec.split_once("<!-- attacks -->").expect("the specification has the table of attacks");
    let (tables, _) = behind.split_once("\n### ").expect("a section follows");
    let lines = tables.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").collect()).filter(|cells: &Vec<&str>| cells.last() != Some(&"tests")).collect()
}

#[test]
fn every_attack_of_the_threat_model_has_a_defence_and_a_test() {
    let spec = fs::read_to_string(root().join("format-spec/SPEC.md")).unwrap();
    let sources: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let known: BTreeSet<&str> = sources.iter().flat_map(|text| tests_in(text)).collect();
    let rows = rows(&spec);
    assert!(rows.len() >= 30, "{} rows", rows.len());
    let mut named = BTreeSet::new();
    for row in &rows {
        let [attack, defence, tests] = row[..] else { panic!("a row of {} cells: {row:?}", row.len()) };
        assert!(!attack.is_empty() && !defence.is_empty(), "{row:?}");
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test of: {attack}");
        for test in tests {
            assert!(known.contains(test), "there is no test `{test}` of: {attack}");
            named.insert(test);
        }
    }
    let here = rust_files(&root().join("tests/attacks"));
    for path in here.iter().filter(|path| !path.ends_with("table.rs")) {
        let text = fs::read_to_string(path).unwrap();
        for test in tests_in(&text) {
            assert!(named.contains(test), "`{test}` is of no attack in SPEC §2.2");
        }
    }
}

#[test]
fn a_row_is_read_as_it_stands() {
    let spec = "<!-- attacks -->\n| what | defence | tests |\n|---|---|---|\n| a | §1 | `x`, `y` |\n\n### 2.3 Next\n| b | c | d |\n";
    assert_eq!(rows(spec), [["a", "§1", "`x`, `y`"]]);
    assert_eq!(
        tests_in("#[test]\nfn one() {}\nfn two() {}\n#[test]\n/// x\nfn three() {}").collect::<Vec<_>>(),
        ["one", "three"]
    );
}
