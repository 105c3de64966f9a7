//! Listing ahead: threads that list the directories the walk will want next.
//!
//! The directories not yet entered stand on one stack in the order the walk will enter them, the
//! next on top; a listed directory's own subdirectories follow right after it. What a listing left of
//! a large directory stands there too, after the subdirectories of what comes before it: names, of
//! which a batch at a time is looked at. Threads always take the topmost one that nobody has taken,
//! so they work just ahead of the walk however their timing falls, and the walk never waits for
//! work it could do itself. What is ahead is bounded: listed directories (each holds a
//! descriptor), their entries, and names.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::dir::Dir;
use super::list::{Batch, Entry, Found, Lister, Listing};
use super::names::Names;
use super::node::Node;
use super::walk::WalkFault;
use crate::path::Name;

/// Most directories listed and not yet entered.
const DIRS_MAX: usize = 256;

/// Threads begin nothing while this many entries are ahead.
const ENTRIES_MAX: usize = 100_000;

/// Threads begin no listing while this many names are in memory.
const NAMES_MAX: usize = 200_000;

/// How far down the stack a thread looks for work.
const SEARCH_MAX: usize = 1024;

/// The threads and what they have listed.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    lister: Lister,
    queue: Mutex<Queue>,
    /// Set under the lock, so that nobody misses it.
    over: AtomicBool,
    /// There is more to list, or more room, or it is over.
    work: Condvar,
    /// A listing or a batch is ready.
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The next to be entered is last.
    stack: Vec<Slot>,
    /// Directories being listed or listed, and not yet entered.
    dirs: usize,
    /// Entries looked at and not yet taken.
    entries: usize,
    /// Names in memory of which no batch is made yet.
    names: usize,
}

struct Slot {
    node: Arc<Node>,
    /// Which batch of the directory's entries, from 1; 0 is the directory itself.
    batch: u64,
    state: State,
}

enum State {
    /// Nobody has begun with the directory.
    Idle,
    /// Nobody has begun with what is left of a directory.
    Rest(Names),
    /// A thread is listing or looking.
    Busy,
    /// Threads leave the directory to the walk.
    Left,
    /// A batch that threads leave to the walk, and why there are no names after it.
    Names(Vec<Name>, Option<WalkFault>),
    /// A directory is listed.
    Listed(Listing),
    /// A batch is looked at.
    Looked(Batch),
}

impl Ahead {
    /// With fewer than two threads nothing is listed ahead. With more the walk's own thread is not
    /// counted: over unchanged files it waits for listings most of the time.
    pub(super) fn new(lister: Lister, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            lister,
            queue: Mutex::default(),
            over: AtomicBool::new(false),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let workers = (0..if threads < 2 { 0 } else { threads })
            .map_while(|_| {
                let shared = shared.clone();
                // Without threads it takes longer, nothing else.
                std::thread::Builder::new().name("list".into()).spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// The listing of `node`, the next directory in walk order: as a thread made it, or made now.
    pub(super) fn take(&self, node: &Arc<Node>) -> Listing {
        let mut queue = self.shared.when_ready(|top| top.is(node, 0));
        let slot = queue.stack.pop_if(|top| top.is(node, 0));
        if let Some(Slot { state: State::Listed(listing), .. }) = slot {
            queue.dirs -= 1;
            queue.entries -= listing.entries().len();
            drop(queue);
            self.shared.work.notify_one();
            return listing;
        }
        drop(queue);
        let around = node.parent().and_then(|parent| parent.dir());
        let mut listing = self.shared.lister.list(node, around.as_deref(), &|| false);
        let mut queue = self.shared.lock();
        let (at, rest) = (queue.stack.len(), listing.take_rest());
        queue.insert(at, node, (1, rest), listing.entries());
        drop(queue);
        self.shared.work.notify_all();
        listing
    }

    /// The next entries of `node`, the directory the walk is in and which is open as `dir`; `None`
    /// when there are no more.
    pub(super) fn take_batch(&self, node: &Arc<Node>, dir: &Dir) -> Option<Batch> {
        let mut queue = self.shared.when_ready(|top| top.is_batch_of(node));
        let at = queue.stack.len().checked_sub(1).filter(|at| queue.stack[*at].is_batch_of(node))?;
        if matches!(queue.stack[at].state, State::Rest(_)) {
            queue.split(at, &self.shared.lister);
        }
        let (names, fault) = match queue.stack.pop()?.state {
            State::Looked(batch) => {
                queue.entries -= batch.entries.len();
                drop(queue);
                self.shared.work.notify_one();
                return Some(batch);
            }
            State::Names(names, fault) => (names, fault),
            _ => return None,
        };
        drop(queue);
        let mut batch = self.shared.lister.look(node, dir, names, &|| false);
        batch.fault = batch.fault.or(fault);
        let mut queue = self.shared.lock();
        let at = queue.stack.len();
        queue.insert(at, node, (0, Names::default()), &batch.entries);
        drop(queue);
        self.shared.work.notify_all();
        Some(batch)
    }

    /// Whether more entries of `node`, which the walk has come back to, are to come.
    pub(super) fn has_rest(&self, node: &Arc<Node>) -> bool {
        self.shared.lock().stack.last().is_some_and(|top| top.is_batch_of(node))
    }

    /// Gives up everything below `node`, which the walk is in, and what is left of it.
    pub(super) fn forget_below(&self, node: &Arc<Node>) {
        let mut queue = self.shared.lock();
        while let Some(slot) = queue.stack.pop_if(|top| top.node.is_below(node) || top.is_batch_of(node)) {
            match slot.state {
                State::Listed(listing) => {
                    queue.dirs -= 1;
                    queue.entries -= listing.entries().len();
                }
                State::Looked(batch) => queue.entries -= batch.entries.len(),
                State::Rest(names) => queue.names -= names.in_memory(),
                State::Idle | State::Busy | State::Left | State::Names(..) => {}
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        {
            let _queue = self.shared.lock();
            self.shared.over.store(true, Ordering::Relaxed);
        }
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A thread that panicked left its directory to the walk, which met the same.
            let _ = worker.join();
        }
    }
}

impl Slot {
    fn is(&self, node: &Arc<Node>, batch: u64) -> bool {
        Arc::ptr_eq(&self.node, node) && self.batch == batch
    }

    fn is_batch_of(&self, node: &Arc<Node>) -> bool {
        Arc::ptr_eq(&self.node, node) && self.batch > 0
    }
}

impl Queue {
    /// Puts what follows entries of `node` just below index `at` of the stack, so that it follows
    /// what is there: their subdirectories, then the rest of `node` as a batch of that number. Says
    /// how many slots there were.
    fn insert(&mut self, at: usize, node: &Arc<Node>, (batch, rest): (u64, Names), entries: &[Entry]) -> usize {
        let before = self.stack.len();
        self.names += rest.in_memory();
        let rest = (!rest.is_empty()).then(|| Slot { node: node.clone(), batch, state: State::Rest(rest) });
        let subdirectories = entries.iter().rev().filter_map(|entry| match &entry.found {
            Found::Directory(node) => Some(Slot { node: node.clone(), batch: 0, state: State::Idle }),
            _ => None,
        });
        self.stack.splice(at..at, rest.into_iter().chain(subdirectories));
        self.stack.len() - before
    }

    /// Takes a batch of names from what is left of a directory, at index `at`, and puts the others
    /// below it. Says where the batch is then.
    fn split(&mut self, at: usize, lister: &Lister) -> usize {
        let State::Rest(mut rest) = std::mem::replace(&mut self.stack[at].state, State::Busy) else { return at };
        self.names -= rest.in_memory();
        let (names, fault) = lister.next_names(&mut rest);
        self.stack[at].state = State::Names(names, fault);
        let (node, batch) = (self.stack[at].node.clone(), self.stack[at].batch);
        at + self.insert(at, &node, (batch + 1, rest), &[])
    }

    /// Takes the next thing to do, if there is one and room for it.
    fn begin(&mut self, lister: &Lister) -> Option<(Arc<Node>, u64, State)> {
        if self.entries >= ENTRIES_MAX {
            return None;
        }
        let may_list = self.dirs < DIRS_MAX && self.names < NAMES_MAX;
        let wanted = |slot: &Slot| match slot.state {
            State::Idle => may_list && slot.node.parent().is_some_and(|parent| parent.dir().is_some()),
            State::Rest(_) => slot.node.dir().is_some(),
            _ => false,
        };
        let depth = self.stack.iter().rev().take(SEARCH_MAX).position(wanted)?;
        let at = self.split(self.stack.len() - 1 - depth, lister);
        let slot = &mut self.stack[at];
        self.dirs += usize::from(slot.batch == 0);
        Some((slot.node.clone(), slot.batch, std::mem::replace(&mut slot.state, State::Busy)))
    }

    /// Notes what came of what a thread had taken. Says whether there is more to do for threads
    /// than before.
    fn end(&mut self, node: &Arc<Node>, batch: u64, mut state: State) -> bool {
        let at = self.stack.iter().rposition(|slot| slot.is(node, batch));
        let is_left = match &state {
            State::Listed(listing) => at.is_none() || listing.lacks_descriptors(),
            _ => batch == 0,
        };
        if is_left {
            self.dirs -= 1;
            node.set_dir(None);
            state = State::Left;
        }
        let Some(at) = at else { return true };
        let rest = if let State::Listed(listing) = &mut state { listing.take_rest() } else { Names::default() };
        let entries = state.entries();
        self.entries += entries.len();
        // It stands on top of what follows it.
        let more = self.insert(at, node, (1, rest), entries);
        self.stack[at + more].state = state;
        is_left || more > 0
    }
}

impl State {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::Listed(listing) => listing.entries(),
            Self::Looked(batch) => &batch.entries,
            _ => &[],
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue once no thread is busy with what is on top, if the walk wants that.
    fn when_ready(&self, wanted: impl Fn(&Slot) -> bool) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        while queue.stack.last().is_some_and(|top| matches!(top.state, State::Busy) && wanted(top)) {
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }

    /// What each thread does until the walk is over.
    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let Some((node, batch, state)) = queue.begin(&self.lister) else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            // A batch may have left more names behind it.
            if batch > 0 {
                self.work.notify_one();
            }
            let state = if batch == 0 { State::Left } else { state };
            let mut task = Task { shared: self, node: &node, batch, state };
            let stop = || self.over.load(Ordering::Relaxed);
            // Without the descriptor the walk has gone on; it will know what to do.
            if let State::Names(names, fault) = &mut task.state {
                if let Some(dir) = node.dir() {
                    let looked = self.lister.look(&node, &dir, names.clone(), &stop);
                    let fault = looked.fault.or(fault.take());
                    task.state = State::Looked(Batch { fault, ..looked });
                }
            } else if let Some(around) = node.parent().and_then(|parent| parent.dir()) {
                task.state = State::Listed(self.lister.list(&node, Some(&around), &stop));
            }
            drop(task);
            queue = self.lock();
        }
    }
}

/// What a thread has taken, and what it will be in the end. Given back whatever happens, so that
/// the walk cannot wait for a thread that panicked.
struct Task<'a> {
    shared: &'a Shared,
    node: &'a Arc<Node>,
    batch: u64,
    state: State,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Left);
        let more = self.shared.lock().end(self.node, self.batch, state);
        self.shared.ready.notify_all();
        if more {
            self.shared.work.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::super::list::Limits;
    use super::super::walk::WalkOptions;
    use super::*;
    use crate::path::TreePath;

    /// Waits until the threads have listed all there is room for.
    fn settled(ahead: &Ahead, dirs: usize) -> MutexGuard<'_, Queue> {
        let begun = Instant::now();
        loop {
            let queue = ahead.shared.lock();
            if queue.dirs == dirs && !queue.stack.iter().any(|slot| matches!(slot.state, State::Busy)) {
                return queue;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {dirs} directories ahead", queue.dirs);
            drop(queue);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Goes from the top to `root` and enters it, as the walk does.
    fn arrive(ahead: &Ahead, root: &TreePath) -> Arc<Node> {
        let mut node = Node::top();
        for name in root.components() {
            node = child(&ahead.take(&node), &name);
        }
        ahead.take(&node);
        node
    }

    fn child(listing: &Listing, name: &Name) -> Arc<Node> {
        let entry = listing.entries().iter().find(|entry| entry.name == *name).unwrap();
        let Found::Directory(node) = &entry.found else { panic!("{entry:?}") };
        node.clone()
    }

    fn ahead(root: &TreePath, threads: usize) -> Ahead {
        Ahead::new(Lister::new(std::slice::from_ref(root), WalkOptions::default(), Limits::default()), threads)
    }

    fn scene(directories: impl Iterator<Item = String>) -> (tempfile::TempDir, TreePath) {
        let dir = tempfile::tempdir().unwrap();
        directories.for_each(|path| fs::create_dir_all(dir.path().join(path)).unwrap());
        let root = TreePath::from_os(&dir.path().canonicalize().unwrap()).unwrap();
        (dir, root)
    }

    /// The names on the stack from the top.
    fn names(queue: &Queue) -> Vec<String> {
        queue.stack.iter().rev().map(|slot| slot.node.name().unwrap().to_string()).collect()
    }

    #[test]
    fn threads_list_what_the_walk_enters_next_in_its_order() {
        let paths = || (0..7).flat_map(|a| (0..7).map(move |b| format!("{a}/{a}{b}/{a}{b}x")));
        let mut expected: Vec<String> =
            paths().flat_map(|p| p.split('/').map(str::to_owned).collect::<Vec<_>>()).collect();
        expected.sort();
        expected.dedup();
        for threads in [2, 3, 6] {
            let (_keep, root) = scene(paths());
            let ahead = ahead(&root, threads);
            let node = arrive(&ahead, &root);
            let queue = settled(&ahead, expected.len());
            assert_eq!(names(&queue), expected, "{threads} threads");
            assert_eq!(queue.entries, expected.len() - 7);
            drop(queue);
            // Given up, all of it goes.
            ahead.forget_below(&node);
            let queue = ahead.shared.lock();
            assert_eq!((queue.stack.len(), queue.dirs, queue.entries), (0, 0, 0));
        }
    }

    #[test]
    fn no_more_is_listed_ahead_than_there_is_room_for() {
        let (_keep, root) = scene((0..DIRS_MAX + 50).map(|i| format!("{i:04}/sub")));
        let ahead = ahead(&root, 2);
        let node = arrive(&ahead, &root);
        let queue = settled(&ahead, DIRS_MAX);
        let listed = |slot: &&Slot| matches!(slot.state, State::Listed(_));
        assert_eq!(queue.stack.iter().filter(listed).count(), DIRS_MAX);
        // What a thread found when there was no more room may be nearer than what the other has listed.
        let furthest = queue.stack.len() - queue.stack.iter().position(|slot| listed(&slot)).unwrap();
        assert!(furthest <= DIRS_MAX + 1, "the nearest ones are those that are listed, not up to {furthest}");
        drop(queue);
        // One entered makes room for one more.
        let first = ahead.shared.lock().stack.last().unwrap().node.clone();
        assert!(Arc::ptr_eq(first.parent().unwrap(), &node));
        assert_eq!(ahead.take(&first).entries().len(), 1);
        drop(settled(&ahead, DIRS_MAX));
    }

    #[test]
    fn a_thread_that_panics_leaves_its_directory_to_the_walk() {
        let (_keep, root) = scene(["a/b".to_owned(), "c".to_owned()].into_iter());
        let test = std::thread::current().id();
        let filter = move |_: &TreePath, _: &super::super::stat::Stat| {
            assert!(std::thread::current().id() == test, "this panic is part of a test");
            true
        };
        let options = WalkOptions { filter: Some(Arc::new(filter)), ..WalkOptions::default() };
        let ahead = Ahead::new(Lister::new(std::slice::from_ref(&root), options, Limits::default()), 2);
        arrive(&ahead, &root);
        // The thread takes `a`, which has an entry to filter, and dies of it.
        let first = ahead.shared.lock().stack.last().unwrap().node.clone();
        assert_eq!(first.name().unwrap().to_string(), "a");
        assert_eq!(ahead.take(&first).entries().len(), 1);
    }
}
