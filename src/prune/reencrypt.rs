//! Storing anew, under the newest epoch's keys, what is sealed under older ones (SPEC §4.5): what makes a
//! rotation hold for what was stored before it.
//!
//! Ids and cuts stay as they are in every epoch, so snapshots stay as they are too: their chunks get another place.
//! It is the rewriting of a collection and no more: an ordinary session, every id computed again, nothing
//! condemned. A collection keeps each chunk where it is sealed under the newest keys, and deletes the old packs.
//!
//! What was done is known by what is there. So it can be done in slices over weeks: the next run goes on
//! where the budget ended this one, or whatever else did.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::PackUse;
use super::repack;
use super::survey::{Live, Looking, Survey};
use crate::error::{Context, Error, Kind, Result};
use crate::format::access::Role;
use crate::id::PackId;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::repo::keys::not_an_owner;
use crate::repo::pack_writer::PackSettings;

/// A session takes no more than this, so that little is lost of a run that is stopped and memory does not grow.
const SESSION_BYTES: u64 = 1 << 30;

/// How much to store anew.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// No more than so many stored bytes.
    pub max_bytes: u64,
    /// How packs are made.
    pub packs: PackSettings,
    /// Only says what would be.
    pub dry_run: bool,
    /// How many snapshots are gone through at once.
    pub threads: usize,
}

/// Packs, and the part of them that is spoken of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many packs.
    pub packs: u64,
    /// Stored bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What was done, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// What snapshots need that was sealed under older keys alone before.
    pub before: Amount,
    /// Of this, what is stored anew.
    pub moved: Amount,
    /// Of this, what only a writer's key answers for: it is not moved until an owner has read it.
    pub unvouched: Amount,
    /// Bytes of the packs that were written.
    pub bytes_written: u64,
    /// Packs under older keys that nothing needs now: a collection deletes them.
    pub spent: Amount,
}

impl Report {
    /// What is left under older keys alone.
    pub fn left(&self) -> Amount {
        Amount { packs: self.before.packs - self.moved.packs, bytes: self.before.bytes - self.moved.bytes }
    }
}

/// Stores anew what is sealed under the oldest keys, as far as the budget goes. Only adds. Takes an owner.
pub fn run(repo: &Repository, options: &Options, monitor: &Monitor) -> Result<Report> {
    if repo.keys.role != Role::Owner {
        return Err(not_an_owner());
    }
    if !repo.is_up_to_date(&repo.keys.credential.id()) {
        let what = "this key was not granted the newest keys of the repository";
        return Err(Error::new(Kind::Refused, what).hint("let an owner who has them run `esker key rotate`"));
    }
    repo.refuse_if_behind()?;
    // Nothing is deleted, so sessions that lost their commits are no reason to stop.
    let looking = Looking { close_lost: true, threads: options.threads, own: None, monitor };
    let in_use = |survey: &Survey<'_>, live: &Live| survey.packs_in_use(live);
    let (survey, live, (packs, mut spent)) = Survey::look(repo, looking)?.settled(looking, None, in_use)?;
    let older = packs.iter().filter(|(_, pack)| pack.epochs_behind > 0 && pack.kept_bytes > 0);
    let older: BTreeMap<PackId, PackUse> = older.map(|(id, pack)| (*id, *pack)).collect();
    let mut report = Report::default();
    for pack in older.values() {
        report.before.add(pack.live_bytes());
        if !pack.movable {
            report.unvouched.add(pack.live_bytes());
        }
    }
    let slices = choose(&older, options.max_bytes, SESSION_BYTES);
    for pack in slices.iter().flatten() {
        report.moved.add(older[pack].live_bytes());
        spent.add(older[pack].stored_bytes);
    }
    report.spent = spent;
    if report.moved.packs == 0 {
        refuse_too_little(&older, options.max_bytes)?;
    }
    if !options.dry_run {
        for slice in &slices {
            report.bytes_written += repack::run(&survey, &live, slice, options.packs, monitor)
                .context(|| "not all was stored anew; what was, is found by the next run")?;
        }
    }
    Ok(report)
}

/// The packs to be stored anew, the oldest keys first, in slices of one session each.
fn choose(older: &BTreeMap<PackId, PackUse>, max_bytes: u64, session_bytes: u64) -> Vec<BTreeSet<PackId>> {
    let mut order: Vec<_> = older.iter().filter(|(_, pack)| pack.movable).collect();
    order.sort_by_key(|(id, pack)| (std::cmp::Reverse(pack.epochs_behind), **id));
    let (mut taken, mut in_slice) = (0_u64, 0_u64);
    let mut slices: Vec<BTreeSet<PackId>> = Vec::new();
    for (id, pack) in order {
        let bytes = pack.live_bytes();
        if taken.saturating_add(bytes) > max_bytes {
            continue;
        }
        taken += bytes;
        if slices.is_empty() || in_slice + bytes > session_bytes {
            slices.push(BTreeSet::new());
            in_slice = 0;
        }
        in_slice += bytes;
        slices.last_mut().expect("one was pushed").insert(*id);
    }
    slices
}

/// A budget that no pack fits in would never get anywhere.
fn refuse_too_little(older: &BTreeMap<PackId, PackUse>, max_bytes: u64) -> Result<()> {
    let smallest = older.values().filter(|pack| pack.movable).map(PackUse::live_bytes).min();
    match smallest.filter(|smallest| *smallest > max_bytes) {
        None => Ok(()),
        Some(bytes) => {
            let what = "nothing was stored anew: no pack is as small as `--max-bytes`";
            Err(Error::new(Kind::Refused, what).hint(format!("allow at least `--max-bytes {bytes}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(epochs_behind: usize, bytes: u64) -> PackUse {
        let movable = epochs_behind < 9;
        PackUse { stored_bytes: bytes, plain_bytes: 1, kept_bytes: 1, movable, epochs_behind, ..PackUse::default() }
    }

    fn chosen(packs: &[PackUse], max_bytes: u64) -> Vec<Vec<u8>> {
        let packs = (0..).map(|n| PackId::from_bytes([n; 32])).zip(packs.iter().copied()).collect();
        let slices = choose(&packs, max_bytes, 50);
        slices.iter().map(|slice| slice.iter().map(|id| id.as_bytes()[0]).collect()).collect()
    }

    #[test]
    fn the_oldest_go_first_and_no_further_than_the_budget_or_a_session() {
        let packs = [pack(1, 30), pack(2, 30), pack(1, 10), pack(9, 1), pack(1, 80)];
        assert_eq!(chosen(&packs, u64::MAX), [vec![1], vec![0, 2], vec![4]]);
        assert_eq!(chosen(&packs, 69), [vec![1], vec![0]], "what does not fit is passed over");
        assert_eq!(chosen(&packs, 45), [vec![1, 2]]);
        assert!(chosen(&packs, 9).is_empty());
        let older = [(PackId::from_bytes([0; 32]), pack(1, 10))].into();
        let error = refuse_too_little(&older, 9).unwrap_err();
        assert_eq!(error.hint_text(), Some("allow at least `--max-bytes 10`"));
        assert!(refuse_too_little(&older, 10).is_ok());
    }
}
