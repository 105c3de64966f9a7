//! Mail, by SMTP.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport};
use reqwest::Url;
use serde_json::Value;

use super::template::{self, Escape};
use super::{Failure, Sender, http, text};
use crate::service::alerts::line;
use crate::service::plan::{Channel, Found, Notifier};

/// Where and how.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
    security: Security,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// None.
    Plain,
    /// STARTTLS, or nothing is sent.
    Upgraded,
    /// TLS from the start.
    Wrapped,
}

pub(super) fn send(sender: &Sender, notifier: &Notifier, context: &Value) -> Result<(), Failure> {
    let Channel::Email { server, user, password, from, to } = &notifier.channel else { return Ok(()) };
    let message = compose(notifier, from, to, &sender.host, context)?;
    let server = parse(server)?;
    let tls = || {
        let mut builder = TlsParameters::builder(server.host.clone());
        if let Some(pem) = http::authorities(notifier)? {
            let certificate =
                Certificate::from_pem(&pem).map_err(|_| Failure::never("its CA file has no certificates"))?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build().map_err(|error| Failure::later(format!("TLS cannot be used: {error}")))
    };
    let mut transport = SmtpTransport::builder_dangerous(&server.host)
        .port(server.port)
        .timeout(Some(sender.timeout))
        .tls(match server.security {
            Security::Plain => Tls::None,
            Security::Upgraded => Tls::Required(tls()?),
            Security::Wrapped => Tls::Wrapper(tls()?),
        });
    if let Some(name) = ehlo(&sender.host) {
        transport = transport.hello_name(ClientId::Domain(name));
    }
    if let Some(user) = user {
        let near = ["localhost", "127.0.0.1", "[::1]"].contains(&server.host.as_str());
        if server.security == Security::Plain && !near {
            let text =
                format!("no password is sent to {} without TLS; add `?tls=required`, or use `smtps://`", server.host);
            return Err(Failure::never(text));
        }
        let password = password.as_ref().map(Found::resolve).transpose()?.unwrap_or_default();
        transport = transport.credentials(Credentials::new(user.clone(), password.to_string()));
    }
    match transport.build().send(&message) {
        Ok(_) => Ok(()),
        Err(error) => {
            let failed = format!("{} did not take the mail: {error}", server.host);
            // What the server refuses it will refuse again; the rest is the network's.
            Err(if error.is_permanent() { Failure::never(failed) } else { Failure::later(failed) })
        }
    }
}

fn compose(notifier: &Notifier, from: &str, to: &[String], host: &str, context: &Value) -> Result<Message, Failure> {
    let own = || template::render(template::MAIL, context, Escape::None).map_err(Failure::never);
    let body = match &notifier.template {
        Some(template) => match template::render(template, context, Escape::None) {
            Ok(body) => body,
            Err(why) => format!("{}\nThe notifier's own template failed: {}\n", own()?, line(&why, 400)),
        },
        None => own()?,
    };
    let subject = line(&format!("[esker] {} ({host})", text(context, "title")), 250);
    let mut builder =
        Message::builder().from(mailbox(from)?).subject(subject).header(ContentType::TEXT_PLAIN).message_id(None);
    for name in to {
        builder = builder.to(mailbox(name)?);
    }
    // No answer by machines, please.
    let auto = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    let message = builder.raw_header(auto).body(body);
    message.map_err(|error| Failure::never(format!("the mail cannot be made: {error}")))
}

fn mailbox(text: &str) -> Result<Mailbox, Failure> {
    text.parse().map_err(|error| Failure::never(format!("`{text}` is no address of mail: {error}")))
}

/// The name we greet with, if ours can be one.
fn ehlo(host: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!host.is_empty() && host.chars().all(fine)).then(|| host.to_owned())
}

fn parse(server: &str) -> Result<Server, Failure> {
    let wrong = |why: &str| Failure::never(format!("its server is not understood: {why}"));
    let url = Url::parse(server).map_err(|error| wrong(&error.to_string()))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?.to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("`user` and `password` stand for themselves"));
    }
    let (security, usual) = match (url.scheme(), url.query()) {
        ("smtps", None) => (Security::Wrapped, 465),
        ("smtp", Some("tls=required")) => (Security::Upgraded, 587),
        ("smtp", None) => (Security::Plain, 25),
        _ => return Err(wrong("it is `smtps://HOST`, `smtp://HOST?tls=required` or `smtp://HOST`")),
    };
    Ok(Server { host, port: url.port().unwrap_or(usual), security })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_that_says_how_it_is_secured() {
        let of = |text: &str| parse(text).map(|server| (server.host, server.port, server.security));
        assert_eq!(of("smtps://mx.example").unwrap(), ("mx.example".to_owned(), 465, Security::Wrapped));
        assert_eq!(of("smtp://mx.example?tls=required").unwrap(), ("mx.example".to_owned(), 587, Security::Upgraded));
        assert_eq!(of("smtp://localhost:2525").unwrap(), ("localhost".to_owned(), 2525, Security::Plain));
        for wrong in
            ["mx.example", "smtp://", "http://mx", "smtp://u:p@mx", "smtp://mx?tls=opportunistic", "smtps://mx?x"]
        {
            let error = of(wrong).expect_err(wrong).text;
            assert!(error.starts_with("its server is not understood: ") && !error.contains(":p@"), "{error}");
        }
    }

    #[test]
    fn nothing_in_an_alert_becomes_a_header_of_a_mail() {
        use crate::service::alerts::{Alert, Message, Rule, Severity, State};
        let summary = "ä\r\nBcc: victim@example\r\n\r\nhello";
        let mut alert = Alert::new(Rule::Failed, "db", Severity::Critical, summary, "d");
        alert.summary = summary.to_owned(); // as if nobody had cleaned it
        let message = Message { state: State::Fired, alert, since_ms: 0, until_ms: 0, at_ms: 0 };
        let context = super::super::context::of(&message, "host\r\nX: y");
        let channel = Channel::Command(Vec::new());
        let notifier = Notifier { channel, least: Severity::Info, template: None, ca_file: None };
        let mail =
            compose(&notifier, "Esker <e@example>", &["a@example".to_owned()], "host\r\nX: y", &context).unwrap();
        let text = String::from_utf8(mail.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> =
            head.lines().filter(|line| !line.starts_with(' ')).map(|l| l.split(':').next().unwrap()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let expected = [
            "Auto-Submitted",
            "Content-Transfer-Encoding",
            "Content-Type",
            "Date",
            "From",
            "MIME-Version",
            "Message-ID",
            "Subject",
            "To",
        ];
        assert!(sorted.iter().all(|name| expected.contains(name)), "{head}");
        assert!(!names.is_empty());
    }
}
