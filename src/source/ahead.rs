//! Listing ahead: threads that list the directories the walk will want next.
//!
//! The directories not yet entered stand on one stack in the order the walk will enter them, the
//! next on top; a listed directory's own subdirectories follow right after it. Threads always
//! take the topmost one that nobody has taken, so they work just ahead of the walk however their
//! timing falls, and the walk never waits for work it could do itself. What is ahead is bounded:
//! listed directories (each holds a descriptor) and their entries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::list::{Found, Lister, Listing};
use super::node::Node;

/// Most directories listed and not yet entered.
const DIRS_MAX: usize = 256;

/// Threads begin no listing while this many entries are ahead.
const ENTRIES_MAX: usize = 200_000;

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
    /// A listing is ready.
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The next to be entered is last.
    stack: Vec<Slot>,
    /// Directories being listed or listed, and not yet entered.
    dirs: usize,
    /// Their entries.
    entries: usize,
}

struct Slot {
    node: Arc<Node>,
    state: State,
}

enum State {
    /// Nobody has begun.
    Idle,
    /// A thread is listing it.
    Busy,
    /// Threads leave it to the walk.
    Left,
    /// Done.
    Ready(Listing),
}

impl Ahead {
    /// With fewer than two threads nothing is listed ahead.
    pub(super) fn new(lister: Lister, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            lister,
            queue: Mutex::default(),
            over: AtomicBool::new(false),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|_| {
                let shared = shared.clone();
                // Without threads it takes longer, nothing else.
                std::thread::Builder::new().name("list".into()).spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers }
    }

    pub(super) fn lister(&self) -> &Lister {
        &self.shared.lister
    }

    /// The listing of `node`, the next directory in walk order: as a thread made it, or made now.
    pub(super) fn take(&self, node: &Arc<Node>) -> Listing {
        if self.workers.is_empty() {
            return self.shared.list(node);
        }
        let mut queue = self.shared.lock();
        while queue.stack.last().is_some_and(|top| top.is(node) && matches!(top.state, State::Busy)) {
            queue = self.shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let slot = queue.stack.pop_if(|top| top.is(node));
        if let Some(Slot { state: State::Ready(listing), .. }) = slot {
            queue.dirs -= 1;
            queue.entries -= listing.entries().len();
            drop(queue);
            self.shared.work.notify_one();
            return listing;
        }
        drop(queue);
        let listing = self.shared.list(node);
        let mut queue = self.shared.lock();
        let at = queue.stack.len();
        queue.insert_subdirectories(at, &listing);
        drop(queue);
        self.shared.work.notify_all();
        listing
    }

    /// Gives up everything below `node`, which the walk is in.
    pub(super) fn forget_below(&self, node: &Arc<Node>) {
        let mut queue = self.shared.lock();
        while let Some(slot) = queue.stack.pop_if(|top| top.node.is_below(node)) {
            if let State::Ready(listing) = slot.state {
                queue.dirs -= 1;
                queue.entries -= listing.entries().len();
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
    fn is(&self, node: &Arc<Node>) -> bool {
        Arc::ptr_eq(&self.node, node)
    }
}

impl Queue {
    /// Puts the subdirectories just below index `at` of the stack, so that they follow what is
    /// there. Says how many there were.
    fn insert_subdirectories(&mut self, at: usize, listing: &Listing) -> usize {
        let before = self.stack.len();
        let subdirectories = listing.entries().iter().rev().filter_map(|entry| match &entry.found {
            Found::Directory(node) => Some(Slot { node: node.clone(), state: State::Idle }),
            _ => None,
        });
        self.stack.splice(at..at, subdirectories);
        self.stack.len() - before
    }

    /// Takes the next directory to list, if there is one and room for it.
    fn begin(&mut self) -> Option<Arc<Node>> {
        if self.dirs >= DIRS_MAX || self.entries >= ENTRIES_MAX {
            return None;
        }
        let wanted = |slot: &&mut Slot| {
            matches!(slot.state, State::Idle) && slot.node.parent().is_some_and(|parent| parent.dir().is_some())
        };
        let slot = self.stack.iter_mut().rev().take(SEARCH_MAX).find(wanted)?;
        slot.state = State::Busy;
        self.dirs += 1;
        Some(slot.node.clone())
    }

    /// Notes what came of a directory a thread had taken; `None` leaves it to the walk. Says
    /// whether there is more to do for threads than before.
    fn end(&mut self, node: &Arc<Node>, listing: Option<Listing>) -> bool {
        let at = self.stack.iter().rposition(|slot| slot.is(node));
        match (at, listing) {
            (Some(at), Some(listing)) if !listing.lacks_descriptors() => {
                self.entries += listing.entries().len();
                // It stands on top of its subdirectories.
                let more = self.insert_subdirectories(at, &listing);
                self.stack[at + more].state = State::Ready(listing);
                more > 0
            }
            (at, _) => {
                self.dirs -= 1;
                node.set_dir(None);
                if let Some(at) = at {
                    self.stack[at].state = State::Left;
                }
                true
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does until the walk is over.
    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let Some(node) = queue.begin() else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let mut task = Task { shared: self, node: &node, listing: None };
            // Without the parent's descriptor the walk has gone on; it will know what to do.
            task.listing = node
                .parent()
                .and_then(|parent| parent.dir())
                .map(|around| self.lister.list(&node, Some(&around), &|| self.over.load(Ordering::Relaxed)));
            drop(task);
            queue = self.lock();
        }
    }

    fn list(&self, node: &Arc<Node>) -> Listing {
        let around = node.parent().and_then(|parent| parent.dir());
        self.lister.list(node, around.as_deref(), &|| false)
    }
}

/// A directory a thread has taken. Given back whatever happens, so that the walk cannot wait for
/// a thread that panicked.
struct Task<'a> {
    shared: &'a Shared,
    node: &'a Arc<Node>,
    listing: Option<Listing>,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let more = self.shared.lock().end(self.node, self.listing.take());
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

    use super::super::walk::WalkOptions;
    use super::*;
    use crate::path::{Name, TreePath};

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
        Ahead::new(Lister::new(std::slice::from_ref(root), WalkOptions::default()), threads)
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
        let ready = queue.stack.iter().rev().take_while(|slot| matches!(slot.state, State::Ready(_))).count();
        assert_eq!(ready, DIRS_MAX, "the nearest ones are those that are listed");
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
        let ahead = Ahead::new(Lister::new(std::slice::from_ref(&root), options), 2);
        arrive(&ahead, &root);
        // The thread takes `a`, which has an entry to filter, and dies of it.
        let first = ahead.shared.lock().stack.last().unwrap().node.clone();
        assert_eq!(first.name().unwrap().to_string(), "a");
        assert_eq!(ahead.take(&first).entries().len(), 1);
    }
}
