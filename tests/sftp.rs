//! The risk: a server that goes away, refuses, runs full or lacks something makes an object be
//! seen in part, be lost, or be taken for absent; or leaves `ssh` behind.
//! The method: a real OpenSSH server for each test, cut, limited and set up as servers are.
//! What every storage must do is in `tests/contract.rs`.

#![cfg(feature = "sftp")]

#[allow(dead_code)] // each file of tests uses a part of it
#[path = "support/sshd.rs"]
mod sshd;

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use esker::storage::local::Local;
use esker::storage::sftp::{Durability, Location, Options, Sftp};
use esker::storage::{Error, ErrorKind, Result, Storage, WriteMode};
use sshd::{Sshd, keygen};

use WriteMode::{CreateNew, Replace};

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("this call fails").kind()
}

fn names(storage: &dyn Storage) -> Vec<String> {
    storage.list("").unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Bytes without a pattern, the same at each run.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// The error and its causes in one line.
fn told(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn temporary_files(server: &Sshd) -> usize {
    fs::read_dir(server.path().join("tmp")).unwrap().count()
}

/// Waits for what happens by itself soon.
fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not within half a minute: {what}");
}

#[test]
fn a_repository_on_a_server_is_the_one_in_its_directory() {
    let Some(server) = Sshd::start() else { return };
    let sftp = server.create();
    assert_eq!(sftp.durability().unwrap(), Durability::Names);
    sftp.put("packs/9f/9f3c", b"from afar", CreateNew).unwrap();
    sftp.barrier().unwrap();
    let local = Local::open(server.path()).unwrap();
    assert_eq!(local.get("packs/9f/9f3c").unwrap(), b"from afar");
    local.put("config", b"from near", CreateNew).unwrap();
    assert_eq!(sftp.get("config").unwrap(), b"from near");
    assert_eq!(sftp.list("").unwrap(), local.list("").unwrap());
    assert_eq!(fs::read_dir(server.path().join("packs")).unwrap().count(), 256);
    let mode = |below: &str| fs::metadata(server.path().join(below)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("tmp"), mode("packs/9f"), mode("packs/9f/9f3c")], [0o700, 0o700, 0o700, 0o600]);
    // No second name stays.
    drop(sftp);
    assert_eq!(temporary_files(&server), 0);
}

#[test]
fn a_directory_that_holds_something_else_is_not_taken() {
    let Some(server) = Sshd::start() else { return };
    fs::create_dir(server.path()).unwrap();
    let create = || Sftp::create(&server.location(&server.path()), &server.options());
    fs::write(server.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(kind(create()), ErrorKind::Exists);
    fs::remove_file(server.path().join("notes.txt")).unwrap();
    fs::create_dir_all(server.path().join("packs/00")).unwrap();
    create().unwrap().put("packs/00/00", b"x", CreateNew).unwrap();
    assert_eq!(kind(create()), ErrorKind::Exists);
}

#[test]
fn a_place_that_is_not_there_is_not_found_and_not_made() {
    let Some(server) = Sshd::start() else { return };
    let location = server.location(&server.home.path().join("no/such"));
    assert_eq!(kind(Sftp::open(&location, &server.options())), ErrorKind::NotFound);
    assert_eq!(kind(Sftp::create(&location, &server.options())), ErrorKind::Denied);
    assert!(!server.home.path().join("no").exists());
    let file = server.location(&server.home.path().join("host.pub"));
    assert_eq!(kind(Sftp::open(&file, &server.options())), ErrorKind::Io);
}

/// A list that fails must never be empty, and a link is no object.
#[test]
#[expect(clippy::disallowed_methods, reason = "what a server's administrator does by hand")]
fn a_directory_that_went_away_or_became_a_link_is_an_error() {
    let Some(server) = Sshd::start() else { return };
    let sftp = server.create();
    sftp.put("packs/00/a", b"x", CreateNew).unwrap();
    sftp.put("index/a", b"x", CreateNew).unwrap();
    let path = server.path();
    fs::rename(path.join("packs"), path.join("elsewhere")).unwrap();
    symlink(path.join("nowhere"), path.join("packs")).unwrap();
    assert_eq!(kind(sftp.list("packs/")), ErrorKind::Io);
    assert_eq!(kind(sftp.list("packs/00/")), ErrorKind::Io);
    assert_eq!(kind(sftp.list("")), ErrorKind::Io);
    symlink(path.join("index/a"), path.join("index/b")).unwrap();
    assert_eq!(kind(sftp.get("index/b")), ErrorKind::Io);
    assert_eq!(kind(sftp.stat("index/b")), ErrorKind::Io);
    assert_eq!(kind(sftp.list("index/")), ErrorKind::Io);
    fs::rename(&path, server.home.path().join("moved")).unwrap();
    assert_eq!(kind(sftp.list("")), ErrorKind::NotFound);
    assert_ne!(kind(sftp.put("index/c", b"x", CreateNew)), ErrorKind::NotFound);
    assert!(!path.exists(), "the root of a storage is made once");
}

/// A server that stops at any moment of a put: nothing is seen in part, and the same storage
/// goes on with another session.
#[test]
fn a_connection_cut_anywhere_in_a_put_shows_nothing_in_part() {
    let Some(program) = Sshd::sftp_server() else { return };
    let home = tempfile::tempdir().unwrap();
    let (limit, script) = (home.path().join("limit"), home.path().join("cut"));
    // The next session hears as many bytes of us as the file says.
    let text = format!(
        "#!/bin/sh\nif mv {limit} {limit}.$$ 2>/dev/null; then\n\
         dd bs=1 count=$(cat {limit}.$$) status=none | {program}\n\
         else exec {program}; fi\n",
        limit = limit.display(),
        program = program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(server) = Sshd::with_subsystem(script.to_str().unwrap()) else { return };
    drop(server.create());
    let bytes = noise(60_000);
    // Hello, limits and opening the storage; opening the file; its pieces; then byte by byte
    // what makes it an object.
    let whole = 60_000;
    let heads = (0..400).step_by(100).chain([20_000, 40_000]);
    let cuts = heads.chain((whole + 300..whole + 2_100).step_by(100));
    let (mut refused, mut failed, mut done) = (0, 0, 0);
    for cut in cuts {
        fs::write(&limit, cut.to_string()).unwrap();
        let location = server.location(&server.path());
        let sftp = match Sftp::open(&location, &server.options()) {
            Ok(sftp) => sftp,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Transient | ErrorKind::Io), "{error:?}");
                refused += 1;
                continue;
            }
        };
        let name = format!("packs/00/{cut}");
        let put = sftp.put(&name, &bytes, CreateNew);
        let seen = sftp.list("packs/00/").or_else(|_| sftp.list("packs/00/")).unwrap();
        let seen = seen.into_iter().find(|listed| listed.name == name);
        assert!(seen.as_ref().is_none_or(|listed| listed.bytes == 60_000), "{cut}: {seen:?}");
        match put {
            Ok(()) => {
                assert!(seen.is_some(), "{cut}: acknowledged");
                done += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Transient, "{cut}: {error:?}");
                failed += 1;
                // Another try ends it, as the caller's retries do.
                match sftp.put(&name, &bytes, CreateNew) {
                    Ok(()) => assert!(seen.is_none(), "{cut}: replaced"),
                    Err(error) => assert_eq!((error.kind(), seen.is_some()), (ErrorKind::Exists, true), "{cut}"),
                }
            }
        }
        // The cut may also come here; then another try is enough, as above.
        sftp.barrier().or_else(|_| sftp.barrier()).unwrap();
        assert!(sftp.get(&name).or_else(|_| sftp.get(&name)).unwrap() == bytes, "{cut}");
    }
    assert!(refused >= 1 && failed >= 5 && done >= 3, "{refused} refused, {failed} failed, {done} done");
}

#[test]
fn a_session_killed_while_idle_costs_one_call() {
    let Some(server) = Sshd::start() else { return };
    let sftp = server.create();
    sftp.put("a", b"x", CreateNew).unwrap();
    let (mut kills, mut lost) = (0, 0);
    for _ in 0..3 {
        server.kill_sessions();
        kills += 1;
        // The end may be seen before a call, by it, or only by a later one.
        for _ in 0..30 {
            match sftp.get("a") {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Transient);
                    assert!(told(&error).starts_with("lost the connection to `"), "{}", told(&error));
                    lost += 1;
                }
                Ok(bytes) => assert_eq!(bytes, b"x"),
            }
            assert!(lost <= kills, "{lost} calls lost by {kills} kills");
        }
    }
    until("a new session answers", || sftp.get("a").is_ok());
}

/// A server that comes back without what it had acknowledged is found out by the barrier, since
/// otherwise a snapshot would be committed that lacks a pack.
#[test]
fn a_barrier_misses_what_a_server_forgot_with_the_connection() {
    let Some(server) = Sshd::start() else { return };
    let sftp = server.create();
    sftp.put("packs/00/kept", b"kept", CreateNew).unwrap();
    server.kill_sessions();
    until("the end is seen", || sftp.stat("packs/00/kept").is_ok());
    sftp.barrier().unwrap();
    sftp.put("packs/00/forgotten", b"forgotten", CreateNew).unwrap();
    server.kill_sessions();
    fs::remove_file(server.path().join("packs/00/forgotten")).unwrap();
    let mut result = sftp.barrier();
    while result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Transient) {
        result = sftp.barrier();
    }
    let error = result.unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("`packs/00/forgotten`"), "{error:?}");
    assert_eq!(kind(sftp.put("a", b"x", CreateNew)), ErrorKind::Io, "nothing more is written");
}

/// A file system of its own for the repository, unmounted at the end.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(server) = Sshd::start() else { return };
    let path = server.path();
    fs::create_dir(&path).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&path).status().unwrap();
    assert!(mounted.success());
    let _mount = Mount(&path);
    let sftp = server.create();
    let error = sftp.put("packs/00/large", &noise(6 << 20), CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert!(names(&sftp).is_empty());
    sftp.put("packs/00/small", &noise(3 << 20), CreateNew).unwrap();
    assert_eq!(kind(sftp.put("packs/00/other", &noise(2 << 20), Replace)), ErrorKind::Full);
    sftp.delete("packs/00/small").unwrap();
    sftp.put("packs/00/other", &noise(2 << 20), Replace).unwrap();
}

#[test]
fn a_server_that_only_lets_read_denies_the_rest() {
    let Some(server) = Sshd::with_arguments("-R") else { return };
    Local::create(server.path()).unwrap().put("a", b"x", CreateNew).unwrap();
    let sftp = server.open();
    assert_eq!(sftp.get("a").unwrap(), b"x");
    assert_eq!(names(&sftp), ["a"]);
    assert_eq!(kind(sftp.put("b", b"x", CreateNew)), ErrorKind::Denied);
    assert_eq!(kind(sftp.delete("a")), ErrorKind::Denied);
    assert_eq!(
        kind(Sftp::create(&server.location(&server.home.path().join("new")), &server.options())),
        ErrorKind::Denied
    );
}

/// What is not ours to read, asked as someone who is not root.
#[test]
fn a_directory_that_is_not_ours_to_read_is_not_empty() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let Some(server) = Sshd::start() else { return };
    let sftp = server.create();
    sftp.put("index/a", b"x", CreateNew).unwrap();
    let set = |mode| fs::set_permissions(server.path().join("index"), fs::Permissions::from_mode(mode)).unwrap();
    set(0o000);
    assert_eq!(kind(sftp.list("")), ErrorKind::Denied);
    assert_eq!(kind(sftp.get("index/a")), ErrorKind::Denied);
    set(0o500);
    assert_eq!(kind(sftp.put("index/b", b"x", CreateNew)), ErrorKind::Denied);
    set(0o700);
}

/// Servers other than OpenSSH's lack some of its extensions, down to all of them.
#[test]
fn a_server_without_extensions_does_what_it_can() {
    for (denied, durability) in [
        ("hardlink", Durability::Names),
        ("posix-rename", Durability::Names),
        ("hardlink,posix-rename,fsync,statvfs,limits", Durability::Nothing),
    ] {
        let Some(server) = Sshd::with_arguments(&format!("-P {denied}")) else { return };
        let sftp = server.create();
        assert_eq!(sftp.durability().unwrap(), durability, "{denied}");
        let bytes = noise(300_000);
        sftp.put("packs/00/a", &bytes, CreateNew).unwrap();
        assert_eq!(kind(sftp.put("packs/00/a", b"other", CreateNew)), ErrorKind::Exists, "{denied}");
        sftp.put("new/place/a", b"1", CreateNew).unwrap();
        sftp.put("new/place/a", b"22", Replace).unwrap();
        sftp.put("alive/a", b"1", Replace).unwrap();
        sftp.put("alive/a", b"2", Replace).unwrap();
        sftp.barrier().unwrap();
        assert!(sftp.get("packs/00/a").unwrap() == bytes);
        assert_eq!((sftp.get("new/place/a").unwrap(), sftp.get("alive/a").unwrap()), (b"22".to_vec(), b"2".to_vec()));
        drop(sftp);
        assert_eq!(temporary_files(&server), 0, "{denied}");
    }
}

#[test]
fn leftovers_of_writers_that_died_a_day_ago_go_with_the_next_put() {
    let Some(server) = Sshd::start() else { return };
    drop(server.create());
    let leave = |name: &str, age_hours: u64| {
        let path = server.path().join("tmp").join(name);
        fs::write(&path, "torn").unwrap();
        #[expect(clippy::disallowed_methods, reason = "the age of a file is by the system's clock")]
        let then = SystemTime::now() - Duration::from_secs(age_hours * 3600);
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    };
    leave("dead-0", 25);
    leave("alive-0", 23);
    let reader = server.open();
    assert!(names(&reader).is_empty());
    assert_eq!(kind(reader.get("a")), ErrorKind::NotFound);
    drop(reader);
    assert_eq!(temporary_files(&server), 2, "a reader removes nothing");
    let writer = server.open();
    writer.put("a", b"x", CreateNew).unwrap();
    drop(writer);
    let left: Vec<_> =
        fs::read_dir(server.path().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["alive-0"]);
}

/// Neither may hang at a question nobody sees, and each is told in the words of `ssh`.
#[test]
fn a_host_key_that_changed_and_a_key_that_is_refused_are_errors() {
    let Some(server) = Sshd::start() else { return };
    server.create();
    let open = |options: &Options| Sftp::open(&server.location(&server.path()), options).unwrap_err();
    let other = server.home.path().join("other");
    keygen(&other);

    server.trust(&other.with_extension("pub"));
    let changed = open(&server.options());
    assert_eq!(changed.kind(), ErrorKind::Denied, "{changed:?}");
    assert!(told(&changed).contains("Host key verification failed"), "{}", told(&changed));

    fs::write(server.known_hosts(), "").unwrap();
    let unknown = open(&server.options());
    assert_eq!(unknown.kind(), ErrorKind::Denied, "{unknown:?}");
    assert!(told(&unknown).contains("Host key verification failed"), "{}", told(&unknown));

    server.trust(&server.home.path().join("host.pub"));
    let refused = open(&Options { identity_file: Some(other), ..server.options() });
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused:?}");
    assert!(told(&refused).contains("Permission denied"), "{}", told(&refused));
}

#[test]
fn a_command_that_is_no_ssh_is_told_from_a_server_that_is_not_there() {
    let Some(server) = Sshd::start() else { return };
    server.create();
    let open = |words: &[&str]| {
        let ssh_command = words.iter().map(|word| (*word).to_owned()).collect();
        Sftp::open(&server.location(&server.path()), &Options { ssh_command, ..server.options() }).unwrap_err()
    };
    let missing = open(&["no-such-ssh"]);
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(told(&missing).starts_with("cannot run `no-such-ssh`"), "{}", told(&missing));
    let failed = open(&["false"]);
    assert_eq!(failed.kind(), ErrorKind::Io);
    assert!(told(&failed).contains("exit status: 1"), "{}", told(&failed));
    let talks = open(&["sh", "-c", "echo Welcome to this host; sleep 0.1"]);
    assert_eq!(talks.kind(), ErrorKind::Io);
    assert!(told(&talks).contains("start-up script"), "{}", told(&talks));
    let words = open(&["sh", "-c", "echo 'ssh: what I say' >&2; exit 255"]);
    assert!(told(&words).ends_with("ssh: what I say"), "{}", told(&words));

    // A port nobody listens on any more.
    let location = server.location(&server.path());
    let options = server.options();
    drop(server);
    let gone = Sftp::open(&location, &options).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Transient, "{gone:?}");
    assert!(told(&gone).contains("Connection refused"), "{}", told(&gone));
}

/// Replies that end early, are too long, or answer nothing: an error and no panic, and `ssh`'s
/// place is free for another try.
#[test]
fn replies_that_are_not_sftp_end_the_session_and_nothing_else() {
    let hello = "\\000\\000\\000\\005\\002\\000\\000\\000\\003";
    for reply in [
        "",
        "\\000\\000\\000\\001i",
        "\\377\\377\\377\\377",
        "\\000\\000\\000\\005i\\000\\000\\000\\001",
        "\\000\\000\\000\\011e\\000\\000\\000\\143\\000\\000\\000\\000",
    ] {
        let script = format!("printf '{hello}{reply}'; exec cat >/dev/null");
        let ssh_command = ["sh", "-c", &script].map(str::to_owned).into();
        let options = Options { ssh_command, ..Options::default() };
        let location = Location::parse("sftp://host/x").unwrap();
        if reply.is_empty() {
            // It says hello and then nothing, until it is ended.
            let script = format!("printf '{hello}'; head -c 10 >/dev/null");
            let options = Options { ssh_command: ["sh", "-c", &script].map(str::to_owned).into(), ..options };
            assert_eq!(kind(Sftp::open(&location, &options)), ErrorKind::Transient);
            continue;
        }
        let error = Sftp::open(&location, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{reply}: {error:?}");
    }
}

/// Many threads share few sessions, and a server that lets in fewer still serves them all.
#[test]
fn a_limit_of_connections_is_kept() {
    let Some(server) = Sshd::start() else { return };
    server.create();
    let options = Options { connections: Some(2), ..server.options() };
    let sftp = Arc::new(Sftp::open(&server.location(&server.path()), &options).unwrap());
    thread::scope(|scope| {
        for thread in 0..8 {
            let sftp = Arc::clone(&sftp);
            scope.spawn(move || {
                for number in 0..5 {
                    sftp.put(&format!("packs/00/{thread}-{number}"), &noise(50_000), CreateNew).unwrap();
                }
            });
        }
        until("both connections are used", || server.logged_in() == 2);
    });
    assert_eq!(server.logged_in(), 2);
    assert_eq!(names(&*sftp).len(), 40);
    drop(sftp);
    until("every session has ended", || server.logged_in() == 0);
}

/// The program itself, with a home of its own.
fn esker(server: &Sshd, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.env("HOME", home).env("XDG_CACHE_HOME", home.join("cache")).env("XDG_STATE_HOME", home.join("state"));
    command.env("ESKER_REPOSITORY", server.url(&server.path())).env("ESKER_PASSWORD", "correct horse");
    command.env("ESKER_PROGRESS", "never").env_remove("ESKER_KEY_FILE").args(server.arguments());
    command
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn the_program_makes_fills_checks_and_restores_a_repository() {
    let Some(server) = Sshd::start() else { return };
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| run(esker(&server, home.path()).args(arguments));
    let (code, text) = run(&["snapshots"]);
    assert_eq!(code, 10, "{text}");
    let (code, text) = run(&["init"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["init"]);
    assert_eq!(code, 6, "{text}");
    let source = home.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), noise(20 << 20)).unwrap();
    fs::write(source.join("small"), "small").unwrap();
    let (code, text) = run(&["backup", source.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["check", "--read-data"]);
    assert_eq!(code, 0, "{text}");
    let target = home.path().join("target");
    let (code, text) = run(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let restored = target.join(source.strip_prefix("/").unwrap());
    assert!(fs::read(restored.join("large")).unwrap() == noise(20 << 20));
    assert_eq!(fs::read(restored.join("small")).unwrap(), b"small");

    // An unknown host: told with the words of `ssh` and a command to paste.
    fs::write(server.known_hosts(), "").unwrap();
    let (code, text) = run(&["-o", "retries=0", "snapshots"]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("Host key verification failed"), "{text}");
    assert!(text.contains("hint: to see what ssh needs, run `ssh -F none"), "{text}");
}

/// The process group a process is in.
fn group(process: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name, in parentheses, may hold anything.
    stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().to_owned()
}

/// An interrupt at the terminal must not end `ssh` before a checkpoint is committed, and nothing
/// may stay when we are killed.
#[test]
fn ssh_is_in_a_group_of_its_own_and_ends_when_we_are_killed() {
    let Some(server) = Sshd::start() else { return };
    let home = tempfile::tempdir().unwrap();
    let (code, text) = run(esker(&server, home.path()).arg("init"));
    assert_eq!(code, 0, "{text}");
    let source = home.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), noise(256 << 20)).unwrap();
    let mut running = esker(&server, home.path());
    running.args(["backup", source.to_str().unwrap()]).args(["--limit-upload", "1024"]);
    let mut running = running.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    until("ssh runs", || !sshd::descendants(running.id()).is_empty() && server.logged_in() > 0);
    let started = sshd::descendants(running.id());
    for process in &started {
        assert_ne!(group(*process), group(running.id()));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    until("every ssh has ended", || started.iter().all(|process| !Path::new(&format!("/proc/{process}")).exists()));
    until("every session has ended", || server.logged_in() == 0);
}
