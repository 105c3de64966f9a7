//! From a profile to arguments: what it inherits, what wins, what is added to what was typed.
//!
//! A key that is set nearer to the command wins as a whole, lists included: nothing is joined.
//! From far to near: the repository's table, profiles that are extended in the order named, the
//! profile, the verb's tables in the same order, the environment, what is typed. What is nearer
//! also puts out of force what it cannot go with: a typed `--key-file` the configured
//! `password-file`, `-v` a configured `quiet`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use super::document::{Document, Fault, Place, Profile, Setting, Settings, Value, arguments};
use super::schema::{Schema, variables};

/// A profile with all that it extends.
#[derive(Debug, Default)]
pub(super) struct Chosen<'d> {
    /// The profiles, the farthest first, the one that was chosen last.
    pub(super) chain: Vec<(&'d str, &'d Profile)>,
    /// The repository it uses.
    pub(super) place: Option<(&'d str, &'d Place)>,
}

/// A setting and the table it stands in.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) setting: Setting,
    pub(super) table: String,
}

impl<'d> Chosen<'d> {
    /// Works out what a profile extends and which repository it uses.
    pub(super) fn new(document: &'d Document, name: &'d str) -> Result<Self, Fault> {
        let mut chosen = Self::default();
        chosen.inherit(document, name, &mut Vec::new())?;
        let named = chosen.chain.iter().rev().find_map(|(_, profile)| profile.repository.as_ref());
        if let Some(named) = named {
            let found = document.repositories.get_key_value(named.get_ref());
            let (name, place) = found.ok_or_else(|| {
                let known = document.repositories.keys().cloned();
                Fault::unknown(named.span().start, "repository", named.get_ref(), known)
            })?;
            chosen.place = Some((name, place));
        }
        Ok(chosen)
    }

    fn inherit(&mut self, document: &'d Document, name: &'d str, open: &mut Vec<&'d str>) -> Result<(), Fault> {
        let Some(profile) = document.profiles.get(name) else { return Ok(()) };
        open.push(name);
        for base in &profile.extends {
            let (at, base) = (base.span().start, base.get_ref().as_str());
            if !document.profiles.contains_key(base) {
                return Err(Fault::unknown(at, "profile", base, document.profiles.keys().cloned()));
            }
            if open.contains(&base) {
                return Err(Fault::new(at, format!("profile `{base}` extends itself, by way of `{name}`")));
            }
            self.inherit(document, base, open)?;
        }
        open.pop();
        // A base of two bases counts once, where it is farthest.
        if !self.chain.iter().any(|(known, _)| *known == name) {
            self.chain.push((name, profile));
        }
        Ok(())
    }

    /// The tables that count for a verb, the farthest first.
    fn layers(&self, verb: &[String]) -> Vec<(String, &'d Settings)> {
        let place = self.place.map(|(name, place)| (format!("repositories.{name}"), &place.settings));
        let general = self.chain.iter().map(|(name, profile)| (format!("profiles.{name}"), &profile.settings));
        let special = self.chain.iter().filter(|_| !verb.is_empty()).filter_map(|(name, profile)| {
            Some((format!("profiles.{name}.{}", verb.join(".")), profile.verbs.get(verb)?))
        });
        place.into_iter().chain(general).chain(special).collect()
    }

    /// What is set for a verb, by the id of the argument; for no verb, what is set for all.
    pub(super) fn settings(&self, schema: &Schema, verb: &[String]) -> BTreeMap<String, Placed> {
        let mut merged: BTreeMap<String, Placed> = BTreeMap::new();
        for (table, settings) in self.layers(verb) {
            let in_force = settings.iter().filter(|(_, setting)| setting.value != Value::Switch(false));
            for (id, _) in in_force {
                merged.retain(|known, _| !schema.are_rivals(verb, known, id));
            }
            for (id, setting) in settings {
                merged.insert(id.clone(), Placed { setting: setting.clone(), table: table.clone() });
            }
        }
        merged
    }

    /// The verbs that have tables of their own.
    pub(super) fn verbs(&self) -> BTreeSet<&'d [String]> {
        self.chain.iter().flat_map(|(_, profile)| profile.verbs.keys().map(Vec::as_slice)).collect()
    }

    /// The command line with what is configured for its verb.
    pub(super) fn add_to(
        &self,
        schema: &Schema,
        verb: &[String],
        mut args: Vec<OsString>,
        named: &Named<'_>,
    ) -> Vec<OsString> {
        let (mut flags, mut positional, mut trailing) = (Vec::new(), Vec::new(), Vec::new());
        let mut has_trailing = false;
        for arg in schema.command(verb).into_iter().flat_map(clap::Command::get_arguments) {
            has_trailing |= arg.is_last_set();
        }
        for (id, placed) in self.settings(schema, verb) {
            let Some(arg) = schema.by_id(verb, &id) else { continue };
            if named.outdoes(schema, verb, &id) {
                continue;
            }
            let more = arguments(arg, &placed.setting.value);
            match (arg.is_last_set(), arg.is_positional()) {
                (true, _) => trailing.extend(more),
                (_, true) => positional.extend(more),
                _ => flags.extend(more),
            }
        }
        if let Some((_, place)) = self.place
            && let Some(url) = place.url.as_ref().filter(|_| named.no_place())
        {
            let mut flag = OsString::from("--repo=");
            flag.push(url);
            flags.push(flag);
        }
        let escape = args.iter().position(|arg| arg == "--");
        let end = escape.unwrap_or(args.len());
        if has_trailing {
            flags.append(&mut positional);
        }
        args.splice(end..end, flags);
        if escape.is_none() && !(positional.is_empty() && trailing.is_empty()) {
            args.push("--".into());
        }
        args.extend(positional);
        args.extend(trailing);
        args
    }
}

/// What the command line and the environment name by themselves.
pub(super) struct Named<'a> {
    /// The ids of arguments that were typed.
    pub(super) typed: BTreeSet<String>,
    pub(super) env: &'a BTreeMap<OsString, OsString>,
}

impl Named<'_> {
    fn has(&self, variable: &str) -> bool {
        self.env.get(OsStr::new(variable)).is_some_and(|value| !value.is_empty())
    }

    /// Whether a setting has to stand back.
    pub(super) fn outdoes(&self, schema: &Schema, verb: &[String], id: &str) -> bool {
        let typed = self.typed.iter().any(|typed| schema.are_rivals(verb, typed, id));
        typed || self.variable(schema, verb, id).is_some()
    }

    /// The variable that a setting has to stand back for.
    pub(super) fn variable(&self, schema: &Schema, verb: &[String], id: &str) -> Option<String> {
        let args = schema.command(verb)?.get_arguments();
        let rivals = args.filter(|arg| schema.are_rivals(verb, arg.get_id().as_str(), id));
        rivals.flat_map(variables).find(|variable| self.has(variable))
    }

    /// Whether the repository is left to the configuration.
    pub(super) fn no_place(&self) -> bool {
        !self.typed.contains("repo") && !self.has("ESKER_REPOSITORY")
    }
}
