//! The JSON schema of configurations, for editors: made from the lists by which they are read.

use clap::Arg;
use serde_json::{Map, Value, json};

use super::keys::{Form, JOB, Key, NOTIFIER, SERVICE, STORE, TIER};
use super::schema::{Schema, Shape, key_of};

/// The whole schema, draft 2020-12.
pub(super) fn make(schema: &Schema) -> Value {
    let root = &[] as &[&str];
    let place = {
        let mut keys = flags(schema, root);
        keys.extend(listed(schema, STORE));
        keys.insert("url".into(), described(text(), "Where it is: a directory or a URL"));
        let value = json!({ "type": ["string", "number", "boolean", "object"] });
        keys.insert("options".into(), json!({ "type": "object", "additionalProperties": value }));
        closed(keys)
    };
    let profile = {
        let mut keys = flags(schema, root);
        keys.insert("extends".into(), described(one_or_many(text()), "Profiles this one builds on"));
        keys.insert("repository".into(), described(text(), "The repository, by its name in [repositories]"));
        for verb in schema.command(root).into_iter().flat_map(clap::Command::get_subcommands) {
            keys.insert(verb.get_name().to_owned(), verb_table(schema, &mut vec![verb.get_name().to_owned()]));
        }
        closed(keys)
    };
    // Which flags a job has depends on its verb; `config check` knows.
    let mut job = flags(schema, &["backup"]);
    job.extend(listed(schema, JOB));
    let job = json!({ "type": "object", "properties": job });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of Esker",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "repositories": named(place),
            "profiles": named(profile),
            "service": closed(listed(schema, SERVICE)),
            "tiers": named(closed(listed(schema, TIER))),
            "jobs": named(job),
            "notifiers": named(closed(listed(schema, NOTIFIER))),
        },
    })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn one_or_many(one: Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one }] })
}

fn described(mut value: Value, about: &str) -> Value {
    value["description"] = about.into();
    value
}

fn closed(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn named(table: Value) -> Value {
    json!({ "type": "object", "additionalProperties": table })
}

fn verb_table(schema: &Schema, verb: &mut Vec<String>) -> Value {
    let mut keys = flags(schema, verb);
    let below: Vec<String> = schema
        .command(verb)
        .into_iter()
        .flat_map(clap::Command::get_subcommands)
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in below {
        verb.push(name.clone());
        keys.insert(name, verb_table(schema, verb));
        verb.pop();
    }
    closed(keys)
}

fn flags<S: AsRef<str>>(schema: &Schema, verb: &[S]) -> Map<String, Value> {
    let Some(command) = schema.command(verb) else { return Map::new() };
    command.get_arguments().filter_map(|arg| Some((key_of(command, arg)?, flag(arg)))).collect()
}

fn flag(arg: &Arg) -> Value {
    let word = json!({ "type": ["string", "number"] });
    let value = match Shape::of(arg) {
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Count => json!({ "type": ["boolean", "integer"] }),
        Shape::One => word,
        Shape::Many => one_or_many(word),
    };
    described(value, &arg.get_help().map(ToString::to_string).unwrap_or_default())
}

fn listed(schema: &Schema, keys: &[Key]) -> Map<String, Value> {
    keys.iter().map(|key| (key.name.to_owned(), described(form(schema, key.form), key.about))).collect()
}

fn form(schema: &Schema, form: Form) -> Value {
    let found = || {
        let one = |name: &str| json!({ "type": "object", "properties": { name: text() }, "required": [name], "additionalProperties": false });
        ["file", "command", "env", "credential"].map(one).to_vec()
    };
    let or_text = |mut ways: Vec<Value>| {
        ways.push(text());
        json!({ "anyOf": ways })
    };
    let words = || json!({ "type": "array", "items": { "type": ["string", "number"] }, "minItems": 1 });
    match form {
        Form::Text | Form::Path | Form::Length => text(),
        Form::Word(words) => json!({ "enum": words }),
        Form::Texts | Form::Paths | Form::Schedule => one_or_many(text()),
        Form::Size => json!({ "type": ["string", "integer"] }),
        Form::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Percent => json!({ "type": ["string", "number"] }),
        Form::Switch => json!({ "type": "boolean" }),
        Form::Address => json!({ "anyOf": [text(), { "const": false }] }),
        Form::Command => json!({ "anyOf": [text(), words()] }),
        Form::Commands => one_or_many(json!({ "anyOf": [text(), words()] })),
        Form::Secret => json!({ "anyOf": found() }),
        Form::Found => or_text(found()),
        Form::Founds => json!({ "type": "object", "additionalProperties": or_text(found()) }),
        Form::Switched(keys) => json!({ "anyOf": [{ "type": "boolean" }, closed(listed(schema, keys))] }),
        Form::Task(verb) => {
            let mut keys = flags(schema, &[verb]);
            keys.insert("schedule".into(), one_or_many(text()));
            let mut table = closed(keys);
            table["required"] = json!(["schedule"]);
            json!({ "anyOf": [one_or_many(text()), table] })
        }
        Form::Flags(verb) => closed(flags(schema, &[verb])),
    }
}
