//! A real OpenSSH server on a port of this machine, with keys of its own, for one test.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use esker::storage::sftp::{Location, Options, Sftp};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";
const SERVERS: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];

/// Skips aloud, or fails where `ESKER_REQUIRE` promises SFTP.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(why: &str) {
    if std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "sftp")) {
        panic!("sftp required: {why}");
    }
    eprintln!("skipped: {why}");
}

/// A running server, stopped with all its sessions when dropped.
pub(crate) struct Sshd {
    pub(crate) home: TempDir,
    pub(crate) port: u16,
    sshd: Child,
    user: String,
}

impl Sshd {
    /// A server as it is installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with_subsystem("")
    }

    /// A server whose `sftp-server` is given `arguments`.
    pub(crate) fn with_arguments(arguments: &str) -> Option<Self> {
        Self::with_subsystem(&format!("{} {arguments}", Self::sftp_server()?.display()))
    }

    /// Where the program is that speaks SFTP.
    pub(crate) fn sftp_server() -> Option<PathBuf> {
        let found = SERVERS.iter().map(PathBuf::from).find(|path| path.is_file());
        if found.is_none() || !Path::new(SSHD).is_file() {
            skip("needs sshd and sftp-server (package openssh-server)");
            return None;
        }
        found
    }

    /// A server whose SFTP is this command, or what sshd has built in.
    pub(crate) fn with_subsystem(command: &str) -> Option<Self> {
        Self::sftp_server()?;
        let home = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            // sshd wants it to be there.
            let _ = DirBuilder::new().mode(0o755).recursive(true).create("/run/sshd");
        }
        for name in ["host", "user"] {
            keygen(&home.path().join(name));
        }
        let public = fs::read_to_string(home.path().join("user.pub")).unwrap();
        fs::write(home.path().join("authorized"), public).unwrap();
        let command = if command.is_empty() { "internal-sftp" } else { command };
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        // Another process may take the port in between; then there are others.
        for _ in 0..10 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let config = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\n\
                 PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n\
                 Subsystem sftp {command}\n",
                home = home.path().display()
            );
            fs::write(home.path().join("config"), config).unwrap();
            let mut sshd = Command::new(SSHD)
                .args(["-D", "-e", "-f"])
                .arg(home.path().join("config"))
                .stdin(Stdio::null())
                .stderr(fs::File::create(home.path().join("log")).unwrap())
                .spawn()
                .unwrap();
            for _ in 0..500 {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    let server = Self { home, port, sshd, user };
                    server.trust(&server.home.path().join("host.pub"));
                    return Some(server);
                }
                if sshd.try_wait().unwrap().is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
        panic!("sshd does not start: {}", fs::read_to_string(home.path().join("log")).unwrap());
    }

    /// Makes this the key that the server is known by.
    pub(crate) fn trust(&self, public: &Path) {
        let key = fs::read_to_string(public).unwrap();
        fs::write(self.known_hosts(), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.home.path().join("known hosts")
    }

    /// How to get in, whatever this user's own configuration says.
    pub(crate) fn options(&self) -> Options {
        Options {
            ssh_command: ["ssh", "-F", "none"].map(str::to_owned).into(),
            identity_file: Some(self.home.path().join("user")),
            known_hosts: Some(self.known_hosts()),
            connections: None,
        }
    }

    /// The same as arguments of the program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let home = self.home.path().display();
        [
            "ssh-command=ssh -F none".to_owned(),
            format!("identity-file={home}/user"),
            format!("known-hosts={home}/known hosts"),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    /// The URL of a path of the server, which is one of this machine.
    pub(crate) fn url(&self, path: &Path) -> String {
        format!("sftp://{}@127.0.0.1:{}{}", self.user, self.port, path.display())
    }

    pub(crate) fn location(&self, path: &Path) -> Location {
        Location::parse(&self.url(path)).unwrap()
    }

    /// Where [`Sshd::create`] keeps its storage.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("repository")
    }

    /// A new storage on it.
    pub(crate) fn create(&self) -> Sftp {
        Sftp::create(&self.location(&self.path()), &self.options()).unwrap()
    }

    /// The storage that was made before.
    pub(crate) fn open(&self) -> Sftp {
        Sftp::open(&self.location(&self.path()), &self.options()).unwrap()
    }

    /// How many clients are logged in.
    pub(crate) fn logged_in(&self) -> usize {
        let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.sshd.id())).unwrap();
        text.split_whitespace().count()
    }

    /// Kills every session, as a server that goes down does.
    pub(crate) fn kill_sessions(&self) {
        for process in descendants(self.sshd.id()) {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let sessions = descendants(self.sshd.id());
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        for process in sessions {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

/// Makes a key pair, `path` and `path.pub`.
pub(crate) fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.unwrap().success());
}

/// All processes that a process started, and those they did.
pub(crate) fn descendants(process: u32) -> Vec<u32> {
    let children = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten().flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>()
    });
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}
