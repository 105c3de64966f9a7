//! `version` and `completions`: what the program says of itself.

use clap::CommandFactory;
use serde_json::json;

use super::app::App;
use super::args::{Cli, CompletionsArgs};
use super::fail::{Fail, Result};
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
