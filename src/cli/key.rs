//! `key`: who can open the repository.

use std::path::Path;

use serde_json::json;

use super::app::App;
use super::args::{KeyArgs, KeyVerb};
use super::fail::{Result, usage};
use super::text::{Side, Table};
use super::time::rfc3339;
use super::unlock::{NewKeyFile, new_password, recovery_secret};
use super::{place, text};
use crate::crypto::slot::KdfCost;
use crate::error::{Error, Kind};
use crate::format::access::Role;
use crate::id::{CredentialId, SlotId};
use crate::monitor::Severity;
use crate::path::TreePath;
use crate::repo::Repository;
use crate::repo::content::Reader;
use crate::repo::members::MemberInfo;
use crate::repo::recovery::{RECOVERY_LABEL, Sheet};
use crate::repo::secret::Secret;
use crate::repo::snapshots::Filter;
use crate::repo::walk::Walk;
use crate::world::Time;

pub(super) fn run(app: &App, args: &KeyArgs) -> Result<()> {
    let open = || place::repository(app);
    match &args.verb {
        KeyVerb::List => list(app, &open()?.member_list()),
        KeyVerb::Add { out: Some(out), name, .. } => {
            let label = name.clone().unwrap_or_else(|| app.label());
            add_file(app, &open()?, Role::Owner, &label, out)
        }
        KeyVerb::Add { out: None, name, new_password_file } => {
            let repository = open()?;
            let id = add_password(app, &repository, name.clone(), new_password_file.as_deref())?;
            told(app, "added", &id.to_string(), &format!("added owner {}", id.short()))
        }
        KeyVerb::Writer { out, name } => add_file(app, &open()?, Role::Writer, name, out),
        KeyVerb::Passwd { new_password_file } => {
            let repository = open()?;
            repository.change_password(&new_password(app, new_password_file.as_deref())?, KdfCost::DEFAULT)?;
            let own = repository.keys.credential.id();
            told(app, "changed", &own.to_string(), &format!("owner {} has a new password", own.short()))
        }
        KeyVerb::Export { out } => export(app, &open()?, out),
        KeyVerb::Recover { words_file, name, new_password_file } => {
            recover(app, words_file.as_deref(), name.clone(), new_password_file.as_deref())
        }
        KeyVerb::TestRecovery { words_file } => test_recovery(app, words_file.as_deref()),
        KeyVerb::Remove { id, rotate } => remove(app, &open()?, id, *rotate),
        KeyVerb::Rotate => rotate(app, &open()?),
    }
}

/// Opens an epoch.
fn rotate(app: &App, repository: &Repository) -> Result<()> {
    let rotation = repository.rotate()?;
    if app.global.json {
        return app.out.json(&json!({
            "message_type": "rotated",
            "id": rotation.epoch.to_string(),
            "credentials": rotation.credentials,
            "completed": rotation.completed,
        }));
    }
    app.say(&format!(
        "new keys for {}: what is stored from now on is sealed with them\n\n\
         What was stored before stays readable to who has the old keys and gets hold of it.\n\
         Recovery sheets go on working; make a new kit with `esker key export --out FILE`.",
        text::count(rotation.credentials as u64, "credential", "credentials")
    ))
}

/// Opens the repository with what is to be tested, as `key recover` would, and reads the newest snapshot's
/// top directory with it.
fn test_recovery(app: &App, words: Option<&Path>) -> Result<()> {
    let storage = place::open(app)?;
    crate::repo::open::load_config(&*storage)?;
    let secret = recovery_secret(app, words)?;
    let repository = place::unlock(app, storage, &secret)?;
    drop(secret);
    let id = repository.keys.credential.id();
    if repository.keys.role != Role::Owner {
        return Err(Error::new(Kind::Refused, format!("it opens writer {}, which can read nothing back", id.short()))
            .hint("make recovery words of an owner with `esker key export --out FILE`")
            .into());
    }
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let (snapshots, _) = reader.snapshots(&Filter::default())?;
    let newest = match snapshots.last() {
        Some(info) => {
            Walk::below(&reader, TreePath::root(), &info.snapshot.root).next().transpose()?;
            format!("newest snapshot {} was opened with it", info.id().short())
        }
        None => "there are no snapshots yet".to_owned(),
    };
    if app.global.json {
        return app.out.json(&json!({
            "message_type": "recovery_tested",
            "id": id.to_string(),
            "snapshots": snapshots.len(),
            "newest": snapshots.last().map(|info| info.id().to_string()),
        }));
    }
    app.say(&format!("it opens the repository as owner {}; {newest}", id.short()))
}

/// Adds an owner with a password.
fn add_password(
    app: &App,
    repository: &Repository,
    name: Option<String>,
    new_password_file: Option<&Path>,
) -> Result<CredentialId> {
    let password = new_password(app, new_password_file)?;
    let label = name.unwrap_or_else(|| app.label());
    let key = repository.add_member(Role::Owner, &label, Some((&password, KdfCost::DEFAULT)))?;
    Ok(key.credential().id())
}

/// A new key as a page of words, with copies of what it rests on.
fn export(app: &App, repository: &Repository, out: &Path) -> Result<()> {
    let path = app.path(out);
    let file = NewKeyFile::reserve(&path)?;
    let key = repository.add_member(Role::Owner, RECOVERY_LABEL, None)?;
    let id = key.credential().id();
    let sheet = Sheet { key, place: repository.storage.place(), made_secs: app.world.now().secs };
    file.write_text(&repository.recovery_kit(&sheet)?)?;
    let shown = text::plain(&path.display().to_string());
    let sentence = format!(
        "added owner {} for recovery; its kit is {shown}\n\n\
         Print its first page, and keep paper and file away from the machines that are backed up.",
        id.short()
    );
    told(app, "added", &id.to_string(), &sentence)
}

/// Opens the repository with recovery words and adds an owner who has a password.
///
/// A new owner rather than a slot of the words' own credential: words that have been used may have been
/// seen, and removing them must not take the new password with them.
fn recover(app: &App, words: Option<&Path>, name: Option<String>, new_password_file: Option<&Path>) -> Result<()> {
    let storage = place::open(app)?;
    crate::repo::open::load_config(&*storage)?;
    let secret = recovery_secret(app, words)?;
    if matches!(secret, Secret::Words(_)) {
        let what = "words alone cannot tell whether this is the repository they were made for; the whole sheet can";
        app.console.remark(Severity::Note, what);
    }
    let repository = place::unlock(app, storage, &secret)?;
    drop(secret);
    let used = repository.keys.credential.id();
    repository.refuse_if_behind()?;
    let id = add_password(app, &repository, name, new_password_file)?;
    let sentence = format!(
        "added owner {} with the new password\n\n\
         If the words may have been seen by others, make new ones and remove these:\n  \
         esker key export --out FILE\n  \
         esker key remove {}\n\
         The same goes for a password or key file that was stolen: see `esker key list`.",
        id.short(),
        used.short()
    );
    told(app, "added", &id.to_string(), &sentence)
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
                    "slots": member.slots.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "up_to_date": member.up_to_date,
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
        facts.extend((!member.removed && !member.up_to_date).then_some("lacks the newest keys"));
        let slots: Vec<_> = member.slots.iter().map(SlotId::short).collect();
        let passwords = format!("passwords {}", slots.join(" "));
        facts.push(match slots.len() {
            0 if member.label == RECOVERY_LABEL => "recovery words",
            0 => "key file",
            1 => "password",
            _ => &passwords,
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

fn remove(app: &App, repository: &Repository, wanted: &str, rotate_too: bool) -> Result<()> {
    let members = repository.member_list();
    let is_meant = |id: &str| !wanted.is_empty() && id.starts_with(wanted);
    let credentials = members.iter().filter(|member| is_meant(&member.id.to_string())).map(Meant::Credential);
    let slots = members.iter().filter(|member| !member.removed).flat_map(|member| {
        let slots = member.slots.iter().filter(|slot| is_meant(&slot.to_string()));
        slots.map(move |slot| Meant::Slot(member, *slot))
    });
    let mut meant = credentials.chain(slots);
    match (meant.next(), meant.next()) {
        (Some(Meant::Credential(member)), None) => {
            let reader = Reader::new(repository)?;
            app.tell_faults(&reader);
            // What it has committed so far stays.
            let (_, mut accepted) = reader.commits().newest_of(&member.id);
            accepted.extend(reader.collections().signed.get(&member.id).into_iter().flatten());
            repository.remove_member(&member.id, accepted)?;
            let sentence = format!("removed {} {}", member.role.name(), member.id.short());
            told(app, "removed", &member.id.to_string(), &sentence)?;
        }
        (Some(Meant::Slot(member, slot)), None) => {
            repository.remove_slot(slot)?;
            let sentence = format!("removed password {} of {} {}", slot.short(), member.role.name(), member.id.short());
            told(app, "removed", &slot.to_string(), &sentence)?;
        }
        (Some(_), Some(_)) => {
            return Err(usage(format!("nobody was removed: more than one id begins with `{wanted}`")).into());
        }
        (None, _) => {
            let what = format!("nobody was removed: no id begins with `{wanted}`");
            return Err(usage(what).hint("to see who there is, run `esker key list`").into());
        }
    }
    if rotate_too {
        // Opened again: who was removed must not be granted anything.
        return rotate(app, &place::repository(app)?);
    }
    Ok(())
}

/// What an id in `key list` is of.
enum Meant<'a> {
    Credential(&'a MemberInfo),
    Slot(&'a MemberInfo, SlotId),
}
