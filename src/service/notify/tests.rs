//! Risk: a message that breaks out of its form, a secret that is told, a server that never answers. Method: a receiver on
//! a socket that answers what a test wants and says what it was sent; real commands; templates with hostile names.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::service::plan::Found;

const HOSTILE: &str = "a\"}]<!channel>\\@here [x](http://evil.example) ```<http://e|f> ä";

/// A receiver that answers each request with the next of `answers`, or never without any; gives what it was sent.
struct Receiver {
    address: String,
    requests: mpsc::Receiver<String>,
}

impl Receiver {
    fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, requests) = mpsc::channel();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        thread::spawn(move || {
            let mut held = Vec::new();
            let mut answers = answers.into_iter();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match answers.next() {
                    Some(answer) => {
                        let _ = tell.send(request(&mut stream));
                        let _ = stream.write_all(answer.as_bytes());
                    }
                    None => held.push(stream),
                }
            }
        });
        Self { address, requests }
    }

    fn url(&self, path: &str) -> Found {
        Found::Text(format!("http://{}{path}", self.address))
    }

    fn body(&self) -> Value {
        serde_json::from_str(self.requests.recv().unwrap().split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        if reader.read_line(&mut head).unwrap() == 0 {
            break;
        }
        if let Some(text) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn notifier(channel: Channel) -> Notifier {
    Notifier { channel, least: Severity::Warning, template: None, ca_file: None }
}

fn webhook(url: Found) -> Notifier {
    notifier(Channel::Webhook { url, method: "POST".to_owned(), headers: BTreeMap::new() })
}

fn slack(url: Found) -> Notifier {
    notifier(Channel::Slack { url, channel: Some("#ops".to_owned()) })
}

fn alert(summary: &str) -> Item {
    let alert = Alert::new(Rule::Failed, "db", Severity::Critical, summary, summary);
    let alert = alert.label("job", "db").label("repository", "usb");
    let message = Message { state: State::Resolved, alert, since_ms: 0, until_ms: 300_000, at_ms: 600_000 };
    Item::Message(Box::new(message))
}

fn send(notifier: &Notifier, item: &Item) -> Result<(), Failure> {
    let mut sender = Sender::new("vault");
    sender.timeout = Duration::from_secs(5);
    sender.send(notifier, item)
}

#[test]
fn a_webhook_is_sent_the_documented_object() {
    let receiver = Receiver::new(&[OK]);
    let mut notifier = webhook(receiver.url("/hook?token=T0KEN"));
    let Channel::Webhook { headers, .. } = &mut notifier.channel else { unreachable!() };
    headers.insert("Authorization".to_owned(), Found::Text("Bearer abc".to_owned()));
    send(&notifier, &alert(HOSTILE)).unwrap();
    let sent = receiver.requests.recv().unwrap();
    assert!(sent.starts_with("POST /hook?token=T0KEN HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("\r\nauthorization: Bearer abc\r\n"), "{sent}");
    let body: Value = serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body,
        json!({
            "title": format!("resolved after 5 min: {HOSTILE}"), "state": "resolved", "rule": "failed", "subject": "db",
            "severity": "critical", "summary": HOSTILE, "detail": HOSTILE, "job": "db", "tier": "",
            "repository": "usb", "labels": {"job": "db", "repository": "usb"}, "host": "vault",
            "since": "1970-01-01T00:00:00Z", "time": "1970-01-01T00:10:00Z", "lasted": "5 min", "lasted_seconds": 300,
        })
    );
}

#[test]
fn a_template_of_json_stays_json_whatever_a_file_is_called() {
    let receiver = Receiver::new(&[OK, OK]);
    let mut notifier = webhook(receiver.url("/"));
    notifier.template = Some("{\"what\": {{ summary }}, \"at\": {{ labels }}, \"n\": {{ lasted_seconds }}}".to_owned());
    template::check(&notifier).unwrap();
    send(&notifier, &alert(HOSTILE)).unwrap();
    let sent = json!({"what": HOSTILE, "at": {"job": "db", "repository": "usb"}, "n": 300});
    assert_eq!(receiver.body(), sent);

    // A template that fails does not silence the alert.
    notifier.template = Some("{\"what\": \"{{ summary }}\"}".to_owned());
    assert!(template::check(&notifier).unwrap_err().starts_with("it does not make JSON"));
    send(&notifier, &alert("x")).unwrap();
    let body = receiver.body();
    assert_eq!(body["summary"], "x");
    assert!(body["detail"].as_str().unwrap().contains("template failed: it does not make JSON"), "{body}");
}

#[test]
fn a_template_with_a_name_nobody_knows_is_found_by_the_check() {
    let mut notifier = webhook(Found::Text(String::new()));
    for (template, wrong) in
        [("{{ sumary }}", "undefined value"), ("{{ ", "syntax error"), ("{{ labels.job }}", "undefined")]
    {
        notifier.template = Some(template.to_owned());
        let error = template::check(&notifier).unwrap_err();
        assert!(error.contains(wrong), "{template}: {error}");
    }
    notifier.channel = Channel::Slack { url: Found::Text(String::new()), channel: None };
    notifier.template = Some("{{ sumary }}".to_owned());
    assert!(template::check(&notifier).is_err(), "in Slack's escaping, too");
}

#[test]
fn nothing_in_an_alert_becomes_a_mention_or_a_link_in_slack() {
    let receiver = Receiver::new(&[OK, OK]);
    let mut notifier = slack(receiver.url("/"));
    send(&notifier, &alert(HOSTILE)).unwrap();
    let body = receiver.body();
    assert_eq!(body["channel"], "#ops");
    let text = body["text"].as_str().unwrap().replace('\u{200b}', "~");
    let hostile = "a\"}]&lt;!channel&gt;\\@~here [x]~(http:~//evil.example) '''&lt;http:~//e|f&gt; ä";
    let expected =
        format!("*resolved after 5 min: {hostile}*\nfailed · db · vault · since 1970-01-01T00:00:00Z\n```{hostile}```");
    assert_eq!(text, expected);
    notifier.template = Some("<!here> {{ summary }} {{ '<http://ours.example>'|safe }}".to_owned());
    send(&notifier, &alert("<!channel>")).unwrap();
    assert_eq!(
        receiver.body()["text"],
        "<!here> &lt;!channel&gt; <http://ours.example>",
        "the template is the owner's"
    );
}

#[test]
fn what_a_server_says_decides_whether_it_is_asked_again() {
    let answer = |head: &str| {
        let text = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let receiver = Receiver::new(&[&text]);
        let failure = send(&webhook(receiver.url("/secret-path")), &alert("x")).expect_err(head);
        assert!(!failure.text.contains("secret-path"), "{failure}");
        (failure.text, failure.again)
    };
    assert_eq!(answer("404 Not Found"), ("127.0.0.1 answered 404 Not Found".to_owned(), Again::Never));
    assert_eq!(answer("500 Oops").1, Again::Later);
    assert_eq!(answer("429 Slow\r\nretry-after: 17").1, Again::After(Duration::from_secs(17)));
    let dated = "503 Busy\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT";
    assert_eq!(answer(dated).1, Again::After(Duration::from_secs(60)));
    assert_eq!(answer("503 Busy\r\nretry-after: soon").1, Again::Later);
    let (text, again) = answer("307 Over There\r\nlocation: http://127.0.0.1:1/");
    assert_eq!(
        (text.as_str(), again),
        ("127.0.0.1 answered 307 Temporary Redirect; redirects are not followed", Again::Never)
    );
}

#[test]
fn an_answer_is_quoted_in_part_and_never_with_the_address() {
    let says = |body: &str| {
        let text = format!("HTTP/1.1 400 Bad\r\nconnection: close\r\n\r\n{body}");
        let receiver = Receiver::new(&[&text]);
        send(&webhook(receiver.url("/services/T0KEN?key=S3CRET")), &alert("x")).unwrap_err().text
    };
    assert_eq!(says("invalid_payload\nmore"), "127.0.0.1 answered 400 Bad Request: invalid_payload");
    assert_eq!(says("no such hook: T0KEN"), "127.0.0.1 answered 400 Bad Request");
    assert_eq!(says("not with S3CRET"), "127.0.0.1 answered 400 Bad Request");
    assert_eq!(says("<html>"), "127.0.0.1 answered 400 Bad Request");
    assert!(says(&"x".repeat(1 << 20)).len() < 200);
}

#[test]
fn a_server_that_hangs_closes_or_is_not_there_fails_for_now() {
    let hangs = Receiver::new(&[]);
    let mut sender = Sender::new("vault");
    sender.timeout = Duration::from_millis(100);
    let failure = sender.send(&webhook(hangs.url("/s")), &alert("x")).unwrap_err();
    assert_eq!((failure.text.as_str(), failure.again), ("127.0.0.1 did not answer in time", Again::Later));

    let closes = Receiver::new(&[""]);
    assert_eq!(send(&webhook(closes.url("/s")), &alert("x")).unwrap_err().again, Again::Later);

    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = send(&webhook(Found::Text(format!("http://{gone}/SECRET"))), &alert("x")).unwrap_err();
    assert!(failure.text.starts_with("127.0.0.1 was not reached: ") && !failure.text.contains("SECRET"), "{failure}");
    assert_eq!(failure.again, Again::Later);
}

#[test]
fn an_address_that_is_none_is_not_told() {
    for url in ["no url SECRET", "ftp://h/SECRET", "https://[SECRET", "file:///SECRET"] {
        let failure = send(&webhook(Found::Text(url.to_owned())), &alert("x")).unwrap_err();
        assert!(failure.text.starts_with("its URL ") && !failure.text.contains("SECRET"), "{failure}");
        assert_eq!(failure.again, Again::Never);
    }
    let mut wrong = webhook(Found::Text("http://127.0.0.1:1/".to_owned()));
    wrong.channel = match wrong.channel {
        Channel::Webhook { url, headers, .. } => Channel::Webhook { url, headers, method: "DELETE".to_owned() },
        other => other,
    };
    assert_eq!(send(&wrong, &alert("x")).unwrap_err().text, "the method of a webhook is `POST` or `PUT`");
}

#[test]
fn a_dead_mans_switch_is_told_of_begin_and_end() {
    let receiver = Receiver::new(&[OK, OK, OK, OK, OK]);
    let notifier = notifier(Channel::Ping { url: receiver.url("/ping/{job}/?create=1") });
    let run = Ping::run_id(&World::seeded(1));
    let mut ping =
        Ping { job: "db:a/b ü".to_owned(), signal: Signal::Start, run: run.clone(), body: "ü".repeat(9000) };
    let mut sent = |signal| {
        ping.signal = signal;
        send(&notifier, &Item::Ping(ping.clone())).unwrap();
        let request = receiver.requests.recv().unwrap();
        assert_eq!(request.split_once("\r\n\r\n").unwrap().1.len(), 10_000);
        request.lines().next().unwrap().to_owned()
    };
    let path = |tail: &str| format!("POST /ping/db%3Aa%2Fb%20%C3%BC{tail}?create=1&rid={run} HTTP/1.1");
    assert_eq!(sent(Signal::Start), path("/start"));
    assert_eq!(sent(Signal::Success), path(""));
    assert_eq!(sent(Signal::Failure(0)), path("/fail"));
    assert_eq!(sent(Signal::Failure(12)), path("/12"));
    assert_eq!(sent(Signal::Log), path("/log"));
    let parts: Vec<usize> = run.split('-').map(str::len).collect();
    assert_eq!((parts, &run[14..15]), (vec![8, 4, 4, 4, 12], "4"));
}

#[test]
fn a_test_is_sent_whatever_a_notifier_listens_to() {
    let receiver = Receiver::new(&[OK, OK]);
    let mut notifier = webhook(receiver.url("/"));
    notifier.least = Severity::Critical;
    send_test("ops", &notifier, "vault", "db", &World::seeded(1)).unwrap();
    let body = receiver.body();
    assert_eq!((&body["state"], &body["title"]), (&json!("test"), &json!("test: this is a test of notifier `ops`")));
    notifier.channel = Channel::Ping { url: receiver.url("/{job}") };
    send_test("ops", &notifier, "vault", "db", &World::seeded(1)).unwrap();
    assert!(receiver.requests.recv().unwrap().starts_with("POST /db/log?rid="));
    notifier.channel = Channel::Command(vec!["/not/there".into()]);
    let error = send_test("ops", &notifier, "vault", "db", &World::seeded(1)).unwrap_err();
    assert!(error.text.starts_with("notifier `ops`: command `/not/there` did not start"), "{error}");
}

fn shell(script: &str) -> Notifier {
    notifier(Channel::Command(["/bin/sh", "-c", script].map(Into::into).to_vec()))
}

#[test]
fn a_command_has_the_object_on_stdin_and_fields_in_its_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out");
    let script = format!("cat >{0}; echo \"$ESKER_ALERT_SUMMARY|$ESKER_ALERT_STATE\" >>{0}", file.display());
    send(&shell(&script), &alert("$(id) `id`")).unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let (object, env) = text.split_once('\n').unwrap();
    let object: Value = serde_json::from_str(object).unwrap();
    assert_eq!((&object["summary"], env), (&json!("$(id) `id`"), "$(id) `id`|resolved\n"));
}

#[test]
fn a_command_that_fails_says_so_in_a_line() {
    let fails = |script: &str| send(&shell(script), &alert("x")).unwrap_err();
    let failure = fails("echo first >&2; echo 'last\u{7}' >&2; exit 3");
    assert_eq!(failure.text, "command `/bin/sh` failed, exit status: 3: last ");
    assert_eq!((failure.again, fails("exit 75").again), (Again::Never, Again::Later));
    assert!(fails("yes | head -c 1000000 >&2; exit 1").text.len() < 500);
    assert!(send(&shell("exec <&-; yes | head -c 1000000"), &alert("x")).is_ok(), "output that nobody reads");
    let mut sender = Sender::new("vault");
    sender.timeout = Duration::from_millis(20);
    // With a child that holds the pipes.
    let failure = sender.send(&shell("sleep 1000 & sleep 1000"), &alert("x")).unwrap_err();
    assert_eq!(failure.text, "command `/bin/sh` took longer than 0 s and was killed");
}

#[test]
fn secrets_are_found_where_they_are_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hook"), "https://h/S3CRET \nmore").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    std::fs::write(dir.path().join("bytes"), b"\xff").unwrap();
    let path = |name: &str| dir.path().join(name);
    let env = |name: &str| match name {
        "HOOK" => Some("from env".into()),
        "CREDENTIALS_DIRECTORY" => Some(dir.path().into()),
        _ => None,
    };
    let find = |found: Found| found.resolve_in(&env).map(|text| text.to_string()).map_err(|failure| failure.text);
    assert_eq!(find(Found::File(path("hook"))).unwrap(), "https://h/S3CRET");
    assert_eq!(find(Found::Credential("hook".to_owned())).unwrap(), "https://h/S3CRET");
    assert_eq!(find(Found::Variable("HOOK".to_owned())).unwrap(), "from env");
    assert_eq!(find(Found::Command("echo 'a  b'".to_owned())).unwrap(), "a  b");
    assert_eq!(find(Found::Command("echo \"$HOME\"".to_owned())).unwrap(), "$HOME", "there is no shell");
    let wrong = |found: Found, text: &str| {
        let error = find(found).unwrap_err();
        assert!(error.contains(text) && !error.contains("S3CRET"), "{error}");
    };
    wrong(Found::File(PathBuf::from("/not/there")), "file `/not/there` cannot be read: ");
    wrong(Found::File(path("empty")), "is empty");
    wrong(Found::File(path("bytes")), "is not text");
    wrong(Found::Variable("NONE".to_owned()), "variable `NONE` is not set");
    wrong(Found::Credential("../hook".to_owned()), "is no name of a file");
    wrong(Found::Command("sh -c 'echo S3CRET; exit 1'".to_owned()), "command `sh` failed, exit status: 1");
    wrong(Found::Command("'".to_owned()), "open quote");
    wrong(Found::Command(String::new()), "the command is empty");
    assert!(!format!("{:?}", Found::Text("S3CRET".to_owned())).contains("S3CRET"));
}
