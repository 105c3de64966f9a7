//! The least a backup of an unchanged tree can do: list every directory, sort its names and look
//! at each, with as many threads as there are processors. What `benches/grow/run` compares with.
//!
//! `stat-walk DIR` prints how many entries there are and the seconds it took.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};

/// Names looked at by one thread in one go.
const NAMES_AT_ONCE: usize = 4096;

/// Something a thread does.
enum Task {
    /// List a directory.
    List(OwnedFd, CString),
    /// Look at these names in it.
    Look(Arc<OwnedFd>, Vec<CString>),
}

#[derive(Default)]
struct Queue {
    tasks: Vec<Task>,
    working: usize,
    entries: u64,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn work(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(task) = queue.tasks.pop() else {
                if queue.working == 0 {
                    self.changed.notify_all();
                    return;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.working += 1;
            drop(queue);
            let (tasks, entries) = done(task).unwrap_or_default();
            queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.working -= 1;
            queue.entries += entries;
            queue.tasks.extend(tasks);
            self.changed.notify_all();
        }
    }
}

/// Does a task; gives what is to be done next and how many entries were looked at.
fn done(task: Task) -> rustix::io::Result<(Vec<Task>, u64)> {
    match task {
        Task::List(around, name) => {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let dir = Arc::new(openat(around, &*name, flags, Mode::empty())?);
            let mut names = names(&dir)?;
            names.sort_unstable();
            let mut tasks = Vec::new();
            while names.len() > NAMES_AT_ONCE {
                tasks.push(Task::Look(dir.clone(), names.split_off(names.len() - NAMES_AT_ONCE)));
            }
            let (more, entries) = done(Task::Look(dir, names))?;
            tasks.extend(more);
            Ok((tasks, entries))
        }
        Task::Look(dir, names) => {
            let entries = names.len() as u64;
            let mut tasks = Vec::new();
            for name in names {
                let stat = statx(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
                if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
                    tasks.push(Task::List(dir.try_clone().map_err(|_| rustix::io::Errno::MFILE)?, name));
                }
            }
            Ok((tasks, entries))
        }
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut raw = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn main() {
    let root = std::env::args().nth(1).expect("stat-walk DIR");
    let began = Instant::now();
    let top = openat(CWD, "/", OFlags::PATH, Mode::empty()).expect("there is always `/`");
    let task = Task::List(top, CString::new(root).expect("a path has no zero byte"));
    let queue = Mutex::new(Queue { tasks: vec![task], ..Queue::default() });
    let shared = Shared { queue, changed: Condvar::new() };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
    });
    let entries = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).entries;
    #[allow(clippy::print_stdout)]
    {
        println!("{entries} {:.3}", began.elapsed().as_secs_f64());
    }
}
