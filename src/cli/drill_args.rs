//! What can be typed of `drill`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::args::FilterArgs;
use super::time::parse_age;

const WHICH: &str = "Which snapshots";
const WHAT: &str = "What counts as passed";

#[derive(Debug, clap::Args)]
pub(super) struct DrillArgs {
    /// An id, the beginning of one, `latest` or `latest~2`; `:PATH` for what is below PATH [default: latest]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: Option<OsString>,
    /// Any one of those that the filters leave, so that old ones are tried, too; `:PATH` may be added
    #[arg(long, help_heading = WHICH, conflicts_with = "at")]
    pub(super) random: bool,
    /// With `latest`: the newest snapshot at or before TIME
    #[arg(long, value_name = "TIME", help_heading = WHICH, conflicts_with = "before")]
    pub(super) at: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Take place in a new directory below this one, which nobody else can enter [default: $TMPDIR or /tmp]
    #[arg(short, long, value_name = "DIR")]
    pub(super) target: Option<PathBuf>,
    /// Leave what was restored there, to look at
    #[arg(long)]
    pub(super) keep: bool,
    /// Then run this command, by `sh -c`, in the directory with what was restored; it has to end with success
    #[arg(long, value_name = "COMMAND", help_heading = WHAT)]
    pub(super) check: Option<OsString>,
    /// How long that may take: `30s`, `10m`
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_age, help_heading = WHAT)]
    pub(super) check_timeout: u64,
    /// How long all of it may take, from the start of the command until the data is there and checked
    #[arg(long, visible_alias = "max-duration", value_name = "TIME", value_parser = parse_age, help_heading = WHAT)]
    pub(super) rto: Option<u64>,
    /// Write no note of it to the repository
    #[arg(long)]
    pub(super) no_record: bool,
}
