//! Risk: a wrong word about a storage goes unnoticed, a secret ends up where others read it, or
//! a server is trusted that nobody vouches for.
//! Method: the real program, told nonsense; and a real TLS server, in front of a real storage,
//! with a certificate of an authority that `openssl` makes for the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use esker::storage::remote::{self, OpenError, Settings};
use esker::storage::{ErrorKind, Storage, WriteMode};
use support::servers;
use tempfile::TempDir;

#[path = "support"]
mod support {
    #[allow(dead_code)] // each test file uses a part of it
    pub(crate) mod servers;
}

/// Runs the program in an empty environment.
fn esker(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(args).env_clear().env("HOME", home.path()).env("ESKER_PASSWORD", "not asked for");
    let Output { status, stdout, stderr } = command.envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn a_url_or_option_that_makes_no_sense_is_wrong_usage() {
    for (args, expected) in [
        (&["-r", "s3://", "snapshots"][..], "names no bucket"),
        (&["-r", "s3:bucket", "snapshots"], "write `s3://"),
        (&["-r", "s3://b/../c", "snapshots"], "`..`"),
        (&["-r", "azure://c", "snapshots"], "azblob://"),
        (&["-r", "https://h/p", "snapshots"], "webdav://"),
        (&["-r", "azblob://c/p", "snapshots"], "-o account=NAME"),
        (&["-r", "s3://b", "-o", "regoin=x", "snapshots"], "the options are endpoint, region, path-style"),
        (&["-r", "s3://b?regoin=x", "snapshots"], "no option `regoin`"),
        (&["-r", "s3://b", "-o", "region", "snapshots"], "KEY=VALUE"),
        (&["-r", "s3://b", "-o", "path-style=maybe", "snapshots"], "path-style"),
        (&["-r", "s3://b", "-o", "connections=0", "snapshots"], "from 1 to 64"),
        (&["-r", "s3://b", "-o", "endpoint=127.0.0.1:1", "snapshots"], "endpoint=https://"),
        (&["-r", "s3://b", "--cacert", "/dev/null", "snapshots"], "no certificate"),
        (&["-r", "s3://b", "--limit-upload", "0", "snapshots"], "KiB/s"),
    ] {
        let (code, text) = esker(args, &[]);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    for (args, expected) in [
        (&["-r", "s3://b?secret_access_key=hunter2", "snapshots"][..], "AWS_SECRET_ACCESS_KEY"),
        (&["-r", "s3://b", "-o", "secret-access-key=hunter2", "snapshots"], "AWS_SECRET_ACCESS_KEY"),
        (&["-r", "s3://AKID:hunter2@b", "snapshots"], "AWS_SECRET_ACCESS_KEY"),
        (&["-r", "s3://b", "-o", "endpoint=http://me:hunter2@host", "snapshots"], "endpoint"),
        (&["-r", "azblob://c?account=a&sas-token=hunter2", "snapshots"], "AZURE_STORAGE_SAS_TOKEN"),
        (&["-r", "gs://b", "-o", "token=hunter2", "snapshots"], "GOOGLE_APPLICATION_CREDENTIALS"),
        (&["-r", "webdav://me:hunter2@host/dav", "snapshots"], "ESKER_WEBDAV_PASSWORD"),
        (&["-r", "webdav://host/dav", "-o", "password=hunter2", "snapshots"], "ESKER_WEBDAV_PASSWORD"),
    ] {
        let (code, text) = esker(args, &[]);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(expected) && !text.contains("hunter2"), "{args:?}: {text}");
    }
    // In the environment, an endpoint with a password is not shown either.
    let (code, text) = esker(&["-r", "s3://b", "snapshots"], &[("AWS_ENDPOINT_URL", "http://me:hunter2@host")]);
    assert!(code == Some(2) && !text.contains("hunter2"), "{text}");
}

/// Nothing is asked of the server, so there need not be one.
#[test]
fn without_credentials_the_places_that_were_looked_at_are_named() {
    let url = "s3://b/p?endpoint=http://127.0.0.1:9&metadata=false";
    let (code, text) = esker(&["-r", url, "snapshots"], &[]);
    assert_eq!(code, Some(6), "{text}");
    assert!(text.contains("no credentials") && text.contains("~/.aws/credentials"), "{text}");
}

#[test]
fn a_server_that_nobody_verifies_is_warned_of_each_time() {
    let url = "s3://b/p?endpoint=http://127.0.0.1:9&metadata=false";
    for args in [&["-r", url, "--insecure-tls", "snapshots"][..], &["-r", url, "--insecure-tls", "--json", "snapshots"]]
    {
        let (_, text) = esker(args, &[]);
        assert!(text.contains("certificates are not verified"), "{text}");
    }
}

/// Takes connections over TLS and passes what comes to a port of this machine.
const TLS_PROXY: &str = r"
import socket, ssl, sys, threading
chain, key, target = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        return
    server = socket.create_connection(('127.0.0.1', target))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
";

/// A TLS server that ends with the test.
struct Proxy {
    child: Child,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(home: &Path, args: &[&str]) {
    let done = Command::new("openssl").args(args).current_dir(home).output().expect("openssl runs");
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Two authorities, `ca.pem` and `other.pem`; the first has signed `server.pem`.
fn certificates() -> TempDir {
    const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let home = tempfile::tempdir().unwrap();
    for name in ["ca", "other"] {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN=Esker test {name}"));
        let own = ["-nodes", "-keyout", &key, "-out", &pem, "-days", "2", "-subj", &subject];
        openssl(home.path(), &[&["req", "-x509"][..], &EC, &own].concat());
    }
    let request = ["-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=esker test server"];
    openssl(home.path(), &[&["req"][..], &EC, &request].concat());
    std::fs::write(home.path().join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(home.path(), &[&sign[..], &["-out", "server.pem", "-days", "2", "-extfile", "names"]].concat());
    home
}

fn proxy(home: &Path, target: u16) -> Proxy {
    let mut command = Command::new("python3");
    command.args(["-c", TLS_PROXY, "server.pem", "server.key", &target.to_string()]).current_dir(home);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3 runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Proxy { child, port: line.trim().parse().expect("the proxy says its port") }
}

#[test]
fn a_server_is_trusted_by_the_authority_that_was_given_and_by_no_other() {
    for server in servers::of_kind("s3").into_iter().take(1) {
        let home = certificates();
        let proxy = proxy(home.path(), server.port);
        let url = server.url_at_port(&server.fresh_url(), proxy.port).replace("http://", "https://");
        let open = |ca: Option<&str>, insecure_tls: bool| -> Result<Arc<dyn Storage>, OpenError> {
            let ca_file = ca.map(|name| home.path().join(name));
            let options = server.options.clone();
            remote::open(&url, &Settings { options, ca_file, insecure_tls, ..Settings::default() })
        };
        for stranger in [None, Some("other.pem")] {
            let error = open(stranger, false).unwrap().get("config").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
            assert!(error.to_string().contains("cannot trust the server"), "not retried, and said: {error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("--cacert")), "{error:?}");
        }
        for storage in [open(Some("ca.pem"), false).unwrap(), open(None, true).unwrap()] {
            storage.put("a", b"over TLS", WriteMode::Replace).unwrap();
            assert_eq!(storage.get("a").unwrap(), b"over TLS");
            storage.delete("a").unwrap();
        }
        assert!(matches!(open(Some("server.key"), false), Err(OpenError::Usage { .. })), "a key is no authority");
        assert!(matches!(open(Some("nowhere.pem"), false), Err(OpenError::Usage { .. })));
    }
}
