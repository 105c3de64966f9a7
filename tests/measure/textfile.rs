use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use esker::service::textfile;

#[test]
fn it_is_replaced_as_a_whole_readable_by_all_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("esker.prom");
    textfile::write(&path, "old 1\n").unwrap();
    let old = fs::File::open(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    textfile::write(&path, "new 1\n").unwrap();
    assert_eq!(std::io::read_to_string(&old).unwrap(), "old 1\n", "who reads the old one reads it to its end");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new 1\n");
    assert_ne!(old.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["esker.prom"]);
}

#[test]
fn a_link_to_another_file_is_replaced_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("esker.prom"), dir.path().join("other"));
    fs::write(&other, "mine").unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join(format!(".esker.prom.{}.tmp", std::process::id()))).unwrap();
    textfile::write(&path, "new 1\n").unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn a_missing_directory_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/esker.prom");
    let error = textfile::write(&path, "").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write the metrics to `{}`", path.display()));
    assert_eq!(error.hint_text(), Some("make the directory, or change `textfile` in the configuration"));
}
