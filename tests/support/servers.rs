//! The real servers that tests talk to: what `tests/servers/up DIR` started and described in
//! `DIR/servers.json`, which `ESKER_TEST_SERVERS` names. A test of a kind nobody started skips
//! aloud, and fails where `ESKER_REQUIRE` names the kind.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

/// Every kind of storage there is a test for. `weak-s3` accepts conditional puts and ignores them.
pub(crate) const KINDS: [&str; 5] = ["s3", "weak-s3", "sftp", "azblob", "webdav"];

/// Servers that are no storage: `smtp` takes mail.
pub(crate) const OTHERS: [&str; 1] = ["smtp"];

fn is_kind(kind: &str) -> bool {
    KINDS.contains(&kind) || OTHERS.contains(&kind)
}

/// A server that is running.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) struct Server {
    /// Its name, such as `ceph`; one kind may have several.
    pub(crate) name: String,
    /// One of [`KINDS`] or [`OTHERS`].
    pub(crate) kind: String,
    /// Where repositories go, options that are no secrets included.
    pub(crate) url: String,
    /// The port it listens on at 127.0.0.1, as it stands in `url`.
    pub(crate) port: u16,
    /// What settings in process add to the URL: the credentials.
    pub(crate) options: BTreeMap<String, String>,
    /// The credentials as environment of a command.
    pub(crate) env: BTreeMap<String, String>,
    /// What becomes of a put of a name that is taken, under [`CreateNew`].
    pub(crate) create_new: CreateNew,
    /// What must never be printed, nor be in a list of processes.
    pub(crate) secrets: Vec<String>,
    /// The environment of somebody the server lets in nowhere; it may be put on top of `env`.
    #[serde(default)]
    pub(crate) wrong_env: BTreeMap<String, String>,
    /// The URL of somebody the server lets in nowhere, where the URL says who it is.
    #[serde(default)]
    pub(crate) wrong_url: Option<String>,
    /// The environment of somebody who may only read.
    #[serde(default)]
    pub(crate) read_only_env: Option<BTreeMap<String, String>>,
    /// The URL of a bucket, container or directory that is not there and that no command makes.
    #[serde(default)]
    pub(crate) missing_url: Option<String>,
}

/// How a server keeps puts that must not replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CreateNew {
    /// Of any number of racing puts exactly one succeeds.
    Exact,
    /// The condition is accepted and ignored.
    Ignored,
    /// There is no such condition.
    None,
}

impl Server {
    /// A URL no other test uses, below this server's.
    pub(crate) fn fresh_url(&self) -> String {
        self.url_below(&self.fresh_prefix())
    }

    /// A prefix no other test uses, nor a run before this one.
    pub(crate) fn fresh_prefix(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut random = [0; 6];
        getrandom::fill(&mut random).expect("the system has randomness");
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t{}-{random}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// The server's URL with `prefix` at the end of its path.
    pub(crate) fn url_below(&self, prefix: &str) -> String {
        below(&self.url, prefix)
    }

    /// The same place at another port.
    pub(crate) fn url_at_port(&self, url: &str, port: u16) -> String {
        let (from, to) = (format!("127.0.0.1:{}", self.port), format!("127.0.0.1:{port}"));
        assert!(url.contains(&from), "{url} names port {}", self.port);
        url.replace(&from, &to)
    }
}

/// `url` with `prefix` at the end of its path, before the query.
pub(crate) fn below(url: &str, prefix: &str) -> String {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let slash = if path.ends_with('/') { "" } else { "/" };
    match query {
        Some(query) => format!("{path}{slash}{prefix}?{query}"),
        None => format!("{path}{slash}{prefix}"),
    }
}

/// Every server that was started.
pub(crate) fn all() -> Vec<Server> {
    let Some(file) = std::env::var_os("ESKER_TEST_SERVERS").filter(|file| !file.is_empty()) else {
        return Vec::new();
    };
    let text = fs::read(&file).unwrap_or_else(|error| panic!("ESKER_TEST_SERVERS={}: {error}", file.display()));
    parse(&text)
}

/// The servers of one kind. None skips aloud, and fails where `ESKER_REQUIRE` names the kind.
pub(crate) fn of_kind(kind: &str) -> Vec<Server> {
    assert!(is_kind(kind), "`{kind}` is a kind");
    let servers: Vec<_> = all().into_iter().filter(|server| server.kind == kind).collect();
    if servers.is_empty() {
        missing(kind);
    }
    servers
}

/// The servers of every kind of storage; each kind that is missing is treated as by [`of_kind`].
pub(crate) fn each_kind() -> Vec<Server> {
    KINDS.iter().flat_map(|kind| of_kind(kind)).collect()
}

/// Whether `ESKER_REQUIRE` says that nothing may be skipped for want of `what`.
pub(crate) fn is_required(what: &str) -> bool {
    std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == what))
}

#[allow(clippy::print_stderr)] // a skipped test says so
fn missing(kind: &str) {
    assert!(!is_required(kind), "ESKER_REQUIRE names {kind}, and ESKER_TEST_SERVERS describes no such server");
    eprintln!("skipped: needs a server of kind {kind} (tests/servers/up DIR)");
}

fn parse(text: &[u8]) -> Vec<Server> {
    let servers: Vec<Server> = serde_json::from_slice(text).expect("servers.json describes servers");
    for server in &servers {
        assert!(is_kind(&server.kind), "{}: kind {}", server.name, server.kind);
        assert!(!server.secrets.iter().any(|secret| server.url.contains(secret)), "{}: a secret URL", server.name);
    }
    servers
}

#[test]
fn a_prefix_stands_before_the_query() {
    assert_eq!(below("s3://b/?endpoint=http://h:1", "p"), "s3://b/p?endpoint=http://h:1");
    assert_eq!(below("s3://b?endpoint=http://h:1", "p"), "s3://b/p?endpoint=http://h:1");
    assert_eq!(below("sftp://u@h:1/a", "p"), "sftp://u@h:1/a/p");
}

#[test]
fn a_server_is_described_in_json() {
    let servers = parse(
        br#"[{"name":"ceph","kind":"s3","url":"s3://esker-test/?endpoint=http://127.0.0.1:5300","port":5300,
        "options":{"access_key_id":"AKCEPH","secret_access_key":"SKCEPH"},"env":{"AWS_ACCESS_KEY_ID":"AKCEPH"},
        "create_new":"exact","secrets":["SKCEPH"]}]"#,
    );
    assert_eq!(servers[0].create_new, CreateNew::Exact);
    let other = servers[0].fresh_url();
    assert_ne!(other, servers[0].fresh_url());
    assert!(servers[0].url_at_port(&other, 1).ends_with("?endpoint=http://127.0.0.1:1"));
}
