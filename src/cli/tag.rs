//! `tag`: snapshots with other tags.

use serde_json::json;

use super::app::App;
use super::fail::{Result, usage};
use super::remake_args::TagArgs;
use super::{choose, json as objects, place, text};
use crate::format::access::Role;
use crate::repo::content::Reader;
use crate::repo::keys::not_an_owner;
use crate::tag::{Change, run as change_tags};

pub(super) fn run(app: &App, args: &TagArgs) -> Result<()> {
    if args.set.is_empty() && args.add.is_empty() && args.remove.is_empty() {
        let hint = "say which with `--set`, `--add` or `--remove`";
        return Err(usage("no tags were changed: there is nothing to do").hint(hint).into());
    }
    let tags = |given: &[String]| given.iter().filter(|tag| !tag.is_empty()).cloned().collect();
    let change = match args.set.is_empty() {
        false => Change::Set(tags(&args.set)),
        true => Change::Edit { add: tags(&args.add), remove: tags(&args.remove) },
    };
    let filter = choose::filter(app, &args.filter)?;
    let repository = place::repository(app)?;
    if repository.keys.role != Role::Owner {
        return Err(not_an_owner().into());
    }
    let reader = Reader::new(&repository)?;
    app.tell_faults(&reader);
    let chosen = choose::several(&reader, &args.snapshots, &filter, "no tags were changed")?;
    let mut changed = 0;
    for info in &chosen {
        let Some(made) = change_tags(&repository, info, &change)? else { continue };
        changed += 1;
        if app.global.json {
            let ids = json!({ "old_snapshot_id": info.id().to_string(), "new_snapshot_id": made.to_string() });
            app.out.json(&objects::message("changed", ids))?;
        } else {
            app.say(&format!("snapshot {} is now {}", info.id().short(), made.short()))?;
        }
    }
    if app.global.json {
        return app.out.json(&objects::message("summary", json!({ "changed_snapshots": changed })));
    }
    app.say(&match changed {
        0 => "no tags were changed".to_owned(),
        _ => format!("changed the tags of {}", text::count(changed, "snapshot", "snapshots")),
    })
}
