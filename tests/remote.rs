//! Risk: what works on a directory fails over the wire: a verb, a broken connection, a killed
//! client, a wrong credential; or a secret is told on the way.
//! Method: the binary itself against each real server (`tests/support/servers.rs`), credentials by
//! environment only. Every command's output is searched for every secret ([`Desk::esker`]), and
//! what comes back is compared by a reader of its own (`tests/support/tree.rs`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[allow(dead_code)] // each file of tests uses a part of it
#[path = "support/servers.rs"]
mod servers;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::storage::remote::{self, Settings};
use servers::Server;

/// What unlocks every repository here; it must not be told either.
const PASSWORD: &str = "correct horse battery staple";

/// The test `$test` for every kind of server, so that kinds run side by side and fail apart.
macro_rules! over_the_wire {
    ($($test:ident),*) => {
        over_the_wire!(@kind s3 "s3" $($test)*);
        over_the_wire!(@kind weak_s3 "weak-s3" $($test)*);
        over_the_wire!(@kind sftp "sftp" $($test)*);
        over_the_wire!(@kind azblob "azblob" $($test)*);
        over_the_wire!(@kind webdav "webdav" $($test)*);
    };
    (@kind $module:ident $kind:literal $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::servers::of_kind($kind).into_iter().for_each(super::$test);
                }
            )*
        }
    };
}

over_the_wire!(
    everything_comes_back_byte_for_byte,
    a_killed_backup_does_no_harm,
    what_was_uploaded_is_not_uploaded_again,
    wrong_credentials_are_refused,
    what_is_not_there_is_said,
    a_server_that_does_not_answer_ends_the_command,
    a_reader_needs_no_more_than_to_read
);

/// A server, a repository's place on it, a directory to work in, and one command at a time.
struct Desk {
    server: Server,
    url: String,
    env: BTreeMap<String, String>,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new(server: Server) -> Self {
        let (url, env) = (server.fresh_url(), server.env.clone());
        Self { server, url, env, dir: tempfile::tempdir().unwrap() }
    }

    /// The same with a repository in it.
    fn with_repository(server: Server) -> Self {
        let desk = Self::new(server);
        desk.esker(["init"]).success();
        desk
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(below)
    }

    /// A command with nothing of our own environment.
    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path("home"));
        command.env("ESKER_REPOSITORY", &self.url).env("ESKER_PASSWORD", PASSWORD);
        command.env("ESKER_CACHE_DIR", self.path("cache")).env("ESKER_STATE_DIR", self.path("state"));
        command.env("AWS_EC2_METADATA_DISABLED", "true").envs(&self.env);
        command
    }

    /// Runs a command to its end; it told no secret.
    #[track_caller]
    fn esker(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let began = Instant::now();
        let output = self.command(&args).output().unwrap();
        let done = Done {
            what: format!("{}: esker {}", self.server.name, args.join(OsStr::new(" ")).display()),
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("what people read is UTF-8"),
            took: began.elapsed(),
        };
        self.assert_tells_nothing(&done.to_string());
        assert!(!done.stderr.contains("panicked"), "{done}");
        done
    }

    /// The command as it is, with `-v`, and with `--json`: all of them end with one of `codes`.
    #[track_caller]
    fn fails_with(&self, args: &[&str], codes: &[i32]) -> Done {
        for more in [vec!["-v"], vec!["--json"], vec!["--json", "-v"]] {
            let done = self.esker([args, &more].concat());
            assert!(done.status.code().is_some_and(|code| codes.contains(&code)), "one of {codes:?}: {done}");
        }
        let done = self.esker(args);
        assert!(done.status.code().is_some_and(|code| codes.contains(&code)), "one of {codes:?}: {done}");
        assert!(done.stderr.starts_with("error: "), "{done}");
        done
    }

    /// No secret is in `text`, neither as it is nor as it stands in a URL.
    #[track_caller]
    fn assert_tells_nothing(&self, text: &str) {
        let mut secrets = self.server.secrets.clone();
        secrets.push(PASSWORD.to_owned());
        secrets.extend(
            self.server.wrong_env.values().filter(|value| !self.server.env.values().any(|v| v == *value)).cloned(),
        );
        for secret in secrets {
            let escaped: String = secret
                .bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect();
            assert!(!text.contains(&secret) && !text.contains(&escaped), "a secret is told");
        }
    }

    /// What the server has below a prefix of the repository.
    fn stored_bytes(&self, prefix: &str) -> u64 {
        let settings = Settings { options: self.server.options.clone(), ..Settings::default() };
        let storage = remote::open(&self.url, &settings).expect("the repository's place opens");
        storage.list(prefix).unwrap().iter().map(|object| object.bytes).sum()
    }

    /// Restores into a directory of its own with an empty cache, and gives what came back.
    fn restored(&self, snapshot: &str, of: &Path) -> Vec<String> {
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        let at = target.path().join("files");
        let at = at.to_str().unwrap();
        self.esker(["restore", snapshot, "--target", at, "--no-cache"]).success();
        tree::lines(&target.path().join("files").join(of.strip_prefix("/").unwrap()))
    }
}

/// What a command did.
struct Done {
    what: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
    took: Duration,
}

impl Done {
    #[track_caller]
    fn success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// The last line of stdout as JSON: a summary, or a list.
    #[track_caller]
    fn json(&self) -> serde_json::Value {
        let text = String::from_utf8(self.stdout.clone()).unwrap();
        serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, status, stderr, took, .. } = self;
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "{what} ({status}, {:.1} s)\n{stdout}{stderr}", took.as_secs_f32())
    }
}

/// Bytes that no compression makes smaller, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// About 40 MB: two large files, one that compresses, 1,500 small ones, and what else a tree has.
fn make_tree(top: &Path) {
    fs::create_dir_all(top.join("large")).unwrap();
    fs::write(top.join("large/image"), noise(1, 16_000_000)).unwrap();
    fs::write(top.join("large/video"), noise(2, 12_000_001)).unwrap();
    fs::write(top.join("large/log"), "one line much like another\n".repeat(300_000)).unwrap();
    for number in 0..1500_usize {
        let dir = top.join(format!("small/{:02}", number % 30));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{number}.txt")), noise(100 + number as u64, number * 7 % 6000)).unwrap();
    }
    fs::create_dir_all(top.join("empty/directory")).unwrap();
    fs::write(top.join("empty/file"), "").unwrap();
    fs::write(top.join("a name with spaces, ü and a \n newline"), "x").unwrap();
    fs::set_permissions(top.join("empty/file"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("large/image", top.join("link")).unwrap();
    fs::hard_link(top.join("large/log"), top.join("second name")).unwrap();
    fs::File::create(top.join("hole")).unwrap().set_len(1 << 24).unwrap();
}

/// Changes some of it: the middle of a large file, a small one, one more, one less.
fn change_tree(top: &Path) {
    let mut image = fs::read(top.join("large/image")).unwrap();
    image[8_000_000..8_000_100].fill(7);
    fs::write(top.join("large/image"), image).unwrap();
    fs::write(top.join("small/07/7.txt"), "changed").unwrap();
    fs::write(top.join("small/new"), noise(3, 100_000)).unwrap();
    fs::remove_file(top.join("small/00/30.txt")).unwrap();
}

/// Every verb, three snapshots, two of them restored by somebody without a cache.
fn everything_comes_back_byte_for_byte(server: Server) {
    let desk = Desk::new(server);
    let top = desk.path("tree");
    let top_name = top.to_str().unwrap();
    make_tree(&top);
    let before = tree::lines(&top);

    desk.esker(["init", "-v"]).success();
    desk.fails_with(&["init"], &[6]);
    let first = desk.esker(["backup", top_name, "--json"]).success().json();
    assert_eq!(first["message_type"], "summary");
    assert!(first["data_added"].as_u64().unwrap() > 36_000_000, "{first}");

    let unchanged = desk.esker(["backup", top_name, "--json", "-v"]).success().json();
    assert_eq!(unchanged["files_new"], 0, "{unchanged}");
    assert!(unchanged["data_added"].as_u64().unwrap() < 100_000, "{unchanged}");

    change_tree(&top);
    let after = tree::lines(&top);
    let changed = desk.esker(["backup", top_name, "--json"]).success().json();
    let added = changed["data_added"].as_u64().unwrap();
    assert!((100_000..3_000_000).contains(&added), "{changed}");

    let snapshots = desk.esker(["snapshots", "--json"]).success().json();
    assert_eq!(snapshots.as_array().unwrap().len(), 3);
    desk.esker(["snapshots", "-v"]).success();
    let checked = desk.esker(["check", "--read-data", "--json"]).success().json();
    assert_eq!(checked["num_errors"], 0, "{checked}");
    desk.esker(["ls", "latest", "-v"]).success();

    assert_eq!(desk.restored("latest", &top), after);
    assert_eq!(desk.restored("latest~2", &top), before);
    let image = top.join("large/image");
    let dumped = desk.esker([OsStr::new("dump"), "latest".as_ref(), image.as_os_str()]).success();
    assert!(dumped.stdout == fs::read(image).unwrap(), "`dump` writes what the file holds");
}

/// `kill -9` may come at any time. What is there afterwards is sound, and the next backup ends.
fn a_killed_backup_does_no_harm(server: Server) {
    let desk = Desk::with_repository(server);
    let top = desk.path("tree");
    make_tree(&top);
    let mut killed = 0;
    for wait in [100, 250, 500, 900, 1500] {
        let mut command =
            desk.command([OsStr::new("backup"), top.as_os_str(), "--limit-upload".as_ref(), "16384".as_ref()]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_millis(wait);
        while Instant::now() < end {
            desk.assert_tells_nothing(&command_lines(child.id()));
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap(); // SIGKILL
        killed += u32::from(!child.wait().unwrap().success());
    }
    assert!(killed > 0, "a backup of 40 MB at 16 MiB/s takes longer than 100 ms");

    desk.esker([OsStr::new("backup"), top.as_os_str()]).success();
    desk.esker(["check", "--read-data"]).success();
    assert_eq!(desk.restored("latest", &top), tree::lines(&top));
    // A snapshot that was made before its client died is a snapshot.
    for snapshot in desk.esker(["snapshots", "--json"]).success().json().as_array().unwrap() {
        assert_eq!(desk.restored(snapshot["id"].as_str().unwrap(), &top), tree::lines(&top));
    }
}

/// A client killed once its first pack is stored, with one connection so that packs come one by one.
/// The packs of both runs together are no more than the tree: the next run takes up the first one's.
fn what_was_uploaded_is_not_uploaded_again(server: Server) {
    let desk = Desk::with_repository(server);
    let top = desk.path("tree");
    make_tree(&top);
    let backup = [OsStr::new("backup"), top.as_os_str(), "-o".as_ref(), "connections=1".as_ref()];
    let mut slow = desk.command(backup);
    let mut child = slow.args(["--limit-upload", "4096"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() && desk.stored_bytes("packs/") < 30_000_000 {
        assert!(Instant::now() < end, "{}: a pack in 120 s", desk.server.name);
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_millis(500)); // seen by us, and by the client too
    child.kill().unwrap();
    child.wait().unwrap();
    let before = desk.stored_bytes("packs/");
    assert!(before > 30_000_000, "{}: {before}", desk.server.name);

    desk.esker(backup).success();
    let tree_bytes: u64 = 16_000_000 + 12_000_001 + (0..1500).map(|number| number * 7 % 6000).sum::<u64>();
    let both = desk.stored_bytes("packs/");
    assert!(both < tree_bytes + 4_000_000, "{}: {both} stored of {tree_bytes}", desk.server.name);
    desk.esker(["check", "--read-data"]).success();
    assert_eq!(desk.restored("latest", &top), tree::lines(&top));
}

/// What `ps` shows of a process and of all it started.
fn command_lines(process: u32) -> String {
    let mut text = String::new();
    let mut waiting = vec![process.to_string()];
    while let Some(process) = waiting.pop() {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&line));
        text.push('\n');
        for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().map(str::to_owned));
        }
    }
    text
}

/// Somebody the server does not know gets one error, and no repository is made or found missing.
fn wrong_credentials_are_refused(server: Server) {
    let mut desk = Desk::with_repository(server);
    if let Some(url) = &desk.server.wrong_url {
        let prefix = desk.server.fresh_prefix();
        desk.url = servers::below(url, &prefix);
    }
    desk.env.extend(desk.server.wrong_env.clone());
    for args in [&["snapshots"][..], &["init"], &["backup", "/etc/hostname"], &["backup", "--init", "/etc/hostname"]] {
        let done = desk.fails_with(args, &[1, 6]);
        assert!(done.took < Duration::from_secs(30), "nobody asks again with a wrong credential: {done}");
    }
    // The same with none.
    if desk.server.wrong_url.is_none() {
        desk.env.clear();
        for args in [&["snapshots"][..], &["init"]] {
            let done = desk.fails_with(args, &[1, 2, 6]);
            assert!(done.took < Duration::from_secs(30), "{done}");
        }
    }
}

/// No repository is exit 10 and makes nothing; no bucket is another error, and never an empty one.
fn what_is_not_there_is_said(server: Server) {
    let mut desk = Desk::new(server);
    for args in [&["snapshots"][..], &["check"], &["backup", "/etc/hostname"], &["restore", "latest", "-t", "x"]] {
        let done = desk.fails_with(args, &[10]);
        assert!(done.stderr.contains("esker init"), "the hint is how to make one: {done}");
    }
    if let Some(url) = desk.server.missing_url.clone() {
        desk.url = servers::below(&url, &desk.server.fresh_prefix());
        for args in [&["init"][..], &["snapshots"], &["backup", "--init", "/etc/hostname"]] {
            let done = desk.fails_with(args, &[1, 10]);
            assert!(done.stderr.contains("esker-not-there"), "it is named: {done}");
            assert!(!done.stderr.contains("run `esker init`"), "there `init` would not help: {done}");
        }
    }
}

/// A closed port, and one that takes connections and never says a word.
fn a_server_that_does_not_answer_ends_the_command(server: Server) {
    let mut desk = Desk::new(server);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = desk.url.clone();
    desk.url = desk.server.url_at_port(&url, closed);
    let done = desk.esker(["snapshots"]);
    assert_eq!(done.status.code(), Some(1), "{done}");
    assert!(done.stderr.starts_with("error: ") && done.stderr.contains("127.0.0.1"), "{done}");
    assert!(done.took < Duration::from_secs(90), "{done}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    desk.url = desk.server.url_at_port(&url, silent.local_addr().unwrap().port());
    let done = desk.esker(["snapshots", "-o", "timeout=2", "-o", "retries=1"]);
    assert_eq!(done.status.code(), Some(1), "{done}");
    assert!(done.took < Duration::from_secs(60), "{done}");
}

/// Verbs that only read work with a credential that may only read; others say that they may not.
fn a_reader_needs_no_more_than_to_read(server: Server) {
    let Some(read_only) = server.read_only_env.clone() else { return };
    let mut desk = Desk::with_repository(server);
    let top = desk.path("tree");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("file"), noise(4, 100_000)).unwrap();
    desk.esker([OsStr::new("backup"), top.as_os_str()]).success();

    desk.env = read_only;
    fs::remove_dir_all(desk.path("cache")).unwrap();
    desk.esker(["snapshots"]).success();
    desk.esker(["check", "--read-data"]).success();
    assert_eq!(desk.restored("latest", &top), tree::lines(&top));
    desk.esker([OsStr::new("dump"), "latest".as_ref(), top.join("file").as_os_str()]).success();
    desk.fails_with(&["backup", top.to_str().unwrap()], &[6]);
    desk.url = desk.server.fresh_url();
    desk.fails_with(&["init"], &[6]);
}
