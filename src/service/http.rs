//! What is told over HTTP: `/metrics`, `/status`, `/health` and `/ready`.
//!
//! Nothing is asked of who asks, so it listens on loopback unless told otherwise, and there it answers only to names of
//! loopback: a web page that has its own name point here (DNS rebinding) is refused. A connection is for one request,
//! which may be so long and take so long as [`Limits`] says; only so many are open, and others wait in the system's queue. So slow clients cost little and go away by themselves. It runs in a thread of its own:
//! what happens here stops no backup.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, uri::Authority};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Sleep, sleep, timeout};

use crate::error::{Error, Kind, Result};

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a connection lasts at most.
    pub lifetime: Duration,
    /// How many are open at a time.
    pub connections: usize,
    /// The longest request, in bytes.
    pub request: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(15), connections: 32, request: 16 * 1024 }
    }
}

/// How long a stop waits for answers that are being sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is told. Each is called for a request, on a thread where it may wait.
pub trait Source: Send + Sync + 'static {
    /// In Prometheus' text format.
    fn metrics(&self) -> String;
    /// As `esker status --json` has it.
    fn status(&self) -> serde_json::Value;
    /// Whether the work is being done, or why not (yet).
    ///
    /// # Errors
    ///
    /// The reason, one line.
    fn ready(&self) -> std::result::Result<(), String>;
}

/// The server. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens; with port 0 asked for, the one it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: answers that have begun are sent, for two seconds at most.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has not panicked that anybody should care: the service goes on to its end.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Listens at an address, from now on.
///
/// # Errors
///
/// When the address is not this machine's, or somebody else has it.
pub fn start(address: SocketAddr, source: Arc<dyn Source>, limits: Limits) -> Result<Server> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program, perhaps another `esker serve`, has port {}: stop it, or set another `listen`",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => "ports below 1024 are the system's: set another `listen`".to_owned(),
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: `listen` is an address of this machine, such as 127.0.0.1:9911"
                    .to_owned()
            }
            _ => "set another `listen`".to_owned(),
        };
        Error::new(Kind::Failed, format!("cannot listen at {address}")).because(error).hint(hint)
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let inner = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener).map_err(failed)?
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let answers = Arc::new(Answers { only_loopback: address.ip().is_loopback(), source });
    let serve = async move {
        let (quiet, quieted) = oneshot::channel::<()>();
        let listener = Listener { inner, free: Arc::new(Semaphore::new(limits.connections)), limits };
        let serving = axum::serve(listener, Router::new().fallback(answer).with_state(answers))
            .with_graceful_shutdown(async move { drop(quieted.await) });
        let serving = tokio::spawn(async move { serving.await });
        let _ = stopped.await;
        drop(quiet);
        let _ = timeout(PATIENCE, serving).await;
    };
    let thread = std::thread::Builder::new().name("http".to_owned());
    let thread = thread.spawn(move || {
        runtime.block_on(serve);
        // A source that does not return must not hold up the end.
        runtime.shutdown_background();
    });
    Ok(Server { address, stop: Some(stop), thread: Some(thread.map_err(failed)?) })
}

struct Answers {
    only_loopback: bool,
    source: Arc<dyn Source>,
}

async fn answer(State(answers): State<Arc<Answers>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let host = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    if answers.only_loopback && !host.is_some_and(is_loopback) {
        let why = "this listens on loopback and answers to localhost, 127.0.0.1 and [::1] only\n";
        return response(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", why);
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        let mut refused =
            response(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET is answered\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let path = parts.uri.path().to_owned();
    // Facts are read from files: in a thread where that may take its time, and a panic becomes an answer.
    let told = tokio::task::spawn_blocking(move || tell(&*answers.source, &path));
    told.await.unwrap_or_else(|_| {
        response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "that could not be worked out\n")
    })
}

fn tell(source: &dyn Source, path: &str) -> Response<Body> {
    let text = "text/plain; charset=utf-8";
    match path {
        "/metrics" => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", source.metrics()),
        "/status" => response(StatusCode::OK, "application/json", format!("{}\n", source.status())),
        "/health" => response(StatusCode::OK, text, "alive\n"),
        "/ready" => match source.ready() {
            Ok(()) => response(StatusCode::OK, text, "ready\n"),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, text, format!("{why}\n")),
        },
        "/" => response(StatusCode::OK, text, "esker: /metrics /status /health /ready\n"),
        _ => response(StatusCode::NOT_FOUND, text, "there are /metrics, /status, /health and /ready\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONNECTION, "close"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// Whether what follows `Host:` is this machine by a name that nobody else can point here.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    // `user@localhost` is nothing a client sends.
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

struct Listener {
    inner: TcpListener,
    free: Arc<Semaphore>,
    limits: Limits,
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else {
                unreachable!("the semaphore is never closed")
            };
            match self.inner.accept().await {
                Ok((stream, from)) => return (Connection::new(stream, permit, self.limits), from),
                // Descriptors may be used up; they come back. Anything else is the peer's doing.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A stream that ends after its time, or when more is sent than a request may have.
struct Connection {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    left: usize,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, limits: Limits) -> Self {
        Self { stream, ends: Box::pin(sleep(limits.lifetime)), left: limits.request, _permit: permit }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.ends.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let got = buffer.filled().len() - before;
        match self.left.checked_sub(got) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
