//! Whole commands in process: a directory, a repository in memory, a world that repeats.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use esker::cli::{Context, run};
use esker::storage::Storage;
use esker::storage::memory::Memory;
use esker::world::World;

/// A user's machine.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) world: World,
    /// What `memory:` stands for.
    pub(crate) memory: Memory,
    /// What it stands for instead, such as the same with faults.
    pub(crate) instead: Option<Arc<dyn Storage>>,
    /// The environment of every command.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// What is typed at prompts, the next one last; without it there is no terminal.
    pub(crate) typed: Option<Arc<Mutex<Vec<String>>>>,
    /// The prompts that were shown.
    pub(crate) prompts: Arc<Mutex<Vec<String>>>,
    /// What is piped into every command.
    pub(crate) piped: Vec<u8>,
    /// Whether a signal comes as soon as work has begun.
    pub(crate) interrupted: bool,
    /// Whether results are seen on a terminal.
    pub(crate) stdout_is_terminal: bool,
}

impl Machine {
    /// A machine whose environment names the repository `memory:` and the key file `key`.
    pub(crate) fn new() -> Self {
        Self::seeded(7)
    }

    /// The same with other randomness.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::with(World::seeded(seed), tempfile::tempdir().unwrap())
    }

    /// The same in another world and a certain directory.
    pub(crate) fn with(world: World, dir: tempfile::TempDir) -> Self {
        let env = [
            ("ESKER_REPOSITORY", "memory:".into()),
            ("ESKER_KEY_FILE", "key".into()),
            ("ESKER_PROGRESS", "never".into()),
            ("ESKER_CACHE_DIR", dir.path().join("cache").into_os_string()),
            ("ESKER_STATE_DIR", dir.path().join("state").into_os_string()),
            ("TMPDIR", dir.path().as_os_str().to_owned()),
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
        ];
        Self {
            world,
            memory: Memory::new(),
            instead: None,
            env: env.into_iter().map(|(name, value): (&str, OsString)| (name.into(), value)).collect(),
            typed: None,
            prompts: Arc::default(),
            piped: Vec::new(),
            interrupted: false,
            stdout_is_terminal: false,
            dir,
        }
    }

    /// The same with a repository in it.
    pub(crate) fn with_repository() -> Self {
        let machine = Self::new();
        machine.esker(["init"]).success();
        machine
    }

    /// Another machine's view of the same repository: own files and cache, another key file.
    pub(crate) fn other_user(&self, key: &Path) -> Self {
        let mut other = Self::new();
        other.memory = self.memory.clone();
        other.set("ESKER_KEY_FILE", key);
        other
    }

    /// The directory commands run in.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Writes a file, and the directories it is in, with one time and the usual modes.
    pub(crate) fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for path in path.ancestors().take_while(|path| *path != self.dir.path()) {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
    }

    /// Sets a variable of the environment.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.insert(name.into(), value.into());
    }

    /// Takes a variable out of the environment.
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(&OsString::from(name));
    }

    /// Gives the machine a terminal at which this will be typed.
    pub(crate) fn type_next(&mut self, words: &[&str]) {
        self.typed = Some(Arc::new(Mutex::new(words.iter().rev().map(|word| (*word).to_owned()).collect())));
    }

    /// Runs a command.
    pub(crate) fn esker<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let interrupted = self.interrupted;
        let context = Context {
            world: self.world.clone(),
            env: self.env.clone(),
            cwd: self.dir.path().to_owned(),
            user: "ada".into(),
            host: "difference".into(),
            time_zone: jiff::tz::TimeZone::UTC,
            stdin: Box::new(io::Cursor::new(self.piped.clone())),
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
            stdout_is_terminal: self.stdout_is_terminal,
            stderr_is_terminal: false,
            prompt: self.typed.clone().map(|typed| -> esker::cli::Prompt {
                let prompts = self.prompts.clone();
                Box::new(move |prompt| {
                    prompts.lock().unwrap().push(prompt.to_owned());
                    typed.lock().unwrap().pop().map(Into::into).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
                })
            }),
            memory: Some(self.instead.clone().unwrap_or_else(|| Arc::new(self.memory.clone()))),
            on_interrupt: Box::new(move |stop| {
                if interrupted {
                    stop();
                }
            }),
        };
        let args = std::iter::once("esker".into()).chain(args.into_iter().map(Into::into));
        let code = run(args, context);
        let dir = fs::canonicalize(self.dir.path()).unwrap();
        Output { code, stdout: stdout.take(), stderr: stderr.take(), dir }
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command did.
pub(crate) struct Output {
    /// Its exit code.
    pub(crate) code: u8,
    /// What it wrote to stdout.
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
    dir: PathBuf,
}

impl Output {
    /// Asserts that all of it was done.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.fails(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn fails(self, code: u8) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Stdout as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("what people read is UTF-8")
    }

    /// Stderr as text.
    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.stderr.clone()).expect("what people read is UTF-8")
    }

    /// Stdout as lines of JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.out().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// Stderr as lines of JSON.
    pub(crate) fn json_err(&self) -> Vec<serde_json::Value> {
        self.err().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }
}

/// Stdout, stderr and the exit code, without what differs from run to run.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.stdout[..], &self.stderr[..]].concat();
        let text = String::from_utf8(all)
            .unwrap_or_else(|bytes| OsString::from_vec(bytes.into_bytes()).to_string_lossy().into_owned());
        write!(f, "{}[exit {}]", text.replace(&*self.dir.to_string_lossy(), "[DIR]"), self.code)
    }
}
