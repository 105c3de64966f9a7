//! `key`: who can open the repository.

use std::path::Path;

use serde_json::json;

use super::app::App;
use super::args::{KeyArgs, KeyVerb};
use super::fail::{Result, usage};
use super::text::{Side, Table};
use super::time::rfc3339;
use super::unlock::{NewKeyFile, new_password};
use super::{place, text};
use crate::crypto::slot::KdfCost;
use crate::format::access::Role;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::members::MemberInfo;
use crate::world::Time;

pub(super) fn run(app: &App, args: &KeyArgs) -> Result<()> {
    let repository = place::repository(app)?;
    match &args.verb {
        KeyVerb::List => list(app, &repository.member_list()),
        KeyVerb::Add { out: Some(out), name, .. } => {
            let label = name.clone().unwrap_or_else(|| app.label());
            add_file(app, &repository, Role::Owner, &label, out)
        }
        KeyVerb::Add { out: None, name, new_password_file } => {
            let password = new_password(app, new_password_file.as_deref())?;
            let label = name.clone().unwrap_or_else(|| app.label());
            let key = repository.add_member(Role::Owner, &label, Some((&password, KdfCost::DEFAULT)))?;
            told(
                app,
                "added",
                &key.credential().id().to_string(),
                &format!("added owner {}", key.credential().id().short()),
            )
        }
        KeyVerb::Writer { out, name } => add_file(app, &repository, Role::Writer, name, out),
        KeyVerb::Passwd { new_password_file } => {
            let password = new_password(app, new_password_file.as_deref())?;
            repository.change_password(&password, KdfCost::DEFAULT)?;
            let own = repository.keys.credential.id();
            told(app, "changed", &own.to_string(), &format!("owner {} has a new password", own.short()))
        }
        KeyVerb::Remove { id } => remove(app, &repository, id),
    }
}

fn told(app: &App, what: &str, id: &str, sentence: &str) -> Result<()> {
    if app.global.json {
        return app.out.json(&json!({ "message_type": what, "id": id }));
    }
    app.say(sentence)
}

fn add_file(app: &App, repository: &Repository, role: Role, label: &str, out: &Path) -> Result<()> {
    let path = app.path(out);
    let file = NewKeyFile::reserve(&path)?;
    let key = repository.add_member(role, label, None)?;
    file.write(&key)?;
    let id = key.credential().id();
    let shown = text::plain(&path.display().to_string());
    let sentence = format!("added {} {}; its key file is {shown}", role.name(), id.short());
    told(app, "added", &id.to_string(), &sentence)
}

fn list(app: &App, members: &[MemberInfo]) -> Result<()> {
    if app.global.json {
        let list: Vec<_> = members
            .iter()
            .map(|member| {
                json!({
                    "id": member.id.to_string(),
                    "short_id": member.id.short(),
                    "role": member.role.name(),
                    "label": member.label,
                    "created": rfc3339(Time::from_secs(member.added_secs), &app.time_zone),
                    "current": member.current,
                    "removed": member.removed,
                    "passwords": member.slots.len(),
                })
            })
            .collect();
        return app.out.json(&list);
    }
    let columns =
        [("ID", Side::Left), ("Role", Side::Left), ("Name", Side::Left), ("Added", Side::Left), ("", Side::Left)];
    let mut table = Table::new(&columns);
    for member in members {
        let mut facts = Vec::new();
        facts.extend(member.current.then_some("in use now"));
        facts.extend(member.removed.then_some("removed"));
        facts.push(match member.slots.len() {
            0 => "key file",
            _ => "password",
        });
        table.row([
            member.id.short(),
            member.role.name().to_owned(),
            text::plain(&member.label),
            app.show_time(Time::from_secs(member.added_secs)),
            facts.join(", "),
        ]);
    }
    table.lines().iter().try_for_each(|line| app.out.line(line))
}

fn remove(app: &App, repository: &Repository, wanted: &str) -> Result<()> {
    let members = repository.member_list();
    let mut matching = members.iter().filter(|member| !wanted.is_empty() && member.id.to_string().starts_with(wanted));
    let member = match (matching.next(), matching.next()) {
        (Some(member), None) => member,
        (Some(_), Some(_)) => {
            return Err(usage(format!("nobody was removed: more than one id begins with `{wanted}`")).into());
        }
        _ => {
            let what = format!("nobody was removed: no id begins with `{wanted}`");
            return Err(usage(what).hint("to see who there is, run `esker key list`").into());
        }
    };
    let reader = Reader::new(repository)?;
    app.tell_faults(&reader);
    // What it has committed so far stays.
    let (_, commits) = reader.commits().newest_of(&member.id);
    repository.remove_member(&member.id, commits)?;
    told(app, "removed", &member.id.to_string(), &format!("removed {} {}", member.role.name(), member.id.short()))
}
