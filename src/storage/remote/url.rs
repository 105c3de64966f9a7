//! Taking a repository's URL apart: `scheme://authority/path?key=value&…`.

use std::borrow::Cow;
use std::fmt;

use super::OpenError;

/// A URL in its parts, percent codes undone but in the authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// What stands before `://`.
    pub scheme: String,
    /// Who, before an `@`: for SFTP and WebDAV a user. Never with a password.
    pub user: Option<String>,
    /// A bucket, a container or a host with its port.
    pub authority: String,
    /// The folders below it, without a `/` at either end.
    pub path: String,
    /// Whether the path was written with a `/` before it and one more (`sftp://host//srv`).
    pub path_is_absolute: bool,
    /// Options.
    pub query: Vec<(String, String)>,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.query.iter().map(|(key, _)| key).collect();
        write!(f, "Url({}, {options:?})", self.place())
    }
}

impl Url {
    /// Takes a URL apart. Says nothing of what it read where that may be a password.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        // Up to the first colon, behind which there may be a password.
        let scheme = text.split(':').next().unwrap_or_default();
        let rest = text[scheme.len()..].strip_prefix("://").ok_or_else(|| {
            OpenError::hinted(
                format!("the URL of the repository begins with `{}:` and no `//`", plain(scheme)),
                format!("write `{}://…`", plain(scheme)),
            )
        })?;
        let bad = |what: &str| OpenError::usage(format!("the URL `{}://…` {what}", plain(scheme)));
        if text.chars().any(char::is_control) {
            return Err(bad("holds a control character"));
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        if rest.contains('#') {
            return Err(bad("holds a `#`; write `%23`"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(with_password(scheme));
            }
            Some((user, authority)) => {
                (Some(decode(user).ok_or_else(|| bad("holds a broken percent code"))?), authority)
            }
            None => (None, authority),
        };
        // A password with a `/`, a `?` or a `#` in it ends what looks like the host.
        if port_of(authority).is_some_and(|port| !port.bytes().all(|digit| digit.is_ascii_digit())) {
            return Err(with_password(scheme));
        }
        if authority.is_empty() {
            return Err(bad("names no bucket, container or host"));
        }
        let decoded = decode(path).ok_or_else(|| bad("holds a broken percent code"))?;
        let path_is_absolute = decoded.starts_with('/');
        let path = decoded.trim_matches('/').to_owned();
        if path.split('/').any(|part| part == "." || part == ".." || (part.is_empty() && !path.is_empty())) {
            return Err(bad("has an empty, `.` or `..` part in its path"));
        }
        let mut pairs = Vec::new();
        for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| bad("has an option without `=VALUE`"))?;
            let value = decode(value).ok_or_else(|| bad("holds a broken percent code"))?;
            pairs.push((key.to_owned(), value));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            user,
            authority: authority.to_owned(),
            path,
            path_is_absolute,
            query: pairs,
        })
    }

    /// The place for people and for telling copies apart: no options, no user.
    pub fn place(&self) -> String {
        match &self.path[..] {
            "" => format!("{}://{}", self.scheme, self.authority),
            path => format!("{}://{}/{path}", self.scheme, self.authority),
        }
    }
}

/// What restic writes as `sftp:user@host:path` as a URL; any other text as it is. Such a path
/// begins in the home directory unless it begins with a `/`.
pub fn of_ssh_place(text: &str) -> Cow<'_, str> {
    let Some(place) = text.strip_prefix("sftp:").filter(|place| !place.starts_with("//")) else { return text.into() };
    // A colon within brackets belongs to an address.
    let colon = place.find("]:").map(|at| at + 1).or_else(|| place.find(':'));
    let (host, path) = colon.map_or((place, ""), |at| (&place[..at], &place[at + 1..]));
    // `user:password@host:path` is no such place, and none of it is to be taken for one.
    let first = path.split('/').next().unwrap_or_default();
    if first.split_once('@').is_some_and(|(_, rest)| rest.contains(':')) {
        return format!("sftp://{host}:{path}").into();
    }
    let path = path.strip_prefix("~/").unwrap_or(path);
    let home = if path.starts_with('/') { "" } else { "/~/" };
    let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sftp://{host}{home}{path}").into()
}

/// What stands behind the last colon of an authority, but for those within an address in brackets.
pub(crate) fn port_of(authority: &str) -> Option<&str> {
    let (_, behind) = authority.rsplit_once(':')?;
    Some(behind).filter(|behind| !behind.contains(']'))
}

fn with_password(scheme: &str) -> OpenError {
    let scheme = plain(scheme);
    let what = format!(
        "the URL `{scheme}://…` holds a password, which everyone on this machine could read, or a port that is no number"
    );
    OpenError::hinted(what, super::options::where_secrets_go(&scheme))
}

/// Undoes percent codes; [`None`] when one is broken or what comes out is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).ok().filter(|byte| !byte.is_ascii_control())?);
    }
    String::from_utf8(bytes).ok()
}

fn plain(text: &str) -> String {
    text.chars().take(32).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Vec<(String, String)>) {
        let url = Url::parse(text).unwrap();
        (url.authority.clone(), url.path.clone(), url.query)
    }

    #[test]
    fn a_url_is_a_place_below_a_bucket_or_host_and_options() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parts("s3://bucket"), ("bucket".into(), String::new(), vec![]));
        assert_eq!(parts("s3://bucket/"), ("bucket".into(), String::new(), vec![]));
        assert_eq!(
            parts("s3://b/a/b%20c/?endpoint=http://127.0.0.1:5300&region=eu%2D1"),
            ("b".into(), "a/b c".into(), vec![pair("endpoint", "http://127.0.0.1:5300"), pair("region", "eu-1")])
        );
        let sftp = Url::parse("sftp://me@host:2222//srv/backup").unwrap();
        assert_eq!(
            (sftp.user.as_deref(), &sftp.authority[..], &sftp.path[..]),
            (Some("me"), "host:2222", "srv/backup")
        );
        assert!(sftp.path_is_absolute);
        assert_eq!(sftp.place(), "sftp://host:2222/srv/backup");
    }

    #[test]
    fn places_as_restic_writes_them_are_urls() {
        assert_eq!(of_ssh_place("sftp:ada@host:a/b"), "sftp://ada@host/~/a/b");
        assert_eq!(of_ssh_place("sftp:host:/srv/x?y"), "sftp://host/srv/x%3Fy");
        assert_eq!(of_ssh_place("sftp:[fe80::1]:~/x"), "sftp://[fe80::1]/~/x");
        assert_eq!(of_ssh_place("sftp://host/x"), "sftp://host/x");
        assert_eq!(of_ssh_place("s3:host:x"), "s3:host:x");
        assert!(Url::parse(&of_ssh_place("sftp:ada:b")).is_ok_and(|url| url.authority == "ada"));
    }

    #[test]
    fn urls_that_leave_their_place_or_make_no_sense_are_refused() {
        for bad in [
            "s3:bucket",
            "s3://",
            "s3:///a",
            "s3://b/../c",
            "s3://b/a//c",
            "s3://b/%2e%2e/c",
            "s3://b/a#x",
            "s3://b/%zz",
            "s3://b/%0a",
            "s3://b/a\n",
            "s3://b/?endpoint",
            "s3://b/%ff",
            "s3://b/%4",
        ] {
            assert!(matches!(Url::parse(bad), Err(OpenError::Usage { .. })), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for url in [
            "webdav://me:hunter2@host/dav",
            "webdav://me:hunter2/x@host/dav",
            "webdav://me:hunter2?x@host/dav",
            "webdav://me:hunter2#x@host/dav",
            "webdav://me:hunter2",
            "webdav:me:hunter2@host://dav",
            "sftp:me:hunter2@host:dav",
            "sftp:me:hunter2@host:/dav",
        ] {
            let Err(OpenError::Usage { what, hint }) = Url::parse(&of_ssh_place(url)) else { panic!("{url}: taken") };
            let text = format!("{what} {}", hint.unwrap_or_default());
            assert!(!text.contains("hunter2"), "{url}: {text}");
        }
        for url in ["sftp://[::1]:22/x", "sftp://[::1]/x", "s3://b/x@y:z", "s3://b:90", "sftp://a:/x"] {
            assert!(Url::parse(url).is_ok(), "{url}");
        }
        let url = Url::parse("s3://b/p?secret_access_key=hunter2&region=x").unwrap();
        assert_eq!(format!("{url:?}"), r#"Url(s3://b/p, ["secret_access_key", "region"])"#);
    }
}
