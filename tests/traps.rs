//! Risk: a bug that lost data in another tool comes to be here, because the test that held it off was renamed
//! or taken away.
//! Method: every row of docs/traps.md names tests, and each of them is there, as a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => rust_files(&path, into),
            false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
            false => {}
        }
    }
}

/// Names of functions below an attribute `#[test]`, those within `proptest!` too.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| rust_files(Path::new(folder), &mut files));
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[test]") {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                names.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn every_bug_that_lost_data_elsewhere_has_a_test_here() {
    let page = fs::read_to_string("docs/traps.md").unwrap();
    let tests = tests();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| where ")).collect();
    assert!(rows.len() >= 23, "only {} rows", rows.len());
    let mut faults = Vec::new();
    for row in rows {
        let named: Vec<_> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            faults.push(format!("no test is named: {row}"));
        }
        faults.extend(named.iter().filter(|name| !tests.contains(**name)).map(|name| format!("no test `{name}`")));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
