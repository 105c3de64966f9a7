//! Listing snapshots and finding the one that was meant.

use std::collections::BTreeSet;

use super::Repository;
use super::commits::{CommitHeader, LoadedCommit};
use super::content::Reader;
use super::session::snapshot_aad;
use super::standing::Standing;
use crate::crypto::seal;
use crate::error::{Context, Error, Kind, Result};
use crate::format::cbor;
use crate::format::session::{CommitKind, Original, Snapshot};
use crate::id::SessionId;
use crate::path::TreePath;
use crate::world::Time;

/// The tag of a snapshot that holds only what a restore was about to replace or remove. `latest`
/// never means one, unless it is asked for by the tag: to restore the latest twice must not
/// restore something else the second time.
pub const BEFORE_RESTORE: &str = "before-restore";

/// A snapshot with the commit that made it.
#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    /// The commit.
    pub header: CommitHeader,
    /// The snapshot. Lists of many are sorted and grouped, and it is large.
    pub snapshot: Box<Snapshot>,
}

impl SnapshotInfo {
    /// The snapshot's id: its session's.
    pub fn id(&self) -> SessionId {
        self.header.session
    }

    /// What a snapshot made of this one begins as: the same, and naming this one, or what this one was made
    /// of, as its original.
    pub fn as_original(&self) -> Snapshot {
        let itself = Original { session: self.id(), repo: None };
        Snapshot { original: Some(self.snapshot.original.unwrap_or(itself)), ..(*self.snapshot).clone() }
    }

    /// Whether it holds only what a restore was about to lose.
    pub fn is_before_restore(&self) -> bool {
        self.snapshot.tags.iter().any(|tag| tag == BEFORE_RESTORE)
    }
}

/// Which snapshots are wanted; an empty filter takes all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// All of these roots.
    pub paths: Vec<TreePath>,
    /// Made at or before this moment.
    pub before: Option<Time>,
    /// Made at or after this moment.
    pub after: Option<Time>,
}

impl Filter {
    /// Whether a snapshot is wanted.
    pub fn takes(&self, snapshot: &Snapshot) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.hostname))
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.paths.iter().all(|path| snapshot.paths.iter().any(|root| root == path.as_bytes()))
            && self.before.is_none_or(|before| snapshot.time <= before)
            && self.after.is_none_or(|after| snapshot.time >= after)
    }
}

impl Repository {
    /// Reads the snapshot of a commit; takes an owner.
    pub fn load_snapshot(&self, session: &SessionId) -> Result<SnapshotInfo> {
        self.open_snapshot(self.load_commit(session)?)
    }

    /// The same of a commit that was read.
    pub fn open_snapshot(&self, loaded: LoadedCommit) -> Result<SnapshotInfo> {
        let session = loaded.header.session;
        let what = || format!("cannot read snapshot `{}`", session.short());
        let secret = self.keys.open_session_secret(
            &session,
            &loaded.header.epoch,
            &loaded.header.credential,
            &loaded.commit.envelope,
        )?;
        let aad = snapshot_aad(self, &session);
        let plain =
            seal::open_box(&secret, "snapshot", &aad, &loaded.commit.snapshot, "snapshot record").context(what)?;
        Ok(SnapshotInfo { header: loaded.header, snapshot: Box::new(cbor::decode(&plain).context(what)?) })
    }
}

/// Snapshots that are committed but cannot be read, with the reason.
pub type Unreadable = Vec<(SessionId, Error)>;

impl Reader<'_> {
    /// All finished snapshots that the filter takes, oldest first, and those that cannot be read.
    pub fn snapshots(&self, filter: &Filter) -> Result<(Vec<SnapshotInfo>, Unreadable)> {
        self.live_snapshots(filter).map(|(found, faults, _)| (found, faults))
    }

    fn live_snapshots(&self, filter: &Filter) -> Result<(Vec<SnapshotInfo>, Unreadable, BTreeSet<SessionId>)> {
        self.snapshots_that(filter, |standing| standing == Standing::Live)
    }

    /// The snapshots that are forgotten and still there: those that can be brought back.
    pub fn forgotten_snapshots(&self, filter: &Filter) -> Result<(Vec<SnapshotInfo>, Unreadable)> {
        let is_there = |standing| matches!(standing, Standing::Forgotten { in_effect: false, .. });
        self.snapshots_that(filter, is_there).map(|(found, faults, _)| (found, faults))
    }

    /// The third are those that were remembered and not read.
    fn snapshots_that(
        &self,
        filter: &Filter,
        wanted: impl Fn(Standing) -> bool,
    ) -> Result<(Vec<SnapshotInfo>, Unreadable, BTreeSet<SessionId>)> {
        let standings = self.standings();
        let headers = self.commits().headers.values().filter(|header| header.kind == CommitKind::Snapshot);
        let headers: Vec<&CommitHeader> = headers.filter(|header| wanted(standings.of(header))).collect();
        let (mut found, mut faults, mut remembered) = (Vec::new(), Vec::new(), BTreeSet::new());
        self.each_snapshot(&headers, &mut |header, snapshot, is_remembered| match snapshot {
            Ok(snapshot) if filter.takes(&snapshot) => {
                found.push(SnapshotInfo { header: header.clone(), snapshot });
                remembered.extend(is_remembered.then_some(header.session));
            }
            Ok(_) => {}
            Err(error) => faults.push((header.session, error)),
        })?;
        found.sort_by_cached_key(|info| (info.snapshot.time, info.header.sequence, info.header.session));
        Ok((found, faults, remembered))
    }

    /// Finds one snapshot: `latest`, `latest~2`, an id or a unique prefix of one. See also
    /// [`BEFORE_RESTORE`].
    pub fn find_snapshot(&self, wanted: &str, filter: &Filter) -> Result<SnapshotInfo> {
        self.find_readable_snapshot(wanted, filter).map(|(info, _)| info)
    }

    /// The same; and what is wrong. The snapshot itself, when its commit is damaged by now: what was verified
    /// when it was read is good to restore from, whether it is named or is the latest. And with `latest` others
    /// that cannot be read, and may be newer than the one found and what was meant.
    pub fn find_readable_snapshot(&self, wanted: &str, filter: &Filter) -> Result<(SnapshotInfo, Unreadable)> {
        let (info, mut faults, is_remembered) = self.find_remembered_snapshot(wanted, filter)?;
        if !is_remembered {
            return Ok((info, faults));
        }
        match self.repo().load_snapshot(&info.id()) {
            Ok(read) => Ok((read, faults)),
            Err(error) if error.kind() == Kind::Damaged => {
                faults.push((info.id(), error));
                Ok((info, faults))
            }
            Err(error) => Err(error),
        }
    }

    /// The same by what is remembered, where anything is; and whether that was so.
    fn find_remembered_snapshot(&self, wanted: &str, filter: &Filter) -> Result<(SnapshotInfo, Unreadable, bool)> {
        let refuse = |kind, detail: String| {
            Error::new(kind, format!("cannot find snapshot `{wanted}`: {detail}"))
                .hint("to see what there is, run `esker snapshots`")
        };
        let none = |detail: String| refuse(Kind::Failed, detail);
        let wrong = |detail: String| refuse(Kind::Usage, detail);
        if let Some(rest) = wanted.strip_prefix("latest") {
            let back: usize = match rest.strip_prefix('~') {
                None if rest.is_empty() => 0,
                Some(number) => number.parse().map_err(|_| wrong(format!("`{number}` is not a number")))?,
                None => return Err(wrong("write `latest` or `latest~2`".into())),
            };
            let (mut all, mut faults, remembered) = self.live_snapshots(filter)?;
            if !filter.tags.iter().any(|tag| tag == BEFORE_RESTORE) {
                all.retain(|info| !info.is_before_restore());
            }
            if all.is_empty() && !faults.is_empty() {
                return Err(faults.swap_remove(0).1);
            }
            let position = all.len().checked_sub(back + 1);
            return match position {
                Some(position) => {
                    let found = all.swap_remove(position);
                    let time_of =
                        |session: &SessionId| self.commits().headers.get(session).map(|header| header.time_secs);
                    faults.retain(|(session, _)| time_of(session) >= Some(found.header.time_secs));
                    let is_remembered = remembered.contains(&found.id());
                    Ok((found, faults, is_remembered))
                }
                None if all.is_empty() => Err(none("there is none".into())),
                None => Err(none(format!("there are only {}", all.len()))),
            };
        }
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(wrong("an id is hexadecimal digits".into()));
        }
        let standings = self.standings();
        let named = |header: &&CommitHeader| {
            header.kind == CommitKind::Snapshot && header.session.to_string().starts_with(wanted)
        };
        let (live, gone): (Vec<_>, Vec<_>) =
            self.commits().headers.values().filter(named).partition(|header| standings.of(header) == Standing::Live);
        match (&live[..], &gone[..]) {
            ([header], _) => {
                let mut found = None;
                self.each_snapshot(&[*header], &mut |_, snapshot, is_remembered| {
                    found = Some((snapshot, is_remembered));
                })?;
                let (snapshot, is_remembered) = found.expect("each is called for");
                Ok((SnapshotInfo { header: (*header).clone(), snapshot: snapshot? }, Vec::new(), is_remembered))
            }
            ([_, _, ..], _) => Err(wrong("more than one begins so".into())),
            ([], [header]) if matches!(standings.of(header), Standing::Forgotten { in_effect: false, .. }) => {
                let hint = format!("to bring it back, run `esker undelete {}`", header.session.short());
                Err(none("it is forgotten".into()).hint(hint))
            }
            _ => Err(none("none begins so".into())),
        }
    }
}
