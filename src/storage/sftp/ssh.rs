//! Where a repository over SSH is, and the `ssh` that gets there.
//!
//! The system's own `ssh` is run, so that what a user has set up (`~/.ssh/config`, agents, jump
//! hosts, known hosts) works here too. It never asks anything: with `BatchMode` a host key
//! nobody has accepted, or a key that is refused, is an error instead of a prompt.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::storage::ErrorKind;
use crate::storage::remote::OpenError;
use crate::storage::remote::url::{Url, of_ssh_place};

/// Seconds until `ssh` gives up reaching a host.
const CONNECT_SECS: u32 = 20;

/// Seconds between signs of life asked of a silent server, and how many may stay unanswered.
const ALIVE: (u32, u32) = (15, 4);

/// Where a repository over SSH is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// How to get to a [`Location`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Words that are run instead of `ssh`, with its arguments after them.
    pub ssh_command: Vec<String>,
    /// The only private key to offer.
    pub identity_file: Option<PathBuf>,
    /// The only file of host keys to believe.
    pub known_hosts: Option<PathBuf>,
    /// How many connections to open at most; 4 unless given.
    pub connections: Option<usize>,
}

impl Location {
    /// Reads `sftp://[user@]host[:port]/absolute/path` or `sftp://host/~/below/home`.
    pub fn of(url: &Url) -> std::result::Result<Self, OpenError> {
        let wrong = |why: &str| OpenError::usage(format!("`sftp://{}` is no place over SSH: {why}", url.authority));
        let (host, port) = match url.authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| wrong("a `[` has no `]`"))?,
            None => url.authority.split_at(url.authority.find(':').unwrap_or(url.authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().map_err(|_| wrong("its port is no number"))?),
            None if port.is_empty() => None,
            None => return Err(wrong("something stands between host and port")),
        };
        for word in url.user.iter().map(String::as_str).chain([host]) {
            let odd = |c: char| c.is_whitespace() || c.is_control();
            // An argument that begins with a dash would be an option of `ssh`.
            if word.is_empty() || word.starts_with('-') || word.contains(odd) {
                return Err(wrong("its user or host is empty or no name"));
            }
        }
        let path = match url.path.as_str() {
            "" if !url.path_is_absolute => {
                return Err(OpenError::hinted(
                    format!("`sftp://{}` names no directory", url.authority),
                    "write `sftp://HOST/absolute/path` or `sftp://HOST/~/below/home`",
                ));
            }
            "~" => ".".to_owned(),
            path => path.strip_prefix("~/").map_or_else(|| format!("/{path}"), str::to_owned),
        };
        Ok(Self { user: url.user.clone(), host: host.to_owned(), port, path })
    }

    /// Reads the text of a URL.
    pub fn parse(url: &str) -> std::result::Result<Self, OpenError> {
        Self::of(&Url::parse(&of_ssh_place(url))?)
    }

    /// The path as a server takes it: absolute, or beginning in the home directory.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The place for people, with another path.
    pub(super) fn at(&self, path: &str) -> String {
        let moved = Self { path: path.to_owned(), ..self.clone() };
        moved.to_string()
    }

    /// Host and port for people.
    pub(super) fn server(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{user}{host}{port}")
    }

    /// A command that shows what keeps `ssh` from getting there.
    pub fn try_command(&self, options: &Options) -> String {
        let mut words = vec!["ssh".to_owned()];
        if !options.ssh_command.is_empty() {
            words.clone_from(&options.ssh_command);
        }
        words.extend(self.arguments(options, false));
        words.push("exit".to_owned());
        shell_words::join(words)
    }

    /// The `ssh` that runs an SFTP server at the place.
    ///
    /// In a process group of its own: an interrupt typed at the terminal is for us, who still
    /// have a checkpoint to commit. When we end, its input does, and so does it.
    pub(super) fn command(&self, options: &Options) -> Command {
        let (program, words) = match options.ssh_command.split_first() {
            Some((program, words)) => (program.as_str(), words),
            None => ("ssh", &[][..]),
        };
        let mut command = Command::new(program);
        command.args(words).args(self.arguments(options, true)).arg("sftp").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What is ours there may be a password, which others of the same user can read of `ssh`.
        let ours = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ESKER_"));
        for (name, _) in ours {
            command.env_remove(name);
        }
        command
    }

    fn arguments(&self, options: &Options, quiet: bool) -> Vec<String> {
        let mut words = Vec::new();
        let mut set = |option: String| words.extend(["-o".to_owned(), option]);
        if quiet {
            set("BatchMode=yes".to_owned());
            set(format!("ConnectTimeout={CONNECT_SECS}"));
            set(format!("ServerAliveInterval={}", ALIVE.0));
            set(format!("ServerAliveCountMax={}", ALIVE.1));
            // A master that is there is used; none is left behind.
            set("ControlMaster=no".to_owned());
            set("ForwardAgent=no".to_owned());
            set("ForwardX11=no".to_owned());
            set("ClearAllForwardings=yes".to_owned());
            set("PermitLocalCommand=no".to_owned());
            set("RemoteCommand=none".to_owned());
            set("RequestTTY=no".to_owned());
        }
        if let Some(file) = &options.known_hosts {
            set(format!("UserKnownHostsFile={}", quoted(file)));
            set("GlobalKnownHostsFile=/dev/null".to_owned());
            set("StrictHostKeyChecking=yes".to_owned());
        }
        if let Some(file) = &options.identity_file {
            set(format!("IdentityFile={}", quoted(file)));
            set("IdentitiesOnly=yes".to_owned());
        }
        let port = self.port.map(|port| ["-p".to_owned(), port.to_string()]);
        words.extend(port.into_iter().flatten());
        words.extend(self.user.iter().flat_map(|user| ["-l".to_owned(), user.clone()]));
        words.extend(quiet.then(|| "-s".to_owned()));
        words.extend(["--".to_owned(), self.host.clone()]);
        words
    }
}

/// `sftp://user@host:port/path`, which can be read again.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        let home = if path.starts_with('/') { "" } else { "/~/" };
        write!(f, "sftp://{}{home}{path}", self.server())
    }
}

/// A file's name as an option of `ssh`, which splits at spaces and replaces `%`.
fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\""))
}

/// What sort of error `ssh` ended with before a session began, from its own words.
///
/// Only what may be better in a moment is worth another try.
pub(super) fn kind_of_refusal(words: &str) -> ErrorKind {
    let words = words.to_lowercase();
    let any = |patterns: &[&str]| patterns.iter().any(|pattern| words.contains(pattern));
    if any(&["permission denied", "host key verification failed", "too many authentication failures"]) {
        ErrorKind::Denied
    } else if any(&[
        "connection refused",
        "connection reset",
        "connection timed out",
        "operation timed out",
        "timed out during banner",
        "connection closed",
        "network is unreachable",
        "no route to host",
        "temporary failure",
        "broken pipe",
        "not responding",
        "kex_exchange_identification",
        "ssh_exchange_identification",
    ]) {
        ErrorKind::Transient
    } else {
        ErrorKind::Io
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (Option<String>, String, Option<u16>, String) {
        let Location { user, host, port, path } = Location::parse(url).unwrap();
        (user, host, port, path)
    }

    #[test]
    fn both_spellings_of_a_place_are_read() {
        let ada = || Some("ada".to_owned());
        let host = || "host".to_owned();
        assert_eq!(parts("sftp://ada@host:2222/srv/repo"), (ada(), host(), Some(2222), "/srv/repo".into()));
        assert_eq!(parts("sftp://host//srv/repo/"), (None, host(), None, "/srv/repo".into()));
        assert_eq!(parts("sftp://host/~/a/b"), (None, host(), None, "a/b".into()));
        assert_eq!(parts("sftp://host/~"), (None, host(), None, ".".into()));
        assert_eq!(parts("sftp://host/a%20b%3F"), (None, host(), None, "/a b?".into()));
        assert_eq!(parts("sftp://[::1]:22/a"), (None, "::1".into(), Some(22), "/a".into()));
        assert_eq!(parts("sftp:ada@host:a/b"), (ada(), host(), None, "a/b".into()));
        assert_eq!(parts("sftp:host:/srv/x"), (None, host(), None, "/srv/x".into()));
        assert_eq!(parts("sftp:[fe80::1]:~/x"), (None, "fe80::1".into(), None, "x".into()));
        assert_eq!(parts("sftp://a@example.com@host/x"), (Some("a@example.com".into()), host(), None, "/x".into()));
        for url in ["sftp://ada@host:22/srv/repo", "sftp://host/~/a b", "sftp://[::1]/a%3Fb"] {
            let location = Location::parse(url).unwrap();
            assert_eq!(Location::parse(&location.to_string()).unwrap(), location);
        }
    }

    /// A host such as `-oProxyCommand=…` would run a command of whoever wrote the URL.
    #[test]
    fn what_ssh_could_take_for_an_option_is_refused() {
        for url in [
            "sftp://-oProxyCommand=touch/x",
            "sftp:-oProxyCommand=x:y",
            "sftp://-l@host/x",
            "sftp:///x",
            "sftp://host",
            "sftp://host:port/x",
            "sftp://host:99999/x",
            "sftp://[::1/x",
            "sftp://[::1]x/x",
            "sftp://ho st/x",
            "sftp://@host/x",
            "sftp://host/%zz",
            "sftp://host/a/../b",
        ] {
            assert!(matches!(Location::parse(url), Err(OpenError::Usage { .. })), "{url}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = Location::parse("sftp://ada:hunter2@host/x").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn the_command_is_ssh_with_the_users_own_words_first() {
        let location = Location::parse("sftp://ada@host:2222/x").unwrap();
        let options = Options {
            ssh_command: vec!["nice".into(), "ssh".into(), "-F".into(), "my config".into()],
            identity_file: Some("/keys/100% ours".into()),
            ..Options::default()
        };
        let command = location.command(&options);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(command.get_program(), "nice");
        assert_eq!(words[..3], ["ssh", "-F", "my config"]);
        assert!(words.contains(&"BatchMode=yes") && words.contains(&"IdentityFile=\"/keys/100%% ours\""));
        assert_eq!(words[words.len() - 8..], ["-p", "2222", "-l", "ada", "-s", "--", "host", "sftp"]);
        let shown = location.try_command(&Options::default());
        assert_eq!(shown, "ssh -p 2222 -l ada -- host exit");
    }

    #[test]
    fn ssh_words_are_sorted_by_what_can_be_done_about_them() {
        for (words, kind) in [
            ("ada@host: Permission denied (publickey).", ErrorKind::Denied),
            ("Host key verification failed.", ErrorKind::Denied),
            ("ssh: connect to host 127.0.0.1 port 1: Connection refused", ErrorKind::Transient),
            ("kex_exchange_identification: read: Connection reset by peer", ErrorKind::Transient),
            ("ssh: Could not resolve hostname nowhere: Name or service not known", ErrorKind::Io),
            ("subsystem request failed on channel 0", ErrorKind::Io),
            ("", ErrorKind::Io),
        ] {
            assert_eq!(kind_of_refusal(words), kind, "{words}");
        }
    }
}
