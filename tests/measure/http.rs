use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use esker::service::http::{Limits, Server, Source, start};
use serde_json::json;

struct Told;

impl Source for Told {
    fn metrics(&self) -> String {
        "up 1\n".into()
    }

    fn status(&self) -> serde_json::Value {
        json!({ "safe": true })
    }

    fn ready(&self) -> Result<(), String> {
        Err("the first look is not over".into())
    }
}

struct Broken;

impl Source for Broken {
    fn metrics(&self) -> String {
        panic!("a bug")
    }

    fn status(&self) -> serde_json::Value {
        json!(null)
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn server() -> Server {
    start(loopback(), Arc::new(Told), Limits::default()).unwrap()
}

/// Sends and reads until the other side ends it. A server that does not fails the test after a minute.
fn exchange(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be refused before it is all sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

fn get(server: &Server, path: &str, host: &str) -> (u16, String, String) {
    let answer = exchange(server.address(), format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    (status, kind.to_owned(), body.to_owned())
}

#[test]
fn each_path_tells_its_own() {
    let server = server();
    let text = "text/plain; charset=utf-8";
    for (path, status, kind, body) in [
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "up 1\n"),
        ("/metrics?x=y", 200, "text/plain; version=0.0.4; charset=utf-8", "up 1\n"),
        ("/status", 200, "application/json", "{\"safe\":true}\n"),
        ("/health", 200, text, "alive\n"),
        ("/ready", 503, text, "the first look is not over\n"),
        ("/../etc/passwd", 404, text, "there are /metrics, /status, /health and /ready\n"),
    ] {
        let expected = (status, kind.to_owned(), body.to_owned());
        assert_eq!(get(&server, path, "localhost"), expected, "{path}");
    }
}

#[test]
fn a_name_that_somebody_else_can_point_at_loopback_is_refused() {
    let server = server();
    let port = server.address().port();
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.8.8.8:9", "[::1]", &format!("[::1]:{port}")] {
        assert_eq!(get(&server, "/status", host).0, 200, "{host}");
    }
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a@localhost", "[::2]"]
    {
        assert_eq!(get(&server, "/status", host).0, 403, "{host}");
    }
    // A proxy's form: the name in the line counts, whatever the header says.
    let answer = exchange(server.address(), b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let answer = exchange(server.address(), b"GET /status HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn who_listens_elsewhere_answers_to_any_name() {
    let server = start("0.0.0.0:0".parse().unwrap(), Arc::new(Told), Limits::default()).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let answer = exchange(to, b"GET /health HTTP/1.1\r\nHost: backup.example\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn only_get_is_answered() {
    let server = server();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(server.address(), request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    let answer = exchange(server.address(), b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_request_that_is_too_long_ends_the_connection() {
    let server = server();
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert!(!exchange(server.address(), long.as_bytes()).starts_with("HTTP/1.1 200 "));
    assert_eq!(get(&server, "/health", "localhost").0, 200);
}

#[test]
fn a_connection_is_for_one_request() {
    let server = server();
    let one = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = exchange(server.address(), one.repeat(2).as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
}

#[test]
fn noise_is_no_request_and_harms_nothing() {
    let server = server();
    for noise in [&b"\0\xff\x16\x03\x01\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        assert!(!exchange(server.address(), noise).starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(get(&server, "/health", "localhost").0, 200);
}

#[test]
fn clients_that_do_not_go_on_make_room_for_others() {
    let limits = Limits { lifetime: Duration::from_millis(300), connections: 2, ..Limits::default() };
    let server = start(loopback(), Arc::new(Told), limits).unwrap();
    let slow: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
            stream
        })
        .collect();
    // Those before this one are ended one after the other; without that it waits for ever.
    assert_eq!(get(&server, "/health", "localhost").0, 200);
    drop(slow);
}

#[test]
fn a_panic_while_working_out_an_answer_is_an_answer() {
    let server = start(loopback(), Arc::new(Broken), Limits::default()).unwrap();
    assert_eq!(get(&server, "/metrics", "localhost").0, 500);
    assert_eq!(get(&server, "/ready", "localhost"), (200, "text/plain; charset=utf-8".into(), "ready\n".into()));
}

#[test]
fn a_stop_ends_it_and_frees_the_port() {
    let first = server();
    let address = first.address();
    let mut idle = TcpStream::connect(address).unwrap();
    first.stop();
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert!(TcpStream::connect(address).is_err());
    let again = start(address, Arc::new(Told), Limits::default()).unwrap();
    assert_eq!(get(&again, "/health", "localhost").0, 200);
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let first = server();
    let address = first.address();
    let error = start(address, Arc::new(Told), Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen at {address}"));
    let hint = "another program, perhaps another `esker serve`, has port";
    assert!(error.hint_text().unwrap().starts_with(hint), "{:?}", error.hint_text());
    let error = start("192.0.2.1:9911".parse().unwrap(), Arc::new(Told), Limits::default()).unwrap_err();
    assert!(error.hint_text().unwrap().starts_with("this machine does not have that address"));
}
