//! A real Prometheus and a real Alertmanager that watch one service by the rules of `deploy/prometheus`, and somebody who is
//! told. Everything is quick: a scrape and an evaluation a second, and no rule waits (`for:` is taken out).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a program may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was told: an alert that fires or is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// `firing` or `resolved`.
    pub(crate) status: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Told {
    /// Whether it is that alert, of that job.
    pub(crate) fn is(&self, status: &str, alert: &str, job: &str) -> bool {
        let label = |name: &str| self.labels.get(name).map(String::as_str);
        self.status == status && label("alertname") == Some(alert) && label("job") == Some(job)
    }
}

/// Both programs, and what they told. They end with it.
pub(crate) struct Watchers {
    prometheus: Program,
    alertmanager: Program,
    told: Receiver<Told>,
    heard: Vec<Told>,
    dir: tempfile::TempDir,
}

struct Program {
    child: Child,
    address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watchers {
    /// Watches what tells of itself at `/metrics` of an address. `None` where they are not installed; a failure where
    /// `ESKER_REQUIRE` names `prometheus`.
    #[allow(clippy::print_stderr)] // a skipped test says so
    pub(crate) fn start(service: SocketAddr) -> Option<Self> {
        if ["prometheus", "prometheus-alertmanager"].iter().any(|name| !is_installed(name)) {
            let list = std::env::var("ESKER_REQUIRE").unwrap_or_default();
            let required = list.split(',').any(|item| item == "prometheus");
            assert!(!required, "ESKER_REQUIRE names prometheus, and it is not installed (deploy/install)");
            eprintln!("skipped: needs prometheus and prometheus-alertmanager (deploy/install)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (hook, told) = listen();
        let at = dir.path();
        fs::write(at.join("alertmanager.yml"), alertmanager_config(hook)).unwrap();
        let alertmanager = begin(at, "prometheus-alertmanager", "/-/ready", |command, address| {
            command
                .arg(format!("--config.file={}", at.join("alertmanager.yml").display()))
                .arg(format!("--storage.path={}", at.join("alerts").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--cluster.listen-address=");
        });
        let rules = fs::read_to_string("deploy/prometheus/esker.rules.yml").unwrap();
        fs::write(at.join("esker.rules.yml"), at_once(&rules)).unwrap();
        fs::write(at.join("prometheus.yml"), prometheus_config(service, alertmanager.address)).unwrap();
        let prometheus = begin(at, "prometheus", "/-/ready", |command, address| {
            command
                .arg(format!("--config.file={}", at.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", at.join("data").display()))
                .arg(format!("--web.listen-address={address}"));
        });
        Some(Self { prometheus, alertmanager, told, heard: Vec::new(), dir })
    }

    /// Waits until that was told of an alert, and returns it. What was told before counts.
    pub(crate) fn wait_for(&mut self, status: &str, alert: &str, job: &str, most: Duration) -> Told {
        let end = Instant::now() + most;
        loop {
            if let Some(told) = self.heard.iter().rfind(|told| told.is(status, alert, job)) {
                return told.clone();
            }
            match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(told) => self.heard.push(told),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!(
                    "{alert} of {job} is not {status} after {most:?}; told: {:#?}; firing: {:?}\n{}",
                    self.heard,
                    self.firing(),
                    self.logs()
                ),
            }
        }
    }

    /// All that was told up to now.
    pub(crate) fn heard(&mut self) -> &[Told] {
        self.heard.extend(self.told.try_iter());
        &self.heard
    }

    /// Waits until exactly these alerts of these jobs fire, in order, by Prometheus. It evaluates rule after rule, so a moment's list
    /// may be half of an old and half of a new one.
    pub(crate) fn wait_until_firing(&self, alerts: &[(&str, &str)], most: Duration) {
        let end = Instant::now() + most;
        let wanted: Vec<_> = alerts.iter().map(|(alert, job)| ((*alert).to_owned(), (*job).to_owned())).collect();
        while self.firing() != wanted {
            assert!(
                Instant::now() < end,
                "not {wanted:?} but {:?} fire after {most:?}\n{}",
                self.firing(),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The names and jobs of the alerts that fire now, by Prometheus.
    pub(crate) fn firing(&self) -> Vec<(String, String)> {
        let answer = get_json(self.prometheus.address, "/api/v1/alerts");
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let mut firing: Vec<_> = firing.map(|alert| (label(alert, "alertname"), label(alert, "job"))).collect();
        firing.sort();
        firing
    }

    /// The value of an expression that has one.
    pub(crate) fn value(&self, expression: &str) -> Option<f64> {
        let query: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get_json(self.prometheus.address, &format!("/api/v1/query?query={query}"));
        answer["data"]["result"][0]["value"][1].as_str().map(|value| value.parse().unwrap())
    }

    /// What is wrong with the scrape, if anything.
    pub(crate) fn scrape_error(&self) -> Option<String> {
        let answer = get_json(self.prometheus.address, "/api/v1/targets");
        let target = &answer["data"]["activeTargets"][0];
        target["lastError"].as_str().filter(|error| !error.is_empty()).map(str::to_owned)
    }

    /// The names of the alerts that Alertmanager holds.
    pub(crate) fn held(&self) -> Vec<String> {
        let answer = get_json(self.alertmanager.address, "/api/v2/alerts");
        let alerts = answer.as_array().unwrap().iter();
        alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn logs(&self) -> String {
        let log = |name: &str| fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
        format!("{}\n{}", log("prometheus"), log("prometheus-alertmanager"))
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The rules without their waits.
fn at_once(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with("for: "));
    lines.map(|line| format!("{line}\n")).collect()
}

fn prometheus_config(service: SocketAddr, alertmanager: SocketAddr) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [esker.rules.yml]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ['{alertmanager}']}}]
scrape_configs:
  - job_name: esker
    honor_labels: true
    static_configs: [{{targets: ['{service}']}}]
"
    )
}

fn alertmanager_config(hook: SocketAddr) -> String {
    format!(
        "route: {{receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: test
    webhook_configs: [{{url: 'http://{hook}/', send_resolved: true}}]
"
    )
}

/// Starts a program on a port that was free a moment ago, and waits until it answers.
fn begin(dir: &Path, name: &str, ready: &str, arguments: impl Fn(&mut Command, SocketAddr)) -> Program {
    for _ in 0..5 {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(name);
        arguments(&mut command, address);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(dir);
        let mut program = Program { child: command.spawn().unwrap(), address };
        let end = Instant::now() + PATIENCE;
        loop {
            if get(address, ready).is_ok_and(|(status, _)| status == 200) {
                return program;
            }
            // Somebody else took the port: another try.
            if program.child.try_wait().unwrap().is_some() {
                break;
            }
            assert!(Instant::now() < end, "{name} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("{name} does not start: {}", fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default());
}

fn get_json(from: SocketAddr, path: &str) -> Value {
    let (status, body) = get(from, path).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn get(from: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // 1.0: the body ends with the connection and is not in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// A webhook that hands on what it is told.
fn listen() -> (SocketAddr, Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(message) = stream.ok().and_then(|stream| message(stream).ok()) else { continue };
            for alert in message["alerts"].as_array().into_iter().flatten() {
                let words = |name: &str| {
                    let pairs = alert[name].as_object().into_iter().flatten();
                    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
                };
                let status = alert["status"].as_str().unwrap_or_default().to_owned();
                let told = Told { status, labels: words("labels"), annotations: words("annotations") };
                // The test is over.
                if sender.send(told).is_err() {
                    return;
                }
            }
        }
    });
    (address, receiver)
}

fn message(stream: TcpStream) -> std::io::Result<Value> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    serde_json::from_slice(&body).map_err(Into::into)
}
