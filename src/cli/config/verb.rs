//! `config`: whether the configuration makes sense, and what comes of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::document::{Fault, OptionValue, Value, is_secret, line_and_column, masked_url, may_hold_password};
use super::resolve::{Chosen, Named, Placed};
use super::schema::Schema;
use super::{DEFAULT_PROFILE, File};
use crate::cli::app::App;
use crate::cli::args::{ConfigArgs, ConfigVerb};
use crate::cli::fail::{Fail, Result, usage};
use crate::cli::text;
use crate::monitor::Severity;

/// What `config example` prints.
const EXAMPLE: &str = include_str!("../../../docs/esker.toml");

pub(in crate::cli) fn run(app: &App, args: &ConfigArgs) -> Result<()> {
    match args.verb {
        ConfigVerb::Example => return app.out.part(EXAMPLE),
        ConfigVerb::Schema => return app.out.line(&super::json_schema::make(&Schema::new()).to_string()),
        ConfigVerb::Check | ConfigVerb::Show => {}
    }
    let mut warnings = Vec::new();
    let file = File::find(app.global.config.as_deref(), &app.env, &app.cwd, &mut warnings)?;
    warnings.iter().for_each(|warning| app.console.remark(Severity::Warning, warning));
    let Some(file) = file else {
        if app.global.json {
            return app.out.json(&json!({ "message_type": "config", "file": null }));
        }
        return app.say("there is no configuration");
    };
    match args.verb {
        ConfigVerb::Check => check(app, &file),
        _ => show(app, &file),
    }
}

fn check(app: &App, file: &File) -> Result<()> {
    let schema = Schema::new();
    let (document, mut faults) = file.read(&schema, &app.env);
    let (plan, more) = super::jobs::plan(&document, &schema);
    faults.extend(more);
    let ends = document.profiles.keys().filter_map(|name| Chosen::new(&document, name).err());
    // What one profile says wrong is wrong in all that extend it.
    let ends: Vec<Fault> = ends.collect();
    for fault in ends {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    if let Some(warning) = file.warning(&document) {
        app.console.remark(Severity::Warning, &warning);
    }
    let path = text::plain(&file.path.display().to_string());
    for fault in &faults {
        let (line, column) = line_and_column(&file.text, fault.at);
        if app.global.json {
            let hint = fault.hint.as_ref();
            app.out.json(&json!({
                "message_type": "error",
                "file": path,
                "line": line,
                "column": column,
                "error": { "message": fault.message },
                "hint": hint,
            }))?;
        } else {
            let hint = fault.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let message = text::plain(&format!("{}{hint}", fault.message));
            app.console.print(&format!("error: {path}:{line}:{column}: {message}"));
        }
    }
    let (repositories, profiles) = (document.repositories.len() as u64, document.profiles.len() as u64);
    if app.global.json {
        app.out.json(&json!({
            "message_type": "summary",
            "file": path,
            "num_errors": faults.len(),
            "repositories": repositories,
            "profiles": profiles,
            "jobs": plan.jobs.len(),
        }))?;
    }
    if !faults.is_empty() {
        let count = text::count(faults.len() as u64, "fault", "faults");
        return Err(usage(format!("the configuration `{path}` cannot be used: {count}, named above")).into());
    }
    if app.global.json {
        return Ok(());
    }
    let repositories = text::count(repositories, "repository", "repositories");
    let profiles = text::count(profiles, "profile", "profiles");
    let jobs = match plan.jobs.len() as u64 {
        0 => String::new(),
        some => format!(", {}", text::count(some, "job", "jobs")),
    };
    app.say(&format!("{path} can be used: {repositories}, {profiles}{jobs}"))
}

fn show(app: &App, file: &File) -> Result<()> {
    let schema = Schema::new();
    let (document, faults) = file.read(&schema, &app.env);
    if let Some(fault) = faults.first() {
        return Err(file.refused(fault, faults.len() - 1).into());
    }
    if let Some(warning) = file.warning(&document) {
        app.console.remark(Severity::Warning, &warning);
    }
    let path = text::plain(&file.path.display().to_string());
    let Some(name) = file.choose(&document, app.global.profile.as_ref())? else {
        let names: Vec<_> = document.profiles.keys().cloned().collect();
        if app.global.json {
            let line = json!({ "message_type": "config", "file": path, "profile": null, "profiles": names });
            return app.out.json(&line);
        }
        app.out.line(&format!("# {path}: no profile is used; there is none named `{DEFAULT_PROFILE}`"))?;
        let names = names.iter().map(|name| format!("`-P {}`", text::plain(name))).collect::<Vec<_>>().join(", ");
        return if names.is_empty() { Ok(()) } else { app.out.line(&format!("# to use one, add {names}")) };
    };
    let mut chosen = Chosen::new(&document, name).map_err(|fault| Fail::Error(file.refused(&fault, 0)))?;
    let typed = app.global.repo.iter().map(|_| "repo".to_owned()).collect();
    let named = Named { typed, env: &app.env };
    let unused = chosen.place.take_if(|_| !named.no_place()).map(|(name, _)| name);
    let shown = Shown { schema: &schema, chosen: &chosen, named: &named, unused, text: &file.text };
    if app.global.json { shown.json(app, &path, name) } else { shown.lines(app, &path, name) }
}

/// A profile as it works out.
struct Shown<'a> {
    schema: &'a Schema,
    chosen: &'a Chosen<'a>,
    named: &'a Named<'a>,
    /// The repository that another one is used instead of.
    unused: Option<&'a str>,
    text: &'a str,
}

impl Shown<'_> {
    /// What is set for a verb and not already for all.
    fn of(&self, verb: &[String]) -> BTreeMap<String, Placed> {
        let mut settings = self.chosen.settings(self.schema, verb);
        if !verb.is_empty() {
            let own = format!(".{}", verb.join("."));
            settings.retain(|_, placed| placed.table.ends_with(&own));
        }
        settings
    }

    fn lines(&self, app: &App, path: &str, name: &str) -> Result<()> {
        let bases: Vec<_> = self.chosen.chain.iter().rev().skip(1).map(|(name, _)| format!("`{name}`")).collect();
        let bases = if bases.is_empty() { String::new() } else { format!(", which extends {}", bases.join(", ")) };
        app.out.line(&text::plain(&format!("# {path}, profile `{name}`{bases}")))?;
        if let Some(name) = self.unused {
            app.out.line(&text::plain(&format!("# not repositories.{name}: another repository is named")))?;
        }
        if let Some((name, place)) = &self.chosen.place {
            let url = place.url.as_ref().map(|url| masked_url(url)).unwrap_or_default();
            app.out.line(&text::plain(&format!("repo = {}  # repositories.{name}", json!(url))))?;
            for (key, value) in &place.options {
                let value = match masked(key, value) {
                    Json::Object(map) => {
                        let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                        format!("{{ {} }}", pairs.join(", "))
                    }
                    value => value.to_string(),
                };
                app.out.line(&text::plain(&format!("options.{key} = {value}")))?;
            }
        }
        let line = |app: &App, verb: &[String], id: &str, placed: &Placed| {
            let (line, _) = line_and_column(self.text, placed.setting.at);
            let instead = self.named.variable(self.schema, verb, id);
            let instead = instead.map(|name| format!("; {name} is used")).unwrap_or_default();
            let value = plain_value(&placed.setting.key, &placed.setting.value);
            let text = format!("{} = {value}  # {}, line {line}{instead}", placed.setting.key, placed.table);
            app.out.line(&text::plain(&text))
        };
        for (id, placed) in self.of(&[]) {
            line(app, &[], &id, &placed)?;
        }
        for verb in self.chosen.verbs() {
            app.out.line(&format!("\n[{}]", verb.join(".")))?;
            for (id, placed) in self.of(verb) {
                line(app, verb, &id, &placed)?;
            }
        }
        Ok(())
    }

    fn json(&self, app: &App, path: &str, name: &str) -> Result<()> {
        let object = |verb: &[String]| {
            let pairs = self.of(verb).into_values();
            Json::Object(
                pairs.map(|one| (one.setting.key.clone(), plain_value(&one.setting.key, &one.setting.value))).collect(),
            )
        };
        let verbs: Map<String, Json> =
            self.chosen.verbs().into_iter().map(|verb| (verb.join("."), object(verb))).collect();
        let place = self.chosen.place.map(|(name, place)| {
            let options: Map<String, Json> =
                place.options.iter().map(|(key, value)| (key.clone(), masked(key, value))).collect();
            json!({ "name": name, "url": place.url.as_ref().map(|url| masked_url(url)), "options": options })
        });
        app.out.json(&json!({
            "message_type": "config",
            "file": path,
            "profile": name,
            "chain": self.chosen.chain.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "repository": place,
            "settings": object(&[]),
            "verbs": verbs,
        }))
    }
}

/// The value of a key; of a command, which may hold what it should not, its program only.
fn plain_value(key: &str, value: &Value) -> Json {
    let word = |word: &std::ffi::OsString| {
        let text = word.to_string_lossy().into_owned();
        match text.split_once(' ') {
            Some((program, _)) if key.ends_with("password-command") => format!("{program} …"),
            _ => text,
        }
    };
    match value {
        Value::Switch(on) => json!(on),
        Value::Count(count) => json!(count),
        Value::Words(words) if words.len() == 1 => json!(word(&words[0])),
        Value::Words(words) => json!(words.iter().map(word).collect::<Vec<_>>()),
    }
}

fn masked(key: &str, value: &OptionValue) -> Json {
    match value {
        OptionValue::Text(text) if is_secret(key) || may_hold_password(text) => json!("…"),
        OptionValue::Text(text) => json!(text),
        OptionValue::File(path) => json!({ "file": path.to_string_lossy() }),
        OptionValue::Command(command) => json!({ "command": command.split(' ').next() }),
        OptionValue::Variable(name) => json!({ "env": name }),
    }
}
