//! Risk: a password, a key or what is backed up stands where somebody reads it who should not: in a
//! message, a log, JSON, the list of processes, the repository, or a file beside it.
//! Method: the real program does all it can, at its most talkative, in success and in failure, with
//! secrets nothing else looks like. What it prints, stores and hands to other programs is searched
//! for each of them in every form it might have ([`needles`]). `docs/secrets.md` is the list of
//! what may appear where; how long secrets stay in memory is `wiped.rs`.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker::chunk::cut::{Cutter, Parameters};
use esker::crypto::credential::Credential;
use esker::crypto::envelope::{KemPrivate, Psk, open_secret};
use esker::crypto::ident::IdKeys;
use esker::crypto::key::{CommittedKey, SecretKey};
use esker::crypto::slot::{KdfCost, password_key};
use esker::crypto::words::{Typed, words_of};
use esker::format::access::{EpochSecrets, Role, grant_info};
use esker::format::cbor;
use esker::format::config::Slot;
use esker::id::RepoId;
use esker::repo::Repository;
use esker::repo::content::Reader;
use esker::repo::keys::{ContentKeys, EpochKeys, Keys};
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::repo::recovery::{Sheet, secret_from_text};
use esker::repo::secret::{KeyFile, Secret};
use esker::repo::session::Session;
use esker::storage::remote::options::Options;
use esker::storage::remote::url::Url;
use esker::storage::remote::{Kind, Settings};
use esker::storage::{local, memory};
use esker::world::World;
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/needles.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod needles;

use needles::Needles;

/// Each with something that is written otherwise in a URL, in JSON or in base64 of URLs.
const PASSWORD: &str = "Canary/one+Password=7f3a&zoo xkcd?";
const SECOND: &str = "Canary/two+Password=9d1c&zoo xkcd?";
const WRONG: &str = "Canary/bad+Password=55e2&zoo xkcd?";
const STORAGE_PASSWORD: &str = "Canary/dav+Password=c0de&zoo-xkcd?";
const STORAGE_TOKEN: &str = "ya29.Canary-Token_6c41.zoo~xkcd";
const S3_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYCANARYKEY0";
const S3_TOKEN: &str = "FwoGZXIvYXdzEBYaDCanarySessionToken/8+a==";

/// What is backed up, and about it.
const CONTENT: &str = "canary-content-e91b07";
const FILE_NAME: &str = "canary-name-aa02c7.txt";
const DIRECTORY: &str = "canary-directory-19c2f4";
const TARGET: &str = "canary-target-77b3d0";
const XATTR: &str = "canary-xattr-03fd55";
const HOST: &str = "canary-host-51ac9e";
const TAG: &str = "canary-tag-e0077b";
const LABEL: &str = "canary-label-b3c4d5";
const STREAM: &str = "canary-stream-5f5f21";

/// A machine: `private` holds what secrets are read from and written to on purpose, `source` what is
/// backed up; all else is searched.
struct Scene {
    dir: tempfile::TempDir,
    /// What was printed, and by what.
    heard: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap(), heard: Mutex::default() };
        for below in ["private", "source", "home", "tmp"] {
            fs::create_dir(scene.path(below)).unwrap();
        }
        for (name, text) in [("one", PASSWORD), ("two", SECOND), ("wrong", WRONG)] {
            fs::write(scene.path("private").join(name), format!("{text}\n")).unwrap();
        }
        let folder = scene.path("source").join(DIRECTORY);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(FILE_NAME), CONTENT.repeat(40)).unwrap();
        std::os::unix::fs::symlink(TARGET, folder.join("link")).unwrap();
        // Not every file system has them.
        let _ =
            rustix::fs::setxattr(&folder, format!("user.{XATTR}"), XATTR.as_bytes(), rustix::fs::XattrFlags::empty());
        scene
    }

    /// With a repository that opens by [`PASSWORD`], and by the sheet `private/sheet`.
    fn with_repository() -> Self {
        let scene = Self::new();
        scene.succeeds(&["init", "--recovery-key-file", "private/sheet", "--name", LABEL]);
        scene
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The program with [`PASSWORD`] in its environment and as much to say as it has.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ESKER_PROGRESS", "always");
        command.env("RUST_BACKTRACE", "1").env("RUST_LOG", "trace");
        for (variable, below) in [
            ("ESKER_REPOSITORY", "repo"),
            ("ESKER_CACHE_DIR", "cache"),
            ("ESKER_STATE_DIR", "state"),
            ("HOME", "home"),
            ("TMPDIR", "tmp"),
        ] {
            command.env(variable, self.path(below));
        }
        command.env("ESKER_PASSWORD", PASSWORD);
        command
    }

    /// Runs it to its end and remembers what it said.
    fn hear(&self, mut command: Command) -> Output {
        let output = command.output().unwrap();
        let said = [&output.stdout[..], b"\n", &output.stderr].concat();
        self.heard.lock().unwrap().push((format!("{command:?}"), said));
        output
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> Output {
        self.succeeds_with(args, &[])
    }

    #[track_caller]
    fn succeeds_with(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let output = self.run(args, env);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs a command that says all it can.
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = self.command(&[&["-vv"], args].concat());
        for (name, value) in env {
            // Of the ways to unlock only one may be named.
            if ["ESKER_PASSWORD_FILE", "ESKER_PASSWORD_COMMAND", "ESKER_KEY_FILE"].contains(name) {
                command.env_remove("ESKER_PASSWORD");
            }
            command.env(name, value);
        }
        self.hear(command)
    }

    /// Runs a command that changes nothing, for people and for programs.
    #[track_caller]
    fn both(&self, args: &[&str], env: &[(&str, &str)], succeeds: bool) {
        for args in [args.to_vec(), [&["--json"], args].concat()] {
            let output = self.run(&args, env);
            assert_eq!(output.status.success(), succeeds, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!output.stderr.is_empty() || succeeds, "{args:?} says why");
        }
    }

    fn open(&self) -> Repository {
        let storage = Arc::new(local::Local::open(self.path("repo")).unwrap());
        let secret = secret_from_text(&fs::read_to_string(self.path("private/sheet")).unwrap()).unwrap();
        Repository::open(storage, World::system(), &secret, Local::default()).unwrap()
    }

    /// Every secret there is by now.
    fn secrets(&self) -> Needles {
        let mut needles = Needles::default();
        for (name, secret) in [
            ("the password", PASSWORD),
            ("the second password", SECOND),
            ("the wrong password", WRONG),
            ("the storage's password", STORAGE_PASSWORD),
            ("the storage's token", STORAGE_TOKEN),
            ("the S3 key", S3_KEY),
            ("the S3 session token", S3_TOKEN),
        ] {
            needles.add_forms(name, secret.as_bytes());
        }
        for file in fs::read_dir(self.path("private")).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read(&file).unwrap();
            let seed = match secret_from_text(&String::from_utf8_lossy(&text)) {
                Ok(Secret::KeyFile(key)) => key.seed,
                Ok(Secret::Words(seed)) => seed,
                _ => continue,
            };
            needles.add_forms(&format!("the seed of {name}"), seed.expose());
            // Three words that follow one another are no accident; one may be told.
            let words = words_of(&seed);
            let words: Vec<_> = words.split(' ').collect();
            words.windows(3).for_each(|three| needles.add(format!("words of {name}"), three.join(" ")));
        }
        if self.path("repo/config").exists() {
            self.add_keys(&mut needles);
        }
        needles
    }

    fn add_keys(&self, needles: &mut Needles) {
        let repository = self.open();
        let credential = &repository.keys.credential;
        for epoch in repository.access.epochs() {
            let grant = epoch.grants.iter().find(|grant| grant.credential == credential.id()).unwrap();
            let info = grant_info(&repository.config.repo, &epoch.id, &credential.id());
            let plain = open_secret(credential.sealing(), None, &info, &grant.sealed, "grant").unwrap();
            let secrets: EpochSecrets = cbor::decode_secret(&plain).unwrap();
            needles.add_forms("K_id", &secrets.id_key);
            needles.add_forms("K_cdc", &secrets.chunker_key);
            needles.add_forms("K_index", &secrets.index_key);
            needles.add_forms("the PSK", &secrets.psk);
            needles.add_forms("the epoch's private key", &secrets.private.unwrap());
        }
        for slot in fs::read_dir(self.path("repo/keys")).unwrap() {
            let slot = Slot::decode(&fs::read(slot.unwrap().path()).unwrap()).unwrap();
            let key = password_key(PASSWORD.as_bytes(), &slot.salt, KdfCost::DEFAULT).unwrap();
            needles.add_forms("Argon2's key", key.expose());
            needles.add_forms("the slot's key", key.derive_salted(&slot.salt, "slot").key.expose());
        }
        let reader = Reader::new(&repository).unwrap();
        for (session, header) in &reader.commits().headers {
            let loaded = repository.load_commit(session).unwrap();
            let envelope = &loaded.commit.envelope;
            let secret = repository.keys.open_session_secret(session, &header.epoch, &header.credential, envelope);
            needles.add_forms("a session's secret", secret.unwrap().expose());
        }
    }

    /// Nothing that was said holds a secret, nor does a file but those that are for it.
    #[track_caller]
    fn keeps_its_secrets(&self) {
        let secrets = self.secrets();
        let heard = self.heard.lock().unwrap();
        assert!(!heard.is_empty());
        for (command, said) in &*heard {
            let found = secrets.found_in(said);
            assert!(found.is_empty(), "{found:?} told by {command}: {}", String::from_utf8_lossy(said));
        }
        self.stores_none_of(&secrets);
    }

    /// No file that is stored or kept has any of this in it or in its name.
    #[track_caller]
    fn stores_none_of(&self, needles: &Needles) {
        let mut files = 0;
        for below in ["repo", "cache", "state", "home", "tmp"] {
            for path in files_below(&self.path(below)) {
                files += 1;
                let mut text = path.strip_prefix(self.dir.path()).unwrap().as_os_str().as_encoded_bytes().to_vec();
                text.push(b'\n');
                text.extend(fs::read(&path).unwrap());
                let found = needles.found_in(&text);
                assert!(found.is_empty(), "{found:?} in {}", path.display());
            }
        }
        assert!(files > 0, "there was something to look at");
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Names and contents, which nobody may read who has the repository or the cache and no key.
fn plain() -> Needles {
    let mut needles = Needles::default();
    for (name, text) in [
        ("content", CONTENT),
        ("a file's name", FILE_NAME),
        ("a directory's name", DIRECTORY),
        ("a link's target", TARGET),
        ("an attribute", XATTR),
        ("the host", HOST),
        ("a tag", TAG),
        ("a label", LABEL),
        ("a stream", STREAM),
    ] {
        needles.add_forms(name, text.as_bytes());
    }
    needles
}

#[test]
fn no_command_that_succeeds_tells_or_stores_a_secret_or_what_is_backed_up() {
    let scene = Scene::with_repository();
    for args in [&["backup", "source"][..], &["--json", "backup", "source", "--force"]] {
        scene.succeeds(&[args, &["--host", HOST, "--tag", TAG]].concat());
    }
    let mut piped = scene.command(&["-vv", "backup", "--stdin", "--stdin-filename", STREAM, "--no-cache"]);
    let content = scene.path("source").join(DIRECTORY).join(FILE_NAME);
    piped.stdin(fs::File::open(&content).unwrap());
    assert!(scene.hear(piped).status.success());
    scene.succeeds(&["backup", "--stdin-from-command", "--", "sh", "-c", &format!("echo {STREAM}")]);
    for args in [
        &["snapshots"][..],
        &["ls", "-lR", "latest~2"],
        &["stats"],
        &["check", "--read-data"],
        &["key", "list"],
        &["cache", "list"],
        &["repair", "config", "--dry-run"],
        &["backup", "source", "--dry-run"],
        &["demo"],
    ] {
        scene.both(args, &[], true);
    }
    scene.both(&["restore", "latest~2", "--target", "restored", "--verify", "--safety-snapshot"], &[], true);
    scene.succeeds(&["dump", "--archive", "tar", "latest~2", "/"]);

    scene.succeeds(&["key", "add", "--out", "private/key", "--name", LABEL]);
    scene.succeeds(&["key", "writer", "--out", "private/writer", "--name", LABEL]);
    scene.succeeds(&["--json", "key", "export", "--out", "private/kit"]);
    scene.succeeds(&["key", "add", "--new-password-file", "private/two", "--name", LABEL]);
    scene.succeeds(&["key", "recover", "--words-file", "private/sheet", "--new-password-file", "private/two"]);
    scene.succeeds(&["key", "passwd", "--new-password-file", "private/two"]);
    scene.succeeds(&["repair", "config", "--from", "private/kit"]);
    for (how, from) in [
        ("ESKER_PASSWORD_FILE", "private/two"),
        ("ESKER_PASSWORD_COMMAND", "cat private/two"),
        ("ESKER_KEY_FILE", "private/key"),
        ("ESKER_KEY_FILE", "private/sheet"),
        ("ESKER_KEY_FILE", "private/kit"),
    ] {
        scene.both(&["snapshots"], &[(how, from)], true);
    }
    scene.succeeds_with(&["backup", "source", "--host", HOST], &[("ESKER_KEY_FILE", "private/writer")]);
    let other = scene.path("repo2");
    let like = [("ESKER_FROM_PASSWORD", SECOND), ("ESKER_REPOSITORY", other.to_str().unwrap())];
    scene.succeeds_with(&["--json", "init", "--like", "repo", "--recovery-key-file", "private/sheet2"], &like);

    scene.keeps_its_secrets();
    scene.stores_none_of(&plain());
    // Where the secrets are on purpose they are found, in the same way.
    let found = secrets_of(&scene, "private/sheet");
    assert!(found.contains("words of sheet"), "{found}");
    assert!(secrets_of(&scene, "private/key").contains("the seed of key in hexadecimal"));
    assert!(plain().found_in(&fs::read(&content).unwrap()).contains(&"content as it is"));
}

fn secrets_of(scene: &Scene, file: &str) -> String {
    // The sheet numbers its words.
    let text = fs::read_to_string(scene.path(file)).unwrap();
    let words: Vec<_> = text.split_whitespace().filter(|word| word.parse::<u32>().is_err()).collect();
    scene.secrets().found_in(words.join(" ").as_bytes()).join(", ")
}

#[test]
fn no_command_that_fails_tells_a_secret() {
    let scene = Scene::with_repository();
    scene.succeeds(&["backup", "source"]);
    scene.succeeds(&["key", "add", "--out", "private/key"]);
    let private = |name: &str, text: &[u8]| fs::write(scene.path("private").join(name), text).unwrap();
    let key = fs::read_to_string(scene.path("private/key")).unwrap();
    let sheet = fs::read_to_string(scene.path("private/sheet")).unwrap();
    let line = key.lines().last().unwrap();
    private("flipped", key.replace(" owner ", " ownes ").as_bytes());
    private("cut", &line.as_bytes()[..line.len() - 20]);
    private("longer", format!("{line} {line}").as_bytes());
    private("binary", &[line.as_bytes(), b"\xff"].concat());
    private("misread", sheet.replacen("    2 ", "    2 qqqqq ", 1).as_bytes());
    private("swapped", sheet.replacen("    1 ", "    1 zoo ", 1).as_bytes());
    private("lost", sheet.replace("Root:", "Rot:").as_bytes());
    private("not-text", &[PASSWORD.as_bytes(), b"\xff\n"].concat());
    private("says.sh", format!("echo '{PASSWORD}'; exit 3").as_bytes());
    for (how, from) in [
        ("ESKER_PASSWORD", WRONG),
        ("ESKER_PASSWORD_FILE", "private/wrong"),
        ("ESKER_PASSWORD_FILE", "private/not-text"),
        ("ESKER_PASSWORD_COMMAND", "sh private/says.sh"),
        ("ESKER_PASSWORD_COMMAND", "cat private/not-text"),
        ("ESKER_PASSWORD_COMMAND", "cat 'private/one"),
        ("ESKER_KEY_FILE", "private/flipped"),
        ("ESKER_KEY_FILE", "private/cut"),
        ("ESKER_KEY_FILE", "private/longer"),
        ("ESKER_KEY_FILE", "private/binary"),
        ("ESKER_KEY_FILE", "private/misread"),
        ("ESKER_KEY_FILE", "private/swapped"),
        ("ESKER_KEY_FILE", "private/lost"),
        ("ESKER_KEY_FILE", "private/one"),
    ] {
        scene.both(&["snapshots"], &[(how, from)], false);
    }
    scene.both(&["snapshots", "--key-file", "private/key", "--password-file", "private/one"], &[], false);
    scene.both(&["key", "recover", "--words-file", "private/one"], &[], false);
    scene.both(&["key", "passwd"], &[], false);
    scene.both(&["init"], &[], false);
    scene.both(&["--repo", "nowhere", "snapshots"], &[], false);
    scene.both(&["backup", "gone"], &[], false);
    scene.both(&["backup", "--stdin-from-command", "--", "sh", "-c", "exit 3"], &[], false);

    // Damaged: a pack, then the newest slot, then all that says what the repository is.
    let overwrite = |path: &Path| {
        let bytes: Vec<_> = fs::read(path).unwrap().iter().map(|byte| byte ^ 0x55).collect();
        fs::write(path, bytes).unwrap();
    };
    scene.keeps_its_secrets();
    files_below(&scene.path("repo/packs")).iter().for_each(|pack| overwrite(pack));
    scene.both(&["check", "--read-data"], &[], false);
    scene.both(&["restore", "latest", "--target", "restored"], &[], false);
    let secrets = scene.secrets();
    for folders in [["repo/keys", "repo/copies/keys"], ["repo/copies", "repo"]] {
        let entries = folders.iter().flat_map(|folder| fs::read_dir(scene.path(folder)).unwrap());
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.iter().for_each(|path| overwrite(path));
        scene.both(&["snapshots"], &[], false);
    }
    for (command, said) in &*scene.heard.lock().unwrap() {
        assert_eq!(secrets.found_in(said), [""; 0], "{command}");
    }
}

/// What a killed backup leaves for the next: sealed.
#[test]
fn a_killed_backup_leaves_nothing_in_clear() {
    let scene = Scene::with_repository();
    let fifo = scene.path("source/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut feed = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let script = format!("exec cat {}", fifo.display());
    let mut command =
        scene.command(&["backup", "--pack-size", "4M", "--stdin-from-command", "--stdin-filename", STREAM]);
    let mut child =
        command.args(["--", "sh", "-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Twice a pack's worth does not fit into what is on its way, so one is put before all is taken.
    let mut noise = vec![0; 24 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise.chunks_mut(1 << 12).for_each(|page| page[..CONTENT.len()].copy_from_slice(CONTENT.as_bytes()));
    feed.write_all(&noise).unwrap();
    let journal =
        || files_below(&scene.path("cache")).into_iter().find(|path| path.display().to_string().contains(".open-"));
    while journal().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    drop(feed);
    fs::remove_file(&fifo).unwrap();
    let journal = journal().unwrap();
    let kept = fs::read(&journal).unwrap();
    scene.stores_none_of(&plain());
    // The next backup commits what the killed one had, and so tells what its secret was.
    scene.succeeds(&["backup", "--stdin-from-command", "--stdin-filename", STREAM, "--", "echo", "other"]);
    assert!(!journal.exists(), "taken up");
    assert_eq!(scene.open_sessions(), 2);
    assert_eq!(scene.secrets().found_in(&kept), [""; 0]);
    scene.keeps_its_secrets();
}

impl Scene {
    fn open_sessions(&self) -> usize {
        let repository = self.open();
        Reader::new(&repository).unwrap().commits().headers.len()
    }
}

// --- the configuration and URLs -----------------------------------------------------------

#[test]
fn a_configuration_with_a_fault_on_the_line_of_a_secret_does_not_tell_it() {
    let scene = Scene::new();
    let config = scene.path("private/esker.toml");
    let whole = |line: &str| {
        format!(
            "[repositories.x]\nurl = 's3://b/p?endpoint=http://127.0.0.1:9'\n[repositories.x.options]\n{line}\n\
             [profiles.default]\nrepository = 'x'\n"
        )
    };
    let url = |url: &str| whole("region = 'x'").replace("s3://b/p?endpoint=http://127.0.0.1:9", url);
    let mut texts: Vec<String> = [
        format!("secret-access-key = '{S3_KEY}'"),
        format!("secret-access-key = '{S3_KEY}"),
        format!("endpoint = 'http://me:{S3_KEY}@127.0.0.1:9'"),
        format!("secret-access-key = {S3_KEY}"),
        format!("secret-access-key = '{S3_KEY}' '{S3_KEY}'"),
        format!("secret-access-key = ['{S3_KEY}']"),
        format!("secret-access-key = {{ file = '{S3_KEY}', env = '{S3_KEY}' }}"),
        format!("secret-access-key = {{ fil = '{S3_KEY}' }}"),
        format!("secret-access-key = '{S3_KEY}'\nsecret-access-key = '{S3_KEY}'"),
        format!("secret-access-key '{S3_KEY}'"),
        format!("secret-access-kye = '{S3_KEY}'"),
        format!("password = '{STORAGE_PASSWORD}'"),
        format!("secret-access-key = \"{S3_KEY}\\q\""),
        format!("secret-access-key = '''{S3_KEY}"),
    ]
    .iter()
    .map(|line| whole(line))
    .collect();
    texts.push(format!("[profiles.default]\npassword = '{PASSWORD}'\n"));
    texts.push(format!("[profiles.default]\npassword-command = \"echo '{PASSWORD}\"\n"));
    for place in URLS {
        texts.push(url(&place.replace("SECRET", STORAGE_TOKEN)));
    }
    for text in &texts {
        fs::write(&config, text).unwrap();
        for args in [&["config", "check"][..], &["config", "show"], &["snapshots"]] {
            for json in [None, Some("--json")] {
                let mut command = scene.command(&["-vv", "--config", config.to_str().unwrap()]);
                command.args(json).args(args).env_remove("ESKER_REPOSITORY");
                scene.hear(command);
            }
        }
    }
    scene.told_nothing();
}

/// Where a secret may stand in a URL by mistake, or by restic's or another program's habit.
const URLS: [&str; 22] = [
    "webdav://me:SECRET@host/dav",
    "webdav://me:SECRET/x@host/dav",
    "webdav://me:SECRET?x@host/dav",
    "webdav://me:SECRET#x@host/dav",
    "webdav://me:%53SECRET@host/dav",
    "webdav://me:SECRET@127.0.0.1:9/dav",
    "webdav://127.0.0.1:9/dav?password=SECRET",
    "webdav://127.0.0.1:9/dav?token=SECRET",
    "webdav:me:SECRET@host://dav",
    "webdav:me:SECRET@host/dav",
    "s3://AKID:SECRET@bucket/prefix",
    "s3://bucket/prefix?secret_access_key=SECRET",
    "s3://bucket/prefix?secret-access-key=SECRET&endpoint=http://127.0.0.1:9",
    "s3://bucket/prefix?endpoint=http://me:SECRET@127.0.0.1:9",
    "s3:AKID:SECRET@https://127.0.0.1/bucket",
    "azblob://container/prefix?account=a&sas-token=SECRET",
    "gs://bucket?credential=SECRET",
    "sftp://me:SECRET@127.0.0.1/path",
    "sftp:me:SECRET@127.0.0.1:/path",
    "rest:https://me:SECRET@127.0.0.1:9/",
    "ftp://me:SECRET@127.0.0.1/",
    "https://me:SECRET@127.0.0.1:9/dav",
];

impl Scene {
    /// As [`Self::keeps_its_secrets`] where nothing is stored.
    #[track_caller]
    fn told_nothing(&self) {
        let secrets = self.secrets();
        for (command, said) in &*self.heard.lock().unwrap() {
            let found = secrets.found_in(said);
            assert!(found.is_empty(), "{found:?} told by {command}: {}", String::from_utf8_lossy(said));
        }
        assert!(!self.heard.lock().unwrap().is_empty());
    }
}

#[test]
fn a_url_with_a_secret_is_not_repeated() {
    let scene = Scene::new();
    for url in URLS.map(|url| url.replace("SECRET", STORAGE_TOKEN)) {
        for args in [&["snapshots"][..], &["--json", "snapshots"], &["init"], &["--json", "check"]] {
            let output = scene.run(args, &[("ESKER_REPOSITORY", &url)]);
            assert!(!output.status.success(), "{url}");
        }
        let other = scene.path("other");
        let output = scene.run(&["init", "--like", &url], &[("ESKER_REPOSITORY", other.to_str().unwrap())]);
        assert!(!output.status.success(), "{url}");
    }
    scene.told_nothing();
}

// --- servers --------------------------------------------------------------------------------

/// A server that denies everything and says all that it was sent, and `knows`, in every place where a client looks.
fn echoing_server(knows: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                head.extend_from_slice(line.trim().as_bytes());
                head.extend_from_slice(b" ; ");
                line.clear();
            }
            let sent = String::from_utf8_lossy(&head);
            let known = knows.lock().unwrap().clone();
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>Denied:{known}</Code><Message>{known} {sent}</Message></Error>"
            );
            let answer = format!(
                "HTTP/1.1 403 No {known}\r\nContent-Type: application/xml\r\nX-Amz-Bucket-Region: {known}\r\n\
                 X-Ms-Error-Code: {known}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Unreachable, and one that says back what it was told: signatures, tokens, `Basic`.
#[test]
fn no_answer_of_a_server_and_no_lack_of_one_tells_a_credential() {
    let scene = Scene::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let aws = [("AWS_ACCESS_KEY_ID", "AKIACANARY"), ("AWS_SECRET_ACCESS_KEY", S3_KEY), ("AWS_SESSION_TOKEN", S3_TOKEN)];
    let basic = [("ESKER_WEBDAV_USERNAME", "ada"), ("ESKER_WEBDAV_PASSWORD", STORAGE_PASSWORD)];
    let bearer = [("ESKER_WEBDAV_TOKEN", STORAGE_TOKEN)];
    let sas = format!("sv=2026&sig={STORAGE_TOKEN}");
    let azure = [("AZURE_STORAGE_SAS_TOKEN", &sas[..])];
    let key = [("AZURE_STORAGE_ACCOUNT_KEY", "Q2FuYXJ5L2RhditQYXNzd29yZD1jMGRlJnpvby14a2NkPw==")];
    let google = scene.path("private/google.toml");
    let knows = Arc::new(Mutex::new(String::new()));
    for address in [closed, echoing_server(knows.clone())] {
        let configured = format!(
            "[repositories.x]\nurl = 'gs://b/p?endpoint=http://{address}'\noptions.token = '{STORAGE_TOKEN}'\n\
             [profiles.default]\nrepository = 'x'\n"
        );
        fs::write(&google, configured).unwrap();
        let azure_url = format!("azblob://c/p?account=ada&endpoint=http://{address}");
        let webdav_url = format!("webdav+http://{address}/p");
        type Place<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let places: [Place<'_>; 6] = [
            (&format!("s3://b/p?endpoint=http://{address}"), &aws, S3_TOKEN),
            (&webdav_url, &basic, STORAGE_PASSWORD),
            (&webdav_url, &bearer, STORAGE_TOKEN),
            (&azure_url, &azure, &sas),
            (&azure_url, &key, "nothing"),
            ("", &[("ESKER_CONFIG", google.to_str().unwrap())], STORAGE_TOKEN),
        ];
        for (url, env, known) in places {
            known.clone_into(&mut knows.lock().unwrap());
            for args in [&["snapshots"][..], &["--json", "snapshots"], &["init"]] {
                let env = [env, &[("ESKER_REPOSITORY", url)]].concat();
                let output = scene.run(&[&["-o", "retries=0", "-o", "timeout=5"], args].concat(), &env);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && said.contains(&address.to_string()), "{url}: {said}");
                assert_eq!(said.contains("403"), address != closed, "{url}: {said}");
            }
        }
    }
    scene.told_nothing();
}

// --- other processes -------------------------------------------------------------------------

/// Commands that the program runs for a password, for what is backed up, and to get to a server.
#[test]
fn no_process_it_runs_is_given_a_secret() {
    let scene = Scene::with_repository();
    let seen = scene.path("seen");
    fs::write(scene.path("look.sh"), "cat /proc/$$/cmdline /proc/$$/environ /proc/$PPID/cmdline >>seen\n").unwrap();
    let secrets = [
        ("ESKER_PASSWORD", PASSWORD),
        ("ESKER_FROM_PASSWORD", SECOND),
        ("ESKER_WEBDAV_PASSWORD", STORAGE_PASSWORD),
        ("ESKER_WEBDAV_TOKEN", STORAGE_TOKEN),
    ];
    let look = |args: &[&str], succeeds: bool| {
        let _ = fs::remove_file(&seen);
        let output = scene.run(args, &secrets);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), succeeds, "{args:?}: {said}");
        let text = fs::read(&seen).unwrap();
        assert!(String::from_utf8_lossy(&text).contains("look.sh"), "{args:?}: it has looked");
        assert_eq!(scene.secrets().found_in(&text), [""; 0], "{args:?}");
    };
    look(&["backup", "--stdin-from-command", "--", "sh", "look.sh"], true);
    look(&["snapshots", "--password-command", "sh -c 'sh look.sh; cat private/one'"], true);
    let ssh = ["-r", "sftp://ada@127.0.0.1/x", "-o", "ssh-command=sh look.sh", "-o", "retries=0"];
    look(&[&ssh[..], &["snapshots"]].concat(), false);
    scene.keeps_its_secrets();
}

/// While it has a password and keys, its own words say nothing of them.
#[test]
fn the_list_of_processes_shows_no_secret_of_the_program_itself() {
    let scene = Scene::with_repository();
    scene.succeeds(&["key", "add", "--out", "private/key"]);
    let config = scene.path("private/esker.toml");
    let text = format!(
        "[repositories.x]\nurl = '{}'\npassword-file = 'one'\n[profiles.default]\nrepository = 'x'\n",
        scene.path("repo").display()
    );
    fs::write(&config, text).unwrap();
    for args in [
        &["--password-file", "private/one"][..],
        &["--password-command", "cat private/one"],
        &["--key-file", "private/key"],
        &["--config", config.to_str().unwrap()],
    ] {
        let (stderr, writer) = std::io::pipe().unwrap();
        let (stdin, mut hold) = std::io::pipe().unwrap();
        // What is piped in is taken once the repository is open: then some of it has gone.
        let mut command = scene.command(&[args, &["-vv", "backup", "--stdin"]].concat());
        command.env_remove("ESKER_PASSWORD").env_remove("ESKER_REPOSITORY").stdin(stdin).stderr(writer);
        if args[0] != "--config" {
            command.env("ESKER_REPOSITORY", scene.path("repo"));
        }
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut said = BufReader::new(stderr);
        let mut line = String::new();
        while !line.contains("storage: put sessions/") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "{args:?} opens the repository");
        }
        let shown = |what: &str| fs::read(format!("/proc/{}/{what}", child.id()));
        let (words, environment) = (shown("cmdline").unwrap(), shown("environ"));
        assert_eq!(environment.is_ok(), rustix::process::geteuid().is_root());
        hold.write_all(b"bytes").unwrap();
        drop(hold);
        said.read_to_string(&mut line).unwrap();
        assert!(child.wait().unwrap().success(), "{line}");
        let secrets = scene.secrets();
        assert_eq!(secrets.found_in(&words), [""; 0], "{args:?}");
        assert_eq!(secrets.found_in(&environment.unwrap_or_default()), [""; 0], "{args:?}");
    }
}

// --- types -----------------------------------------------------------------------------------

/// Does not compile where a type has the trait.
macro_rules! has_no {
    ($bound:path: $($type:ty),+ $(,)?) => {$({
        trait Either<A> { fn is() {} }
        impl<T: ?Sized> Either<()> for T {}
        struct Both;
        impl<T: ?Sized + $bound> Either<Both> for T {}
        let _ = <$type as Either<_>>::is;
    })+};
}

#[test]
fn no_type_that_holds_a_secret_prints_it() {
    has_no!(Display: SecretKey, CommittedKey, Credential, KemPrivate, IdKeys, KeyFile, Secret, FirstKey, Sheet, Typed, EpochSecrets, Keys);
    has_no!(serde::Serialize: SecretKey, CommittedKey, Credential, KemPrivate, IdKeys, KeyFile, Secret, FirstKey, Sheet, Typed, EpochSecrets, Keys);
    has_no!(Copy: SecretKey, CommittedKey, Credential, KemPrivate, KeyFile, EpochSecrets);
    has_no!(Debug: EpochSecrets, EpochKeys);

    let storage = Arc::new(memory::Memory::new());
    let options = InitOptions {
        key: FirstKey::Password(PASSWORD.to_owned().into()),
        kdf: KdfCost::FLOOR,
        chunker: Parameters::with_average(64 << 10),
        label: LABEL.into(),
        like: None,
        parity_percent: 0,
    };
    let (repository, _) = Repository::init(storage, World::system(), &options, Local::default()).unwrap();
    let key = repository.add_member(Role::Owner, "second", None).unwrap();
    let session = Session::begin(&repository).unwrap();
    let mut needles = Needles::default();
    needles.add_forms("the password", PASSWORD.as_bytes());
    needles.add_forms("a storage's secret", S3_KEY.as_bytes());
    let words = words_of(&key.seed);
    words.split(' ').filter(|word| word.len() >= 8).for_each(|word| needles.add("a word", word));
    let credential = &repository.keys.credential;
    for (name, secret) in [
        ("a seed", &key.seed),
        ("the owner's seed", credential.seed()),
        ("a sealing seed", credential.sealing().seed()),
        ("K_cdc", repository.keys.chunker_key()),
        ("K_index", &repository.keys.current_epoch().index_key),
        ("a session's secret", session.secret()),
    ] {
        needles.add_forms(name, secret.expose());
    }

    let mut typed = Typed::default();
    typed.add(&words).unwrap();
    let content: ContentKeys = repository.keys.content_keys().unwrap();
    let sheet = Sheet { key: key.clone(), place: "/x".into(), made_secs: 0 };
    let secret = ("secret_access_key".to_owned(), S3_KEY.to_owned());
    let settings = Settings { options: BTreeMap::from([secret.clone()]), typed: vec![secret], ..Settings::default() };
    let plain_url = Url::parse("s3://b").unwrap();
    let configured = Settings { typed: vec![], ..settings.clone() };
    let url = Url::parse(&format!("s3://b?secret_access_key={}", S3_KEY.replace('+', "%2B"))).unwrap();
    let gathered = Options::gather(Kind::S3, &plain_url, &configured).unwrap();
    let all: [&dyn Debug; 23] = [
        &key.seed,
        &key.seed.derive_salted(&[1; 32], "purpose"),
        &key,
        &sheet,
        &typed,
        &Secret::password(PASSWORD),
        &Secret::KeyFile(key.clone()),
        &Secret::Words(key.seed.clone()),
        &FirstKey::Password(PASSWORD.to_owned().into()),
        &options,
        &repository,
        &repository.keys,
        credential,
        credential.sealing(),
        &repository.keys.ids,
        &content,
        &session,
        &Psk { key: &key.seed, id: b"epoch" },
        &Cutter::new(Parameters::with_average(64 << 10), repository.keys.chunker_key().expose()),
        &settings,
        &gathered,
        &url,
        &RepoId::from_bytes([1; 16]),
    ];
    for printed in all.iter().flat_map(|value| [format!("{value:?}"), format!("{value:#?}")]) {
        assert_eq!(needles.found_in(printed.as_bytes()), [""; 0], "{printed}");
    }
}
