//! Risk: the service does what its parts promise one by one, and together they lose a version, tell nobody, or cry wolf.
//! Method: the program itself serves the OpenTofu case: 200 workspaces whose state the real `terraform` writes, an RPO of
//! 20 seconds, a replica. Changes arrive while the process is killed, its storage is away for a while, and its replica
//! is. Afterwards every version that was there for longer than the RPO is looked for in a snapshot of its time, by
//! the clock; what people and a real Prometheus were told is held to what happened, no more and no less.
//! Smaller tests hold signals, reloads and runs by hand to what they say.

#![allow(clippy::disallowed_methods, reason = "a program is watched by the clock, and what it uses is moved away")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "support/prometheus.rs"]
#[allow(dead_code)] // for several files of tests
mod watchers;

const PATIENCE: Duration = Duration::from_secs(120);

/// A machine with a configuration, a repository `main` and one `replica`.
struct Machine {
    dir: tempfile::TempDir,
}

/// The service; killed with this.
struct Service {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    fn new(configuration: &str) -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(machine.path("password"), "a password\n").unwrap();
        machine.configure(configuration);
        machine.esker(&["-r", "main", "--password-file", "password", "init"]).success();
        let like = ["-r", "replica", "--password-file", "password", "init", "--like", "main"];
        machine.esker(&[&like[..], &["--from-password-file", "password"]].concat()).success();
        machine
    }

    fn configure(&self, configuration: &str) {
        let places = "[repositories.main]\nurl = \"main\"\npassword-file = \"password\"\n\
                      [repositories.replica]\nurl = \"replica\"\npassword-file = \"password\"\noffsite = true\n";
        fs::write(self.path("esker.toml"), format!("{places}{configuration}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.path("home")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null());
        command
    }

    fn esker(&self, args: &[&str]) -> Said {
        Said(self.command(args).output().unwrap())
    }

    /// With the configuration.
    fn configured(&self, args: &[&str]) -> Said {
        self.esker(&[&["--config", "esker.toml"], args].concat())
    }

    fn serve(&self) -> Service {
        let mut child = self.command(&["--config", "esker.toml", "serve"]).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Service { child, log }
    }

    /// What the notifier `log` was told: rule, subject and state, in order.
    fn told(&self) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(self.path("alerts")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        lines.map(|line| (word(&line, "rule"), word(&line, "subject"), word(&line, "state"))).collect()
    }
}

struct Said(Output);

impl Said {
    fn success(self) -> Self {
        assert!(self.0.status.success(), "{self:?}");
        self
    }

    fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.0.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        write!(f, "{}\n{}{}", self.0.status, text(&self.0.stdout), text(&self.0.stderr))
    }
}

impl Service {
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has said a line with these words, after so many lines.
    fn wait_for(&self, words: &str, after: usize) -> usize {
        let began = Instant::now();
        loop {
            let log = self.log();
            if let Some(at) = log.iter().skip(after).position(|line| line.contains(words)) {
                return after + at + 1;
            }
            assert!(began.elapsed() < PATIENCE, "never said `{words}`:\n{}", log.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn address(&self) -> SocketAddr {
        self.wait_for("status at http://", 0);
        let log = self.log();
        let line = log.iter().find(|line| line.contains("status at http://")).unwrap();
        line.rsplit("http://").next().unwrap().trim_end_matches('/').parse().unwrap()
    }

    /// What it answers to a request.
    fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to stop and waits; gives its exit code.
    fn stop(mut self) -> (Option<i32>, Vec<String>) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        (status.code().or(status.signal().map(|signal| -signal)), self.log())
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const LOG: &str = "[notifiers.log]\nkind = \"command\"\nleast = \"info\"\n\
                   command = [\"sh\", \"-c\", \"cat >> alerts; echo >> alerts\"]\n";

/// Workspaces with state that `terraform` writes, offline. `None` where it is not installed.
struct Workspaces<'m> {
    machine: &'m Machine,
    /// When each version of each was there, and what it was.
    versions: BTreeMap<usize, Vec<(i64, u64)>>,
}

impl<'m> Workspaces<'m> {
    #[allow(clippy::print_stderr)] // a skipped test says so
    fn new(machine: &'m Machine, count: usize) -> Option<Self> {
        if Command::new("terraform").arg("version").output().is_err() {
            let list = std::env::var("ESKER_REQUIRE").unwrap_or_default();
            assert!(!list.split(',').any(|item| item == "terraform"), "ESKER_REQUIRE names terraform");
            eprintln!("skipped: needs terraform");
            return None;
        }
        let module = machine.path("module");
        fs::create_dir(&module).unwrap();
        let code = "variable \"v\" { type = number }\nresource \"terraform_data\" \"state\" { input = var.v }\n";
        fs::write(module.join("main.tf"), code).unwrap();
        let mut workspaces = Self { machine, versions: BTreeMap::new() };
        workspaces.terraform(&["init", "-input=false"]);
        for workspace in 0..count {
            let dir = machine.path("srv").join(format!("ws-{workspace:03}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("config.json"), format!("{{\"workspace\":{workspace}}}")).unwrap();
            workspaces.change(workspace, 1);
        }
        Some(workspaces)
    }

    fn terraform(&self, args: &[&str]) {
        let mut command = Command::new("terraform");
        command.args(args).current_dir(self.machine.path("module")).env("CHECKPOINT_DISABLE", "1");
        let said = Said(command.output().unwrap());
        said.success();
    }

    fn state(&self, workspace: usize) -> PathBuf {
        self.machine.path("srv").join(format!("ws-{workspace:03}/terraform.tfstate"))
    }

    fn change(&mut self, workspace: usize, version: u64) {
        let state = format!("-state={}", self.state(workspace).display());
        let var = format!("-var=v={version}");
        self.terraform(&["apply", "-auto-approve", "-input=false", "-lock=false", "-backup=-", &state, &var]);
        self.versions.entry(workspace).or_default().push((now_ms(), version));
    }

    /// Changes now this one, now that one, for so long.
    fn change_for(&mut self, time: Duration, next: &mut u64) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            *next += 1;
            let count = self.versions.len();
            self.change((*next as usize * 37) % count, *next);
            std::thread::sleep(Duration::from_millis(400));
        }
    }
}

/// The version in a state file.
fn version(state: &[u8]) -> u64 {
    let state: Value = serde_json::from_slice(state).expect("a state that is whole");
    state["resources"][0]["instances"][0]["attributes"]["input"]["value"]
        .as_u64()
        .or_else(|| state["resources"][0]["instances"][0]["attributes"]["input"].as_u64())
        .unwrap_or_else(|| panic!("no version in {state}"))
}

const RPO_MS: i64 = 20_000;

#[test]
fn two_hundred_workspaces_are_safe_within_their_rpo_whatever_happens_and_the_right_people_hear_of_it() {
    let machine = Machine::new(&format!(
        "[service]\nlisten = \"127.0.0.1:0\"\nsettle = \"3s\"\nsuccess-rate = 50\n\
         [tiers.critical]\nrpo = \"20s\"\nrto = \"5m\"\nplaces = 2\nretention = {{ keep-within = \"1d\" }}\n\
         [jobs.states]\nrepository = \"main\"\ntier = \"critical\"\npaths = [\"srv\"]\n\
         include = [\"terraform.tfstate\", \"config.json\"]\nwatch = {{ debounce = \"1s\", max-delay = \"4s\" }}\n\
         replicate = [\"replica\"]\nretries = 1\nretry-wait = \"1s\"\n{LOG}"
    ));
    let Some(mut workspaces) = Workspaces::new(&machine, 200) else { return };
    let mut next = 1;
    let service = machine.serve();
    let address = service.address();
    let at = service.wait_for("states: success", 0);
    service.wait_for("states:copy:replica: success", at);
    let mut watchers = watchers::Watchers::start(address);

    // All is well.
    workspaces.change_for(Duration::from_secs(15), &mut next);
    let early = machine.told();
    assert!(early.iter().all(|(rule, ..)| rule == "overdue"), "{early:?}");

    // Killed, and begun again. Its port is another one, so Prometheus sees it no more.
    let configured = fs::read_to_string(machine.path("esker.toml")).unwrap();
    let fixed = configured.replace("127.0.0.1:0", &address.to_string());
    fs::write(machine.path("esker.toml"), fixed).unwrap();
    drop(service);
    next += 1;
    workspaces.change(7, next);
    let service = machine.serve();
    service.wait_for("states: success", 0);
    workspaces.change_for(Duration::from_secs(10), &mut next);

    // The storage is away for longer than the RPO.
    let outage_began = now_ms();
    fs::rename(machine.path("main"), machine.path("main.away")).unwrap();
    workspaces.change_for(Duration::from_secs(5), &mut next);
    let told = |rule: &str, subject: &str, state: &str| {
        let wanted = (rule.to_owned(), subject.to_owned(), state.to_owned());
        wait_until(&format!("{wanted:?} was not told"), || machine.told().contains(&wanted));
    };
    told("overdue", "states", "fired");
    if let Some(watchers) = &mut watchers {
        watchers.wait_for("firing", "EskerBackupOverdue", "states", PATIENCE);
    }
    let at = service.log().len();
    fs::rename(machine.path("main.away"), machine.path("main")).unwrap();
    service.wait_for("states: success", at);
    let outage_ended = now_ms();
    told("overdue", "states", "resolved");
    if let Some(watchers) = &mut watchers {
        watchers.wait_for("resolved", "EskerBackupOverdue", "states", PATIENCE);
    }
    workspaces.change_for(Duration::from_secs(5), &mut next);

    // The replica is away: what is safe stays safe, and the copies come later.
    fs::rename(machine.path("replica"), machine.path("replica.away")).unwrap();
    workspaces.change_for(Duration::from_secs(5), &mut next);
    wait_until("the replica that is away was not told", || {
        machine.told().iter().any(|(_, subject, state)| subject.contains("replica") && state == "fired")
    });
    let at = service.log().len();
    fs::rename(machine.path("replica.away"), machine.path("replica")).unwrap();
    service.wait_for("states:copy:replica: success", at);

    // All that was open is over.
    wait_until("something stays open", || {
        let mut open = BTreeSet::new();
        for (rule, subject, state) in machine.told() {
            if state == "resolved" {
                open.remove(&(rule, subject))
            } else {
                open.insert((rule, subject))
            };
        }
        open.is_empty()
    });
    std::thread::sleep(Duration::from_millis(RPO_MS as u64 / 2));
    let (code, log) = service.stop();
    assert_eq!(code, Some(0), "{}", log.join("\n"));

    // What was told is what happened: the storage, the replica, nothing else.
    let rules: BTreeSet<(String, String)> =
        machine.told().into_iter().map(|(rule, subject, _)| (rule, subject)).collect();
    let about = |rule: &str, subject: &str| (rule.to_owned(), subject.to_owned());
    let may: BTreeSet<_> = [
        about("overdue", "states"),
        about("failed", "states"),
        about("failed", "states:copy:replica"),
        about("unreachable", "main"),
        about("unreachable", "replica"),
        about("replica-behind", "states:copy:replica"),
    ]
    .into();
    assert!(rules.is_subset(&may), "{rules:?}");

    every_version_is_there(&machine, &workspaces, RPO_MS, (outage_began, outage_ended));
    // The copies are the same snapshots.
    let count = |repository: &str| {
        let list = machine.esker(&["-r", repository, "--password-file", "password", "snapshots", "--json"]);
        list.success().json().as_array().unwrap().len()
    };
    assert_eq!(count("replica"), count("main"));
}

/// Of each version, that the newest snapshot at the end of its RPO has it or a later one.
fn every_version_is_there(machine: &Machine, workspaces: &Workspaces<'_>, rpo_ms: i64, outage: (i64, i64)) {
    let target = machine.path("mounted");
    let list = machine.esker(&["-r", "main", "--password-file", "password", "snapshots", "--json"]).success().json();
    let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let mut snapshots: Vec<(i64, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| (moment(snapshot["time"].as_str().unwrap()), snapshot["id"].as_str().unwrap().to_owned()))
        .collect();
    snapshots.sort();
    assert!(snapshots.len() >= 8, "{snapshots:?}");
    let (mut checked, mut restored) = (0, BTreeMap::new());
    for (workspace, versions) in &workspaces.versions {
        for (there_ms, number) in versions {
            // While the storage was away nothing could be safe; afterwards it has to be.
            let (began, ended) = outage;
            let until = if (began - rpo_ms..ended).contains(there_ms) { ended + rpo_ms } else { there_ms + rpo_ms };
            let Some((_, id)) = snapshots.iter().rev().find(|(made, _)| *made <= until) else {
                panic!("no snapshot is as old as {until}");
            };
            let dir = restored.entry(id.clone()).or_insert_with(|| {
                let dir = target.join(id);
                let to = dir.to_str().unwrap();
                let restore = ["-r", "main", "--password-file", "password", "restore", id, "--target", to];
                machine.esker(&restore).success();
                dir
            });
            let state = workspaces.state(*workspace);
            let bytes = fs::read(dir.join(state.strip_prefix("/").unwrap()));
            let found = bytes.map(|bytes| version(&bytes)).unwrap_or(0);
            assert!(found >= *number, "workspace {workspace}: version {number} is not in {id}, which has {found}");
            checked += 1;
        }
    }
    assert!(checked > 220, "{checked}");
}

#[test]
fn a_reload_takes_up_what_is_new_and_refuses_what_makes_no_sense() {
    let job = "[jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"@yearly\"\nretries = 0\n";
    let machine = Machine::new(&format!("{job}{LOG}"));
    fs::create_dir(machine.path("srv")).unwrap();
    let service = machine.serve();
    service.wait_for("1 jobs of", 0);
    // A second one would do everything twice.
    let second = machine.configured(&["serve"]);
    assert_eq!(second.0.status.code(), Some(6), "{second:?}");
    machine
        .configure(&format!("[service]\nlisten = \"127.0.0.1:0\"\n{job}[jobs.often]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"every 1s\"\n"));
    service.signal(Signal::HUP);
    let at = service.wait_for("2 jobs, 1 new, 0 gone", 0);
    let at = service.wait_for("often: success", at);
    machine.configure(&format!("{job}[jobs.often]\nrepository = \"man\"\n"));
    service.signal(Signal::HUP);
    let at = service.wait_for("line 14, column 14: unknown repository `man`", at);
    // And the one before goes on.
    let at = service.wait_for("often: success", at);
    // Nor is a part of one used: an address that somebody has leaves the one there is, and brings no job.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    machine.configure(&format!(
        "[service]\nlisten = \"{}\"\n{job}[jobs.more]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"every 1s\"\n",
        taken.local_addr().unwrap()
    ));
    service.signal(Signal::HUP);
    let at = service.wait_for("the one before goes on: cannot listen at", at);
    let answer = service.get("/status");
    assert!(answer.contains("\"job\":\"often\"") && !answer.contains("\"job\":\"more\""), "{answer}");
    let at = service.wait_for("often: success", at);
    assert!(!service.log().iter().any(|line| line.contains("more:")));
    drop(taken);
    service.signal(Signal::HUP);
    service.wait_for("2 jobs, 1 new, 1 gone", at);
    let (code, _) = service.stop();
    assert_eq!(code, Some(0));
    // What changed is written down.
    let audit = machine.esker(&["-r", "main", "--password-file", "password", "audit"]).success();
    assert!(audit.out().contains("configuration"), "{audit:?}");
}

#[test]
fn a_run_by_hand_has_its_hooks_its_tries_and_its_exit_code_and_is_told() {
    let machine = Machine::new(&format!(
        "[service]\ntextfile = \"esker.prom\"\n\
         [jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\nbefore = \"touch before\"\n\
         after = [[\"sh\", \"-c\", \"echo $ESKER_JOB $ESKER_OUTCOME $ESKER_EXIT_CODE >> after\"]]\non-failure = \"touch failed\"\n\
         [jobs.broken]\nrepository = \"main\"\ncommand = [\"false\"]\nretries = 2\nretry-wait = \"0s\"\non-failure = \"touch failed\"\n\
         [jobs.slow]\nrepository = \"main\"\ncommand = [\"sleep\", \"600\"]\ntimeout = \"1s\"\n\
         [jobs.apart]\nrepository = \"main\"\npaths = [\"srv\"]\nnice = 5\n\
         [jobs.verify]\nverb = \"check\"\nrepository = \"main\"\nread-data = true\n{LOG}"
    ));
    fs::create_dir(machine.path("srv")).unwrap();
    fs::write(machine.path("srv/file"), "content").unwrap();
    let run = machine.configured(&["job", "run", "files", "apart", "verify", "--json"]).success();
    let lines: Vec<Value> = run.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{run:?}");
    assert!(lines.iter().all(|line| line["outcome"] == "success"), "{run:?}");
    assert!(lines[0]["snapshot"].is_string() && machine.path("before").exists() && !machine.path("failed").exists());
    assert_eq!(fs::read_to_string(machine.path("after")).unwrap(), "files success 0\n");

    let broken = machine.configured(&["job", "run", "broken", "--json"]);
    assert_eq!((broken.0.status.code(), &broken.json()["tries"]), (Some(1), &Value::from(3)), "{broken:?}");
    assert!(machine.path("failed").exists());
    let slow = machine.configured(&["job", "run", "slow", "--json"]);
    assert_eq!((slow.json()["outcome"].as_str(), slow.0.status.success()), (Some("timeout"), false), "{slow:?}");
    let failed = |subject: &str| ("failed".to_owned(), subject.to_owned(), "fired".to_owned());
    assert!(machine.told().contains(&failed("broken")) && machine.told().contains(&failed("slow")));
    let metrics = fs::read_to_string(machine.path("esker.prom")).unwrap();
    assert!(metrics.contains("backup_operations_total{job=\"broken\",tier=\"\",repository=\"main\"} 1"), "{metrics}");
    // Nobody else may run it meanwhile; an unknown one is told with those there are.
    let unknown = machine.configured(&["job", "run", "fils"]);
    assert_eq!(unknown.0.status.code(), Some(2));

    let status = machine.configured(&["status", "--json"]);
    assert_eq!((status.0.status.code(), &status.json()["safe"]), (Some(1), &Value::Bool(false)), "{status:?}");
    let list = machine.configured(&["job", "list", "--json"]).success().json();
    assert_eq!(list.as_array().unwrap().len(), 5);
}

/// What a drill finds that is no damage is not told of as damage: somebody's own check that fails. Who trusts the repository less for it looks in the wrong place.
#[test]
fn a_drill_that_fails_is_told_of_as_that_and_only_damage_as_damage() {
    let machine = Machine::new(&format!(
        "[jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\n\
         drill = {{ schedule = \"@yearly\", check = \"test ! -e $HOME/bad\" }}\n\
         [jobs.part]\nverb = \"drill\"\nrepository = \"main\"\nsnapshot = \"latest:/\"\n\
         check = \"find . -name file | grep -q file\"\n{LOG}"
    ));
    fs::create_dir(machine.path("srv")).unwrap();
    fs::create_dir_all(machine.path("home")).unwrap();
    fs::write(machine.path("srv/file"), "content").unwrap();
    machine.configured(&["job", "run", "files", "files:drill"]).success();
    // A part of a snapshot is drilled as well.
    machine.configured(&["job", "run", "part", "--json"]).success();
    let list = machine.configured(&["job", "list", "--json"]).success().out();
    assert!(list.contains("latest:/"), "{list}");
    fs::write(machine.path("home/bad"), "").unwrap();
    let run = machine.configured(&["job", "run", "files:drill", "--json"]);
    let said = (run.json()["outcome"].clone(), run.json()["result"].clone(), run.json()["tries"].clone());
    assert_eq!(said, ("failure".into(), "check_failed".into(), 1.into()), "{run:?}");
    let told = |rule: &str, subject: &str, state: &str| (rule.to_owned(), subject.to_owned(), state.to_owned());
    assert_eq!(machine.told(), [told("drill", "files:drill", "fired")]);
    let status = machine.configured(&["status", "--json"]);
    assert_eq!((status.0.status.code(), &status.json()["code"]), (Some(1), &Value::from(1)), "{status:?}");
    // Damage, found by the same drill.
    fs::remove_file(machine.path("home/bad")).unwrap();
    let entries = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for pack in entries(&machine.path("main/packs")).iter().flat_map(|dir| entries(dir)) {
        fs::write(&pack, vec![0; fs::metadata(&pack).unwrap().len() as usize]).unwrap();
    }
    let run = machine.configured(&["job", "run", "files:drill", "--json"]);
    assert_eq!((run.json()["outcome"].as_str(), run.0.status.code()), (Some("damage"), Some(4)), "{run:?}");
    assert!(machine.told().contains(&told("damage", "main", "fired")), "{:?}", machine.told());
    assert_eq!(machine.configured(&["status"]).0.status.code(), Some(4));
}

/// `esker job run` beside a service: the service knows of it, and a dead man's switch hears of it as of any other run.
#[test]
fn a_run_by_hand_beside_the_service_counts_and_is_pinged() {
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let pings = Arc::new(Mutex::new(Vec::new()));
    let heard = pings.clone();
    std::thread::spawn(move || {
        for stream in receiver.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            request.read_line(&mut first).unwrap();
            let mut bytes = 0;
            loop {
                let mut line = String::new();
                request.read_line(&mut line).unwrap();
                match line.to_ascii_lowercase().strip_prefix("content-length:") {
                    Some(length) => bytes = length.trim().parse().unwrap(),
                    None if line.trim().is_empty() => break,
                    None => {}
                }
            }
            request.read_exact(&mut vec![0; bytes]).unwrap();
            heard.lock().unwrap().push(first.split(['?', ' ']).nth(1).unwrap_or_default().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let machine = Machine::new(&format!(
        "[service]\nlisten = \"127.0.0.1:0\"\n\
         [jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"@yearly\"\nreplicate = [\"replica\"]\n\
         [jobs.slow]\nrepository = \"main\"\ncommand = [\"sleep\", \"600\"]\ntimeout = \"1s\"\nretries = 0\n\
         [notifiers.switch]\nkind = \"ping\"\nurl = \"http://{address}/{{job}}\"\n"
    ));
    fs::create_dir(machine.path("srv")).unwrap();
    let service = machine.serve();
    service.wait_for("jobs of", 0);
    machine.configured(&["job", "run", "files"]).success();
    // Who has another state directory is not told that there is nothing.
    let other = machine.configured(&["--state-dir", "other", "status"]).out();
    assert!(
        other.contains("files: it has never succeeded as far as this machine knows; its newest snapshot is "),
        "{other}"
    );
    service.wait_for("files:copy:replica: success", 0);
    machine.configured(&["job", "run", "slow"]);
    assert_eq!(*pings.lock().unwrap(), ["/files/start", "/files", "/slow/start", "/slow/fail"]);
    let said = service.get("/status");
    let status: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
    let next = |name: &str| {
        let jobs = status["jobs"].as_array().unwrap();
        jobs.iter().find(|job| job["job"] == name).unwrap()["due_since"].clone()
    };
    assert_eq!(next("files"), Value::Null, "{status}");
    assert_eq!(service.stop().0, Some(0));
}

/// A job in a process of its own cannot be run while the configuration makes no sense: that is a failure, and told.
#[test]
fn a_process_that_does_not_begin_is_a_failed_run_and_says_why() {
    let job = "[jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"every 1s\"\nnice = 3\n";
    let machine = Machine::new(&format!("{job}{LOG}"));
    fs::create_dir(machine.path("srv")).unwrap();
    let service = machine.serve();
    let at = service.wait_for("files: success", 0);
    machine.configure("[jobs.files");
    service.wait_for("files: failure", at);
    service.wait_for("alert fired, warning: job `files` failed", at);
    let log = service.log().join("\n");
    assert!(log.contains("cannot use the configuration") && !log.contains("left to another"), "{log}");
    assert_eq!(service.stop().0, Some(0));
}

/// A notifier that does not deliver still does not when the service is begun again: nobody is told that it is over.
#[test]
fn a_restart_is_no_reason_to_tell_that_a_notifier_delivers() {
    let machine = Machine::new(&format!(
        "[service]\nsettle = \"0s\"\n\
         [jobs.broken]\nrepository = \"main\"\ncommand = [\"false\"]\nschedule = \"@yearly\"\nretries = 0\n\
         [jobs.files]\nrepository = \"main\"\npaths = [\"srv\"]\nschedule = \"every 1s\"\n\
         [notifiers.bad]\nkind = \"command\"\ncommand = [\"false\"]\n{LOG}"
    ));
    fs::create_dir(machine.path("srv")).unwrap();
    let service = machine.serve();
    service.wait_for("files: success", 0);
    machine.configured(&["job", "run", "broken"]);
    service.wait_for("alert fired, warning: notifier `bad` does not deliver", 0);
    assert_eq!(service.stop().0, Some(0));
    let service = machine.serve();
    let at = service.wait_for("files: success", 0);
    service.wait_for("files: success", at);
    assert_eq!(service.stop().0, Some(0));
    let told: Vec<_> = machine.told().into_iter().filter(|(rule, ..)| rule == "notifier").collect();
    assert_eq!(told, [("notifier".to_owned(), "bad".to_owned(), "fired".to_owned())]);
}

#[test]
fn the_example_and_the_schema_agree_and_the_example_can_be_used() {
    let machine = Machine { dir: tempfile::tempdir().unwrap() };
    let example = machine.esker(&["config", "example"]).success().out();
    fs::write(machine.path("example.toml"), &example).unwrap();
    let check = machine.esker(&["--config", "example.toml", "config", "check", "--json"]).success();
    assert!(check.json()["jobs"].as_u64().unwrap() > 8, "{check:?}");
    let schema: Value = serde_json::from_str(&machine.esker(&["config", "schema"]).success().out()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value: Value = toml::from_str::<toml::Value>(&example).unwrap().try_into().unwrap();
    let faults: Vec<String> =
        validator.iter_errors(&value).map(|fault| format!("{} at {}", fault, fault.instance_path())).collect();
    assert_eq!(faults, Vec::<String>::new());
    // And it refuses what the program refuses.
    for wrong in
        ["[tiers.a]\nrpa = \"5m\"", "[service]\nparallel = 0", "[notifiers.a]\nkind = \"fax\"", "[jobs.a]\nnice = 99"]
    {
        let value: Value = toml::from_str::<toml::Value>(wrong).unwrap().try_into().unwrap();
        assert!(!validator.is_valid(&value), "{wrong}");
        fs::write(machine.path("wrong.toml"), wrong).unwrap();
        let check = machine.esker(&["--config", "wrong.toml", "config", "check"]);
        assert_eq!(check.0.status.code(), Some(2), "{check:?}");
    }
}

/// Nothing is left when a job's paths are not there: it fails, and says so.
#[test]
fn a_killed_run_is_put_down_and_the_next_goes_on() {
    let machine = Machine::new(
        "[jobs.slow]\nrepository = \"main\"\ncommand = [\"sleep\", \"600\"]\nschedule = \"every 1s\"\nretries = 0\n",
    );
    let service = machine.serve();
    let running = || machine.configured(&["job", "list", "--json"]).success().json()[0]["running"] == true;
    wait_until("it never ran", running);
    let by_hand = machine.configured(&["job", "run", "slow"]);
    assert_eq!(by_hand.0.status.code(), Some(6), "{by_hand:?}");
    drop(service);
    wait_until("it is held for ever", || !running());
    // Nor does it run for who asks how things are.
    let status = machine.configured(&["status", "--json"]).json();
    assert_eq!(status["jobs"][0]["running_since"], Value::Null, "{status}");
    machine.configure("[jobs.slow]\nrepository = \"main\"\ncommand = [\"echo\", \"done\"]\n");
    wait_until("it is held for ever", || !running());
    machine.configured(&["job", "run", "slow"]).success();
    let list = machine.configured(&["job", "list", "--json"]).success().json();
    assert_eq!(list[0]["last_run"]["outcome"], "success");
    let history = Path::new("home/.local/state/esker/service/slow.json");
    let history: Value = serde_json::from_slice(&fs::read(machine.dir.path().join(history)).unwrap()).unwrap();
    assert_eq!(history["totals"]["interrupted"], 1, "{history}");
}

/// `ESKER_SOAK=1`: half an hour at an RPO of five minutes, with changes all the time, takes no more memory and no more
/// descriptors than the first minutes did.
#[test]
fn half_an_hour_takes_no_more_than_five_minutes() {
    if std::env::var_os("ESKER_SOAK").is_none() {
        return;
    }
    let machine = Machine::new(&format!(
        "[service]\nlisten = \"127.0.0.1:0\"\n[tiers.critical]\nrpo = \"5m\"\nretention = {{ keep-last = 50 }}\n\
         check = \"every 2m\"\n[jobs.states]\nrepository = \"main\"\ntier = \"critical\"\npaths = [\"srv\"]\nwatch = true\n\
         replicate = [\"replica\"]\n{LOG}"
    ));
    let Some(mut workspaces) = Workspaces::new(&machine, 200) else { return };
    let service = machine.serve();
    service.wait_for("states: success", 0);
    let pid = service.child.id();
    let taken = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
        (kib, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
    };
    let mut next = 1;
    let mut seen = Vec::new();
    for _ in 0..30 {
        workspaces.change_for(Duration::from_secs(60), &mut next);
        seen.push(taken());
    }
    let most = |part: &[(u64, usize)]| {
        let kib = part.iter().map(|(kib, _)| *kib).max().unwrap();
        (kib, part.iter().map(|(_, open)| *open).max().unwrap())
    };
    let (early, late) = (most(&seen[..5]), most(&seen[25..]));
    assert!(
        late.0 <= early.0 + early.0 / 5 + 4096 && late.1 <= early.1 + 4,
        "KiB and descriptors by the minute: {seen:?}"
    );
    assert_eq!(machine.told(), [], "{:?}", service.log());
    // The last changes wait for quiet, or the longest delay.
    std::thread::sleep(Duration::from_secs(90));
    assert_eq!(service.stop().0, Some(0));
    every_version_is_there(&machine, &workspaces, 300_000, (0, 0));
}
