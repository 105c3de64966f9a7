//! What earlier runs have copied into a repository with other ids, learned from a snapshot that is in both.
//!
//! The two trees are gone through side by side: what stands under one name is one content. Only an owner can
//! read what is at the target; and only of snapshots by keys that are relied on is it believed what they are
//! copies of. Before anything is reused it is looked up, chunk by chunk, as every chunk is (W4).

use std::path::{Path, PathBuf};

use super::recut::{chunk_ids, content_key};
use super::target::Target;
use crate::error::{Context, Result};
use crate::format::cbor::{self, Extra};
use crate::format::tree::{Attributes, Content, Detail, Entry, Piece};
use crate::index::{SessionTable, SpilledValues};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::content::Reader;
use crate::repo::reader::Pieces;
use crate::repo::walk::Walk;

/// What contents of the source became at the target.
pub(super) struct Learned<'a, 'r> {
    target: &'a Reader<'r>,
    contents: SpilledValues,
    spill: PathBuf,
}

impl<'a, 'r> Learned<'a, 'r> {
    /// Nothing yet.
    pub(super) fn new(target: &'a Reader<'r>) -> Self {
        let spill = target.repo().cache_directory().map_or_else(std::env::temp_dir, Path::to_owned);
        Self { target, contents: SpilledValues::new(&spill, SpilledValues::ENTRIES_MAX), spill }
    }

    /// Goes through a tree of the source and its copy. Where they part, or cannot be read, it ends: what was not
    /// learned is read again, nothing else.
    pub(super) fn learn(&mut self, source: &Reader<'_>, root: &Entry, copy: &Entry, monitor: &Monitor) -> Result<()> {
        let (mut ours, mut theirs) =
            (Walk::below(source, TreePath::root(), root), Walk::below(self.target, TreePath::root(), copy));
        while let (Some(Ok(from)), Some(Ok(to))) = (ours.next(), theirs.next()) {
            if monitor.stopping() {
                return Err(super::interrupted());
            }
            if from.name != to.name || from.kind() != to.kind() || from.size() != to.size() {
                break;
            }
            if let (Detail::File { .. }, Detail::File { size, content, .. }) = (&from.detail, &to.detail) {
                let detail = Detail::File { size: *size, content: content.clone(), holes: Vec::new() };
                let value = Entry { name: None, attributes: Attributes::default(), detail, extra: Extra::default() };
                let learned = self.contents.insert(content_key(&from.detail), &cbor::encode(&value));
                learned.context(|| "cannot remember what was copied before")?;
            }
        }
        Ok(())
    }

    /// What a content became, if all of that may be reused.
    pub(super) fn get(&self, key: &[u8; 32], target: &mut Target<'_>) -> Result<Option<Detail>> {
        let Some(value) = self.contents.get(key) else { return Ok(None) };
        let Ok(Entry { detail, .. }) = cbor::decode::<Entry>(&value) else { return Ok(None) };
        let Detail::File { content, .. } = &detail else { return Ok(None) };
        let chunks = target.chunks();
        let is_there = match content {
            Content::Inline(pieces) => chunk_ids(pieces).all(|id| !chunks.wants(id)),
            Content::List { .. } => {
                let mut lacks_node = false;
                let mut seen = SessionTable::new(&self.spill, SessionTable::ENTRIES_MAX);
                let mut pieces = Pieces::new(self.target, content).unless(|node| {
                    lacks_node |= chunks.wants(node);
                    !seen.claim(*node).unwrap_or(true)
                });
                let is_there =
                    |piece: Result<Piece>| piece.is_ok_and(|piece| chunk_ids(&[piece]).all(|id| !chunks.wants(id)));
                let has_all = pieces.by_ref().all(is_there);
                drop(pieces);
                has_all && !lacks_node
            }
        };
        Ok(is_there.then_some(detail))
    }
}
