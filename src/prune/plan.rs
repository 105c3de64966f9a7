//! What a collection sets out to do: which packs it deletes as they are, and which it rewrites first.
//!
//! Rewriting a pack costs reading and writing what is live in it, and frees what is dead. So the packs
//! with the least to copy for each byte freed come first, until no more is unused than is allowed.
//! Small packs, as frequent snapshots leave them, are joined when there are enough to fill one.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Kind, Result};
use crate::id::PackId;

/// A share of the repository below this is never too much to delete.
const MAX_DELETE_FROM_BYTES: u64 = 1 << 30;

/// How much may stay unused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unused {
    /// A share of what is live, in percent.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// As much as there is: nothing is rewritten to free it.
    Unlimited,
}

/// Bounds of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How much may stay unused in packs that are in use.
    pub max_unused: Unused,
    /// How many bytes of packs may be rewritten.
    pub max_repack_bytes: u64,
    /// The share of a repository, in percent, that may be deleted, from a gibibyte up.
    pub max_delete_percent: f64,
    /// A pack shorter than this is small.
    pub small_pack_bytes: u64,
    /// As much is joined of small packs at least.
    pub join_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_unused: Unused::Percent(5.0),
            max_repack_bytes: u64::MAX,
            max_delete_percent: 30.0,
            small_pack_bytes: 4 << 20,
            join_bytes: 16 << 20,
        }
    }
}

/// How a pack is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackUse {
    /// Its length.
    pub stored_bytes: u64,
    /// Bytes of all chunks in it.
    pub plain_bytes: u64,
    /// Bytes of those kept there.
    pub kept_bytes: u64,
    /// Whether it holds directories or lists.
    pub has_trees: bool,
    /// Whether it may be rewritten: its session is certain and an owner answers for it.
    pub movable: bool,
    /// How many epochs are newer than the one it is sealed under.
    pub epochs_behind: usize,
}

impl PackUse {
    /// Takes in that another segment speaks of the same pack.
    pub fn join(&mut self, other: &Self) {
        self.kept_bytes = self.kept_bytes.max(other.kept_bytes);
        self.plain_bytes = self.plain_bytes.max(other.plain_bytes);
        self.has_trees |= other.has_trees;
        self.movable &= other.movable;
        self.epochs_behind = self.epochs_behind.max(other.epochs_behind);
    }

    /// The share of its length that what is kept takes.
    pub fn live_bytes(&self) -> u64 {
        match self.plain_bytes {
            0 => self.stored_bytes,
            plain => {
                let share = u128::from(self.stored_bytes) * u128::from(self.kept_bytes.min(plain)) / u128::from(plain);
                u64::try_from(share).unwrap_or(self.stored_bytes)
            }
        }
    }

    fn unused_bytes(&self) -> u64 {
        self.stored_bytes - self.live_bytes()
    }
}

/// What a collection sets out to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Packs of which nothing is needed.
    pub garbage: BTreeSet<PackId>,
    /// Their length.
    pub garbage_bytes: u64,
    /// Packs to be rewritten without what is dead in them, and small ones to be joined.
    pub repack: BTreeSet<PackId>,
    /// Their length.
    pub repack_bytes: u64,
    /// Of these, those rewritten only since they are small.
    pub joined: u64,
    /// About what rewriting frees.
    pub repack_frees_bytes: u64,
    /// Packs that stay as they are.
    pub kept: u64,
    /// Their length.
    pub kept_bytes: u64,
    /// What is unused in them.
    pub unused_bytes: u64,
    /// Length of all packs.
    pub stored_bytes: u64,
    /// Snapshots there are.
    pub snapshots: u64,
    /// Snapshots that are forgotten, and kept until their time is over and a collection has seen it.
    pub forgotten: u64,
    /// Sessions under way, or stopped.
    pub open_sessions: u64,
}

impl Plan {
    /// Chooses what to rewrite of the packs that are in use.
    pub fn choose(packs: &BTreeMap<PackId, PackUse>, limits: &Limits) -> Self {
        let live: u64 = packs.values().map(PackUse::live_bytes).sum();
        let unused: u64 = packs.values().map(PackUse::unused_bytes).sum();
        let allowed = match limits.max_unused {
            Unused::Percent(percent) => (live as f64 * percent.max(0.0) / 100.0) as u64,
            Unused::Bytes(bytes) => bytes,
            Unused::Unlimited => u64::MAX,
        };
        let mut plan = Self { unused_bytes: unused, ..Self::default() };
        let mut order: Vec<_> = packs.iter().filter(|(_, pack)| pack.movable && pack.unused_bytes() > 0).collect();
        // The least to copy for each byte freed first; a pack of trees before one of data, since trees are read often.
        let cost = |pack: &PackUse| pack.live_bytes() as f64 / pack.unused_bytes() as f64;
        order.sort_by(|(a_id, a), (b_id, b)| {
            cost(a).total_cmp(&cost(b)).then(b.has_trees.cmp(&a.has_trees)).then(a_id.cmp(b_id))
        });
        for (id, pack) in order {
            if plan.unused_bytes <= allowed {
                break;
            }
            if plan.repack_bytes.saturating_add(pack.live_bytes()) > limits.max_repack_bytes {
                continue;
            }
            plan.take(*id, pack);
        }
        let small: Vec<_> = packs
            .iter()
            .filter(|(id, pack)| {
                pack.movable && pack.stored_bytes < limits.small_pack_bytes && !plan.repack.contains(id)
            })
            .collect();
        let small_bytes: u64 = small.iter().map(|(_, pack)| pack.live_bytes()).sum();
        let fits = plan.repack_bytes.saturating_add(small_bytes) <= limits.max_repack_bytes;
        if small.len() > 1 && small_bytes >= limits.join_bytes && fits {
            plan.joined = small.len() as u64;
            for (id, pack) in small {
                plan.take(*id, pack);
            }
        }
        let kept = packs.iter().filter(|(id, _)| !plan.repack.contains(id));
        for (_, pack) in kept {
            plan.kept += 1;
            plan.kept_bytes += pack.stored_bytes;
        }
        plan
    }

    fn take(&mut self, id: PackId, pack: &PackUse) {
        self.repack.insert(id);
        self.repack_bytes += pack.live_bytes();
        self.repack_frees_bytes += pack.unused_bytes();
        self.unused_bytes -= pack.unused_bytes().min(self.unused_bytes);
    }

    /// About what the collection frees.
    pub fn frees_bytes(&self) -> u64 {
        self.garbage_bytes + self.repack_frees_bytes
    }

    /// Refuses a plan that deletes more of a repository than is usual: by mistake, or by malice.
    pub fn refuse_too_much(&self, limits: &Limits) -> Result<()> {
        let percent = self.frees_bytes() as f64 * 100.0 / (self.stored_bytes.max(1) as f64);
        if self.stored_bytes < MAX_DELETE_FROM_BYTES || percent <= limits.max_delete_percent {
            return Ok(());
        }
        let what = format!(
            "nothing was collected: {percent:.0} % of what is stored would be deleted, and {:.0} % may be",
            limits.max_delete_percent
        );
        let hint = "see what with `esker prune --dry-run`; if that is right, add `--max-delete 100%`";
        Err(Error::new(Kind::Refused, what).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(n: u8) -> PackId {
        PackId::from_bytes([n; 32])
    }

    /// A pack of 32 MiB of which so many percent are kept.
    fn pack(kept_percent: u64) -> PackUse {
        PackUse {
            stored_bytes: 32 * MIB,
            plain_bytes: 100,
            kept_bytes: kept_percent,
            movable: true,
            ..PackUse::default()
        }
    }

    fn choose(packs: &[PackUse], limits: &Limits) -> Plan {
        Plan::choose(&(0..).map(id).zip(packs.iter().copied()).collect(), limits)
    }

    #[test]
    fn the_emptiest_packs_are_rewritten_until_little_enough_is_unused() {
        let packs = [pack(100), pack(90), pack(10), pack(50), pack(100), pack(100), pack(100), pack(100)];
        let plan = choose(&packs, &Limits::default());
        // 650 % live: 5 % of that is 32.5 % of a pack. The 90 and 50 % unused go, the 10 % stay.
        assert_eq!(plan.repack, [id(2), id(3)].into());
        assert_eq!(plan.kept, 6);
        let plan = choose(&packs, &Limits { max_unused: Unused::Bytes(0), ..Limits::default() });
        assert_eq!(plan.repack, [id(1), id(2), id(3)].into());
        assert_eq!(plan.unused_bytes, 0);
        let plan = choose(&packs, &Limits { max_unused: Unused::Unlimited, ..Limits::default() });
        assert!(plan.repack.is_empty());
    }

    #[test]
    fn no_more_is_rewritten_than_is_allowed_and_nothing_that_must_stay() {
        let mut packs = [pack(10), pack(50), pack(60)];
        let limits = Limits { max_unused: Unused::Bytes(0), max_repack_bytes: 20 * MIB, ..Limits::default() };
        assert_eq!(choose(&packs, &limits).repack, [id(0), id(1)].into());
        packs[0].movable = false;
        assert_eq!(choose(&packs, &limits).repack, [id(1)].into());
    }

    #[test]
    fn small_packs_are_joined_once_they_fill_one() {
        let small = PackUse { stored_bytes: MIB, ..pack(100) };
        let few = [small; 15];
        assert!(choose(&few, &Limits::default()).repack.is_empty());
        let plan = choose(&[small; 16], &Limits::default());
        assert_eq!((plan.repack.len(), plan.joined), (16, 16));
    }

    #[test]
    fn a_wipe_is_refused_from_a_gibibyte_up() {
        let plan = Plan { garbage_bytes: 400 * MIB, stored_bytes: 1000 * MIB, ..Plan::default() };
        assert!(plan.refuse_too_much(&Limits::default()).is_ok());
        let plan = Plan { garbage_bytes: 400 * MIB, stored_bytes: 1024 * MIB, ..Plan::default() };
        assert!(plan.refuse_too_much(&Limits::default()).is_err());
        assert!(plan.refuse_too_much(&Limits { max_delete_percent: 50.0, ..Limits::default() }).is_ok());
    }
}
