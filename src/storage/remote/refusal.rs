//! From what a server said to the kinds of errors callers act on.
//!
//! Decided by the status and the server's own word for it, both of which [`super::client`] keeps;
//! the library's errors say less, and hold URLs and headers that may be signatures.

use super::Kind;
use super::client::Seen;
use crate::storage::{Error, ErrorKind};

/// The longest text taken from a server.
const TEXT_CHARS_MAX: usize = 200;

/// Shortest secret that is looked for in texts; shorter ones stand everywhere by chance.
const SECRET_BYTES_MIN: usize = 6;

/// What a failed call was about, and what is known of its storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) kind: Kind,
    pub(super) place: &'a str,
    pub(super) name: &'a str,
    pub(super) secrets: &'a [String],
    /// Whether an earlier call succeeded, so that credentials and place are right.
    pub(super) worked: bool,
}

/// Whether the server does not know what it was asked for.
pub(super) fn is_unsupported(seen: &Seen) -> bool {
    seen.status == Some(501) || seen.code == "NotImplemented"
}

/// The storage's error for a call that failed.
pub(super) fn error(about: About<'_>, fault: &opendal::Error, seen: &Seen) -> Error {
    let About { name, place, .. } = about;
    if let Some(failure) = &seen.failure {
        let text = clean(&failure.text, about.secrets);
        if failure.text.contains("certificate") {
            return Error::new(ErrorKind::Io, format!("cannot trust the server of `{place}`: {text}"))
                .hint("if you know whose certificate it is, give its authority: `--cacert FILE`");
        }
        let kind = if failure.is_transient { ErrorKind::Transient } else { ErrorKind::Io };
        let error = Error::new(kind, format!("no answer from `{place}` about `{}`: {text}", shown(name)));
        return match about.worked {
            true => error,
            false => {
                error.hint("is it the right server, and is it up? `-o endpoint=URL` and the URL of --repo say which")
            }
        };
    }
    let (kind, hint) = match seen.status {
        Some(status) if status >= 300 => by_answer(about, status, seen),
        _ => return without_answer(about, fault, seen),
    };
    match kind {
        ErrorKind::NotFound => return Error::not_found(name),
        ErrorKind::Exists => return Error::exists(name),
        _ => {}
    }
    let what = match kind {
        ErrorKind::Denied => "is denied",
        ErrorKind::Throttled => "was put off",
        ErrorKind::Full => "does not fit",
        _ => "failed",
    };
    let status = seen.status.unwrap_or_default();
    let said = [&seen.code, &seen.message].map(|text| clean(text, about.secrets)).into_iter();
    let said: Vec<_> = said.filter(|text| !text.is_empty()).collect();
    let said = if said.is_empty() { String::new() } else { format!(", {}", said.join(": ")) };
    let error = Error::new(kind, format!("`{}` at `{place}` {what}: status {status}{said}", shown(name)));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What an answer that refuses means, and what may help.
fn by_answer(about: About<'_>, status: u16, seen: &Seen) -> (ErrorKind, Option<String>) {
    let plain = |kind| (kind, None);
    match (&seen.code[..], status) {
        ("NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted", _) => (ErrorKind::Io, Some(no_bucket(about))),
        (_, 404) if about.kind == Kind::Gcs && seen.message.contains("bucket does not exist") => {
            (ErrorKind::Io, Some(no_bucket(about)))
        }
        ("QuotaExceeded" | "QuotaExceededError" | "XMinioStorageFull" | "InsufficientStorage", _) | (_, 507) => {
            plain(ErrorKind::Full)
        }
        ("SlowDown" | "TooManyRequests" | "ServerBusy" | "RequestLimitExceeded" | "rateLimitExceeded", _)
        | (_, 429) => plain(ErrorKind::Throttled),
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301)
            if about.kind == Kind::S3 =>
        {
            let hint = match &seen.region[..] {
                "" => "name the region of the bucket: `-o region=REGION`".to_owned(),
                region => format!("the bucket is in another region: `-o region={}`", clean(region, about.secrets)),
            };
            (ErrorKind::Io, Some(hint))
        }
        ("RequestTimeTooSkewed", _) => (ErrorKind::Denied, Some("set this machine's clock right".into())),
        ("ExpiredToken" | "TokenRefreshRequired", _) => {
            (ErrorKind::Denied, Some("the credentials have expired: get new ones".into()))
        }
        (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "AuthenticationFailed"
            | "AccountProblem"
            | "AccessDenied"
            | "NotSignedUp"
            | "InvalidClientTokenId"
            | "InvalidAuthenticationInfo",
            _,
        )
        | (_, 401 | 403) => (ErrorKind::Denied, Some(denied(about))),
        ("ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "InternalError", _) => {
            plain(ErrorKind::Transient)
        }
        ("BlobAlreadyExists", _) | (_, 412) => plain(ErrorKind::Exists),
        (_, 404 | 410) => plain(ErrorKind::NotFound),
        (_, 416) => plain(ErrorKind::Corrupt),
        (_, 408 | 425 | 499 | 500 | 502 | 503 | 504) => plain(ErrorKind::Transient),
        // WebDAV: someone else holds the lock, or makes the same folder at this moment.
        (_, 409 | 423) if about.kind == Kind::Webdav => plain(ErrorKind::Transient),
        _ => plain(ErrorKind::Io),
    }
}

/// An error before any request, or with an answer that looked well.
fn without_answer(about: About<'_>, fault: &opendal::Error, seen: &Seen) -> Error {
    let About { name, place, .. } = about;
    let text = clean(fault.message(), about.secrets);
    if fault.to_string().contains("reqsign::Sign") {
        let kind = if about.worked { ErrorKind::Transient } else { ErrorKind::Denied };
        let cause =
            std::error::Error::source(fault).map_or_else(String::new, |cause| clean(&cause.to_string(), about.secrets));
        return Error::new(kind, format!("no credentials for `{place}` were found: {cause}")).hint(format!(
            "{}; looked at: {}",
            super::options::where_secrets_go(scheme(about.kind)),
            looked_at(about.kind)
        ));
    }
    match fault.kind() {
        opendal::ErrorKind::NotFound | opendal::ErrorKind::IsADirectory | opendal::ErrorKind::NotADirectory => {
            Error::not_found(name)
        }
        opendal::ErrorKind::ConditionNotMatch | opendal::ErrorKind::AlreadyExists => Error::exists(name),
        opendal::ErrorKind::RangeNotSatisfied => {
            Error::new(ErrorKind::Corrupt, format!("object `{name}` at `{place}` is shorter than expected"))
        }
        // An answer that broke off half way, or that is not of the protocol.
        _ => {
            let kind = if seen.status.is_some() || fault.is_temporary() { ErrorKind::Transient } else { ErrorKind::Io };
            Error::new(kind, format!("`{}` at `{place}` failed: {text}", shown(name)))
        }
    }
}

fn no_bucket(about: About<'_>) -> String {
    let what = if about.kind == Kind::Azblob { "container" } else { "bucket" };
    format!("the {what} does not exist: make it with the provider's tools (esker makes none), or correct the URL")
}

fn denied(about: About<'_>) -> String {
    match about.worked {
        true => "the credentials lack the permission for this".into(),
        false => format!("are these the right credentials? {}", super::options::where_secrets_go(scheme(about.kind))),
    }
}

fn scheme(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "s3",
        Kind::Gcs => "gs",
        Kind::Azblob => "azblob",
        Kind::Webdav => "webdav",
        Kind::Sftp => "sftp",
    }
}

/// Where credentials are looked for.
fn looked_at(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => {
            "the environment, ~/.aws/credentials and ~/.aws/config, single sign-on, a web identity, \
             the container's and the machine's metadata service"
        }
        Kind::Gcs => "GOOGLE_APPLICATION_CREDENTIALS, gcloud's own file, the machine's metadata service",
        Kind::Azblob => "the environment, a workload identity, `az login`, the machine's metadata service",
        Kind::Webdav | Kind::Sftp => "the environment and the configuration",
    }
}

/// An object's name, or what stands for the list of all.
fn shown(name: &str) -> &str {
    if name.is_empty() { "/" } else { name }
}

/// A text of somebody else's on one short line, without the queries of URLs and without secrets.
pub(super) fn clean(text: &str, secrets: &[String]) -> String {
    let mut text = text.lines().next().unwrap_or_default().to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
        text = text.replace(&secret[..], "…");
    }
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        // What follows is what a request was allowed by, in a form of its own.
        let after = words
            .last()
            .is_some_and(|last| ["basic", "bearer"].iter().any(|scheme| last.to_ascii_lowercase().ends_with(scheme)));
        words.push(match word.split_once('?') {
            _ if after => "…",
            Some((before, _)) if before.contains("://") || before.contains('/') => before,
            _ => word,
        });
    }
    let text = words.join(" ");
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::client::Failure;
    use super::*;

    fn about(kind: Kind) -> About<'static> {
        About { kind, place: "s3://b/p", name: "packs/9f", secrets: &[], worked: false }
    }

    fn kind_of(kind: Kind, status: u16, code: &str) -> ErrorKind {
        let seen = Seen { status: Some(status), code: code.into(), ..Seen::default() };
        error(about(kind), &opendal::Error::new(opendal::ErrorKind::Unexpected, ""), &seen).kind()
    }

    #[test]
    fn each_refusal_is_the_kind_a_caller_acts_on() {
        use ErrorKind::{Corrupt, Denied, Exists, Full, Io, NotFound, Throttled, Transient};
        let table = [
            (Kind::S3, 404, "NoSuchKey", NotFound),
            (Kind::S3, 404, "NoSuchBucket", Io),
            (Kind::S3, 403, "InvalidAccessKeyId", Denied),
            (Kind::S3, 403, "SignatureDoesNotMatch", Denied),
            (Kind::S3, 400, "ExpiredToken", Denied),
            (Kind::S3, 403, "RequestTimeTooSkewed", Denied),
            (Kind::S3, 403, "QuotaExceeded", Full),
            (Kind::S3, 503, "SlowDown", Throttled),
            (Kind::S3, 503, "ServiceUnavailable", Transient),
            (Kind::S3, 500, "InternalError", Transient),
            (Kind::S3, 409, "ConditionalRequestConflict", Transient),
            (Kind::S3, 412, "PreconditionFailed", Exists),
            (Kind::S3, 416, "InvalidRange", Corrupt),
            (Kind::S3, 301, "PermanentRedirect", Io),
            (Kind::S3, 400, "InvalidArgument", Io),
            (Kind::Azblob, 404, "ContainerNotFound", Io),
            (Kind::Azblob, 404, "BlobNotFound", NotFound),
            (Kind::Azblob, 409, "BlobAlreadyExists", Exists),
            (Kind::Azblob, 503, "ServerBusy", Throttled),
            (Kind::Azblob, 403, "AuthenticationFailed", Denied),
            (Kind::Gcs, 401, "", Denied),
            (Kind::Gcs, 429, "", Throttled),
            (Kind::Webdav, 401, "", Denied),
            (Kind::Webdav, 507, "", Full),
            (Kind::Webdav, 412, "", Exists),
            (Kind::Webdav, 423, "", Transient),
        ];
        for (kind, status, code, expected) in table {
            assert_eq!(kind_of(kind, status, code), expected, "{kind:?} {status} {code}");
        }
    }

    #[test]
    fn a_broken_connection_may_be_retried_and_a_wrong_certificate_not() {
        let seen = |text: &str, is_transient| Seen {
            failure: Some(Failure { text: text.into(), is_transient }),
            ..Seen::default()
        };
        let fault = opendal::Error::new(opendal::ErrorKind::Unexpected, "");
        let reset = error(about(Kind::S3), &fault, &seen("connection reset by peer", true));
        assert_eq!(reset.kind(), ErrorKind::Transient);
        let wrong = error(about(Kind::S3), &fault, &seen("invalid peer certificate: UnknownIssuer", false));
        assert_eq!(wrong.kind(), ErrorKind::Io);
        assert!(wrong.hint_text().is_some_and(|hint| hint.contains("--cacert")));
    }

    #[test]
    fn texts_of_servers_lose_signatures_secrets_and_what_steers_a_terminal() {
        let secrets = ["hunter2hunter2".to_owned(), "ab".to_owned()];
        let text = "url https://x.blob/c?sig=abc%3D&se=1 \u{1b}[2J key hunter2hunter2, ab\nStringToSign: y";
        assert_eq!(clean(text, &secrets), "url https://x.blob/c [2J key …, ab");
        assert_eq!(clean("Authorization: Basic bWU6aHVudGVyMg== is wrong", &[]), "Authorization: Basic … is wrong");
        assert_eq!(clean("'bearer ya29.a0 expired", &[]), "'bearer … expired");
        assert_eq!(clean(&"x".repeat(999), &[]).len(), TEXT_CHARS_MAX);
    }
}
