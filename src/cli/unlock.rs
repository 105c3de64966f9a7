//! Passwords and key files: where they are found, and how new ones are taken and given.
//!
//! What the command line names wins over the environment; within either, only one may be named.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::app::App;
use super::config::OptionValue;
use super::fail::{Result, usage};
use super::text;
use crate::crypto::key::SecretKey;
use crate::crypto::words::{Typed, WORDS};
use crate::error::{Context, Error, Kind};
use crate::repo::kit::Kit;
use crate::repo::recovery::secret_from_text;
use crate::repo::secret::{KeyFile, Secret};

/// Nobody types so many lines without typing all words.
const LINES_OF_WORDS_MAX: u32 = 100;
/// No kit is longer.
const KIT_BYTES_MAX: u64 = 256 << 20;
/// No password is longer.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Room that is made for a secret at first.
const FIRST_BYTES: usize = 8 << 10;

/// Where the secret comes from.
pub(super) enum Origin {
    Password(Zeroizing<String>),
    PasswordFile(PathBuf),
    Command(String),
    Descriptor(u32),
    KeyFile(PathBuf),
    Prompt,
}

/// What the command line says of what unlocks a repository.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub(super) password_file: Option<&'a Path>,
    pub(super) password_command: Option<&'a str>,
    pub(super) password_fd: Option<u32>,
    pub(super) key_file: Option<&'a Path>,
}

/// Where the secret is to come from, by the command line and the environment.
pub(super) fn origin(app: &App) -> Result<Origin> {
    let global = &app.global;
    let given = Given {
        password_file: global.password_file.as_deref(),
        password_command: global.password_command.as_deref(),
        password_fd: global.password_fd,
        key_file: global.key_file.as_deref(),
    };
    origin_of(app, given, "ESKER_")
}

/// The same of any repository, whose variables in the environment begin like this.
fn origin_of(app: &App, given: Given<'_>, prefix: &str) -> Result<Origin> {
    let given = [
        given.password_file.map(|path| Origin::PasswordFile(path.to_owned())),
        given.password_command.map(|command| Origin::Command(command.to_owned())),
        given.password_fd.map(Origin::Descriptor),
        given.key_file.map(|path| Origin::KeyFile(path.to_owned())),
    ];
    match given.into_iter().flatten().next() {
        Some(origin) => Ok(origin),
        None => from_environment(app, prefix),
    }
}

/// Where the environment says that a secret is, in variables that begin like this.
fn from_environment(app: &App, prefix: &str) -> Result<Origin> {
    let var = |name: &str| app.var(&format!("{prefix}{name}"));
    let text = |name: &str| {
        let not_text = || usage(format!("{prefix}{name} is not UTF-8"));
        var(name).map(|value| value.to_str().ok_or_else(not_text)).transpose()
    };
    let set = [
        text("PASSWORD")?.map(|password| Origin::Password(Zeroizing::new(password.to_owned()))),
        var("PASSWORD_FILE").map(|path| Origin::PasswordFile(path.into())),
        text("PASSWORD_COMMAND")?.map(|command| Origin::Command(command.to_owned())),
        var("KEY_FILE").map(|path| Origin::KeyFile(path.into())),
    ];
    let mut set = set.into_iter().flatten();
    match (set.next(), set.next()) {
        (Some(origin), None) => Ok(origin),
        (None, _) => Ok(Origin::Prompt),
        (Some(_), Some(_)) => {
            let what = "the environment names more than one password or key file";
            let names = ["PASSWORD_FILE", "PASSWORD_COMMAND"].map(|name| format!("{prefix}{name}")).join(", ");
            let hint = format!("set only one of {prefix}PASSWORD, {names} and {prefix}KEY_FILE");
            Err(usage(what).hint(hint).into())
        }
    }
}

/// What unlocks the repository.
pub(super) fn secret(app: &App) -> Result<Secret> {
    secret_from(app, origin(app)?, "password: ")
}

/// What unlocks another repository: the one things are taken from, or brought to.
pub(super) fn other_secret(app: &App, given: Given<'_>, prefix: &str, prompt: &str) -> Result<Secret> {
    secret_from(app, origin_of(app, given, prefix)?, prompt)
}

fn secret_from(app: &App, origin: Origin, prompt: &str) -> Result<Secret> {
    match origin {
        Origin::KeyFile(path) => read_key_file(&app.path(&path)),
        Origin::Prompt => Ok(Secret::Password(ask(app, prompt)?)),
        other => Ok(Secret::Password(password(app, other)?)),
    }
}

/// The recovery words, from a file (`-` is standard input), the sheet that unlocks, or as typed.
pub(super) fn recovery_secret(app: &App, file: Option<&Path>) -> Result<Secret> {
    match (file, app.global.key_file.as_deref()) {
        (Some(file), _) if file == Path::new("-") => {
            let what = || "cannot read the recovery words from stdin";
            Ok(secret_from_text(&read_text(app.stdin()?, what)?)?)
        }
        (Some(file), _) | (None, Some(file)) => read_key_file(&app.path(file)),
        (None, None) => type_words(app).map(Secret::Words),
    }
}

/// Asks for the words, any number at a time, until there are enough.
fn type_words(app: &App) -> Result<SecretKey> {
    if app.prompt.is_none() {
        let hint = "add `--words-file FILE` with the words or the recovery sheet, or `--words-file -` to pipe them in";
        return Err(usage("no recovery words were given, and there is no terminal to ask on").hint(hint).into());
    }
    let mut typed = Typed::default();
    for _ in 0..LINES_OF_WORDS_MAX {
        let prompt = match typed.count() {
            0 => "recovery words, as many at a time as you like: ".to_owned(),
            count => format!("{count} of {WORDS}, go on: "),
        };
        if let Err(error) = typed.add(&ask(app, &prompt)?) {
            app.console.print(&format!("{}; that line again, please", text::plain(&error.to_string())));
        }
        if typed.count() >= WORDS {
            let seed = typed.seed();
            let what = "cannot use the recovery words";
            return Ok(seed.map_err(|error| Error::new(Kind::WrongKey, what).because(error))?);
        }
    }
    Err(Error::new(Kind::WrongKey, "cannot use the recovery words: there are still not enough").into())
}

/// The password for a new repository; typed twice on a terminal.
pub(super) fn first_password(app: &App, origin: Origin) -> Result<Zeroizing<String>> {
    match origin {
        Origin::Prompt => ask_twice(app, "password for the new repository: "),
        other => password(app, other),
    }
}

/// A password that is to be added; typed twice on a terminal.
pub(super) fn new_password(app: &App, file: Option<&Path>) -> Result<Zeroizing<String>> {
    match file {
        Some(file) => password(app, Origin::PasswordFile(file.to_owned())),
        None => ask_twice(app, "new password: "),
    }
}

fn password(app: &App, origin: Origin) -> Result<Zeroizing<String>> {
    let (from, mut bytes) = match origin {
        Origin::Password(password) => return not_empty(password, "ESKER_PASSWORD"),
        Origin::PasswordFile(path) => {
            let path = app.path(&path);
            let from = format!("the password file `{}`", path.display());
            let bytes = read_secret(&path).context(|| format!("cannot read {from}"))?;
            (from, bytes)
        }
        Origin::Descriptor(number) => {
            let from = format!("file descriptor {number}");
            let bytes = match number {
                // Not opened anew: that is refused where somebody else has made the pipe.
                0 => read_wiped(app.stdin()?.take(SECRET_BYTES_MAX)),
                _ => read_secret(Path::new(&format!("/proc/self/fd/{number}"))),
            };
            let bytes = bytes.context(|| format!("cannot read the password from {from}"))?;
            (from, bytes)
        }
        Origin::Command(command) => ("the password command".to_owned(), run_command(app, &command)?),
        Origin::KeyFile(_) | Origin::Prompt => return Err(usage("a password is needed here").into()),
    };
    trim_line_end(&mut bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| usage(format!("the password from {from} is not UTF-8")))?;
    not_empty(Zeroizing::new(text.to_owned()), &from)
}

/// Options of a configured repository's storage, looked up where the configuration says.
pub(super) fn options(app: &App, options: &[(String, OptionValue)]) -> Result<Vec<(String, Zeroizing<String>)>> {
    let look = |name: &str, value: &OptionValue| -> Result<Zeroizing<String>> {
        let from = format!("the option `{name}` of the configured repository");
        let mut bytes = match value {
            OptionValue::Text(text) => return Ok(Zeroizing::new(text.clone())),
            OptionValue::Variable(variable) => {
                let value = app.var(variable).and_then(|value| value.to_str());
                let missing = || usage(format!("cannot find {from}: {variable} is not set")).into();
                return value.map(|value| Zeroizing::new(value.to_owned())).ok_or_else(missing);
            }
            OptionValue::File(path) => {
                read_secret(path).context(|| format!("cannot read {from} from `{}`", path.display()))?
            }
            OptionValue::Command(command) => run_command(app, command)?,
        };
        trim_line_end(&mut bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| usage(format!("{from} is not UTF-8")))?;
        Ok(Zeroizing::new(text.to_owned()))
    };
    options.iter().map(|(name, value)| Ok((name.clone(), look(name, value)?))).collect()
}

/// Editors and `echo` end a file with a line break that is not meant.
fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
}

fn not_empty(password: Zeroizing<String>, from: &str) -> Result<Zeroizing<String>> {
    if password.is_empty() {
        return Err(usage(format!("the password from {from} is empty")).into());
    }
    Ok(password)
}

fn read_secret(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    read_wiped(File::open(path)?.take(SECRET_BYTES_MAX))
}

/// Reads all there is, leaving no copy but what it gives.
fn read_wiped(mut from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; FIRST_BYTES]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            // A vector that grows by itself would leave what it held.
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match from.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn run_command(app: &App, command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let what = || "cannot take the password from the password command";
    let words = shell_words::split(command).map_err(|error| usage(what()).because(error))?;
    let Some((program, args)) = words.split_first() else {
        return Err(usage("the password command is empty").into());
    };
    let child = Command::new(program)
        .args(args)
        .current_dir(&app.cwd)
        .env_clear()
        .envs(app.env_of_commands())
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child = child.context(|| format!("{}: `{program}` did not start", what()))?;
    // Closed once it is read: a command that says more than any password has ends by that.
    let bytes = child.stdout.take().map(|stdout| read_wiped(stdout.take(SECRET_BYTES_MAX)));
    let status = child.wait().context(|| format!("{}: `{program}` was lost", what()))?;
    if !status.success() {
        return Err(Error::new(Kind::Failed, format!("{}: `{program}` failed, {status}", what())).into());
    }
    let bytes = bytes.unwrap_or_else(|| Ok(Zeroizing::default()));
    Ok(bytes.context(|| format!("{}: `{program}` cannot be read", what()))?)
}

fn ask(app: &App, prompt: &str) -> Result<Zeroizing<String>> {
    let Some(ask) = &app.prompt else {
        let hint = "add `--password-file FILE` or `--key-file FILE`, or set ESKER_PASSWORD_COMMAND";
        return Err(usage("no password was given, and there is no terminal to ask on").hint(hint).into());
    };
    let typed = ask(prompt).context(|| "cannot read the password from the terminal")?;
    not_empty(typed, "the terminal")
}

fn ask_twice(app: &App, prompt: &str) -> Result<Zeroizing<String>> {
    let first = ask(app, prompt)?;
    let second = ask(app, "the same again: ")?;
    if first != second {
        return Err(usage("the two passwords differ").into());
    }
    Ok(first)
}

/// Reads a key file, or what does as one: a recovery sheet, a kit, or words.
fn read_key_file(path: &Path) -> Result<Secret> {
    let what = || format!("cannot read the key file `{}`", path.display());
    let text = read_text(File::open(path).context(what)?, what)?;
    Ok(secret_from_text(&text)?)
}

/// Reads a recovery kit.
pub(super) fn read_kit(path: &Path) -> Result<Kit> {
    let what = || format!("cannot use the recovery kit `{}`", path.display());
    let text = read_text(File::open(path).context(what)?, what)?;
    Ok(Kit::from_text(&text).context(what)?)
}

fn read_text<S: Into<String>>(from: impl Read, what: impl Fn() -> S) -> Result<Zeroizing<String>> {
    let bytes = read_wiped(from.take(KIT_BYTES_MAX)).context(&what)?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| Error::new(Kind::WrongKey, what()).because("it is not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A key file that is to be written once its content is known.
///
/// The place is taken and its space with it before the repository is changed: a key nobody could
/// store would be lost. Dropped unwritten, the file is removed.
pub(super) struct NewKeyFile {
    file: File,
    path: PathBuf,
    written: bool,
}

/// Longer than any key file or sheet.
const PLACEHOLDER_BYTES: usize = 4096;

impl NewKeyFile {
    /// Takes a place where nothing is yet.
    pub(super) fn reserve(path: &Path) -> Result<Self> {
        let what = || format!("cannot make the key file `{}`", path.display());
        let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let hint = "take another name, or move the file away: an interrupted command may have left it";
                return Err(usage(format!("{}: there is a file already", what())).hint(hint).into());
            }
            result => result.context(what)?,
        };
        let mut new = Self { file, path: path.to_owned(), written: false };
        let filled = new.file.write_all(&[b'#'; PLACEHOLDER_BYTES]).and_then(|()| new.file.sync_all());
        filled.context(what)?;
        Ok(new)
    }

    /// Writes the key. Durable on return.
    pub(super) fn write(self, key: &KeyFile) -> crate::error::Result<()> {
        self.write_text(&key.to_text())
    }

    /// Writes a key in another form. Durable on return.
    pub(super) fn write_text(mut self, text: &str) -> crate::error::Result<()> {
        // From now on it may be the only copy.
        self.written = true;
        let length = text.len() as u64;
        let written = (self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.set_len(length))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| sync_directory_of(&self.path));
        written.context(|| format!("the key was not written to `{}`", self.path.display()))
    }
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    crate::storage::local::sync_directory(parent)
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
