//! Risk: a drill says that all is well although what came back is not what was recorded; or it is a danger itself.
//! Method: trees are stored in a repository in memory and restored as a drill does; what was restored is changed
//! on disk, one thing at a time, and every change has to be found.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;
use crate::format::tree::{Attributes, Hole};
use crate::repo::testing::{FakeRepo, entry, plain};

fn options(target: &Path) -> Options {
    Options {
        target: target.to_owned(),
        keep: false,
        check: None,
        max_duration: None,
        began: Duration::ZERO,
        threads: 2,
        spill: target.to_owned(),
    }
}

/// What a drill finds when `meddle` has had what was restored in between.
fn found(
    repo: &FakeRepo,
    root: &Entry,
    privileged: bool,
    meddle: impl Fn(&Path),
) -> (RestoreReport, Counts, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let room = Room::make(dir.path(), &World::seeded(1), false).unwrap();
    let (base, monitor) = (TreePath::root(), Monitor::silent());
    let work = Work { repo, base: &base, room: &room, options: &options, monitor: &monitor, privileged };
    let restored = work.bring_back(root).unwrap();
    meddle(&room.restored_path());
    let mut told = Vec::new();
    let found = work.compare(root, &mut |one| {
        if let Told::Wrong(path, wrong) = one {
            told.push(format!("{wrong:?} {path}"));
        }
        Ok(())
    });
    let found = found.unwrap();
    drop(room);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the room is still there");
    (restored, found, told)
}

/// A tree with one of everything.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("docs/old")).unwrap();
    fs::write(dir.join("docs/notes"), vec![7; 50_000]).unwrap();
    fs::write(dir.join("docs/plan"), "plan").unwrap();
    fs::write(dir.join("docs/old/linked"), "one file").unwrap();
    fs::hard_link(dir.join("docs/old/linked"), dir.join("docs/linked")).unwrap();
    fs::write(dir.join("docs/old/other"), "other file").unwrap();
    fs::hard_link(dir.join("docs/old/other"), dir.join("docs/other")).unwrap();
    fs::write(dir.join("alone"), "alone").unwrap();
    symlink("docs/plan", dir.join("link")).unwrap();
    rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    rustix::fs::setxattr(dir.join("docs/plan"), "user.comment", b"mine", XattrFlags::empty()).unwrap();
}

#[test]
fn every_way_in_which_what_came_back_may_differ_is_found() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut repo = FakeRepo::new();
    let root = repo.store(b"", dir.path());
    let root = Entry { name: None, ..root };
    let (restored, clean, told) = found(&repo, &root, true, |_| {});
    assert_eq!((clean, told), (Counts::default(), Vec::new()));
    assert_eq!((restored.files, restored.hard_links, restored.problems), (6 - 1, 2, 0));

    type Meddle = fn(&Path);
    // Whatever is changed, the time of the directory it is in may be told, too.
    let cases: [(&str, Meddle); 12] = [
        ("Content /docs/notes", |at| {
            let path = at.join("docs/notes");
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[40_000] ^= 1;
            fs::write(&path, bytes).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }),
        ("Content /docs/plan", |at| fs::write(at.join("docs/plan"), "plan and more").unwrap()),
        ("Content /link", |at| {
            fs::remove_file(at.join("link")).unwrap();
            symlink("docs/notes", at.join("link")).unwrap();
        }),
        ("Missing /alone", |at| fs::remove_file(at.join("alone")).unwrap()),
        ("Extra /docs/new", |at| fs::write(at.join("docs/new"), "").unwrap()),
        ("Type /alone", |at| {
            fs::remove_file(at.join("alone")).unwrap();
            fs::create_dir(at.join("alone")).unwrap();
        }),
        ("Type /pipe", |at| {
            fs::remove_file(at.join("pipe")).unwrap();
            fs::write(at.join("pipe"), "").unwrap();
        }),
        ("Attributes /alone", |at| {
            fs::set_permissions(at.join("alone"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        ("Attributes /alone", |at| {
            let file = fs::File::options().write(true).open(at.join("alone")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("Attributes /docs/plan", |at| rustix::fs::removexattr(at.join("docs/plan"), "user.comment").unwrap()),
        // A copy where a hard link was, and a hard link of two files that were apart.
        ("Links /docs/old/linked", |at| {
            let (path, new) = (at.join("docs/old/linked"), at.join("docs/old/new"));
            fs::copy(&path, &new).unwrap();
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
            rustix::fs::rename(new, path).unwrap();
        }),
        ("Links /alone", |at| fs::hard_link(at.join("alone"), at.join("docs/again")).unwrap()),
    ];
    for (wanted, meddle) in cases {
        let (_, counts, told) = found(&repo, &root, true, meddle);
        assert!(told.iter().any(|line| line == wanted), "{wanted}: {told:?}");
        let outcome = judge(&RestoreReport::default(), &counts);
        assert_eq!(outcome, Some(Outcome::Different), "{wanted}");
    }
}

#[test]
fn hard_links_of_groups_that_became_one_are_found() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(dir.path().join(name), "same").unwrap();
    }
    for (one, other) in [("a", "a2"), ("b", "b2")] {
        fs::hard_link(dir.path().join(one), dir.path().join(other)).unwrap();
    }
    let mut repo = FakeRepo::new();
    let root = Entry { name: None, ..repo.store(b"", dir.path()) };
    assert_eq!(found(&repo, &root, true, |_| {}).1.differences(), 0);
    // All four names are one file: each group by itself is whole, and both together are not.
    let (_, counts, _) = found(&repo, &root, true, |at| {
        let time = fs::metadata(at.join("b")).unwrap().modified().unwrap();
        for name in ["b", "b2"] {
            fs::remove_file(at.join(name)).unwrap();
            fs::hard_link(at.join("a"), at.join(name)).unwrap();
        }
        fs::File::options().write(true).open(at.join("a")).unwrap().set_modified(time).unwrap();
    });
    assert!(counts.different > 0, "{counts:?}");
}

#[test]
fn what_is_lost_or_damaged_is_damage_and_not_merely_missing() {
    let mut repo = FakeRepo::new();
    let (whole, hurt) = (repo.file("whole", b"whole"), repo.file("hurt", &[9; 30_000]));
    let chunk = repo.chunks_of(&hurt)[1];
    let root = repo.root(vec![whole, hurt]);
    repo.corrupt.insert(chunk);
    let (restored, counts, told) = found(&repo, &root, true, |_| {});
    assert_eq!(told, ["Missing /hurt"]);
    assert_eq!(judge(&restored, &counts), Some(Outcome::Damaged));
}

/// A snapshot of others' files, with powers of theirs and a door to a disk, as whoever writes to the repository
/// may make one.
#[test]
fn a_hostile_snapshot_gets_no_device_and_who_is_not_root_no_powers_and_neither_is_a_difference() {
    let mut repo = FakeRepo::new();
    let theirs = Attributes { mode: 0o6755, uid: 4242, gid: 4343, ..plain(0) };
    let program = repo.sparse_file(b"program", theirs.clone(), b"#!/bin/sh", Vec::<Hole>::new());
    let disk = entry(b"disk", plain(0o666), Detail::BlockDevice { major: 8, minor: 0 });
    let tty = entry(b"zero", plain(0o666), Detail::CharDevice { major: 1, minor: 5 });
    let root = repo.root(vec![program, disk, tty]);
    let (restored, counts, told) = found(&repo, &root, false, |at| {
        let meta = fs::metadata(at.join("program")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o755, "setuid of somebody who does not own it");
        assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
        assert_eq!(fs::read_dir(at).unwrap().count(), 1, "devices were made");
    });
    assert_eq!((restored.problems, counts.devices, told), (0, 2, Vec::new()));
    assert_eq!(judge(&restored, &counts), None);
    // It is the owner that is compared with privilege, and not without.
    if rustix::process::geteuid().is_root() {
        let (_, counts, told) = found(&repo, &root, true, |at| {
            std::os::unix::fs::chown(at.join("program"), Some(1), Some(1)).unwrap();
        });
        assert_eq!((counts.attributes, told), (1, vec!["Attributes /program".to_owned()]));
    }
}

#[test]
fn a_drill_is_refused_where_there_is_no_room_and_not_for_want_of_room_for_holes() {
    let mut repo = FakeRepo::new();
    let full = repo.file("full", &[7; 30_000]);
    let holes = vec![Hole { offset: 0, bytes: 1 << 20 }];
    let sparse = repo.sparse_file(b"sparse", plain(0o644), &vec![0; 1 << 20], holes);
    let root = repo.root(vec![full, sparse]);
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let room = Room::make(dir.path(), &World::seeded(1), false).unwrap();
    let (base, monitor) = (TreePath::root(), Monitor::silent());
    let work = Work { repo: &repo, base: &base, room: &room, options: &options, monitor: &monitor, privileged: false };
    let need = 30_000 + 3 * ENTRY_BYTES;
    let asked = |bytes, files| work.refuse_without_room(&root, Free { bytes, files }).map_err(|error| error.kind());
    assert_eq!(asked(need, Some(3)), Ok(()));
    assert_eq!(asked(need, None), Ok(()));
    assert_eq!(asked(need - 1, None), Err(Kind::Refused));
    assert_eq!(asked(need, Some(2)), Err(Kind::Refused));
}

#[test]
fn a_comparison_stops_when_it_is_told_to() {
    let mut repo = FakeRepo::new();
    let file = repo.file("file", b"file");
    let root = repo.root(vec![file]);
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let room = Room::make(dir.path(), &World::seeded(1), false).unwrap();
    let (base, monitor) = (TreePath::root(), Monitor::silent());
    let work = Work { repo: &repo, base: &base, room: &room, options: &options, monitor: &monitor, privileged: false };
    work.bring_back(&root).unwrap();
    monitor.stop();
    let stopped = work.compare(&root, &mut |_| Ok(())).unwrap_err();
    assert_eq!(stopped.kind(), Kind::Interrupted);
}
