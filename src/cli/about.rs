//! `version`, `completions` and `man`: what the program says of itself.

use clap::CommandFactory;
use serde_json::json;

use super::app::App;
use super::args::{Cli, CompletionsArgs, ManArgs};
use super::fail::{Fail, Result};
use super::text;
use crate::error::Context;
use crate::format::config::FORMAT_VERSION;

/// The program's name and version, as snapshots record it.
pub(super) const PROGRAM: &str = concat!("esker ", env!("CARGO_PKG_VERSION"));

pub(super) fn version(app: &App) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let system = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if app.global.json {
        return app.out.json(&json!({
            "message_type": "version",
            "version": version,
            "repository_format": FORMAT_VERSION,
            "system": system,
        }));
    }
    app.out.line(&format!("esker {version} (repository format {FORMAT_VERSION}, {system})"))
}

pub(super) fn completions(app: &App, args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "esker", &mut script);
    app.out.with_stream(|stream| stream.write_all(&script)).map_err(Fail::Output)
}

/// Writes a page for each command, `esker-key-add.1`.
pub(super) fn man(app: &App, args: &ManArgs) -> Result<()> {
    let dir = app.path(&args.dir);
    let what = || format!("cannot write the manual pages to `{}`", dir.display());
    std::fs::create_dir_all(&dir).context(what)?;
    let mut root = Cli::command();
    root.build();
    let (mut open, mut pages) = (vec![root], 0);
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned());
        let page = clap_mangen::Man::new(command).source(PROGRAM).manual("Esker");
        page.generate_to(&dir).context(what)?;
        pages += 1;
    }
    if app.global.json {
        return app.out.json(&json!({ "message_type": "summary", "pages": pages }));
    }
    let dir = text::plain(&dir.display().to_string());
    app.say(&format!("wrote {} to {dir}", text::count(pages, "manual page", "manual pages")))
}
