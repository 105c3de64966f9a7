//! The options of each kind of storage, from a table: which there are, and which are secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::url::Url;
use super::{Kind, OpenError, Settings};

/// An option that a storage knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How it is written; `_` is taken for `-`.
    pub name: &'static str,
    /// Whether it must not stand on a command line.
    pub is_secret: bool,
    /// What it means, for people.
    pub meaning: &'static str,
}

const fn open(name: &'static str, meaning: &'static str) -> Known {
    Known { name, is_secret: false, meaning }
}

const fn secret(name: &'static str, meaning: &'static str) -> Known {
    Known { name, is_secret: true, meaning }
}

/// What every remote storage knows.
const COMMON: &[Known] = &[
    open("connections", "how many requests run at once, 5 unless told otherwise"),
    open("timeout", "seconds without a sign of life after which a request has failed, 60"),
    open("retries", "how often a request that may be repeated is repeated, 8"),
];

const S3: &[Known] = &[
    open("endpoint", "URL of the server, unless it is Amazon's"),
    open("region", "region of the bucket; else AWS_REGION, or us-east-1"),
    open("path-style", "true: bucket in the path; the default when an endpoint is given"),
    open("profile", "which profile of ~/.aws/config"),
    open("role-arn", "the role to take on"),
    open("external-id", "the external id to take it on with"),
    open("storage-class", "storage class of packs and all else"),
    open("sse", "server side encryption: AES256 or aws:kms"),
    open("sse-kms-key-id", "the key for it"),
    open("checksum", "md5 (the default), crc32c or none: what a put lets the server verify"),
    open("anonymous", "true: do not sign requests"),
    open("metadata", "false: do not ask the machine's metadata service for credentials"),
    secret("access-key-id", "the key's name; else AWS_ACCESS_KEY_ID"),
    secret("secret-access-key", "the key; else AWS_SECRET_ACCESS_KEY"),
    secret("session-token", "the token that goes with them; else AWS_SESSION_TOKEN"),
];

const GCS: &[Known] = &[
    open("endpoint", "URL of the server, unless it is Google's"),
    open("credential-path", "file of a service account; else GOOGLE_APPLICATION_CREDENTIALS"),
    open("storage-class", "storage class of packs and all else"),
    open("anonymous", "true: do not sign requests"),
    open("metadata", "false: do not ask the machine's metadata service for credentials"),
    secret("credential", "a service account as base64 of its JSON"),
    secret("token", "an access token"),
];

const AZBLOB: &[Known] = &[
    open("endpoint", "URL of the server; else of the account at blob.core.windows.net"),
    open("account", "the storage account; else AZURE_STORAGE_ACCOUNT_NAME"),
    open("anonymous", "true: do not sign requests"),
    secret("account-key", "its key; else AZURE_STORAGE_ACCOUNT_KEY"),
    secret("sas-token", "a shared access signature; else AZURE_STORAGE_SAS_TOKEN"),
];

const WEBDAV: &[Known] = &[
    open("username", "who; else ESKER_WEBDAV_USERNAME"),
    secret("password", "the password; else ESKER_WEBDAV_PASSWORD"),
    secret("token", "a bearer token; else ESKER_WEBDAV_TOKEN"),
];

const SFTP: &[Known] = &[
    open("identity-file", "the private key to log in with; else what ssh has"),
    open("known-hosts", "file of the only host keys to believe; else what ssh has"),
    open("ssh-command", "words to run instead of ssh, such as `ssh -F FILE`"),
];

/// The options of a kind of storage, its own first.
pub fn known(kind: Kind) -> impl Iterator<Item = &'static Known> {
    let own = match kind {
        Kind::S3 => S3,
        Kind::Gcs => GCS,
        Kind::Azblob => AZBLOB,
        Kind::Webdav => WEBDAV,
        Kind::Sftp => SFTP,
    };
    own.iter().chain(COMMON)
}

/// Where secrets of a storage belong, as a hint.
pub fn where_secrets_go(scheme: &str) -> &'static str {
    match Kind::of_scheme(scheme) {
        Some(Kind::S3) => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or use a profile of ~/.aws"
        }
        Some(Kind::Gcs) => "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
        Some(Kind::Azblob) => "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
        Some(Kind::Webdav) => "set ESKER_WEBDAV_USERNAME and ESKER_WEBDAV_PASSWORD",
        Some(Kind::Sftp) | None => "let ssh log in with a key: `ssh-copy-id USER@HOST`",
    }
}

/// The options that hold for one storage. Values are taken out as they are used.
#[derive(Clone)]
pub struct Options {
    kind: Kind,
    values: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({:?}, {:?})", self.kind, self.values.keys())
    }
}

impl Options {
    /// Brings together what was typed, what the URL says and what is configured, in this order
    /// of precedence. Refuses what is unknown, and secrets but in the configuration.
    pub fn gather(kind: Kind, url: &Url, settings: &Settings) -> Result<Self, OpenError> {
        let mut values = BTreeMap::new();
        let configured = settings.options.iter().map(|(key, value)| (key, value, true));
        let in_url = url.query.iter().map(|(key, value)| (key, value, false));
        let typed = settings.typed.iter().map(|(key, value)| (key, value, false));
        for (key, value, may_be_secret) in configured.chain(in_url).chain(typed) {
            let known = find(kind, &url.scheme, key)?;
            if known.is_secret && !may_be_secret {
                let what = format!("`{}` is a secret, which everyone on this machine could read here", known.name);
                return Err(OpenError::hinted(what, where_secrets_go(&url.scheme)));
            }
            values.insert(known.name, value.clone());
        }
        if let Some(user) = &url.user {
            match kind {
                Kind::Webdav => drop(values.insert("username", user.clone())),
                Kind::Sftp => {}
                _ => {
                    let what = format!("the URL `{}://…` holds an `@`: credentials do not stand there", url.scheme);
                    return Err(OpenError::hinted(what, where_secrets_go(&url.scheme)));
                }
            }
        }
        let options = Self { kind, values };
        // Whether they are numbers is said now, not at their first use.
        options.connections()?;
        options.timeout()?;
        options.retries()?;
        Ok(options)
    }

    /// The value of an option, if it was given and is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(known(self.kind).any(|known| known.name == name), "no option `{name}`");
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// An option that is true or false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, OpenError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "yes" | "on" | "1") => Ok(Some(true)),
            Some("false" | "no" | "off" | "0") => Ok(Some(false)),
            Some(_) => Err(OpenError::usage(format!("option `{name}` is not `true` or `false`"))),
        }
    }

    /// An option that is a number within bounds.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(OpenError::usage(format!("option `{name}` is not a number from {least} to {most}"))),
        }
    }

    /// How many requests may run at once.
    pub fn connections(&self) -> Result<usize, OpenError> {
        Ok(self.number("connections", 1, 64)?.map_or(5, |number| number as usize))
    }

    /// How long a request may be without a sign of life.
    pub fn timeout(&self) -> Result<Duration, OpenError> {
        Ok(Duration::from_secs(self.number("timeout", 1, 3600)?.unwrap_or(60)))
    }

    /// How often a request is repeated.
    pub fn retries(&self) -> Result<u32, OpenError> {
        Ok(self.number("retries", 0, 100)?.map_or(8, |number| number as u32))
    }
}

fn find(kind: Kind, scheme: &str, key: &str) -> Result<&'static Known, OpenError> {
    let wanted = key.replace('_', "-");
    known(kind).find(|known| known.name == wanted).ok_or_else(|| {
        let key: String = key.chars().take(40).flat_map(char::escape_debug).collect();
        let names: Vec<_> = known(kind).map(|known| known.name).collect();
        OpenError::hinted(
            format!("there is no option `{key}` for storages of the kind `{scheme}:`"),
            format!("the options are {}", names.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(url: &str, typed: &[(&str, &str)], configured: &[(&str, &str)]) -> Result<Options, OpenError> {
        let url = Url::parse(url)?;
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let settings = Settings {
            typed: typed.iter().map(pair).collect(),
            options: configured.iter().map(pair).collect(),
            ..Settings::default()
        };
        Options::gather(Kind::of_scheme(&url.scheme).unwrap(), &url, &settings)
    }

    fn refusal(result: Result<Options, OpenError>) -> String {
        match result {
            Err(OpenError::Usage { what, hint }) => format!("{what}; {}", hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_typed_wins_over_the_url_and_that_over_the_configuration() {
        let options = gather("s3://b?region=url", &[], &[("region", "config"), ("path_style", "off")]).unwrap();
        assert_eq!(options.get("region"), Some("url"));
        assert_eq!(options.flag("path-style").unwrap(), Some(false));
        let options = gather("s3://b?region=url", &[("region", "typed")], &[]).unwrap();
        assert_eq!(options.get("region"), Some("typed"));
    }

    #[test]
    fn an_unknown_option_is_refused_with_those_there_are() {
        let text = refusal(gather("s3://b", &[("regoin", "x")], &[]));
        assert!(text.contains("`regoin`") && text.contains("region, path-style"), "{text}");
        assert!(refusal(gather("gs://b?region=x", &[], &[])).contains("`gs:`"));
        assert!(refusal(gather("s3://b", &[], &[("password", "x")])).contains("no option"));
    }

    /// Every secret of every kind, in the URL and in `-o`.
    #[test]
    fn secrets_are_taken_from_the_configuration_only() {
        for (kind, url) in
            [(Kind::S3, "s3://b"), (Kind::Gcs, "gs://b"), (Kind::Azblob, "azblob://c"), (Kind::Webdav, "webdav://h")]
        {
            let secrets: Vec<_> = known(kind).filter(|known| known.is_secret).collect();
            assert!(!secrets.is_empty());
            for secret in secrets {
                let options = gather(url, &[], &[(secret.name, "hunter2")]).unwrap();
                assert_eq!(options.get(secret.name), Some("hunter2"));
                assert!(!format!("{options:?}").contains("hunter2"));
                let in_url = refusal(gather(&format!("{url}?{}=hunter2", secret.name), &[], &[]));
                let typed = refusal(gather(url, &[(secret.name, "hunter2")], &[]));
                for text in [in_url, typed] {
                    assert!(text.contains("is a secret") && !text.contains("hunter2"), "{text}");
                }
            }
        }
        assert!(refusal(gather("s3://AKID@b", &[], &[])).contains("AWS_ACCESS_KEY_ID"));
    }

    #[test]
    fn numbers_and_flags_that_are_none_are_refused() {
        for (key, value) in [("connections", "0"), ("connections", "65"), ("timeout", "x"), ("retries", "-1")] {
            assert!(refusal(gather("s3://b", &[(key, value)], &[])).contains(key));
        }
        assert!(gather("s3://b?path-style=maybe", &[], &[]).unwrap().flag("path-style").is_err());
        let usual = gather("s3://b", &[], &[]).unwrap();
        assert_eq!((usual.connections().unwrap(), usual.retries().unwrap()), (5, 8));
    }
}
