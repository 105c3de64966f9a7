//! A configuration file: its bytes, checked against what the command line knows.
//!
//! Everything in it keeps the place it stands at, so that a fault found late, such as a profile
//! that no other table has, is still told by line and column. All faults are found in one go.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Arg;
use clap::error::ErrorKind;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::{NOTIFIER, SERVICE, STORE, TIER, Table};
use super::schema::{Schema, Shape, is_path, nearest};
use crate::service::plan::Found;
use crate::storage::remote::url::{of_ssh_place, port_of};

/// A file as it was read.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) repositories: BTreeMap<String, Place>,
    pub(super) profiles: BTreeMap<String, Profile>,
    /// `[service]`, and the service's tables with names.
    pub(super) service: Table,
    pub(super) tiers: BTreeMap<String, Table>,
    pub(super) jobs: BTreeMap<String, JobTable>,
    pub(super) notifiers: BTreeMap<String, Table>,
    /// Whether a secret stands in it as it is.
    pub(super) holds_secret: bool,
}

/// A table of `[repositories]`: a place and how to get at it.
#[derive(Default)]
pub(super) struct Place {
    pub(super) url: Option<OsString>,
    pub(super) settings: Settings,
    pub(super) options: Vec<(String, OptionValue)>,
    /// What the service has to know of it.
    pub(super) store: Table,
}

/// A table of `[jobs]`.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    /// What the service has to know.
    pub(super) table: Table,
    /// The verb, in words.
    pub(super) verb: Vec<String>,
    /// What the verb is told.
    pub(super) settings: Settings,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({:?}, {:?})", self.url.as_deref().map(masked_url), self.options)
    }
}

/// A table of `[profiles]`.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) extends: Vec<Spanned<String>>,
    pub(super) repository: Option<Spanned<String>>,
    pub(super) settings: Settings,
    /// By verb; that of `key add` is `["key", "add"]`.
    pub(super) verbs: BTreeMap<Vec<String>, Settings>,
}

/// What a table sets, by the id of the argument.
pub(super) type Settings = BTreeMap<String, Setting>;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) at: usize,
}

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    Count(u8),
    Words(Vec<OsString>),
}

/// The value of a storage option: itself, or where it is found when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) enum OptionValue {
    Text(String),
    File(PathBuf),
    Command(String),
    Variable(String),
}

impl std::fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OptionValue")
    }
}

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// An unknown word where only these can stand.
    pub(super) fn unknown(at: usize, what: &str, word: &str, known: impl IntoIterator<Item = String>) -> Self {
        let fault = Self::new(at, format!("unknown {what} `{word}`"));
        match nearest(word, known) {
            Some(meant) => fault.hint(format!("did you mean `{meant}`?")),
            None => fault,
        }
    }
}

/// Line and column of a place in a text, from 1.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Where paths in a file begin: at its directory, with `~` at the home directory, with
/// `$CREDENTIALS_DIRECTORY` where a service manager has put secrets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bases<'a> {
    pub(super) dir: &'a Path,
    pub(super) home: Option<&'a Path>,
    pub(super) credentials: Option<&'a Path>,
}

/// Reads a file's text.
pub(super) fn read(text: &str, schema: &Schema, bases: Bases<'_>) -> (Document, Vec<Fault>) {
    let mut document = Document::default();
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let at = error.span().map_or(0, |span: Range<usize>| span.start);
            return (document, vec![Fault::new(at, error.message().to_owned())]);
        }
    };
    let mut reading = Reading { schema, bases, faults: Vec::new() };
    for (key, value) in &table {
        match &**key.get_ref() {
            "repositories" => reading.named(key.get_ref(), value, |reading, name, at, table| {
                let place = reading.place(at, table);
                document.repositories.insert(name.to_owned(), place);
            }),
            "profiles" => reading.named(key.get_ref(), value, |reading, name, _, table| {
                let profile = reading.profile(table);
                document.profiles.insert(name.to_owned(), profile);
            }),
            "service" => document.service = reading.table("service", SERVICE, value),
            "tiers" => reading.named(key.get_ref(), value, |reading, name, at, table| {
                let tier = reading.cells(TIER, at, table);
                document.tiers.insert(name.to_owned(), tier);
            }),
            "jobs" => reading.named(key.get_ref(), value, |reading, name, at, table| {
                let job = reading.job(at, table);
                document.jobs.insert(name.to_owned(), job);
            }),
            "notifiers" => reading.named(key.get_ref(), value, |reading, name, at, table| {
                let notifier = reading.cells(NOTIFIER, at, table);
                document.notifiers.insert(name.to_owned(), notifier);
            }),
            other => {
                let known = ["repositories", "profiles", "service", "tiers", "jobs", "notifiers"].map(String::from);
                reading.faults.push(Fault::unknown(key.span().start, "table", other, known));
            }
        }
    }
    document.holds_secret = document.repositories.values().any(Place::holds_secret);
    let mut faults = reading.faults;
    faults.sort_by_key(|fault| fault.at);
    (document, faults)
}

impl Place {
    fn holds_secret(&self) -> bool {
        let literal = |(key, value): &(String, OptionValue)| matches!(value, OptionValue::Text(_)) && is_secret(key);
        self.options.iter().any(literal)
            || self.url.as_ref().is_some_and(|url| masked_url(url) != url.to_string_lossy())
    }
}

/// Whether an option of this name is not for everybody's eyes.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let secret =
        ["access_key", "secret", "password", "passphrase", "token", "credential", "account_key", "sas", "signature"];
    secret.iter().any(|word| key.contains(word))
}

/// Whether the value of an option may be a URL, such as an endpoint's, with a password in it.
pub(super) fn may_hold_password(value: &str) -> bool {
    value.contains('@') || value.contains("%40")
}

/// A URL without what only its owner should know.
pub(super) fn masked_url(url: &OsStr) -> String {
    let url = url.to_string_lossy();
    let whole = of_ssh_place(&url);
    let masked = masked_parts(&whole);
    if masked == whole { url.into_owned() } else { masked }
}

fn masked_parts(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else { return url.to_owned() };
    let Some(rest) = rest.strip_prefix("//") else {
        // A path, or a URL without its slashes, in which nobody can tell what is what.
        let is_path = scheme.contains('/') || !rest.contains('@');
        return if is_path { url.to_owned() } else { format!("{scheme}:…") };
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A password may hold what ends an authority: then only the colon is left of `user:password@host`.
    let broken = port_of(authority).is_some_and(|port| !port.bytes().all(|digit| digit.is_ascii_digit()));
    let authority = match authority.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => format!("{user}:…@{host}"),
        _ if broken => return format!("{scheme}://{}:…", authority.split(':').next().unwrap_or_default()),
        _ => authority.to_owned(),
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mask = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if is_secret(key) || may_hold_password(value) => format!("{key}=…"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
}

pub(super) struct Reading<'a> {
    pub(super) schema: &'a Schema,
    pub(super) bases: Bases<'a>,
    pub(super) faults: Vec<Fault>,
}

pub(super) type Node<'i> = Spanned<DeValue<'i>>;

impl Reading<'_> {
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault::new(at, message));
    }

    /// Calls `take` with each table of a table of tables.
    fn named<'i>(&mut self, what: &str, value: &Node<'i>, mut take: impl FnMut(&mut Self, &str, usize, &DeTable<'i>)) {
        let DeValue::Table(tables) = value.get_ref() else {
            let found = value.get_ref().type_str();
            return self.fault(value.span().start, format!("`{what}` holds tables with names, found {found}"));
        };
        for (name, value) in tables {
            match value.get_ref() {
                DeValue::Table(table) => take(self, name.get_ref(), name.span().start, table),
                other => {
                    let (name, found) = (name.get_ref(), other.type_str());
                    self.fault(value.span().start, format!("`{what}.{name}` is a table, found {found}"));
                }
            }
        }
    }

    fn place(&mut self, at: usize, table: &DeTable<'_>) -> Place {
        let mut place = Place { store: Table { at, ..Table::default() }, ..Place::default() };
        let keys = || self.schema.keys(&[] as &[&str]).into_iter().filter(|key| self.is_setting(&[], key));
        let of_service = STORE.iter().map(|key| key.name.to_owned());
        let known: Vec<_> = keys().chain(["url".into(), "options".into()]).chain(of_service).collect();
        for (key, value) in table {
            match &**key.get_ref() {
                name if STORE.iter().any(|known| known.name == name) => self.cell(STORE, key, value, &mut place.store),
                "url" => {
                    place.url = self.text(key.get_ref(), value).map(|url| {
                        let has_scheme = url.split_once(':').is_some_and(|(scheme, _)| {
                            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
                        });
                        if has_scheme { url.into() } else { self.path(&url).into() }
                    });
                }
                "options" => place.options = self.options(value),
                name => self.setting(&[], name, key.span().start, value, &known, &mut place.settings),
            }
        }
        self.check_values(&[], &place.settings);
        place
    }

    fn options(&mut self, value: &Node<'_>) -> Vec<(String, OptionValue)> {
        let DeValue::Table(table) = value.get_ref() else {
            let found = value.get_ref().type_str();
            self.fault(value.span().start, format!("`options` is a table, found {found}"));
            return Vec::new();
        };
        let mut options = Vec::new();
        for (key, value) in table {
            let secret = match value.get_ref() {
                DeValue::Boolean(_) => value.get_ref().as_bool().map(|given| OptionValue::Text(given.to_string())),
                _ => self.found(key.get_ref(), value).map(|found| self.option(found)),
            };
            options.extend(secret.map(|secret| (key.get_ref().clone().into_owned(), secret)));
        }
        options
    }

    fn option(&self, found: Found) -> OptionValue {
        match found {
            Found::Text(text) => OptionValue::Text(text),
            Found::File(path) => OptionValue::File(path),
            Found::Command(command) => OptionValue::Command(command),
            Found::Variable(variable) => OptionValue::Variable(variable),
            Found::Credential(name) => OptionValue::File(self.path(&format!("$CREDENTIALS_DIRECTORY/{name}"))),
        }
    }

    fn profile(&mut self, table: &DeTable<'_>) -> Profile {
        let mut profile = Profile::default();
        let known = self.schema.keys(&[] as &[&str]).into_iter().chain(["extends".into(), "repository".into()]);
        let known: Vec<_> = known.collect();
        for (key, value) in table {
            match &**key.get_ref() {
                "extends" => {
                    let one = std::slice::from_ref(value);
                    let all: Vec<&Node<'_>> = match value.get_ref() {
                        DeValue::Array(list) => list.iter().collect(),
                        _ => one.iter().collect(),
                    };
                    for value in all {
                        profile
                            .extends
                            .extend(self.text("extends", value).map(|name| Spanned::new(value.span(), name)));
                    }
                }
                "repository" => {
                    let name = self.text("repository", value);
                    profile.repository = name.map(|name| Spanned::new(value.span(), name));
                }
                name if self.schema.command(&[name]).is_some() => {
                    self.verb(&[name.to_owned()], value, &mut profile.verbs);
                }
                name => self.setting(&[], name, key.span().start, value, &known, &mut profile.settings),
            }
        }
        self.check_values(&[], &profile.settings);
        profile
    }

    fn verb(&mut self, verb: &[String], value: &Node<'_>, verbs: &mut BTreeMap<Vec<String>, Settings>) {
        let DeValue::Table(table) = value.get_ref() else {
            let (name, found) = (verb.join("."), value.get_ref().type_str());
            return self.fault(value.span().start, format!("`{name}` is a verb and so a table, found {found}"));
        };
        let mut settings = Settings::new();
        let known = self.schema.keys(verb);
        for (key, value) in table {
            let name = &**key.get_ref();
            let below: Vec<String> = verb.iter().cloned().chain([name.to_owned()]).collect();
            if self.schema.command(&below).is_some() {
                self.verb(&below, value, verbs);
            } else {
                self.setting(verb, name, key.span().start, value, &known, &mut settings);
            }
        }
        self.check_values(verb, &settings);
        verbs.insert(verb.to_vec(), settings);
    }

    fn is_setting(&self, verb: &[String], key: &str) -> bool {
        self.schema.arg(verb, key).is_some()
    }

    pub(super) fn setting(
        &mut self,
        verb: &[String],
        name: &str,
        at: usize,
        value: &Node<'_>,
        known: &[String],
        settings: &mut Settings,
    ) {
        let Some(arg) = self.schema.arg(verb, name) else {
            let fault = match name {
                "password" => Fault::new(at, "a password does not stand in a configuration")
                    .hint("name where it is: `password-file` or `password-command`"),
                "repo" | "repository" | "url" => Fault::new(at, format!("`{name}` does not stand here")).hint(
                    "describe the place as `[repositories.NAME]`, and write `repository = \"NAME\"` in a profile",
                ),
                _ => Fault::unknown(at, "key", name, known.iter().cloned()),
            };
            return self.faults.push(fault);
        };
        let (id, arg) = (arg.get_id().to_string(), arg.clone());
        if let Some(value) = self.value(&arg, name, value) {
            settings.insert(id, Setting { key: name.to_owned(), value, at });
        }
    }

    fn value(&mut self, arg: &Arg, key: &str, value: &Node<'_>) -> Option<Value> {
        let shape = Shape::of(arg);
        let word = |reading: &mut Self, node: &Node<'_>| -> Option<OsString> {
            let text = reading.word(key, node)?;
            Some(if is_path(arg) { reading.path(&text).into() } else { text.into() })
        };
        let given = match (shape, value.get_ref()) {
            (Shape::Switch, DeValue::Boolean(given)) => Some(Value::Switch(*given)),
            (Shape::Count, DeValue::Boolean(given)) => Some(Value::Count(u8::from(*given))),
            (Shape::Count, DeValue::Integer(number)) => {
                decimal(number).parse().ok().filter(|count| *count <= 9).map(Value::Count)
            }
            (Shape::Many, DeValue::Array(list)) => {
                let words: Vec<_> = list.iter().map(|node| word(self, node)).collect();
                return words.into_iter().collect::<Option<_>>().map(Value::Words);
            }
            (Shape::One | Shape::Many, DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_)) => {
                return word(self, value).map(|word| Value::Words(vec![word]));
            }
            _ => None,
        };
        if given.is_none() {
            let (expected, found) = (shape.expected(), value.get_ref().type_str());
            self.fault(value.span().start, format!("`{key}` takes {expected}, found {found}"));
        }
        given
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str, value: &Node<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.clone().into_owned()),
            DeValue::String(_) => {
                self.fault(value.span().start, format!("`{key}` is empty"));
                None
            }
            other => {
                self.fault(value.span().start, format!("`{key}` takes a string, found {}", other.type_str()));
                None
            }
        }
    }

    /// A string or a number, as it would be typed.
    pub(super) fn word(&mut self, key: &str, value: &Node<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::Integer(number) => Some(decimal(number)),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            _ => self.text(key, value),
        }
    }

    pub(super) fn path(&self, text: &str) -> PathBuf {
        if let (Some(below), Some(base)) = (text.strip_prefix("$CREDENTIALS_DIRECTORY/"), self.bases.credentials) {
            return base.join(below);
        }
        match (text.strip_prefix('~'), self.bases.home) {
            (Some(""), Some(home)) => home.to_owned(),
            (Some(below), Some(home)) if below.starts_with('/') => home.join(below.trim_start_matches('/')),
            // The standard input stays that.
            _ if text == "-" => text.into(),
            _ => self.bases.dir.join(text),
        }
    }

    /// Has clap look at the values of a table: all at once, one by one when something is wrong.
    pub(super) fn check_values(&mut self, verb: &[String], settings: &Settings) {
        if settings.is_empty() || self.parsed(verb, settings.values()).is_ok() {
            return;
        }
        let mut found = false;
        for setting in settings.values() {
            if let Err(message) = self.parsed(verb, [setting]) {
                found = true;
                self.fault(setting.at, format!("`{}`: {message}", setting.key));
            }
        }
        if let (false, Err(message)) = (found, self.parsed(verb, settings.values())) {
            let at = settings.values().map(|setting| setting.at).max().unwrap_or_default();
            self.fault(at, format!("these do not go together: {message}"));
        }
    }

    fn parsed<'s>(&self, verb: &[String], settings: impl IntoIterator<Item = &'s Setting>) -> Result<(), String> {
        let mut args: Vec<OsString> =
            std::iter::once("esker").chain(verb.iter().map(String::as_str)).map(Into::into).collect();
        for setting in settings {
            let Some(arg) = self.schema.arg(verb, &setting.key) else { continue };
            args.extend(arguments(arg, &setting.value));
        }
        let answer =
            Schema::lenient().subcommand_required(false).arg_required_else_help(false).try_get_matches_from(args);
        let Err(error) = answer else { return Ok(()) };
        match error.kind() {
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
            _ => Err(said(&error)),
        }
    }
}

/// What clap says is wrong, in a line.
pub(super) fn said(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    match lines.next() {
        Some(second) if second.starts_with('[') => format!("{first} {second}"),
        _ => first,
    }
}

/// A setting as it would be typed. Nothing for a switch that is off.
pub(super) fn arguments(arg: &Arg, value: &Value) -> Vec<OsString> {
    let flag = |word: Option<&OsString>| {
        let mut typed = OsString::from(format!("--{}", arg.get_long().unwrap_or_default()));
        if let Some(word) = word {
            typed.push("=");
            typed.push(word);
        }
        typed
    };
    match value {
        Value::Switch(false) => Vec::new(),
        Value::Switch(true) => vec![flag(None)],
        Value::Count(count) => (0..*count).map(|_| flag(None)).collect(),
        Value::Words(words) if arg.is_positional() => words.clone(),
        Value::Words(words) => words.iter().map(|word| flag(Some(word))).collect(),
    }
}

pub(super) fn decimal(number: &DeInteger<'_>) -> String {
    let digits = number.as_str().replace('_', "");
    i64::from_str_radix(&digits, number.radix()).map_or(digits, |number| number.to_string())
}
