//! Risk: a module comes to lean on one above it, and the map in `lib.rs` stops being true.
//! Method: the source is read as text. Comments and test code are left out; a module in no row
//! and a grouped `use crate::{…}` are faults, so imports name the module that owns a thing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Lowest first. A module may import only modules in earlier rows.
const LAYERS: &[&[&str]] = &[
    &["id", "path", "world"],
    &["format", "crypto", "chunk", "storage"],
    &["index"],
    &["error"],
    &["monitor", "process"],
    &["repo"],
    &["source"],
    &[
        "backup", "restore", "check", "scrub", "dump", "ls", "find", "diff", "mount", "stats", "forget", "prune",
        "copy", "tag", "rewrite", "repair", "sessions",
    ],
    &["drill"],
    &["service"],
    &["cli"],
    &["fuzzing"],
];

#[test]
fn modules_import_only_lower_layers() {
    let files = rust_files(Path::new("src"));
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let tests: BTreeSet<_> = files.iter().zip(&texts).flat_map(|(file, text)| test_files(file, text)).collect();
    let mut faults = Vec::new();
    for (file, text) in files.iter().zip(&texts).filter(|(file, _)| !is_below(file, &tests)) {
        let Some(from) = top_module(file) else { continue };
        faults.extend(wrong_imports(&from, text).iter().map(|to| {
            format!("{}: `{from}` imports `{to}`", file.display()) // an empty name is a group
        }));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_map_names_every_module_once() {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let mut modules: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut listed = LAYERS.concat();
    modules.sort_unstable();
    listed.sort_unstable();
    assert_eq!(modules, listed);
}

#[test]
fn an_import_of_the_same_row_a_higher_row_or_a_group_is_a_fault() {
    let text = "
        use crate::id::PackId; // crate::cli
        /// [`crate::repo`]
        use crate::{id, path};
        fn f() { crate::crypto::seal(crate::format::tree::X, crate::repo::Y, crate::nowhere::Z) }
    ";
    assert_eq!(wrong_imports("format", text), ["", "crypto", "repo", "nowhere"]);
    assert_eq!(wrong_imports("nowhere", "use crate::id::PackId;"), ["id"]);
}

#[test]
fn test_code_may_import_anything() {
    let text = "use crate::id::X;\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\nuse crate::repo::Y;\n";
    assert_eq!(wrong_imports("format", text), ["repo"]);
    assert_eq!(
        test_files(Path::new("src/repo/mod.rs"), "#[cfg(test)]\npub(crate) mod testing;\n"),
        [PathBuf::from("src/repo/testing")]
    );
}

/// What `text`, a file of module `from`, imports and must not.
fn wrong_imports(from: &str, text: &str) -> Vec<String> {
    let rank = |name: &str| LAYERS.iter().position(|row| row.contains(&name));
    let code: Vec<_> = without_tests(text).map(|line| line.split("//").next().unwrap_or(line)).collect();
    let imports = code.iter().flat_map(|line| line.split("crate::").skip(1)).map(leading_ident);
    imports.filter(|to| to != from && rank(to).is_none_or(|to| Some(to) >= rank(from))).collect()
}

/// The lines but for the items under `#[cfg(test)]`: each ends where its indentation does.
fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    let mut item: Option<String> = None;
    text.lines().filter(move |line| {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let starts = line.trim() == "#[cfg(test)]";
        if starts {
            item.get_or_insert(indent);
        } else if let Some(outer) = &item
            && indent.len() <= outer.len()
            && !line.trim().is_empty()
            && (line.ends_with('}') || line.ends_with(';'))
        {
            item = None;
            return false;
        }
        item.is_none()
    })
}

/// The modules of their own file that `file` declares under `#[cfg(test)]`, without the ending.
fn test_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let (before, name) = pair[1].strip_suffix(';')?.rsplit_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then_some(name)
    });
    let folder = if file.ends_with("mod.rs") { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    declared.map(|name| folder.join(name)).collect()
}

fn is_below(file: &Path, modules: &BTreeSet<PathBuf>) -> bool {
    file.with_extension("").ancestors().any(|path| modules.contains(path))
}

/// `src/index/load.rs` is of `index`; `lib.rs` and `main.rs` are of none.
fn top_module(file: &Path) -> Option<String> {
    let first = file.strip_prefix("src").unwrap().components().next()?;
    let name = Path::new(&first).with_extension("").to_str()?.to_owned();
    (name != "lib" && name != "main").then_some(name)
}

fn leading_ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
