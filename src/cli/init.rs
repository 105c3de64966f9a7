//! `init`: a new repository, and the page of words that opens it when all else is lost.

use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::app::App;
use super::args::InitArgs;
use super::fail::{Result, usage};
use super::unlock::{Given, NewKeyFile, Origin, first_password, origin, other_secret};
use super::{place, text};
use crate::chunk::cut::Parameters;
use crate::crypto::slot::KdfCost;
use crate::error::Context;
use crate::format::access::Role;
use crate::monitor::Severity;
use crate::repo::Repository;
use crate::repo::keys::ContentKeys;
use crate::repo::open::{CONFIG, FirstKey, InitOptions};
use crate::repo::recovery::{RECOVERY_LABEL, Sheet};
use crate::repo::secret::KeyFile;
use crate::storage::ErrorKind;

/// The files that a new repository came with.
pub(super) struct Made {
    key_file: Option<PathBuf>,
    recovery: Recovery,
}

/// What became of the recovery sheet.
enum Recovery {
    /// It was not wanted.
    None,
    /// There is nobody to show it to.
    Later,
    /// It is in this file.
    File(PathBuf),
    /// It is to be shown, once.
    Show(Zeroizing<String>),
}

pub(super) fn run(app: &App, args: &InitArgs) -> Result<()> {
    let (repository, made) = make(app, args)?;
    tell(app, &repository, made)
}

/// Says what was made and what to take care of.
pub(super) fn tell(app: &App, repository: &Repository, made: Made) -> Result<()> {
    let (id, place) = (repository.config.repo, repository.storage.place());
    let shown = |path: &PathBuf| text::plain(&path.display().to_string());
    if app.global.json {
        let sheet = match &made.recovery {
            Recovery::File(path) => Some(path.display().to_string()),
            _ => None,
        };
        app.out.json(&json!({
            "message_type": "initialized",
            "id": id.to_string(),
            "repository": place,
            "key_file": made.key_file.as_ref().map(|path| path.display().to_string()),
            "recovery_key_file": sheet,
        }))?;
    } else {
        app.say(&format!("made repository {} at {}", id.short(), text::plain(&place)))?;
        let opens = match &made.key_file {
            Some(path) => format!("the key file {}", shown(path)),
            None => "your password".to_owned(),
        };
        let advice = match &made.recovery {
            Recovery::None | Recovery::Later if made.key_file.is_some() => {
                format!("Only {opens} opens it: keep a copy somewhere else.\nWithout it there is no way to the data.")
            }
            Recovery::None | Recovery::Later => {
                format!("Only {opens} opens it: keep it safe.\nWithout it there is no way to the data.")
            }
            Recovery::File(sheet) => format!(
                "It opens by {opens}, and by the recovery sheet {}: print that,\n\
                 and keep it away from here. Without one of them there is no way to the data.",
                shown(sheet)
            ),
            Recovery::Show(sheet) => {
                // No summary: it is shown here and nowhere else.
                app.out.line("")?;
                app.out.line(sheet)?;
                format!(
                    "This page is shown once: print it or write it down now. The repository opens by {opens},\n\
                     and by these words. Without one of them there is no way to the data."
                )
            }
        };
        app.say(&format!("\n{advice}"))?;
    }
    if matches!(made.recovery, Recovery::Later) {
        let repo = shell_words::quote(&place).into_owned();
        let message = format!(
            "there is no recovery sheet, for when the key is lost; to make one, run \
             `esker --repo {repo} key export --out recovery.txt`"
        );
        app.console.remark(Severity::Warning, &message);
    }
    Ok(())
}

/// Makes the repository; gives what there is to tell about it.
pub(super) fn make(app: &App, args: &InitArgs) -> Result<(Repository, Made)> {
    // What can be asked and refused comes before the first thing that is made.
    let like = like(app, args)?;
    let (key, mut new_file) = match origin(app)? {
        Origin::KeyFile(path) => {
            let path = app.path(&path);
            (FirstKey::KeyFile, Some((NewKeyFile::reserve(&path)?, path)))
        }
        other => (FirstKey::Password(first_password(app, other)?), None),
    };
    let sheet_file = match &args.recovery_key_file {
        Some(path) => Some((NewKeyFile::reserve(&app.path(path))?, app.path(path))),
        None => None,
    };
    let (chunker, like) = match like {
        Some((chunker, keys)) => (chunker, Some(keys)),
        None => (Parameters::with_average(args.chunk_average), None),
    };
    let options = InitOptions {
        key,
        kdf: KdfCost::DEFAULT,
        chunker,
        label: args.name.clone().unwrap_or_else(|| app.label()),
        like,
        parity_percent: args.parity.unwrap_or(0),
    };
    options.chunker.check().map_err(|error| usage(format!("no repository was made: {error}")))?;
    let storage = place::create(app)?;
    let mut key_file = None;
    let keep = |key: &KeyFile| {
        let Some((file, path)) = new_file.take() else { return Ok(()) };
        file.write(key)?;
        key_file = Some(path);
        Ok(())
    };
    let made = Repository::init_keeping(storage.clone(), app.world.clone(), &options, app.local(), keep);
    if let (Err(_), Some(path)) = (&made, &key_file)
        && storage.stat(CONFIG).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    {
        // Certainly the key of nothing.
        let _ = std::fs::remove_file(path);
    }
    let repository = made?;
    app.tell_notices();
    let recovery = match sheet_file {
        _ if args.no_recovery => Recovery::None,
        Some((file, path)) => {
            file.write_text(&sheet(app, &repository)?)?;
            Recovery::File(path)
        }
        None if app.may_show_secrets() => Recovery::Show(sheet(app, &repository)?),
        None => Recovery::Later,
    };
    Ok((repository, Made { key_file, recovery }))
}

/// A new key, as a page.
fn sheet(app: &App, repository: &Repository) -> Result<Zeroizing<String>> {
    let key = repository.add_member(Role::Owner, RECOVERY_LABEL, None);
    let key = key.context(|| "the repository is made, but has no recovery sheet")?;
    let sheet = Sheet { key, place: repository.storage.place(), made_secs: app.world.now().secs };
    Ok(sheet.to_text())
}

/// What `--like` takes from the other repository.
fn like(app: &App, args: &InitArgs) -> Result<Option<(Parameters, ContentKeys)>> {
    let Some(url) = &args.like else { return Ok(None) };
    let what = || format!("no repository was made like `{}`", url.display());
    let storage = place::open_at(app, url, None)?;
    crate::repo::open::load_config(&*storage).context(what)?;
    let given = Given {
        password_file: args.from.from_password_file.as_deref(),
        password_command: args.from.from_password_command.as_deref(),
        key_file: args.from.from_key_file.as_deref(),
        ..Given::default()
    };
    let secret = other_secret(app, given, "ESKER_FROM_", "password of the other repository: ")?;
    let other = place::unlock(app, storage, &secret)?;
    let chunker = other.config.chunker;
    let keys = other.keys.content_keys().context(what)?;
    let parameters =
        Parameters { min_bytes: chunker.min_bytes, avg_bytes: chunker.avg_bytes, max_bytes: chunker.max_bytes };
    Ok(Some((parameters, keys)))
}
