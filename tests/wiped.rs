//! Risk: a password or key stays in memory longer than it is needed, and from there gets into a core
//! dump, a swap file or somebody else's hands.
//! Method: the real program is held where it waits (for a command it reads from, or for somebody to
//! read what it prints), all memory it can write to is read through `/proc`, and what must be gone is
//! looked for in every part. That keys in use *are* found shows that the method finds things.
//! `docs/secrets.md` is the list of what lives how long.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use esker::crypto::key::SecretKey;
use esker::crypto::slot::{KdfCost, password_key};
use esker::crypto::words::words_of;
use esker::format::config::Slot;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::open::Local;
use esker::repo::recovery::secret_from_text;
use esker::repo::secret::Secret;
use esker::storage;
use esker::world::World;
use nix::libc::SYS_write;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;

#[path = "support/needles.rs"]
mod needles;

use needles::Needles;

const PASSWORD: &str = "Correct-Canary+Battery/Staple=42 xyzzy";
const NEW_PASSWORD: &str = "Another-Sparrow+Horse/Stapler=43 plugh";

/// A directory with a repository `repo`, which opens by the password in `pw`.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    /// `None`, aloud, where nobody may look into a process.
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(scene.path("pw"), format!("{PASSWORD}\n")).unwrap();
        fs::write(scene.path("new"), format!("{NEW_PASSWORD}\n")).unwrap();
        let made = Command::new("mkfifo").arg(scene.path("fifo")).status().unwrap();
        assert!(made.success());
        succeeds(scene.esker(["init", "--password-file", "pw"]));
        Some(scene)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn esker<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_esker")), args)
    }

    fn prepared<'a>(&self, mut command: Command, args: impl IntoIterator<Item = &'a str>) -> Command {
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.dir.path());
        command.env("ESKER_REPOSITORY", self.path("repo"));
        command
    }

    fn open(&self, password: &str) -> Repository {
        let storage = Arc::new(storage::local::Local::open(self.path("repo")).unwrap());
        Repository::open(storage, World::system(), &Secret::password(password), Local::default()).unwrap()
    }

    /// A password and all that is made of it to open any of the slots there are.
    fn of_password(&self, password: &str) -> Needles {
        let mut needles = Needles::default();
        needles.add_parts("the password", password.as_bytes(), 10, 1);
        self.add_keys_of_password(password, &mut needles);
        needles
    }

    fn add_keys_of_password(&self, password: &str, needles: &mut Needles) {
        for (number, slot) in fs::read_dir(self.path("repo/keys")).unwrap().enumerate() {
            let slot = Slot::decode(&fs::read(slot.unwrap().path()).unwrap()).unwrap();
            let key = password_key(password.as_bytes(), &slot.salt, KdfCost::DEFAULT).unwrap();
            add_key(needles, &format!("Argon2's key of slot {number}"), &key);
            add_key(needles, &format!("the key of slot {number}"), &key.derive_salted(&slot.salt, "slot").key);
        }
    }

    /// Arguments of a backup that says `held` on stderr once the repository is open and waits.
    fn held_backup(&self) -> Vec<String> {
        let script = format!("echo held >&2; exec cat {}", self.path("fifo").display());
        ["backup", "--stdin-from-command", "--", "sh", "-c", &script].map(str::to_owned).into()
    }

    /// The program's memory in a backup that has opened the repository, and what it read may come.
    fn opened(&self, mut command: Command) -> Image {
        let fifo = OpenOptions::new().read(true).write(true).open(self.path("fifo")).unwrap();
        let (stderr, writer) = std::io::pipe().unwrap();
        let mut child = command.args(self.held_backup()).stderr(writer).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        wait_for(&mut BufReader::new(stderr), "held\n");
        let image = Image::of(&child);
        kill_process(pid(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        // Now the command ends, too.
        drop(fifo);
        image
    }

    /// The program's memory when all is done but that nobody reads what it prints.
    fn done(&self, mut command: Command) -> Image {
        let (reader, writer) = full_pipe();
        let mut child = command.stdout(writer).spawn().unwrap();
        drop(command);
        until_it_prints(&child);
        let image = Image::of(&child);
        drop(reader);
        child.wait().unwrap();
        image
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Skips aloud, or fails where `ESKER_REQUIRE` promises root.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "root"));
        assert!(!required, "root required");
        eprintln!("skipped: needs root, who alone may look into the process");
    }
    is_root
}

#[track_caller]
fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn wait_for(lines: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while line != wanted {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it said `{}`", wanted.trim());
    }
}

/// A pipe that takes nothing.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let modes = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, modes | OFlags::NONBLOCK).unwrap();
    let full = loop {
        if let Err(error) = writer.write(&[0; 512]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    rustix::fs::fcntl_setfl(&writer, modes).unwrap();
    (reader, writer)
}

/// Waits until the program waits for room to print in.
fn until_it_prints(child: &Child) {
    let waits = format!("{SYS_write} 0x1 ");
    for _ in 0..12_000 {
        if fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap().starts_with(&waits) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it has not come to print in a minute");
}

/// Every part of a key that could stand by itself.
fn add_key(needles: &mut Needles, name: &str, key: &SecretKey) {
    needles.add_parts(name, key.expose(), 16, 8);
}

/// All memory a program can write to.
struct Image {
    regions: Vec<(String, Vec<u8>)>,
}

impl Image {
    fn of(child: &Child) -> Self {
        kill_process(pid(child), Signal::STOP).unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        let mut memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        let mut regions = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, modes, name) = (fields.next().unwrap(), fields.next().unwrap(), fields.nth(3));
            if modes.starts_with("rw") {
                let ends = range.split('-').map(|end| u64::from_str_radix(end, 16).unwrap());
                let [begin, end] = ends.collect::<Vec<_>>()[..] else { panic!("{line}") };
                let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
                memory.seek(SeekFrom::Start(begin)).unwrap();
                memory.read_exact(&mut bytes).unwrap();
                regions.push((name.unwrap_or("anonymous").to_owned(), bytes));
            }
        }
        kill_process(pid(child), Signal::CONT).unwrap();
        Self { regions }
    }

    /// What of this is in it, and in which kind of memory.
    fn find(&self, needles: &Needles) -> Vec<String> {
        let found = |(name, bytes): &(String, Vec<u8>)| -> Vec<String> {
            needles.found_in(bytes).into_iter().map(|needle| format!("{needle} in {name}")).collect()
        };
        self.regions.iter().flat_map(found).collect()
    }

    #[track_caller]
    fn has_none(&self, needles: &Needles, when: &str) {
        let found = self.find(needles);
        assert!(found.is_empty(), "{when}: {found:#?}");
    }

    /// Where all keys are that it needs, each on the heap and none on the stack.
    #[track_caller]
    fn has_keys_of(&self, repository: &Repository, when: &str) {
        let keys = &repository.keys;
        let seed = keys.credential.seed();
        for (name, key) in [
            ("the credential's seed", seed),
            ("the seed of its signing key", &seed.derive("credential signing")),
            ("the seed of its sealing key", keys.credential.sealing().seed()),
            ("K_cdc", keys.chunker_key()),
            ("K_index", &keys.current_epoch().index_key),
        ] {
            let mut whole = Needles::default();
            whole.add(name, *key.expose());
            assert!(self.find(&whole).iter().any(|found| found.ends_with("[heap]")), "{when}: {name} is not found");
            let mut parts = Needles::default();
            add_key(&mut parts, name, key);
            let on_stack: Vec<_> = self.find(&parts).into_iter().filter(|found| found.ends_with("[stack]")).collect();
            assert!(on_stack.is_empty(), "{when}: {on_stack:#?}");
        }
    }
}

#[test]
fn a_password_and_what_was_made_of_it_are_gone_once_the_repository_is_open() {
    let Some(scene) = Scene::new() else { return };
    let gone = scene.of_password(PASSWORD);
    let repository = scene.open(PASSWORD);
    for how in [["--password-file", "pw"], ["--password-command", "cat pw"], ["--password-fd", "0"]] {
        let mut command = scene.esker(how);
        command.stdin(File::open(scene.path("pw")).unwrap());
        let image = scene.opened(command);
        image.has_none(&gone, how[0]);
        image.has_keys_of(&repository, how[0]);
    }
    // The environment itself stays where the system put it, which is why nobody else may look.
    let mut keys = Needles::default();
    scene.add_keys_of_password(PASSWORD, &mut keys);
    let mut command = scene.esker([]);
    command.env("ESKER_PASSWORD", PASSWORD);
    scene.opened(command).has_none(&keys, "ESKER_PASSWORD");
}

/// `setsid` gives the program a terminal of its own.
#[test]
fn a_typed_password_is_not_shown_and_is_gone_once_the_repository_is_open() {
    let Some(scene) = Scene::new() else { return };
    let keyboard = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&keyboard).unwrap();
    rustix::pty::unlockpt(&keyboard).unwrap();
    let path = rustix::pty::ptsname(&keyboard, Vec::new()).unwrap();
    let path = Path::new(path.to_str().unwrap());
    let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut keyboard = File::from(keyboard);

    let fifo = OpenOptions::new().read(true).write(true).open(scene.path("fifo")).unwrap();
    let (stderr, writer) = std::io::pipe().unwrap();
    let mut command = scene.prepared(Command::new("setsid"), ["--ctty", env!("CARGO_BIN_EXE_esker")]);
    command.args(scene.held_backup()).stdin(terminal.try_clone().unwrap()).stderr(writer).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = vec![0; "password: ".len()];
    keyboard.read_exact(&mut shown).unwrap();
    assert_eq!(shown, b"password: ");
    let (head, tail) = PASSWORD.split_at(PASSWORD.len() / 2);
    keyboard.write_all(format!("{head}\x1b[Dxy\x7f\x7f{tail}\r").as_bytes()).unwrap();
    wait_for(&mut BufReader::new(stderr), "held\n");
    let image = Image::of(&child);
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    drop(fifo);
    image.has_none(&scene.of_password(PASSWORD), "typed");
    image.has_keys_of(&scene.open(PASSWORD), "typed");

    let mut shown = [0; 100];
    let length = keyboard.read(&mut shown).unwrap();
    assert_eq!(&shown[..length], b"\r\n", "only that the line has ended");
    let modes = rustix::termios::tcgetattr(&terminal).unwrap().local_modes;
    use rustix::termios::LocalModes as Modes;
    assert!(modes.contains(Modes::ECHO | Modes::ICANON | Modes::ISIG), "the terminal is as it was: {modes:?}");
}

#[test]
fn the_text_of_a_key_is_gone_once_it_was_read() {
    let Some(scene) = Scene::new() else { return };
    succeeds(scene.esker(["key", "add", "--out", "key", "--password-file", "pw"]));
    succeeds(scene.esker(["key", "export", "--out", "kit", "--password-file", "pw"]));
    let seed_of = |file: &str| match secret_from_text(&fs::read_to_string(scene.path(file)).unwrap()).unwrap() {
        Secret::KeyFile(key) => key.seed,
        other => panic!("{other:?}"),
    };
    let words = words_of(&seed_of("kit"));
    fs::write(scene.path("words"), words.as_bytes()).unwrap();
    for file in ["key", "kit", "words"] {
        let mut gone = Needles::default();
        let text = fs::read_to_string(scene.path(file)).unwrap();
        if file == "key" {
            let hex = text.split_whitespace().rev().nth(1).unwrap();
            gone.add_parts("the seed in hexadecimal", hex.as_bytes(), 16, 1);
        } else {
            // Of the sheet the lines of words, whose numbers are in the way of finding more.
            let numbered = |line: &&str| line.starts_with("    1 ") || line.starts_with("    5 ");
            let lines = text.lines().filter(|line| file == "words" || numbered(line));
            lines.for_each(|line| gone.add_parts("the words", line.as_bytes(), 20, 1));
            let list = bip39::Language::English.word_list();
            let place = |word: &str| list.iter().position(|listed| *listed == word).unwrap();
            let places: Vec<u8> =
                words.split(' ').flat_map(|word| u16::try_from(place(word)).unwrap().to_le_bytes()).collect();
            gone.add_parts("the words' places in the list", &places, 8, 2);
        }
        let image = scene.opened(scene.esker(["--key-file", file]));
        image.has_none(&gone, file);
        let mut kept = Needles::default();
        kept.add("the seed", *seed_of(if file == "words" { "kit" } else { file }).expose());
        assert_eq!(image.find(&kept), ["the seed in [heap]"], "{file}");
    }
}

#[test]
fn a_new_password_is_gone_once_its_slot_is_stored() {
    let Some(scene) = Scene::new() else { return };
    succeeds(scene.esker(["key", "export", "--out", "kit", "--password-file", "pw"]));
    let mut init = scene.esker(["init", "--password-file", "new"]);
    init.env("ESKER_REPOSITORY", scene.path("other"));
    let image = scene.done(init);
    rustix::fs::rename(scene.path("repo"), scene.path("first")).unwrap();
    rustix::fs::rename(scene.path("other"), scene.path("repo")).unwrap();
    image.has_none(&scene.of_password(NEW_PASSWORD), "init");
    fs::remove_dir_all(scene.path("repo")).unwrap();
    rustix::fs::rename(scene.path("first"), scene.path("repo")).unwrap();

    for args in [
        &["key", "add", "--password-file", "pw", "--new-password-file", "new"][..],
        &["key", "recover", "--words-file", "kit", "--new-password-file", "new"],
        &["key", "passwd", "--password-file", "pw", "--new-password-file", "new"],
    ] {
        let image = scene.done(scene.esker(args.iter().copied()));
        image.has_none(&scene.of_password(NEW_PASSWORD), args[1]);
        image.has_none(&scene.of_password(PASSWORD), args[1]);
    }
}

/// SPEC says that a writer forgets the secret once the session has ended.
#[test]
fn the_secret_of_a_session_is_gone_once_the_session_has_ended() {
    let Some(scene) = Scene::new() else { return };
    let fifo = OpenOptions::new().read(true).write(true).open(scene.path("fifo")).unwrap();
    let (printed, stdout) = full_pipe();
    let (stderr, writer) = std::io::pipe().unwrap();
    let mut command = scene.esker(["--password-file", "pw"]);
    let mut child = command.args(scene.held_backup()).stderr(writer).stdout(stdout).spawn().unwrap();
    drop(command);
    wait_for(&mut BufReader::new(stderr), "held\n");
    (&fifo).write_all(b"some bytes").unwrap();
    let sessions = scene.path("repo/sessions");
    // Announced before anything is stored.
    while fs::read_dir(&sessions).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (announced, before) = (fs::read_dir(&sessions).unwrap().count(), Image::of(&child));
    assert_eq!(announced, 1);
    drop(fifo);
    until_it_prints(&child);
    let after = Image::of(&child);
    drop(printed);
    child.wait().unwrap();

    let repository = scene.open(PASSWORD);
    let reader = Reader::new(&repository).unwrap();
    let session = *reader.commits().headers.keys().next().unwrap();
    let loaded = repository.load_commit(&session).unwrap();
    let header = &loaded.header;
    let secret = repository
        .keys
        .open_session_secret(&session, &header.epoch, &header.credential, &loaded.commit.envelope)
        .unwrap();
    let mut needles = Needles::default();
    add_key(&mut needles, "the session's secret", &secret);
    assert!(!before.find(&needles).is_empty(), "while it works it is there");
    after.has_none(&needles, "the session has ended");
}

/// The program and another beside it, which dumps.
#[test]
fn a_crash_leaves_no_core() {
    let Some(scene) = Scene::new() else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/']) {
        // Where cores go to a program or elsewhere, only what decides about them can be looked at, below.
        return;
    }
    let script = "ulimit -c unlimited && exec \"$@\"";
    let crash = |name: &str, signal: Signal, program: &[&str]| -> usize {
        let place = scene.path(name);
        fs::create_dir(&place).unwrap();
        let fifo = OpenOptions::new().read(true).write(true).open(scene.path("fifo")).unwrap();
        let (stderr, writer) = std::io::pipe().unwrap();
        let mut command = scene.prepared(Command::new("sh"), ["-c", script, "sh"]);
        let mut child = command.args(program).current_dir(&place).stderr(writer).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        wait_for(&mut BufReader::new(stderr), "held\n");
        kill_process(pid(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()), "it ends by the signal");
        drop(fifo);
        fs::read_dir(&place).unwrap().count()
    };
    let script = format!("echo held >&2; read line <{}", scene.path("fifo").display());
    assert_eq!(crash("control", Signal::ILL, &["sh", "-c", &script]), 1, "here a crash does leave a core");
    let password = scene.path("pw");
    let mut esker = vec![env!("CARGO_BIN_EXE_esker"), "--password-file", password.to_str().unwrap()];
    let held = scene.held_backup();
    esker.extend(held.iter().map(String::as_str));
    for (name, signal) in [("fault", Signal::ILL), ("abort", Signal::ABORT)] {
        assert_eq!(crash(name, signal, &esker), 0, "{name}");
    }
}

/// Somebody with the same user id may not look into the process, whatever it does.
#[test]
fn another_process_of_the_same_user_sees_neither_memory_nor_environment() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    // Where everybody can run it.
    let program = dir.path().join("esker");
    fs::copy(env!("CARGO_BIN_EXE_esker"), &program).unwrap();
    let nobody = |command: &mut Command| {
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
    };
    let looks = |child: &Child, what: &str| {
        let mut command = Command::new("cat");
        nobody(command.arg(format!("/proc/{}/{what}", child.id())).stdout(Stdio::null()).stderr(Stdio::null()));
        command.status().unwrap().success()
    };
    // Both wait for a password that nobody gives: the second, that this command gives it.
    let wait = "echo held >&2; exec cat";
    let asks = format!("sh -c '{wait}'");
    let asking = ["--password-command", &asks, "init"];
    for (program, args, is_seen) in [(Path::new("sh"), &["-c", wait][..], true), (&program, &asking, false)] {
        let (stdin, password) = std::io::pipe().unwrap();
        let (stderr, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(program);
        nobody(command.args(args).current_dir(&dir).env_clear().env("ESKER_REPOSITORY", "repo").stdin(stdin));
        let mut child = command.env("PATH", "/usr/bin:/bin").stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        drop(command);
        let mut said = BufReader::new(stderr);
        wait_for(&mut said, "held\n");
        for what in ["environ", "maps"] {
            assert_eq!(looks(&child, what), is_seen, "{what} of {}", program.display());
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let core: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(core == ["0", "0"], !is_seen, "{core:?}");
        drop(password);
        child.wait().unwrap();
    }
}
