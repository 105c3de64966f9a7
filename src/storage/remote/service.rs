//! What each kind of service is told from a URL and its options.
//!
//! Credentials are found by the library, in the places each provider documents; only what stands
//! in the configuration is handed over.

use opendal::Operator;

use super::options::Options;
use super::url::Url;
use super::{Kind, OpenError};
use crate::storage::{Error, ErrorKind};

/// The operator of a storage over HTTP, and its place for people.
pub(super) fn build(kind: Kind, url: &Url, options: &Options) -> Result<(Operator, String), OpenError> {
    match kind {
        #[cfg(feature = "s3")]
        Kind::S3 => s3(url, options),
        #[cfg(feature = "gcs")]
        Kind::Gcs => gcs(url, options),
        #[cfg(feature = "azblob")]
        Kind::Azblob => azblob(url, options),
        #[cfg(feature = "webdav")]
        Kind::Webdav => webdav(url, options),
        _ => Err(OpenError::usage(format!("this program was built without storages of the kind `{}:`", url.scheme))),
    }
}

fn finish(builder: impl opendal::Builder, place: &str) -> Result<Operator, OpenError> {
    Operator::new(builder).map_err(|fault| {
        let text = super::refusal::clean(fault.message(), &[]);
        Error::new(ErrorKind::Io, format!("cannot use `{place}`: {text}")).into()
    })
}

/// The endpoint that was given, as an option or in one of these variables.
fn endpoint(options: &Options, variables: &[&str]) -> Result<Option<String>, OpenError> {
    let from_environment =
        || variables.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let Some(endpoint) = options.get("endpoint").map(str::to_owned).or_else(from_environment) else {
        return Ok(None);
    };
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains(['@', '?', '#']) && !host.contains(char::is_whitespace) => {
            Ok(Some(endpoint))
        }
        // It is not shown: what stands before an `@` may be a password.
        _ => Err(OpenError::hinted("the endpoint is no URL of a server", "write `endpoint=https://HOST:PORT`")),
    }
}

/// The place with the endpoint: the same bucket at another server is another place.
fn place_at(url: &Url, endpoint: Option<&str>) -> String {
    match endpoint {
        Some(endpoint) => format!("{}?endpoint={endpoint}", url.place()),
        None => url.place(),
    }
}

#[cfg(feature = "s3")]
fn s3(url: &Url, options: &Options) -> Result<(Operator, String), OpenError> {
    let endpoint = endpoint(options, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
    let place = place_at(url, endpoint.as_deref());
    let mut s3 = opendal::services::S3::default().bucket(&url.authority).root(&url.path);
    if let Some(endpoint) = &endpoint {
        s3 = s3.endpoint(endpoint);
    }
    // A bucket with a dot has no certificate as a host name.
    let path_style = options.flag("path-style")?.unwrap_or(endpoint.is_some() || url.authority.contains('.'));
    if !path_style {
        s3 = s3.enable_virtual_host_style();
    }
    let from_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
    let region = options.get("region").map(str::to_owned).or_else(from_environment);
    s3 = s3.region(region.as_deref().unwrap_or("us-east-1"));
    match options.get("checksum") {
        None | Some("md5") => s3 = s3.checksum_algorithm("md5"),
        Some("crc32c") => s3 = s3.checksum_algorithm("crc32c"),
        Some("none") => {}
        Some(_) => return Err(OpenError::usage("option `checksum` is not `md5`, `crc32c` or `none`")),
    }
    if let Some(profile) = options.get("profile") {
        s3 = s3.profile(profile);
    }
    if let Some(role) = options.get("role-arn") {
        s3 = s3.role_arn(role).role_session_name("esker");
    }
    if let Some(id) = options.get("external-id") {
        s3 = s3.external_id(id);
    }
    if let Some(class) = options.get("storage-class") {
        s3 = s3.default_storage_class(class);
    }
    if let Some(algorithm) = options.get("sse") {
        s3 = s3.server_side_encryption(algorithm);
    }
    if let Some(key) = options.get("sse-kms-key-id") {
        s3 = s3.server_side_encryption_aws_kms_key_id(key);
    }
    match (options.get("access-key-id"), options.get("secret-access-key")) {
        (Some(id), Some(key)) => s3 = s3.access_key_id(id).secret_access_key(key),
        (None, None) => {}
        _ => {
            let what = "only one of `access-key-id` and `secret-access-key` is configured";
            return Err(OpenError::hinted(what, "give both, or neither"));
        }
    }
    if let Some(token) = options.get("session-token") {
        s3 = s3.session_token(token);
    }
    if options.flag("anonymous")? == Some(true) {
        s3 = s3.skip_signature();
    }
    if options.flag("metadata")? == Some(false) {
        s3 = s3.disable_ec2_metadata();
    }
    Ok((finish(s3, &place)?, place))
}

#[cfg(feature = "gcs")]
fn gcs(url: &Url, options: &Options) -> Result<(Operator, String), OpenError> {
    let endpoint = endpoint(options, &[])?;
    let place = place_at(url, endpoint.as_deref());
    let mut gcs = opendal::services::Gcs::default().bucket(&url.authority).root(&url.path);
    if let Some(endpoint) = &endpoint {
        gcs = gcs.endpoint(endpoint);
    }
    if let Some(path) = options.get("credential-path") {
        gcs = gcs.credential_path(path);
    }
    if let Some(class) = options.get("storage-class") {
        gcs = gcs.default_storage_class(class);
    }
    if let Some(credential) = options.get("credential") {
        gcs = gcs.credential(credential);
    }
    if let Some(token) = options.get("token") {
        gcs = gcs.token(token.to_owned());
    }
    if options.flag("anonymous")? == Some(true) {
        gcs = gcs.skip_signature();
    }
    if options.flag("metadata")? == Some(false) {
        gcs = gcs.disable_vm_metadata();
    }
    Ok((finish(gcs, &place)?, place))
}

#[cfg(feature = "azblob")]
fn azblob(url: &Url, options: &Options) -> Result<(Operator, String), OpenError> {
    let variables = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZBLOB_ACCOUNT_NAME"];
    let from_environment =
        || variables.iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let account = options.get("account").map(str::to_owned).or_else(from_environment);
    let given = endpoint(options, &["AZBLOB_ENDPOINT"])?;
    let endpoint = match (&given, &account) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(account)) => format!("https://{account}.blob.core.windows.net"),
        (None, None) => {
            let what = "the URL names a container and no storage account";
            return Err(OpenError::hinted(what, "add `-o account=NAME`, or set AZURE_STORAGE_ACCOUNT_NAME"));
        }
    };
    let place = place_at(url, Some(&endpoint));
    let mut azblob = opendal::services::Azblob::default().container(&url.authority).root(&url.path).endpoint(&endpoint);
    if let Some(account) = &account {
        azblob = azblob.account_name(account);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // With an account named by an option, the library takes no key from the environment.
    let key = options.get("account-key").map(str::to_owned);
    let key = key.or_else(|| variable("AZURE_STORAGE_ACCOUNT_KEY")).or_else(|| variable("AZBLOB_ACCOUNT_KEY"));
    if let Some(key) = key {
        azblob = azblob.account_key(&key);
    }
    let token = options.get("sas-token").map(str::to_owned).or_else(|| variable("AZURE_STORAGE_SAS_TOKEN"));
    if let Some(token) = token {
        azblob = azblob.sas_token(token.trim_start_matches('?'));
    }
    if options.flag("anonymous")? == Some(true) {
        azblob = azblob.skip_signature();
    }
    Ok((finish(azblob, &place)?, place))
}

#[cfg(feature = "webdav")]
fn webdav(url: &Url, options: &Options) -> Result<(Operator, String), OpenError> {
    let place = url.place();
    let scheme = if url.scheme == "webdav+http" { "http" } else { "https" };
    let endpoint = format!("{scheme}://{}", url.authority);
    let mut webdav = opendal::services::Webdav::default().endpoint(&endpoint).root(&url.path);
    if let Some(user) = options.get("username") {
        webdav = webdav.username(user);
    }
    if let Some(password) = options.get("password") {
        webdav = webdav.password(password);
    }
    if let Some(token) = options.get("token") {
        webdav = webdav.token(token);
    }
    Ok((finish(webdav, &place)?, place))
}
