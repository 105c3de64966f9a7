//! What a message looks like: templates in minijinja's language, each value escaped for where it goes.
//!
//! Values come from names of files and from what servers say, so nothing in them may become a mention, a link or a
//! field of its own. A template that fails does not silence an alert: what the channel has of its own is sent, with why.

use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior};
use serde_json::Value;

use crate::service::plan::{Channel, Notifier};

/// How values are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Each is a JSON value, strings with their quotes.
    Json,
    /// Slack's `mrkdwn`, and what others make of it.
    Slack,
    /// HTML.
    Html,
    /// Plain text.
    None,
}

/// The text of a message to Slack.
pub(super) const SLACK: &str = "*{{ title }}*\n{{ rule }} · {{ subject }} · {{ host }} · since {{ since }}\
    {% if detail %}\n```{{ detail }}```{% endif %}";

/// The text of a mail.
pub(super) const MAIL: &str = "{{ title }}\n\n{% if detail %}{{ detail }}\n\n{% endif %}\
    rule: {{ rule }}\nsubject: {{ subject }}\nhost: {{ host }}\nsince: {{ since }}\ntold: {{ time }}\n";

/// `template` with the values of `context`.
pub fn render(template: &str, context: &Value, escape: Escape) -> Result<String, String> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(move |_| match escape {
        Escape::Json => AutoEscape::Json,
        Escape::Html => AutoEscape::Html,
        Escape::Slack => AutoEscape::Custom("slack".into()),
        Escape::None => AutoEscape::None,
    });
    env.set_formatter(format);
    let text = env.render_named_str("template", template, value(context)).map_err(|error| describe(&error))?;
    if escape == Escape::Json {
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|error| format!("it does not make JSON: {error}"))?;
    }
    Ok(text)
}

/// Whether the template of `notifier` can be rendered, for an alert of a job and for one of a repository.
pub fn check(notifier: &Notifier) -> Result<(), String> {
    use crate::service::alerts::{Alert, Message, Rule, Severity, State};
    let Some(template) = &notifier.template else { return Ok(()) };
    let alert = Alert::new(Rule::Failed, "example", Severity::Warning, "an \"example\"", "a\nb");
    let of_job = ["job", "tier", "repository"].iter().fold(alert.clone(), |alert, name| alert.label(name, "example"));
    for (alert, state) in [(of_job, State::Fired), (alert, State::Resolved)] {
        let message = Message { state, alert, since_ms: 0, until_ms: 1000, at_ms: 1000 };
        render(template, &super::context::of(&message, "host"), escape_of(&notifier.channel))?;
    }
    Ok(())
}

/// How values are escaped for `channel`.
pub(super) fn escape_of(channel: &Channel) -> Escape {
    match channel {
        Channel::Slack { .. } => Escape::Slack,
        Channel::Webhook { headers, .. } => {
            let named = |(name, _): &(&String, &crate::service::plan::Found)| name.eq_ignore_ascii_case("content-type");
            match headers.iter().find(named).map(|(_, kind)| kind) {
                Some(crate::service::plan::Found::Text(kind)) if kind.contains("html") => Escape::Html,
                Some(crate::service::plan::Found::Text(kind)) if !kind.contains("json") => Escape::None,
                _ => Escape::Json,
            }
        }
        _ => Escape::None,
    }
}

fn describe(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let at = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    format!("{}{detail}{at}", error.kind())
}

fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &minijinja::Value) -> Result<(), Error> {
    match state.auto_escape() {
        AutoEscape::Custom(_) if value.is_safe() => Ok(write!(out, "{value}")?),
        AutoEscape::Custom(_) if !value.is_undefined() => Ok(out.write_str(&slack(&value.to_string()))?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Text that is text in Slack and in what understands its webhooks (Mattermost, Rocket.Chat, …): no mention, no link,
/// and no end of a code block.
pub(super) fn slack(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '`' => out.push('\''),
            '@' => out.push_str("@\u{200b}"),
            ']' if text[at..].starts_with("](") => out.push_str("]\u{200b}"),
            ':' if text[at..].starts_with("://") => out.push_str(":\u{200b}"),
            c => out.push(c),
        }
    }
    out
}

fn value(json: &Value) -> minijinja::Value {
    match json {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(value) => minijinja::Value::from(*value),
        Value::Number(value) => match value.as_i64() {
            Some(value) => minijinja::Value::from(value),
            None => minijinja::Value::from(value.as_f64().unwrap_or_default()),
        },
        Value::String(value) => minijinja::Value::from(value.as_str()),
        Value::Array(values) => values.iter().map(self::value).collect(),
        Value::Object(map) => {
            let map = map.iter().map(|(key, json)| (key.clone(), self::value(json)));
            map.collect::<std::collections::BTreeMap<_, _>>().into()
        }
    }
}
