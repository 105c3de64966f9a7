//! Reads the service's tables by the lists of their keys.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::document::{Fault, JobTable, Node, Reading, Settings, decimal};
use super::keys::{Cell, Form, JOB, Key, Table, Task};
use crate::cli::text::parse_bytes;
use crate::cli::time::parse_age;
use crate::service::plan::Found;

type Name<'i> = toml::Spanned<std::borrow::Cow<'i, str>>;

impl Reading<'_> {
    /// A table of its own, such as `[service]`.
    pub(super) fn table(&mut self, name: &str, keys: &'static [Key], value: &Node<'_>) -> Table {
        match value.get_ref() {
            DeValue::Table(table) => self.cells(keys, value.span().start, table),
            other => {
                self.fault(value.span().start, format!("`{name}` is a table, found {}", other.type_str()));
                Table::default()
            }
        }
    }

    /// All of a table.
    pub(super) fn cells(&mut self, keys: &'static [Key], at: usize, table: &DeTable<'_>) -> Table {
        let mut read = Table { at, ..Table::default() };
        for (key, value) in table {
            self.cell(keys, key, value, &mut read);
        }
        read
    }

    /// One key of a table.
    pub(super) fn cell(&mut self, keys: &'static [Key], key: &Name<'_>, value: &Node<'_>, into: &mut Table) {
        let name = &**key.get_ref();
        let Some(known) = keys.iter().find(|known| known.name == name) else {
            let known = keys.iter().map(|known| known.name.to_owned());
            self.faults.push(Fault::unknown(key.span().start, "key", name, known));
            return;
        };
        if let Some(cell) = self.form(known, value) {
            into.cells.insert(known.name, (value.span().start, cell));
        }
    }

    /// A table of `[jobs]`: keys of the service, and flags of the verb.
    pub(super) fn job(&mut self, at: usize, table: &DeTable<'_>) -> JobTable {
        let verb = table.iter().find(|(key, _)| &**key.get_ref() == "verb");
        let verb = verb.and_then(|(_, value)| self.text("verb", value)).unwrap_or_else(|| "backup".to_owned());
        let verb: Vec<String> = verb.split_whitespace().map(str::to_owned).collect();
        let mut job = JobTable { table: Table { at, ..Table::default() }, verb, settings: Settings::new() };
        let of_verb = self.schema.command(&job.verb).map(|command| command.get_name().to_owned());
        if of_verb.is_none() {
            let known = self.schema.keys(&[] as &[&str]);
            self.faults.push(Fault::unknown(at, "verb", &job.verb.join(" "), known));
            return job;
        }
        let known: Vec<String> =
            self.schema.keys(&job.verb).into_iter().chain(JOB.iter().map(|key| key.name.to_owned())).collect();
        for (key, value) in table {
            match &**key.get_ref() {
                name if JOB.iter().any(|key| key.name == name) => self.cell(JOB, key, value, &mut job.table),
                name => {
                    let verb = job.verb.clone();
                    self.setting(&verb, name, key.span().start, value, &known, &mut job.settings);
                }
            }
        }
        self.check_values(&job.verb, &job.settings);
        job
    }

    fn form(&mut self, key: &Key, value: &Node<'_>) -> Option<Cell> {
        let (name, at) = (key.name, value.span().start);
        Some(match key.form {
            Form::Text => Cell::Text(self.text(name, value)?),
            Form::Word(words) => {
                let word = self.text(name, value)?;
                if !words.contains(&word.as_str()) {
                    let known = words.iter().map(|word| (*word).to_owned());
                    let fault = Fault::unknown(at, &format!("`{name}`"), &word, known);
                    let all = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
                    self.faults.push(match fault.hint {
                        Some(_) => fault,
                        None => fault.hint(format!("one of {all}")),
                    });
                    return None;
                }
                Cell::Text(word)
            }
            Form::Texts => Cell::Texts(self.texts(name, value)?),
            Form::Schedule => Cell::Schedule(self.texts(name, value)?),
            Form::Length => Cell::Length(Duration::from_secs(self.parsed_text(name, value, parse_age)?)),
            Form::Size => Cell::Number(self.parsed_text(name, value, parse_bytes)?),
            Form::Number(least, most) => {
                let number = match value.get_ref() {
                    DeValue::Integer(number) => decimal(number).parse::<i64>().ok(),
                    _ => None,
                };
                let Some(number) = number.filter(|number| (least..=most).contains(number)) else {
                    self.fault(at, format!("`{name}` takes a whole number from {least} to {most}"));
                    return None;
                };
                match u64::try_from(number) {
                    Ok(number) if least >= 0 => Cell::Number(number),
                    _ => Cell::Signed(number),
                }
            }
            Form::Percent => {
                let text = match value.get_ref() {
                    DeValue::String(text) => Some(text.trim_end_matches(['%', ' ']).to_owned()),
                    _ => self.word(name, value),
                };
                let share = text?.parse::<f64>().ok().filter(|share| (0.0..=1000.0).contains(share));
                let Some(share) = share else {
                    self.fault(at, format!("`{name}` takes a number of percent, such as 99 or \"99%\""));
                    return None;
                };
                Cell::Percent(share)
            }
            Form::Switch => match value.get_ref() {
                DeValue::Boolean(given) => Cell::Switch(*given),
                other => {
                    self.fault(at, format!("`{name}` takes true or false, found {}", other.type_str()));
                    return None;
                }
            },
            Form::Path => {
                let text = self.text(name, value)?;
                Cell::Path(self.path(&text))
            }
            Form::Paths => {
                let texts = self.texts(name, value)?;
                Cell::Paths(texts.iter().map(|text| self.path(text)).collect::<Vec<PathBuf>>())
            }
            Form::Address => match value.get_ref() {
                DeValue::Boolean(false) => Cell::Address(None),
                _ => {
                    let parse = |text: &str| {
                        text.parse().map_err(|_| {
                            format!("expected an address and a port such as 127.0.0.1:9187, found `{text}`")
                        })
                    };
                    Cell::Address(Some(self.parsed_text(name, value, parse)?))
                }
            },
            Form::Command => Cell::Commands(vec![self.command(name, value)?]),
            Form::Commands => match value.get_ref() {
                DeValue::Array(list) => {
                    let commands: Vec<_> = list.iter().map(|node| self.command(name, node)).collect();
                    Cell::Commands(commands.into_iter().collect::<Option<_>>()?)
                }
                _ => Cell::Commands(vec![self.command(name, value)?]),
            },
            Form::Secret if matches!(value.get_ref(), DeValue::String(_)) => {
                let fault = Fault::new(at, format!("`{name}`: a secret does not stand in a configuration"));
                self.faults.push(
                    fault.hint(format!("name where it is: `{name} = {{ file = \"…\" }}`, or command, env, credential")),
                );
                return None;
            }
            Form::Secret | Form::Found => Cell::Found(self.found(name, value)?),
            Form::Founds => {
                let DeValue::Table(table) = value.get_ref() else {
                    self.fault(at, format!("`{name}` is a table, found {}", value.get_ref().type_str()));
                    return None;
                };
                let mut founds = BTreeMap::new();
                for (key, value) in table {
                    if let Some(found) = self.found(key.get_ref(), value) {
                        founds.insert(key.get_ref().to_string(), found);
                    }
                }
                Cell::Founds(founds)
            }
            Form::Switched(keys) => match value.get_ref() {
                DeValue::Boolean(true) => Cell::Table(Table { at, ..Table::default() }),
                DeValue::Boolean(false) => return None,
                DeValue::Table(table) => Cell::Table(self.cells(keys, at, table)),
                other => {
                    self.fault(at, format!("`{name}` is true, false or a table, found {}", other.type_str()));
                    return None;
                }
            },
            Form::Task(verb) => Cell::Task(self.task(name, verb, value)?),
            Form::Flags(verb) => {
                let DeValue::Table(table) = value.get_ref() else {
                    self.fault(at, format!("`{name}` is a table, found {}", value.get_ref().type_str()));
                    return None;
                };
                Cell::Flags(self.flags(verb, table.iter()))
            }
        })
    }

    /// A schedule, or a table with one and flags of the verb.
    fn task(&mut self, name: &str, verb: &str, value: &Node<'_>) -> Option<Task> {
        let DeValue::Table(table) = value.get_ref() else {
            return Some(Task { schedule: self.texts(name, value)?, settings: Settings::new() });
        };
        let is_schedule = |key: &str| key == "schedule";
        let schedule = table.iter().find(|(key, _)| is_schedule(key.get_ref()));
        let schedule = match schedule {
            Some((_, value)) => self.texts("schedule", value)?,
            None => {
                self.fault(value.span().start, format!("`{name}` has no `schedule`"));
                return None;
            }
        };
        let settings = self.flags(verb, table.iter().filter(|(key, _)| !is_schedule(key.get_ref())));
        Some(Task { schedule, settings })
    }

    fn flags<'n, 'i: 'n>(&mut self, verb: &str, table: impl Iterator<Item = (&'n Name<'i>, &'n Node<'i>)>) -> Settings {
        let verb = [verb.to_owned()];
        let known = self.schema.keys(&verb);
        let mut settings = Settings::new();
        for (key, value) in table {
            self.setting(&verb, key.get_ref(), key.span().start, value, &known, &mut settings);
        }
        self.check_values(&verb, &settings);
        settings
    }

    fn texts(&mut self, name: &str, value: &Node<'_>) -> Option<Vec<String>> {
        match value.get_ref() {
            DeValue::Array(list) => {
                let texts: Vec<_> = list.iter().map(|node| self.text(name, node)).collect();
                texts.into_iter().collect()
            }
            _ => self.text(name, value).map(|text| vec![text]),
        }
    }

    fn parsed_text<T>(
        &mut self,
        name: &str,
        value: &Node<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.word(name, value)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.fault(value.span().start, format!("`{name}`: {error}"));
                None
            }
        }
    }

    fn command(&mut self, name: &str, value: &Node<'_>) -> Option<Vec<OsString>> {
        let words = match value.get_ref() {
            DeValue::Array(list) => {
                let words: Vec<_> = list.iter().map(|node| self.word(name, node)).collect();
                words.into_iter().collect::<Option<Vec<String>>>()?
            }
            _ => {
                let text = self.text(name, value)?;
                match shell_words::split(&text) {
                    Ok(words) => words,
                    Err(error) => {
                        self.fault(value.span().start, format!("`{name}`: {error}"));
                        return None;
                    }
                }
            }
        };
        if words.is_empty() {
            self.fault(value.span().start, format!("`{name}` is empty"));
            return None;
        }
        Some(words.into_iter().map(OsString::from).collect())
    }

    /// `{ file = "…" }` and its like, or the value itself.
    pub(super) fn found(&mut self, name: &str, value: &Node<'_>) -> Option<Found> {
        let DeValue::Table(table) = value.get_ref() else {
            return self.word(name, value).map(Found::Text);
        };
        let one = if table.len() == 1 { table.iter().next() } else { None };
        let Some((key, value)) = one else {
            let ways = "{ file = … }, { command = … }, { env = … }, { credential = … }";
            self.fault(value.span().start, format!("`{name}` is a value or one of {ways}"));
            return None;
        };
        let text = self.text(key.get_ref(), value)?;
        match &**key.get_ref() {
            "file" => Some(Found::File(self.path(&text))),
            "command" => Some(Found::Command(text)),
            "env" => Some(Found::Variable(text)),
            "credential" => Some(Found::Credential(text)),
            other => {
                let known = ["file", "command", "env", "credential"].map(String::from);
                self.faults.push(Fault::unknown(key.span().start, "source of a value", other, known));
                None
            }
        }
    }
}
