//! Risk: who has the storage's account deletes or replaces everything, and though the bucket keeps versions nobody
//! gets at them; or what is shown as it once was is a mixture with what came after.
//! Method: the binary against a real server whose bucket keeps versions. After each state of the repository its
//! moment is taken; then all objects are deleted, and half of them put there again with other bytes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

#[allow(dead_code)]
#[path = "support/servers.rs"]
mod servers;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

use esker::storage::WriteMode;
use esker::storage::remote::{self, Settings};
use servers::{Server, below};

struct Desk {
    server: Server,
    url: String,
    dir: tempfile::TempDir,
}

impl Desk {
    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(below)
    }

    fn esker(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command
            .env("HOME", self.path("home"))
            .env("ESKER_REPOSITORY", &self.url)
            .env("ESKER_PASSWORD", "some password");
        command.env("AWS_EC2_METADATA_DISABLED", "true").envs(&self.server.env);
        command.output().unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.esker(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Backs up, and gives the moment after. A command that takes its time follows: clocks are of milliseconds.
    fn backup(&self) -> String {
        self.done(&["backup", "source"]);
        let now = jiff::Timestamp::now().to_string();
        self.done(&["snapshots"]);
        now
    }

    fn restored(&self, at: &str, into: &str) -> Vec<String> {
        self.done(&["restore", "latest", "--storage-time", at, "--target", into]);
        tree::lines(&self.path(into).join(self.path("source").strip_prefix("/").unwrap()))
    }
}

#[test]
fn what_was_deleted_and_replaced_in_a_bucket_with_versions_comes_back_as_of_each_moment() {
    for server in servers::of_kind("s3") {
        let Some(url) = server.versions_url.clone() else { continue };
        let url = below(&url, &server.fresh_prefix());
        let desk = Desk { server, url, dir: tempfile::tempdir().unwrap() };
        desk.done(&["init"]);
        fs::create_dir(desk.path("source")).unwrap();
        let mut states = Vec::new();
        for n in 0..3_u8 {
            fs::write(desk.path(&format!("source/file-{n}")), [n; 100_000]).unwrap();
            fs::write(desk.path("source/changing"), [n; 5000]).unwrap();
            let at = desk.backup();
            states.push((at, tree::lines(&desk.path("source"))));
        }
        // Somebody has the account.
        let settings = Settings { options: desk.server.options.clone(), ..Settings::default() };
        let storage = remote::open(&desk.url, &settings).unwrap();
        let all = storage.list("").unwrap();
        assert!(all.len() > 10, "{}", all.len());
        for (n, object) in all.iter().enumerate() {
            storage.delete(&object.name).unwrap();
            if n % 2 == 0 {
                storage.put(&object.name, b"something else", WriteMode::Replace).unwrap();
            }
        }
        assert!(!desk.esker(&["snapshots"]).status.success());
        for (n, (at, lines)) in states.iter().enumerate() {
            assert_eq!(&desk.restored(at, &format!("restored-{n}")), lines, "as of {at}");
            let listed: serde_json::Value =
                serde_json::from_str(&desk.done(&["snapshots", "--json", "--storage-time", at])).unwrap();
            assert_eq!(listed.as_array().unwrap().len(), n + 1);
        }
        let (last, lines) = states.last().unwrap();
        desk.done(&["check", "--read-data", "--storage-time", last]);
        // All of it, as it was, goes to a place of its own.
        desk.done(&["copy", "--mirror", "--to", "mirror", "--storage-time", last]);
        desk.done(&["restore", "latest", "--repo", "mirror", "--target", "from-mirror"]);
        assert_eq!(&tree::lines(&desk.path("from-mirror").join(desk.path("source").strip_prefix("/").unwrap())), lines);
        // Nothing is changed there, and before the beginning there is nothing.
        let count = storage.list("").unwrap().len();
        let output = desk.esker(&["backup", "source", "--storage-time", last]);
        assert!(!output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("the storage is shown as it was"), "{told}");
        assert_eq!(storage.list("").unwrap().len(), count);
        let output = desk.esker(&["snapshots", "--storage-time", "2001-01-01"]);
        assert!(String::from_utf8(output.stderr).unwrap().contains("there is no repository"));
    }
}

/// What cannot be asked for is said, and not shown as it is.
#[test]
fn a_storage_that_keeps_no_versions_is_not_shown_as_it_is_instead() {
    let dir = tempfile::tempdir().unwrap();
    for repo in ["directory", "webdav+http://127.0.0.1:9/x", "sftp://127.0.0.1:9/x"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(["snapshots", "--storage-time", "1h ago", "--repo", repo]).current_dir(dir.path());
        let output = command.env_clear().env("HOME", dir.path()).env("ESKER_PASSWORD", "x").output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("cannot be asked for") && told.contains("buckets of S3"), "{told}");
    }
}
