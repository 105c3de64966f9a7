//! The directories above snapshots: by time, by host, by tag and by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Named;
use super::inodes::What;
use crate::error::Result;
use crate::repo::content::Reader;
use crate::repo::snapshots::{Filter, SnapshotInfo};

/// The name of the link to the newest.
const LATEST: &[u8] = b"latest";

/// A directory above snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Group {
    Top,
    Ids,
    Snapshots,
    Hosts,
    Tags,
    Host(Vec<u8>),
    Tag(Vec<u8>),
}

/// Numbers of snapshots, by the names of their directories.
type Names = BTreeMap<Vec<u8>, usize>;

/// The snapshots at one moment, and a reader for them.
pub(super) struct View<'r> {
    pub(super) reader: Reader<'r>,
    pub(super) snapshots: Vec<SnapshotInfo>,
    ids: Names,
    times: Names,
    hosts: BTreeMap<Vec<u8>, Names>,
    tags: BTreeMap<Vec<u8>, Names>,
}

impl<'r> View<'r> {
    /// The snapshots that the filter takes; those that cannot be read are left out, and given with the reason.
    pub(super) fn new(
        reader: Reader<'r>,
        filter: Option<&Filter>,
        named: &Named,
    ) -> Result<(Self, crate::repo::snapshots::Unreadable)> {
        let (snapshots, unreadable) = match filter {
            Some(filter) => reader.snapshots(filter)?,
            None => Default::default(),
        };
        let (mut ids, mut times) = (Names::new(), Names::new());
        let (mut hosts, mut tags) = (BTreeMap::<_, Names>::new(), BTreeMap::<_, Names>::new());
        for (number, info) in snapshots.iter().enumerate() {
            let mut short = info.id().short();
            if ids.contains_key(short.as_bytes()) {
                short = info.id().to_string();
            }
            let name = format!("{}_{short}", named(info.snapshot.time)).into_bytes();
            ids.insert(short.into_bytes(), number);
            hosts.entry(as_name(&info.snapshot.hostname)).or_default().insert(name.clone(), number);
            for tag in &info.snapshot.tags {
                tags.entry(as_name(tag)).or_default().insert(name.clone(), number);
            }
            times.insert(name, number);
        }
        Ok((Self { reader, snapshots, ids, times, hosts, tags }, unreadable))
    }

    fn snapshot(&self, number: usize) -> What {
        What::Entry(Arc::new(self.snapshots[number].snapshot.root.clone()))
    }

    fn names(&self, group: &Group) -> Option<&Names> {
        match group {
            Group::Ids => Some(&self.ids),
            Group::Snapshots => Some(&self.times),
            Group::Host(host) => self.hosts.get(host),
            Group::Tag(tag) => self.tags.get(tag),
            Group::Top | Group::Hosts | Group::Tags => None,
        }
    }

    /// The directory name of the newest of a group. What a restore was about to lose is not meant, unless
    /// there is nothing else.
    fn latest<'a>(&self, names: &'a Names) -> Option<&'a Vec<u8>> {
        let newest = names.iter().max_by_key(|(_, number)| (!self.snapshots[**number].is_before_restore(), **number));
        newest.map(|(name, _)| name)
    }

    /// What has a name in a group.
    pub(super) fn child(&self, group: &Group, name: &[u8]) -> Option<What> {
        let known = |groups: &BTreeMap<Vec<u8>, Names>| groups.contains_key(name);
        match group {
            Group::Top => top().into_iter().find(|(known, _)| *known == name).map(|(_, group)| What::Group(group)),
            Group::Hosts => known(&self.hosts).then(|| What::Group(Group::Host(name.to_vec()))),
            Group::Tags => known(&self.tags).then(|| What::Group(Group::Tag(name.to_vec()))),
            _ => {
                let names = self.names(group)?;
                match names.get(name) {
                    Some(number) => Some(self.snapshot(*number)),
                    None if name == LATEST && *group != Group::Ids => self.latest(names).cloned().map(What::Link),
                    None => None,
                }
            }
        }
    }

    /// The names in a group, and whether each is a link.
    pub(super) fn list(&self, group: &Group) -> Vec<(Vec<u8>, bool)> {
        let directories = |names: &mut dyn Iterator<Item = &Vec<u8>>| names.map(|name| (name.clone(), false)).collect();
        match group {
            Group::Top => top().into_iter().map(|(name, _)| (name.to_vec(), false)).collect(),
            Group::Hosts => directories(&mut self.hosts.keys()),
            Group::Tags => directories(&mut self.tags.keys()),
            _ => {
                let Some(names) = self.names(group) else { return Vec::new() };
                let mut list: Vec<_> = directories(&mut names.keys());
                if *group != Group::Ids && !names.is_empty() {
                    list.push((LATEST.to_vec(), true));
                }
                list
            }
        }
    }
}

fn top() -> [(&'static [u8], Group); 4] {
    [(b"hosts", Group::Hosts), (b"ids", Group::Ids), (b"snapshots", Group::Snapshots), (b"tags", Group::Tags)]
}

/// A host or a tag as the name of a directory.
fn as_name(text: &str) -> Vec<u8> {
    let name: String = text.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
    match &*name {
        "" | "." | ".." => b"_".to_vec(),
        _ => name.into_bytes().into_iter().take(255).collect(),
    }
}
