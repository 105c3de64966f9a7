//! `init`: a new repository.

use std::path::PathBuf;

use serde_json::json;

use super::app::App;
use super::args::InitArgs;
use super::fail::Result;
use super::place;
use super::unlock::{NewKeyFile, Origin, first_password, origin};
use crate::chunk::cut::Parameters;
use crate::crypto::slot::KdfCost;
use crate::repo::Repository;
use crate::repo::open::{FirstKey, InitOptions};

pub(super) fn run(app: &App, args: &InitArgs) -> Result<()> {
    let (repository, key_file) = make(app, args)?;
    tell(app, &repository, key_file)
}

/// Says what was made and what to take care of.
pub(super) fn tell(app: &App, repository: &Repository, key_file: Option<PathBuf>) -> Result<()> {
    let (id, place) = (repository.config.repo, repository.storage.place());
    if app.global.json {
        let key_file = key_file.map(|path| path.display().to_string());
        return app.out.json(&json!({
            "message_type": "initialized",
            "id": id.to_string(),
            "repository": place,
            "key_file": key_file,
        }));
    }
    app.say(&format!("made repository {} at {}", id.short(), super::text::plain(&place)))?;
    match key_file {
        Some(path) => app.say(&format!(
            "\nOnly the key file {} opens it: keep a copy somewhere else.\n\
             Without it there is no way to the data.",
            path.display()
        )),
        None => app.say("\nOnly your password opens it: keep it safe.\nWithout it there is no way to the data."),
    }
}

/// Makes the repository; gives where its key file is, if it has one.
pub(super) fn make(app: &App, args: &InitArgs) -> Result<(Repository, Option<PathBuf>)> {
    // What can be asked and refused comes before the first thing that is made.
    let (key, new_file) = match origin(app)? {
        Origin::KeyFile(path) => {
            let path = app.path(&path);
            (FirstKey::KeyFile, Some((NewKeyFile::reserve(&path)?, path)))
        }
        other => (FirstKey::Password(first_password(app, other)?), None),
    };
    let options = InitOptions {
        key,
        kdf: KdfCost::DEFAULT,
        chunker: Parameters::with_average(args.chunk_average),
        label: args.name.clone().unwrap_or_else(|| app.label()),
    };
    options.chunker.check().map_err(|error| super::fail::usage(format!("no repository was made: {error}")))?;
    let storage = place::create(app)?;
    let (repository, key) = Repository::init(storage, app.world.clone(), &options, app.local())?;
    let mut path = None;
    if let (Some((file, at)), Some(key)) = (new_file, key) {
        file.write(&key)?;
        path = Some(at);
    }
    Ok((repository, path))
}
