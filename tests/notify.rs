//! Risk: mail that is not sent, or sent where anybody can read it, or to a server that is not who it says. Method: a real
//! mail server (aiosmtpd), without TLS, with STARTTLS and with TLS from the start, with a certificate of an authority that
//! the system does not know; what arrived is read in its maildir. The same server's TLS stands for a webhook's.
#![cfg(feature = "service")]

#[path = "support/servers.rs"]
#[allow(dead_code)] // of servers that other tests use
mod servers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use esker::service::alerts::{Alert, Message, Rule, Severity, State};
use esker::service::notify::{Again, Failure, Item, Sender};
use esker::service::plan::{Channel, Found, Notifier};
use servers::Server;

fn option<'a>(server: &'a Server, name: &str) -> &'a str {
    &server.options[name]
}

/// A notifier that logs in at `url`.
fn mail(server: &Server, url: &str, to: &str) -> Notifier {
    let channel = Channel::Email {
        server: url.to_owned(),
        user: Some(option(server, "user").to_owned()),
        password: Some(Found::Text(option(server, "password").to_owned())),
        from: "Esker <esker@example.org>".to_owned(),
        to: vec![to.to_owned()],
    };
    let ca_file = Some(PathBuf::from(option(server, "ca_file")));
    Notifier { channel, least: Severity::Info, template: None, ca_file }
}

fn alert(summary: &str) -> Item {
    let alert = Alert::new(Rule::Overdue, "db", Severity::Critical, summary, "first\nBcc: victim@example.org");
    Item::Message(Box::new(Message { state: State::Fired, alert, since_ms: 0, until_ms: 0, at_ms: 0 }))
}

fn send(notifier: &Notifier, item: &Item) -> Result<(), Failure> {
    Sender::new("vault").send(notifier, item)
}

/// The mails to `name`.
fn arrived(server: &Server, name: &str) -> Vec<String> {
    let dir = Path::new(option(server, "maildir")).join("new");
    let files = fs::read_dir(dir).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    files.filter(|text| text.lines().any(|line| line == format!("To: {name}"))).collect()
}

#[test]
fn mail_arrives_over_each_sort_of_connection_as_it_was_meant() {
    for server in servers::of_kind("smtp") {
        for (how, url) in
            [("plain", option(&server, "plain")), ("starttls", option(&server, "starttls")), ("smtps", &server.url)]
        {
            let to = format!("{how}-{}@example.org", server.fresh_prefix());
            send(&mail(&server, url, &to), &alert("job `dä` is late\r\nBcc: victim@example.org")).unwrap();
            let mails = arrived(&server, &to);
            assert_eq!(mails.len(), 1, "{how}");
            let (head, body) = mails[0].split_once("\n\n").unwrap();
            assert!(
                head.contains(&format!("X-RcptTo: {to}\n")) || head.ends_with(&format!("X-RcptTo: {to}")),
                "{head}"
            );
            assert!(
                head.contains("From: Esker <esker@example.org>") && head.contains("Auto-Submitted: auto-generated"),
                "{head}"
            );
            assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
            assert!(!mails[0].contains(option(&server, "password")), "{}", mails[0]);
            assert!(body.contains("rule: overdue"), "{body}");
        }
    }
}

#[test]
fn mail_that_is_refused_is_tried_again_only_if_that_may_help() {
    for server in servers::of_kind("smtp") {
        let fails = |notifier: &Notifier| send(notifier, &alert("x")).unwrap_err();
        let nobody = fails(&mail(&server, &server.url, "nobody@example.org"));
        assert!(
            nobody.text.starts_with("localhost did not take the mail: ") && nobody.text.contains("no such user"),
            "{nobody}"
        );
        assert_eq!(nobody.again, Again::Never);
        assert_eq!(fails(&mail(&server, &server.url, "busy@example.org")).again, Again::Later);

        let mut stranger = mail(&server, &server.url, "a@example.org");
        if let Channel::Email { password, .. } = &mut stranger.channel {
            *password = Some(Found::Text("wr0ng-s3cret".to_owned()));
        }
        let failure = fails(&stranger);
        assert_eq!(failure.again, Again::Never, "{failure}");
        assert!(!failure.text.contains("wr0ng-s3cret"), "{failure}");
    }
}

#[test]
fn a_password_goes_nowhere_without_the_tls_that_was_asked_for() {
    for server in servers::of_kind("smtp") {
        let fails = |notifier: &Notifier| send(notifier, &alert("x")).unwrap_err();
        // A server, or somebody between, that does not offer STARTTLS.
        let stripped = fails(&mail(&server, option(&server, "upgrade_plain"), "a@example.org"));
        assert!(stripped.text.contains("STARTTLS"), "{stripped}");
        // An authority nobody knows.
        for url in [option(&server, "starttls"), &server.url] {
            let mut unknown = mail(&server, url, "a@example.org");
            unknown.ca_file = None;
            let failure = fails(&unknown);
            assert!(failure.text.contains("certificate"), "{failure}");
        }
        // Not the name in the certificate: it has 127.0.0.1 and localhost.
        let other = server.url.replace("localhost", "127.0.0.2");
        assert!(send(&mail(&server, &other, "a@example.org"), &alert("x")).is_err());
        // Far away, in the clear.
        let failure = fails(&mail(&server, "smtp://mx.example.org", "a@example.org"));
        assert!(failure.text.starts_with("no password is sent to mx.example.org without TLS"), "{failure}");
    }
}

#[test]
fn a_webhook_whose_authority_nobody_knows_is_not_told() {
    for server in servers::of_kind("smtp") {
        let url = Found::Text(format!("https://localhost:{}/SECRET", server.port));
        let channel = Channel::Webhook { url, method: "POST".to_owned(), headers: BTreeMap::new() };
        let mut notifier = Notifier { channel, least: Severity::Info, template: None, ca_file: None };
        let failure = send(&notifier, &alert("x")).unwrap_err();
        assert!(failure.text.contains("certificate") && !failure.text.contains("SECRET"), "{failure}");
        assert_eq!(failure.again, Again::Later);
        // With the authority it gets as far as HTTP, which a mail server does not speak.
        notifier.ca_file = Some(PathBuf::from(option(&server, "ca_file")));
        let failure = send(&notifier, &alert("x")).unwrap_err();
        assert!(!failure.text.contains("certificate"), "{failure}");
    }
}
