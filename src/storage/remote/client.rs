//! The HTTP client under the storages that speak HTTP.
//!
//! Own, and not the libraries', for what they leave out. It notices a connection that is open
//! and dead, in either direction, by bytes that stop moving. It asks a machine's metadata
//! service for credentials with little patience, because most machines have none. It keeps what
//! a server said when it refused ([`Seen`]), because the errors above carry URLs and headers,
//! and those may hold signatures. And it has WebDAV's MOVE keep what is there when asked to.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use opendal::{Buffer, HttpBody, HttpTransport};
use reqwest::Certificate;

use super::{OpenError, Settings};

/// Request bytes handed to the network at once; each such piece is a sign of life.
const PIECE_BYTES: usize = 256 << 10;

/// The most bytes of an object; more than any object of a repository has (SPEC §12).
const OBJECT_BYTES_MAX: u64 = (1 << 30) + (64 << 20);

/// The most bytes kept of an answer that refuses.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How long a metadata service may take. It is one hop away, or not there.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Where machines find the credentials they were given.
const METADATA_HOSTS: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "metadata.google.internal"];

tokio::task_local! {
    /// The call a request is made for.
    pub(super) static CALL: Arc<Call>;
}

/// What a request must know of its call, and what the call is told of its answer.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// A WebDAV MOVE must not replace anything.
    pub(super) never_overwrite: bool,
    /// The most bytes an answer may have; 0 for as many as an object can have.
    pub(super) answer_bytes_max: u64,
    pub(super) seen: Mutex<Seen>,
}

impl Call {
    /// What came of the last request of this call, but for those to a metadata service.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// What came of a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    /// The server's own word for what is wrong, such as `NoSuchBucket`.
    pub(super) code: String,
    /// The server's own sentence.
    pub(super) message: String,
    /// The region the server says the bucket is in.
    pub(super) region: String,
    /// Where the part of an object begins that the server says it sends.
    pub(super) part_begins: Option<u64>,
    /// The answer is a page for a browser.
    pub(super) is_page: bool,
    /// Why there was no answer.
    pub(super) failure: Option<Failure>,
}

/// Why a request had no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened, without URLs.
    pub(super) text: String,
    /// Whether trying again may help.
    pub(super) is_transient: bool,
}

/// An HTTP client with these settings. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    idle: Duration,
}

impl Client {
    /// Makes a client that gives up on a connection after `idle` without a sign of life.
    pub(super) fn new(settings: &Settings, idle: Duration, connections: usize) -> Result<Self, OpenError> {
        let authorities = match &settings.ca_file {
            Some(path) => read_authorities(path)?,
            None => Vec::new(),
        };
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(idle.min(Duration::from_secs(15)))
                .tcp_keepalive(Duration::from_secs(30))
                .tcp_user_timeout(idle)
                .pool_max_idle_per_host(connections)
                .pool_idle_timeout(Duration::from_secs(20))
                .user_agent(concat!("esker/", env!("CARGO_PKG_VERSION")))
                .tls_danger_accept_invalid_certs(settings.insecure_tls)
        };
        let built = builder().tls_certs_merge(authorities.clone()).build();
        // A machine without any certificate authorities still reaches what needs none of them.
        let http = built.or_else(|_| builder().tls_certs_only(authorities).build()).map_err(|error| {
            let text = causes(&error);
            super::Error::new(super::super::ErrorKind::Io, format!("cannot make an HTTP client: {text}"))
        })?;
        Ok(Self { http, idle })
    }

    /// Runs `work` until it is done or `progress` has stood still for too long.
    async fn unless_idle<T>(&self, progress: &AtomicU64, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let before = progress.load(Ordering::Relaxed);
            match tokio::time::timeout(self.idle, work.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if progress.load(Ordering::Relaxed) != before => {}
                Err(_) => return None,
            }
        }
    }

    fn is_silent(&self) -> Failure {
        Failure { text: format!("no sign of life from the server for {} s", self.idle.as_secs()), is_transient: true }
    }

    /// The next bytes of an answer.
    async fn piece(&self, response: &mut reqwest::Response) -> Result<Option<Bytes>, Failure> {
        let piece = tokio::time::timeout(self.idle, response.chunk()).await.map_err(|_| self.is_silent())?;
        piece.map_err(|error| failure(&error))
    }

    /// Sends a request and takes in the whole answer.
    async fn exchange(&self, request: Request<Buffer>, call: Option<&Call>) -> Result<Answer, Failure> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|error| Failure { text: format!("the request's URL is wrong: {error}"), is_transient: false })?;
        let is_metadata = is_metadata(&parts.uri);
        let mut headers = parts.headers;
        if call.is_some_and(|call| call.never_overwrite) && parts.method.as_str() == "MOVE" {
            headers.insert("Overwrite", HeaderValue::from_static("F"));
        }
        let is_head = parts.method == http::Method::HEAD;
        let progress = Arc::new(AtomicU64::new(0));
        let mut builder = self.http.request(parts.method, url).headers(headers);
        if is_metadata {
            builder = builder.timeout(METADATA_TIMEOUT);
        }
        if !body.is_empty() {
            builder = builder.body(reqwest::Body::wrap(Upload { rest: body, progress: progress.clone() }));
        }
        let sent = self.unless_idle(&progress, builder.send()).await.ok_or_else(|| self.is_silent())?;
        let mut response = sent.map_err(|error| failure(&error))?;
        let most = match call.map_or(0, |call| call.answer_bytes_max) {
            0 => OBJECT_BYTES_MAX,
            most => most,
        };
        let refused = !response.status().is_success();
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut length = 0;
        // The length that an answer to HEAD speaks of is that of a body it does not have.
        while let Some(piece) = if is_head { None } else { self.piece(&mut response).await? } {
            length += piece.len() as u64;
            if refused && length > REFUSAL_BYTES_MAX as u64 {
                break;
            }
            if length > most {
                let text = format!("the server answers with more than the {most} bytes it was asked for");
                return Err(Failure { text, is_transient: false });
            }
            pieces.push(piece);
        }
        Ok(Answer { uri: parts.uri, response, pieces })
    }
}

/// An answer with its body.
struct Answer {
    uri: http::Uri,
    response: reqwest::Response,
    pieces: Vec<Bytes>,
}

impl Answer {
    fn seen(&self) -> Seen {
        let header = |name: &str| {
            let value = self.response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let status = self.response.status();
        let mut seen = Seen {
            status: Some(status.as_u16()),
            region: header("x-amz-bucket-region"),
            part_begins: part_begins(&header("content-range")),
            is_page: header("content-type").starts_with("text/html"),
            ..Seen::default()
        };
        if !status.is_success() {
            let body = self.pieces.concat();
            let body = String::from_utf8_lossy(&body);
            (seen.code, seen.message) = words_of_a_refusal(&body);
            if seen.code.is_empty() {
                seen.code = header("x-ms-error-code");
            }
        }
        seen
    }
}

impl HttpTransport for Client {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        // Whether there is a metadata service says nothing about the storage.
        let call = CALL.try_with(Arc::clone).ok().filter(|_| !is_metadata(request.uri()));
        let answer = match self.exchange(request, call.as_deref()).await {
            Ok(answer) => answer,
            Err(failure) => {
                // What comes of it is read from the call; this only has to be an error.
                let error = opendal::Error::new(opendal::ErrorKind::Unexpected, failure.text.clone());
                if let Some(call) = call {
                    call.note(Seen { failure: Some(failure), ..Seen::default() });
                }
                return Err(error);
            }
        };
        if let Some(call) = call {
            call.note(answer.seen());
        }
        let mut response = Response::new(());
        *response.status_mut() = answer.response.status();
        *response.headers_mut() = answer.response.headers().clone();
        response.extensions_mut().insert(answer.uri);
        let body = Buffer::from(answer.pieces);
        let length = body.len() as u64;
        Ok(response.map(|()| HttpBody::new(Whole(Some(body)), Some(length))))
    }
}

/// A request's body, which counts the pieces that were taken.
struct Upload {
    rest: Buffer,
    progress: Arc<AtomicU64>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let end = self.rest.len();
        let piece = self.rest.slice(..PIECE_BYTES.min(end));
        self.rest = self.rest.slice(piece.len()..end);
        Poll::Ready(Some(Ok(http_body::Frame::data(piece.to_bytes()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A body that is there already.
struct Whole(Option<Buffer>);

impl futures_core::Stream for Whole {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().filter(|body| !body.is_empty()).map(Ok))
    }
}

fn read_authorities(path: &std::path::Path) -> Result<Vec<Certificate>, OpenError> {
    let pem = std::fs::read(path).map_err(|error| {
        OpenError::usage(format!("cannot read the certificate authorities in `{}`: {error}", path.display()))
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(OpenError::usage(format!("`{}` holds no certificate in PEM form", path.display()))),
    }
}

fn is_metadata(uri: &http::Uri) -> bool {
    uri.host().is_some_and(|host| METADATA_HOSTS.contains(&host))
}

/// Why a request failed, of the whole chain of causes the last: what the system or TLS says.
fn failure(error: &reqwest::Error) -> Failure {
    let text = causes(error);
    // A server that cannot prove who it is will not do so at the next try.
    let is_transient = !text.contains("certificate") && !error.is_builder();
    Failure { text, is_transient }
}

/// The causes of an error but not its own text, which names a URL.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    match texts.is_empty() {
        true if error.is_timeout() => "no answer in time".into(),
        true => "the request failed".into(),
        false => texts.join(": "),
    }
}

/// The first number of `bytes 3-6/10`.
fn part_begins(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The code and the sentence in a refusal: XML as S3, Azure and Google write it, or Google's JSON.
fn words_of_a_refusal(body: &str) -> (String, String) {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let error = &json["error"];
        return match error.is_object() {
            true => (text(&error["errors"][0]["reason"]), text(&error["message"])),
            // A failed login has `{"error": "invalid_grant", "error_description": …}`.
            false => (text(error), text(&json["error_description"])),
        };
    }
    (element(body, "Code"), element(body, "Message"))
}

/// The text of the first element of that name, without entities undone.
fn element(xml: &str, name: &str) -> String {
    let begin = format!("<{name}>");
    let text = xml.split_once(&begin).and_then(|(_, rest)| rest.split_once("</")).map(|(text, _)| text);
    text.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_understood_in_each_dialect_and_nothing_else_of_it_is_kept() {
        let s3 = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message>\
                  <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>secret</StringToSign></Error>";
        assert_eq!(words_of_a_refusal(s3), ("SignatureDoesNotMatch".into(), "no match".into()));
        let gcs = r#"{"error":{"code":404,"message":"The specified bucket does not exist.",
                      "errors":[{"reason":"notFound","message":"x"}]}}"#;
        assert_eq!(words_of_a_refusal(gcs), ("notFound".into(), "The specified bucket does not exist.".into()));
        let login = r#"{"error":"invalid_grant","error_description":"expired"}"#;
        assert_eq!(words_of_a_refusal(login), ("invalid_grant".into(), "expired".into()));
        for other in ["", "<html>404</html>", "[]", "null", "<Code>", "{\"error\":{}}"] {
            assert_eq!(words_of_a_refusal(other).0, "", "{other}");
        }
    }

    #[test]
    fn a_metadata_service_is_told_from_a_storage() {
        for uri in
            ["http://169.254.169.254/latest/api/token", "http://[fd00:ec2::254]/x", "http://metadata.google.internal/"]
        {
            assert!(is_metadata(&uri.parse().unwrap()), "{uri}");
        }
        assert!(!is_metadata(&"http://127.0.0.1:5300/b".parse().unwrap()));
    }

    #[test]
    fn a_part_says_where_it_begins() {
        assert_eq!(part_begins("bytes 3-6/10"), Some(3));
        for none in ["", "bytes */10", "bytes x-1/2", "3-6/10"] {
            assert_eq!(part_begins(none), None, "{none}");
        }
    }

    #[test]
    fn a_body_is_sent_in_pieces_that_count() {
        let (rest, progress) = (Buffer::from(vec![7; 2 * PIECE_BYTES + 1]), Arc::<AtomicU64>::default());
        let mut upload = Upload { rest, progress: progress.clone() };
        let mut sizes = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = http_body::Body::poll_frame(Pin::new(&mut upload), &mut context) {
            sizes.push(frame.into_data().unwrap().len());
        }
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, 1]);
        assert_eq!(progress.load(Ordering::Relaxed), 4);
    }
}
