//! `notify`: whether those who should be told can be.

use serde_json::json;

use super::app::App;
use super::args::{NotifyArgs, NotifyVerb};
use super::config::Configured;
use super::fail::{Result, usage};
use crate::error::{Error, Kind};
use crate::service::notify::send_test;

pub(super) fn run(app: &App, args: &NotifyArgs) -> Result<()> {
    let plan = Configured::load(app)?.plan;
    let NotifyVerb::Test { names } = &args.verb;
    let known = || plan.notifiers.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if plan.notifiers.is_empty() {
        return Err(usage("there are no notifiers")
            .hint("write one as `[notifiers.NAME]` in the configuration")
            .into());
    }
    if let Some(name) = names.iter().find(|name| !plan.notifiers.contains_key(*name)) {
        return Err(usage(format!("there is no notifier `{name}`")).hint(format!("there are {}", known())).into());
    }
    let mut failed = 0;
    for (name, notifier) in plan.notifiers.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        let sent = send_test(name, notifier, &app.host, "test", &app.world);
        let why = sent.as_ref().err().map(ToString::to_string);
        failed += u32::from(why.is_some());
        match (app.global.json, why) {
            (true, why) => {
                app.out.json(
                    &json!({ "message_type": "notified", "notifier": name, "delivered": why.is_none(), "error": why }),
                )?;
            }
            (false, None) => app.say(&format!("{name}: delivered"))?,
            (false, Some(why)) => app.console.print(&format!("error: {}", super::text::plain(&why))),
        }
    }
    match failed {
        0 => Ok(()),
        _ => {
            let what = super::text::count(u64::from(failed), "test message was", "test messages were");
            Err(Error::new(Kind::Failed, format!("{what} not delivered, each named above")).into())
        }
    }
}
