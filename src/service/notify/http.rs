//! Webhooks and pings: one request, no redirects, bounded in time and in what is read.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::Read;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, Url, redirect};
use serde_json::{Value, json};

use super::template::{self, Escape};
use super::{Again, Failure, Ping, Sender, Signal, text};
use crate::service::alerts::line;
use crate::service::plan::{Found, Notifier};

/// The most bytes read of an answer.
const ANSWER_BYTES_MAX: u64 = 4096;

/// The most bytes of a ping's body: its last ones.
const BODY_BYTES_MAX: usize = 10_000;

/// To a webhook of Slack.
pub(super) fn slack(
    sender: &mut Sender,
    notifier: &Notifier,
    url: &Found,
    channel: Option<&str>,
    context: &Value,
) -> Result<(), Failure> {
    let own = |context: &Value| template::render(template::SLACK, context, Escape::Slack);
    let said = match &notifier.template {
        Some(template) => {
            template::render(template, context, Escape::Slack).or_else(|why| own(&with_note(context, &why)))
        }
        None => own(context),
    };
    let mut body = json!({
        "text": said.map_err(Failure::never)?,
        "unfurl_links": false,
        "unfurl_media": false,
    });
    if let Some(channel) = channel {
        body["channel"] = channel.into();
    }
    sender.request(notifier, &parse(&url.resolve()?)?, Method::POST, json_headers(), body.to_string().into_bytes())
}

/// To any HTTP endpoint.
pub(super) fn webhook(
    sender: &mut Sender,
    notifier: &Notifier,
    url: &Found,
    method: &str,
    headers: &BTreeMap<String, Found>,
    context: &Value,
) -> Result<(), Failure> {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes());
    let method = method.ok().filter(|method| [Method::POST, Method::PUT].contains(method));
    let method = method.ok_or_else(|| Failure::never("the method of a webhook is `POST` or `PUT`"))?;
    let escape = template::escape_of(&notifier.channel);
    let body = match &notifier.template {
        None => context.to_string(),
        Some(template) => match template::render(template, context, escape) {
            Ok(body) => body,
            // Where text is wanted, text is sent.
            Err(why) if escape == Escape::None => {
                let own = template::render(template::MAIL, &with_note(context, &why), Escape::None);
                own.map_err(Failure::never)?
            }
            Err(why) => with_note(context, &why).to_string(),
        },
    };
    let mut sent = json_headers();
    for (name, found) in headers {
        let key = HeaderName::from_bytes(name.as_bytes());
        let key = key.map_err(|_| Failure::never(format!("header `{name}` has no valid name")))?;
        let mut value = HeaderValue::from_str(&found.resolve()?)
            .map_err(|_| Failure::never(format!("the value of header `{name}` cannot be sent")))?;
        value.set_sensitive(true);
        sent.insert(key, value);
    }
    sender.request(notifier, &parse(&url.resolve()?)?, method, sent, body.into_bytes())
}

/// To a dead man's switch.
pub(super) fn ping(sender: &mut Sender, notifier: &Notifier, url: &Found, ping: &Ping) -> Result<(), Failure> {
    let mut url = parse(&url.resolve()?.replace("{job}", &encode(&ping.job)))?;
    let code;
    let tail = match ping.signal {
        Signal::Start => Some("start"),
        Signal::Success => None,
        Signal::Failure(0) => Some("fail"),
        Signal::Failure(of_run) => {
            code = of_run.to_string();
            Some(code.as_str())
        }
        Signal::Log => Some("log"),
    };
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(tail);
    }
    url.query_pairs_mut().append_pair("rid", &ping.run);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    sender.request(notifier, &url, Method::POST, headers, tail_of(&ping.body).as_bytes().to_vec())
}

/// The end of a text, from the beginning of a character.
fn tail_of(text: &str) -> &str {
    let from = text.len().saturating_sub(BODY_BYTES_MAX);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

/// A name as one segment of a path.
fn encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn with_note(context: &Value, why: &str) -> Value {
    let mut context = context.clone();
    let detail = text(&context, "detail");
    let note = line(&format!("(the notifier's own template failed: {why})"), 400);
    context["detail"] = format!("{detail}{}{note}", if detail.is_empty() { "" } else { "\n" }).into();
    context
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// Says nothing of what it was.
fn parse(url: &str) -> Result<Url, Failure> {
    let parsed = Url::parse(url).map_err(|error| Failure::never(format!("its URL is not valid: {error}")))?;
    match parsed.scheme() {
        "http" | "https" => Ok(parsed),
        _ => Err(Failure::never("its URL begins neither with `https://` nor with `http://`")),
    }
}

impl Sender {
    fn client(&mut self, notifier: &Notifier) -> Result<Client, Failure> {
        if let Some((_, client)) = self.client.as_ref().filter(|(file, _)| *file == notifier.ca_file) {
            return Ok(client.clone());
        }
        let builder = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .timeout(self.timeout)
                .pool_idle_timeout(Duration::from_secs(20))
                .user_agent(concat!("esker/", env!("CARGO_PKG_VERSION")))
        };
        let own = match authorities(notifier)? {
            Some(pem) => {
                Certificate::from_pem_bundle(&pem).map_err(|_| Failure::never("its CA file has no certificates"))?
            }
            None => Vec::new(),
        };
        let built = builder().tls_certs_merge(own.clone()).build();
        // A machine without any certificate authorities still reaches what needs none of them.
        let client = built.or_else(|_| builder().tls_certs_only(own).build());
        let client = client.map_err(|error| Failure::later(format!("no HTTP client: {error}")))?;
        self.client = Some((notifier.ca_file.clone(), client.clone()));
        Ok(client)
    }

    fn request(
        &mut self,
        notifier: &Notifier,
        url: &Url,
        method: Method,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(), Failure> {
        let host = url.host_str().unwrap_or("-").to_owned();
        let client = self.client(notifier)?;
        let answer = client.request(method, url.clone()).headers(headers).body(body).send().map_err(|error| {
            self.client = None; // the next try has a connection, and certificates, of its own
            unanswered(&host, error)
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        if status.is_redirection() {
            return Err(Failure::never(format!("{host} answered {status}; redirects are not followed")));
        }
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, &answer));
        let mut said = Vec::new();
        let _ = answer.take(ANSWER_BYTES_MAX).read_to_end(&mut said);
        let said = excerpt(&String::from_utf8_lossy(&said), url);
        let again = match (status.as_u16(), retry_after) {
            (408 | 425 | 429 | 500.., Some(after)) => Again::After(after),
            (408 | 425 | 429 | 500.., None) => Again::Later,
            _ => Again::Never,
        };
        Err(Failure { again, ..Failure::never(format!("{host} answered {status}{said}")) })
    }
}

/// The certificates a notifier trusts besides the system's.
pub(super) fn authorities(notifier: &Notifier) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = &notifier.ca_file else { return Ok(None) };
    let read = std::fs::read(path);
    read.map(Some).map_err(|error| Failure::later(format!("CA file `{}` cannot be read: {error}", path.display())))
}

fn unanswered(host: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() {
        return Failure::later(format!("{host} did not answer in time"));
    }
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    Failure::later(format!("{host} was not reached: {}", texts.join(": ")))
}

/// Seconds, or a date against that of the answer: clocks may differ.
fn retry_after(value: &str, answer: &reqwest::blocking::Response) -> Option<Duration> {
    if let Ok(secs) = value.trim().parse() {
        return Some(Duration::from_secs(secs));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second());
    let now = date(answer.headers().get("date")?.to_str().ok()?)?;
    Some(Duration::from_secs(u64::try_from(date(value)? - now).unwrap_or(0)))
}

/// The first line of an answer, unless the address, which is a secret, shines through.
fn excerpt(said: &str, url: &Url) -> String {
    let first = line(said.trim_start().lines().next().unwrap_or_default(), 120);
    let mut secrets = url.path().split('/').chain(url.query().unwrap_or_default().split(['&', '=']));
    let user = [url.username(), url.password().unwrap_or_default()];
    let shines = |secret: &str| secret.len() >= 4 && first.contains(secret);
    match first.is_empty() || first.starts_with('<') || secrets.any(shines) || user.iter().any(|secret| shines(secret))
    {
        true => String::new(),
        false => format!(": {first}"),
    }
}
