//! The configuration: repositories and profiles in a file, as arguments nobody has to type.
//!
//! A configured key *is* a flag (see [`schema`]): [`document`] reads the file and checks it
//! against the command line's own definition, [`resolve`] turns a profile into arguments and adds
//! them to those typed. What then runs is a command line like any other, so no verb knows that
//! there are configurations. Only options of storages, which may be secrets, go by another way:
//! never through arguments.
//!
//! One file is read: the one named, else the user's, else the system's. Issue by issue it may
//! learn more top-level tables; what it does not know it refuses.

mod cells;
mod document;
mod jobs;
mod json_schema;
mod keys;
mod resolve;
mod schema;
mod verb;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

use super::app::App;
use super::fail::usage;
use crate::error::{Error, Kind, Result};
use crate::monitor::Severity;
use crate::service::plan::Plan;
use crate::service::runner::Call;
use document::{Bases, Document, Fault, line_and_column};
use resolve::{Chosen, Named};
use schema::{Schema, nearest};

pub(super) use document::OptionValue;
pub(super) use verb::run;

/// No configuration is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The system's configuration.
const SYSTEM_FILE: &str = "/etc/esker/esker.toml";

/// The profile that is used when none is named.
const DEFAULT_PROFILE: &str = "default";

/// Verbs that need no configuration, and so must not fail for one.
const WITHOUT: [&str; 8] = ["completions", "config", "demo", "job", "man", "notify", "serve", "version"];

/// A command line with what is configured.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) args: Vec<OsString>,
    /// Options of the configured repository's storage.
    pub(super) options: Vec<(String, OptionValue)>,
    /// Those of the storage of the repository that things are brought to.
    pub(super) to_options: Vec<(String, OptionValue)>,
    /// Things to heed.
    pub(super) warnings: Vec<String>,
    /// The profile and the file, for when the whole is not understood.
    pub(super) by: Option<String>,
}

/// Adds to what was typed what is configured for it.
pub(super) fn add(args: Vec<OsString>, env: &BTreeMap<OsString, OsString>, cwd: &Path) -> Result<Added> {
    let Some(matches) = look(&args) else { return Ok(Added { args, ..Added::default() }) };
    let (verb, typed) = typed(&matches);
    if verb.first().is_none_or(|name| WITHOUT.contains(&name.as_str())) {
        return Ok(Added { args, ..Added::default() });
    }
    let path = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let profile = matches.get_one::<String>("profile");
    let mut warnings = Vec::new();
    let Some(file) = File::find(path, env, cwd, &mut warnings)? else {
        return match profile {
            Some(profile) => Err(usage(format!("there is no profile `{profile}`: there is no configuration"))
                .hint("name one with `--config FILE`")),
            None => Ok(Added { args, warnings, ..Added::default() }),
        };
    };
    let schema = Schema::new();
    let (document, faults) = file.read(&schema, env);
    if let Some(fault) = faults.first() {
        return Err(file.refused(fault, faults.len() - 1));
    }
    warnings.extend(file.warning(&document));
    let Some(name) = file.choose(&document, profile)? else {
        return Ok(Added { args, warnings, ..Added::default() });
    };
    let mut chosen = Chosen::new(&document, name).map_err(|fault| file.refused(&fault, 0))?;
    let named = Named { typed, env };
    if !named.no_place() {
        // How to get at one repository has no meaning for another.
        chosen.place = None;
    }
    let options = chosen.place.map(|(_, place)| place.options.clone()).unwrap_or_default();
    let args = chosen.add_to(&schema, &verb, args, &named);
    let by = Some(format!("profile `{name}` of `{}`", file.path.display()));
    Ok(Added { args, options, warnings, by, ..Added::default() })
}

/// What was typed, if it makes sense but for what may be configured.
fn look(args: &[OsString]) -> Option<ArgMatches> {
    match Schema::lenient().try_get_matches_from(args) {
        Ok(matches) => Some(matches),
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            Schema::lenient().ignore_errors(true).try_get_matches_from(args).ok()
        }
        Err(_) => None,
    }
}

/// The verb and the ids of what was typed.
fn typed(matches: &ArgMatches) -> (Vec<String>, BTreeSet<String>) {
    let (mut verb, mut typed, mut level) = (Vec::new(), BTreeSet::new(), Some(matches));
    while let Some(matches) = level {
        let given = matches.ids().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
        typed.extend(given.map(ToString::to_string));
        level = matches.subcommand().map(|(name, below)| {
            verb.push(name.to_owned());
            below
        });
    }
    (verb, typed)
}

/// A configuration as the service has it: read once, for any number of runs.
pub(super) struct Configured {
    /// The file.
    pub(super) path: PathBuf,
    /// What is to be done.
    pub(super) plan: Arc<Plan>,
    /// The hash of the file's text.
    #[cfg_attr(not(feature = "service"), allow(dead_code))]
    pub(super) digest: String,
    document: Document,
    schema: Schema,
}

impl Configured {
    /// Reads the configuration; all that is wrong with it is one error that names the first.
    pub(super) fn load(app: &App) -> Result<Self> {
        let mut warnings = Vec::new();
        let file = File::find(app.global.config.as_deref(), &app.env, &app.cwd, &mut warnings)?;
        let none = || {
            usage("there is no configuration").hint("name one with `--config FILE`; `esker config example` prints one")
        };
        let file = file.ok_or_else(none)?;
        let schema = Schema::new();
        let (document, mut faults) = file.read(&schema, &app.env);
        let (plan, more) = jobs::plan(&document, &schema);
        faults.extend(more);
        faults.sort_by_key(|fault| fault.at);
        if let Some(fault) = faults.first() {
            return Err(file.refused(fault, faults.len() - 1));
        }
        warnings.extend(file.warning(&document));
        warnings.iter().for_each(|warning| app.console.remark(Severity::Warning, warning));
        let digest = blake3::hash(file.text.as_bytes()).to_hex().to_string();
        Ok(Self { path: file.path, plan: Arc::new(plan), digest, document, schema })
    }

    /// The command line of a call: with how its repositories are reached. `global` comes before what is configured
    /// for a repository, which wins.
    pub(super) fn added(&self, call: &Call, global: &[OsString]) -> Result<Added> {
        let place = self.place(&call.repository)?;
        let mut args = vec![OsString::from("esker"), "--json".into()];
        let mine = self.flags(place, "");
        let name_of = |arg: &OsString| arg.to_string_lossy().split('=').next().unwrap_or_default().to_owned();
        args.extend(global.iter().filter(|arg| !mine.iter().any(|own| name_of(own) == name_of(arg))).cloned());
        args.extend(mine);
        args.extend(place.url.iter().map(|url| joined("--repo=", url)));
        let (verb, rest) = call.args.split_first().ok_or_else(|| usage("a job does nothing"))?;
        args.push(verb.clone());
        let target = call.target.as_ref().map(|target| self.place(target)).transpose()?;
        if let Some(target) = target {
            args.extend(target.url.iter().map(|url| joined("--to=", url)));
            args.extend(self.flags(target, "to-"));
        }
        args.extend(rest.iter().cloned());
        let to_options = target.map(|target| target.options.clone()).unwrap_or_default();
        let by = Some(format!("`{}`", self.path.display()));
        Ok(Added { args, options: place.options.clone(), to_options, warnings: Vec::new(), by })
    }

    /// Places of repositories that are directories here.
    #[cfg(feature = "service")]
    pub(super) fn local_places(&self) -> impl Iterator<Item = &Path> {
        let urls = self.document.repositories.values().filter_map(|place| place.url.as_deref());
        urls.map(Path::new).filter(|url| url.is_absolute())
    }

    fn place(&self, name: &str) -> Result<&document::Place> {
        self.document.repositories.get(name).ok_or_else(|| usage(format!("there is no repository `{name}`")))
    }

    /// How a place is reached and unlocked, as flags; of another repository, those that there are for one.
    fn flags(&self, place: &document::Place, prefix: &str) -> Vec<OsString> {
        let known = |setting: &document::Setting| match prefix {
            "" => self.schema.arg(&[] as &[&str], &setting.key),
            _ => self.schema.arg(&["copy"], &format!("{prefix}{}", setting.key)),
        };
        let flags = place.settings.values().filter_map(|setting| Some((known(setting)?, setting)));
        flags.flat_map(|(arg, setting)| document::arguments(arg, &setting.value)).collect()
    }
}

/// Whether there is a configuration, and there are jobs in it.
pub(super) fn has_jobs(app: &App) -> bool {
    let file = File::find(app.global.config.as_deref(), &app.env, &app.cwd, &mut Vec::new());
    file.ok().flatten().is_some_and(|file| !file.read(&Schema::new(), &app.env).0.jobs.is_empty())
}

fn joined(flag: &str, value: &OsStr) -> OsString {
    let mut whole = OsString::from(flag);
    whole.push(value);
    whole
}

fn variable<'e>(env: &'e BTreeMap<OsString, OsString>, name: &str) -> Option<&'e OsStr> {
    env.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
}

/// A configuration file as it was found.
struct File {
    path: PathBuf,
    text: String,
    mode: u32,
}

impl File {
    /// The file that is named, or the first of the usual ones that is there.
    fn find(
        given: Option<&Path>,
        env: &BTreeMap<OsString, OsString>,
        cwd: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>> {
        if let Some(path) = given.or_else(|| variable(env, "ESKER_CONFIG").map(Path::new)) {
            let file = Self::open(&cwd.join(path));
            return file.map(Some).map_err(|error| unreadable(path, error));
        }
        if let Some(path) = user_file(env) {
            match Self::open(&path) {
                Err(error) if is_absent(&error) => {}
                result => return result.map(Some).map_err(|error| unreadable(&path, error)),
            }
        }
        let path = Path::new(SYSTEM_FILE);
        match Self::open(path) {
            Err(error) if is_absent(&error) => Ok(None),
            // Root's, with root's secrets in it: nothing that others should be stopped by.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                warnings.push(format!("the configuration `{SYSTEM_FILE}` is not used: {error}"));
                Ok(None)
            }
            result => result.map(Some).map_err(|error| unreadable(path, error)),
        }
    }

    fn open(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let mode = match file.metadata()? {
            data if data.is_file() => data.permissions().mode(),
            data if data.is_dir() => return Err(std::io::ErrorKind::IsADirectory.into()),
            // A pipe or `/dev/null`; who can write to it is another question.
            _ => 0o600,
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8"))?;
        Ok(Self { path: path.to_owned(), text, mode })
    }

    fn read(&self, schema: &Schema, env: &BTreeMap<OsString, OsString>) -> (Document, Vec<Fault>) {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let variable = |name| variable(env, name).map(Path::new);
        let bases = Bases { dir, home: variable("HOME"), credentials: variable("CREDENTIALS_DIRECTORY") };
        let (document, mut faults) = document::read(&self.text, schema, bases);
        if self.mode & 0o002 != 0 {
            let message = "anybody may write to this file, and what it says is run: take that away with `chmod o-w`";
            faults.insert(0, Fault::new(0, message));
        }
        (document, faults)
    }

    /// A fault as an error, with how many more there are.
    fn refused(&self, fault: &Fault, more: usize) -> Error {
        let (line, column) = line_and_column(&self.text, fault.at);
        let path = self.path.display();
        let what = format!("cannot use the configuration `{path}`: line {line}, column {column}: {}", fault.message);
        match (&fault.hint, more) {
            (Some(hint), _) => usage(what).hint(hint.clone()),
            (None, 0) => usage(what),
            (None, _) => {
                usage(what).hint(format!("to see what else is wrong, run `esker config check --config {path}`"))
            }
        }
    }

    /// What to heed about who can read the file.
    fn warning(&self, document: &Document) -> Option<String> {
        (document.holds_secret && self.mode & 0o004 != 0).then(|| {
            let path = self.path.display();
            format!("the configuration `{path}` holds a secret and everybody can read it: run `chmod o-r {path}`")
        })
    }

    /// The profile to use, if any.
    fn choose<'d>(&self, document: &'d Document, wanted: Option<&String>) -> Result<Option<&'d str>> {
        let name = wanted.map_or(DEFAULT_PROFILE, String::as_str);
        match (document.profiles.get_key_value(name), wanted) {
            (Some((name, _)), _) => Ok(Some(name)),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let error =
                    usage(format!("there is no profile `{name}` in the configuration `{}`", self.path.display()));
                let names: Vec<_> = document.profiles.keys().map(|name| format!("`{name}`")).collect();
                Err(match nearest(name, document.profiles.keys().cloned()) {
                    Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                    None if names.is_empty() => error.hint("write one as `[profiles.NAME]`"),
                    None => error.hint(format!("it has {}", names.join(", "))),
                })
            }
        }
    }
}

/// Where a user's configuration is.
fn user_file(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let base = |name| variable(env, name).map(PathBuf::from).filter(|path| path.is_absolute());
    let dir = base("XDG_CONFIG_HOME").or_else(|| base("HOME").map(|home| home.join(".config")))?;
    Some(dir.join("esker/esker.toml"))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Kind::Failed, format!("cannot read the configuration `{}`", path.display())).because(error)
}
