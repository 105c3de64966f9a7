//! A stream as the only file of a snapshot: what `follow` and the readers are for a walk.
//!
//! The stream is one file at its path, mode 0600, of the user, with the time the run began; the
//! directories that lead there are made up likewise. It is cut and stored as any file, a batch
//! at a time and its list of chunks node by node, so its length costs no memory.
//!
//! It is read once and cannot be asked for again: where a run would begin anew (a collector got
//! in its way) there is no snapshot. And it is whole or it is not there: a stream that breaks
//! off, or a command that fails after its last byte, makes no snapshot either.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::follow::{Fresh, Step, Walked};
use super::known::Followers;
use super::units::{Permits, Unit, UnitSender};
use crate::chunk::cut::Cutter;
use crate::crypto::ident::IdKeys;
use crate::error::{Error, Kind, Result};
use crate::format::cbor::Extra;
use crate::format::tree::{Attributes, Content, Detail, Entry, Totals};
use crate::id::ChunkId;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::source::meta::Owners;
use crate::source::stream::{Next, Stream};
use crate::world::Time;

/// How often a stream that gives nothing is asked whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A stream to back up, and where it is to stand. Clones share the stream, which is read once.
#[derive(Clone)]
pub struct StreamInput {
    pub(super) path: TreePath,
    stream: Arc<Mutex<Option<Stream>>>,
}

impl StreamInput {
    /// The stream as the file `path`, which is not `/`.
    pub fn new(path: TreePath, stream: Stream) -> Self {
        Self { path, stream: Arc::new(Mutex::new(Some(stream))) }
    }

    fn take(&self) -> Option<Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the stream's reader needs of the run.
pub(super) struct Reading<'a> {
    pub(super) input: &'a StreamInput,
    pub(super) cutter: &'a Arc<Cutter>,
    pub(super) ids: &'a IdKeys,
    pub(super) permits: &'a Arc<Permits>,
    pub(super) monitor: &'a Monitor,
    pub(super) began: Time,
}

/// Sends the steps of a tree with this one file and reads it to its end. Ends early, without a
/// word, when the sequencer has gone: it has its reason, which is reported there.
pub(super) fn follow(reading: &Reading<'_>, mut known: Followers, steps: &Sender<Step>) -> Walked {
    let mut walked = Walked::default();
    let Some(mut stream) = reading.input.take() else {
        walked.failure = Some(Error::new(Kind::Failed, "no snapshot was made: the stream has been read already"));
        return walked;
    };
    let path = &reading.input.path;
    let mut names: Vec<_> = path.components().collect();
    let Some(file) = names.pop() else {
        walked.failure = Some(Error::new(Kind::Usage, "no snapshot was made: the stream has no name"));
        return walked;
    };
    let attributes = attributes(reading.began);
    let fresh = |name, mode, detail| {
        let attributes = Attributes { mode, ..attributes.clone() };
        let entry = Entry { name, attributes, detail, extra: Extra::default() };
        // Nobody may take this for the state of a file on disk.
        Fresh { entry, ctime: Time { secs: i64::MIN, nanos: 0 }, ino: 0 }
    };
    let mut sent = true;
    let directories: Vec<_> = std::iter::once(None).chain(names.into_iter().map(Some)).collect();
    for name in &directories {
        let known = known.enter(name.as_ref()).parent().is_some();
        let id = ChunkId::from_bytes([0; 32]);
        let detail = Detail::Directory { id, level: 0, totals: Totals::default(), incomplete: false };
        let step = Step::Enter { fresh: fresh(name.clone(), 0o700, detail), known, whole: false, untouched: false };
        sent = sent && steps.send(step).is_ok();
    }
    let old = known.item(&file).parent().map(|old| old.entry.detail.clone());
    let (unit, batches) = Unit::new(0, Vec::new());
    sent = sent && steps.send(Step::Unit { ordinal: 0, batches }).is_ok();
    let detail = Detail::File { size: 0, content: Content::Inline(Vec::new()), holes: Vec::new() };
    let step = Step::Stream { fresh: fresh(Some(file), 0o600, detail), path: path.clone(), old };
    sent = sent && steps.send(step).is_ok();
    if sent {
        match read(reading, &mut stream, &unit) {
            Ok(true) => {}
            Ok(false) => sent = false,
            Err(error) => {
                walked.failure = Some(error);
                sent = false;
            }
        }
    }
    // The sequencer learns from the end of the unit that there is no more.
    drop(unit);
    for _ in &directories {
        let old = known.leave();
        sent = sent && steps.send(Step::Leave { incomplete: false, old }).is_ok();
    }
    walked
}

/// Reads and cuts the stream; `false` when nobody wants it any more.
fn read(reading: &Reading<'_>, stream: &mut Stream, unit: &Unit) -> Result<bool> {
    let Some(mut sender) = UnitSender::new(unit, reading.cutter, reading.ids, reading.permits) else {
        return Ok(false);
    };
    loop {
        if reading.monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "no snapshot was made: interrupted"));
        }
        if reading.permits.are_closed() {
            return Ok(false);
        }
        match stream.next(LOOK_EVERY) {
            Ok(Next::Waiting) => {}
            Ok(Next::Block(block)) if sender.bytes(&block) => {}
            Ok(Next::Block(_)) => return Ok(false),
            Ok(Next::End) => return Ok(sender.finish()),
            Err(fault) => {
                let what = format!("no snapshot was made: `{}` is not whole", reading.input.path);
                return Err(Error::new(Kind::Failed, what).because(fault));
            }
        }
    }
}

fn attributes(began: Time) -> Attributes {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut owners = Owners::new();
    Attributes {
        mode: 0o600,
        uid,
        gid,
        user: owners.user(uid).map(str::to_owned),
        group: owners.group(gid).map(str::to_owned),
        mtime: began,
        xattrs: Vec::new(),
        link_group: None,
    }
}
