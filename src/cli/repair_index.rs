//! `repair index`
use super::app::App;
use super::fail::Result;
pub(super) fn run(_: &App, _: bool, _: bool) -> Result<()> {
    Ok(())
}
