//! What can be typed about how a storage is reached; the same for `--repo` and other repositories.

use std::path::PathBuf;

use super::app::App;
use super::fail::{Result, usage};
use crate::monitor::Severity;
use crate::storage::remote::Settings;

const STORAGE: &str = "Storage options";

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct StorageArgs {
    /// An option of the storage, such as region, endpoint, connections; repeat for several
    #[arg(short = 'o', long = "option", global = true, value_name = "KEY=VALUE", help_heading = STORAGE)]
    pub(super) option: Vec<String>,
    /// Trust the certificate authorities in this PEM file, too
    #[arg(long, global = true, value_name = "FILE", help_heading = STORAGE)]
    pub(super) cacert: Option<PathBuf>,
    /// Do not verify whom the storage's certificate is of: anyone on the way can read along and answer
    #[arg(long, global = true, help_heading = STORAGE)]
    pub(super) insecure_tls: bool,
    /// Show the storage as it was at TIME, and change nothing: for buckets of S3 that keep versions
    #[arg(long, global = true, value_name = "TIME", help_heading = STORAGE)]
    pub(super) storage_time: Option<String>,
    /// Send at most this many KiB a second
    #[arg(long, global = true, value_name = "KiB/s", help_heading = STORAGE, value_parser = parse_rate)]
    pub(super) limit_upload: Option<u64>,
    /// Fetch at most this many KiB a second
    #[arg(long, global = true, value_name = "KiB/s", help_heading = STORAGE, value_parser = parse_rate)]
    pub(super) limit_download: Option<u64>,
}

/// Secrets that the environment may hold, with the options they are; the libraries read those of
/// the large providers themselves.
const FROM_ENVIRONMENT: [(&str, &str, &str); 3] = [
    ("webdav", "ESKER_WEBDAV_USERNAME", "username"),
    ("webdav", "ESKER_WEBDAV_PASSWORD", "password"),
    ("webdav", "ESKER_WEBDAV_TOKEN", "token"),
];

/// Bytes a second, from KiB a second.
fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = text.parse::<u64>().ok().filter(|rate| *rate > 0).and_then(|rate| rate.checked_mul(1024));
    rate.ok_or_else(|| "expected a whole number of KiB/s, at least 1".into())
}

impl StorageArgs {
    /// What these arguments and the environment say about reaching the storage at `url`. Another repository may
    /// have options of its own.
    pub(super) fn settings(&self, app: &App, url: &str, own: Option<&[String]>) -> Result<Settings> {
        let mut settings = Settings {
            ca_file: self.cacert.as_deref().map(|path| app.path(path)),
            insecure_tls: self.insecure_tls,
            upload_bytes_per_sec: self.limit_upload,
            download_bytes_per_sec: self.limit_download,
            ..Settings::default()
        };
        let flag = if own.is_some() { "--to-option" } else { "-o" };
        for option in own.unwrap_or(&self.option) {
            let (key, value) = option.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                // What was typed may be a secret in the wrong place.
                usage(format!("an option after `{flag}` has no `=`"))
                    .hint(format!("write `{flag} KEY=VALUE`, such as `{flag} region=eu-1`"))
            })?;
            settings.typed.push((key.to_owned(), value.to_owned()));
        }
        for (kind, variable, option) in FROM_ENVIRONMENT {
            if url.split(['+', ':']).next() == Some(kind)
                && let Some(value) = app.var(variable)
            {
                let value = value.to_str().ok_or_else(|| usage(format!("{variable} is not UTF-8")))?;
                settings.options.insert(option.to_owned(), value.to_owned());
            }
        }
        if self.insecure_tls {
            let message = "certificates are not verified (--insecure-tls): anyone on the way can read along and answer";
            app.console.remark(Severity::Warning, message);
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_whole_number_of_kib_a_second() {
        assert_eq!(parse_rate("1"), Ok(1024));
        for bad in ["0", "-1", "1.5", "", "10M", "99999999999999999999", "18446744073709551615"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
