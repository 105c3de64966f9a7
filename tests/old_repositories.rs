//! Risk: a new program does not read what an old one has stored, or what an old one left in a cache
//! stops it.
//! Method: one small repository for each revision of the format, committed as it was made, with what
//! restoring it gave then. Each is opened by each of its keys, checked to the last byte, restored and
//! compared, and a copy of it goes on with new backups. Cache files are made to be of another version.
//!
//! `ESKER_MAKE_REPOSITORY=format-2 cargo test --test old_repositories made` makes a further one, of the
//! format as it is now, to be listed here and committed. Those that were released are never changed.

#[allow(dead_code)]
#[path = "support/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

#[path = "old_repositories/local.rs"]
mod local;
#[path = "old_repositories/make.rs"]
mod make;
#[path = "old_repositories/museum.rs"]
mod museum;

use std::collections::BTreeSet;
use std::fs;

use esker::format::access::Role;
use esker::format::config::FORMAT_VERSION;

use museum::{Museum, directory};

/// Every repository there is, oldest first.
const REPOSITORIES: [&str; 1] = ["format-1"];

#[test]
fn every_repository_there_is_listed_here_and_every_listed_one_is_there() {
    let found: BTreeSet<String> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, REPOSITORIES.iter().map(|name| (*name).to_owned()).collect());
}

/// Makes one when it is asked to, and only where there is none.
#[test]
fn a_repository_is_made_when_one_is_asked_for() {
    if let Some(name) = std::env::var_os("ESKER_MAKE_REPOSITORY") {
        make::make(&directory().join(name));
    }
}

#[test]
fn every_key_opens_and_everything_restores_to_what_it_did_then() {
    for name in REPOSITORIES {
        let museum = Museum::copy_of(name);
        let secrets = museum.secrets();
        assert_eq!(secrets.len(), 4, "{name}: two owners' key files, a password, a writer's key file");
        for (what, secret) in secrets {
            let repo = museum.open(&secret);
            if repo.keys.role == Role::Owner {
                museum.is_sound(&repo, &format!("{name} by {what}"));
                assert_eq!(museum.restored(&repo), museum.manifest(), "{name} by {what}");
            }
        }
    }
}

#[test]
fn a_copy_of_each_goes_on_with_new_backups() {
    for name in REPOSITORIES {
        let museum = Museum::copy_of(name);
        let source = museum.dir().join("source");
        fs::create_dir_all(source.join("new")).unwrap();
        fs::write(source.join("new/file"), repo::noise(1, 50_000)).unwrap();
        let owner = museum.open(&museum.owner());
        for (what, secret) in museum.secrets() {
            fs::write(source.join("new/by"), what).unwrap();
            let writer = museum.open(&secret);
            let id = museum.back_up(&writer, &source);
            let target = museum.dir().join(format!("restored-{}", id.short()));
            museum.restore(&owner, &id, &source, &target);
            assert_eq!(tree::lines(&target), tree::lines(&source), "{name} by {what}");
        }
        museum.is_sound(&owner, name);
        let restored = museum.restored(&owner);
        assert!(restored.starts_with(&museum.manifest()), "{name}: what was there is there still");
    }
}

/// Otherwise these tests say less than they seem to.
#[test]
fn the_newest_repository_is_of_this_format_and_has_something_of_everything() {
    let museum = Museum::copy_of(REPOSITORIES[REPOSITORIES.len() - 1]);
    let owner = museum.open(&museum.owner());
    assert_eq!(owner.config.version, FORMAT_VERSION, "make one of this version");
    let found = museum.what_is_in(&owner);
    let wanted: BTreeSet<&str> = [
        "a checkpoint",
        "a compressed frame",
        "a directory of several nodes",
        "a hard link",
        "a hole",
        "a key file of an owner",
        "a list of pieces",
        "a password",
        "a raw frame",
        "a segment by itself",
        "a segment in a commit",
        "a symbolic link",
        "a writer",
        "an extended attribute",
        "padding",
        "several packs",
        "zeros",
    ]
    .into();
    assert_eq!(found, wanted);
    let bytes: u64 = museum.files().iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 300_000, "{bytes} bytes are much for everybody to fetch");
}
