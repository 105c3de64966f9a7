//! In which order a repository's objects come to a mirror, and go.
//!
//! As a writer puts them (SPEC §9.5): packs, then segments, then the commits that name them. What takes
//! something back comes after what takes its place: sweeps after commits, so that a chunk that was rewritten
//! is found in the new pack before the old one is called dead. `copies/config` is first, and says whose mirror
//! is begun; `config` is last, and until it is there, there is no repository.

use crate::repo::collections::{FLAGS, GC};
use crate::repo::commits::SNAPSHOTS;
use crate::repo::import::INDEX;
use crate::repo::open::{CONFIG, COPIES};
use crate::repo::session::{PACKS, SESSIONS};
use crate::storage::Listed;

/// When an object comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The second copy of the configuration.
    Begin,
    /// Slots, before the statements that name them.
    Slots,
    Statements,
    /// Announcements, before packs; and what is condemned.
    Sessions,
    Packs,
    Segments,
    /// Notes, logs and flags, before the commits that they are about.
    Notes,
    Commits,
    Sweeps,
    /// The ends of collections, which name sweeps and notes.
    Ends,
    /// The configuration.
    Config,
}

/// When an object comes; `None` if a mirror has none of it: signs of life, which are hints, writers' own change
/// records, and what is not known.
pub(super) fn stage(name: &str) -> Option<Stage> {
    let original = name.strip_prefix(COPIES).unwrap_or(name);
    if original == CONFIG {
        return Some(if original == name { Stage::Config } else { Stage::Begin });
    }
    let of_collection = |rest: &str| match rest.split_once('/')?.1 {
        "condemned" => Some(Stage::Sessions),
        "swept" => Some(Stage::Sweeps),
        "done" => Some(Stage::Ends),
        _ => None,
    };
    let folders = [
        (SESSIONS, Stage::Sessions),
        (PACKS, Stage::Packs),
        (INDEX, Stage::Segments),
        ("notes/", Stage::Notes),
        ("log/", Stage::Notes),
        (FLAGS, Stage::Notes),
        (SNAPSHOTS, Stage::Commits),
    ];
    match original {
        _ if original.starts_with("keys/") => Some(Stage::Slots),
        _ if original.starts_with("access/") => Some(Stage::Statements),
        _ if original != name => None,
        _ => match name.strip_prefix(GC) {
            Some(rest) => of_collection(rest),
            None => folders.iter().find(|(folder, _)| name.starts_with(folder)).map(|(_, stage)| *stage),
        },
    }
}

pub(super) fn key(object: &Listed) -> (Option<Stage>, String) {
    (stage(&object.name), object.name.clone())
}

/// Puts objects into the order in which they come.
pub(super) fn sort(objects: &mut [Listed]) {
    objects.sort_by_cached_key(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rests_on_others_comes_after_them_and_hints_do_not_come() {
        let mut objects: Vec<Listed> = [
            "access/1",
            "cache/1/2",
            "config",
            "copies/access/1",
            "copies/config",
            "copies/keys/1",
            "copies/packs/1",
            "alive/1",
            "flags/1/2",
            "gc/1/condemned",
            "gc/1/done",
            "gc/1/swept",
            "gc/1/other",
            "index/1",
            "keys/1",
            "log/1",
            "notes/1",
            "packs/00/1",
            "parity/1",
            "probe/1",
            "sessions/1",
            "snapshots/1",
            "x",
        ]
        .map(|name| Listed { name: name.into(), bytes: 1 })
        .into();
        objects.retain(|object| stage(&object.name).is_some());
        sort(&mut objects);
        let names: Vec<_> = objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "copies/config",
                "copies/keys/1",
                "keys/1",
                "access/1",
                "copies/access/1",
                "gc/1/condemned",
                "sessions/1",
                "packs/00/1",
                "index/1",
                "flags/1/2",
                "log/1",
                "notes/1",
                "snapshots/1",
                "gc/1/swept",
                "gc/1/done",
                "config",
            ]
        );
    }
}
