//! What can be typed of `tag`, `rewrite` and `repair snapshots`.

use super::args::{ExcludeArgs, FilterArgs};
use super::text::parse_bytes;
use super::time::parse_age;

#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// Ids, beginnings of some, or `latest` [default: all that the filters leave]
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    /// Replace all tags by these; `--set ''` removes all
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',', conflicts_with_all = ["add", "remove"])]
    pub(super) set: Vec<String>,
    /// Add these
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',')]
    pub(super) add: Vec<String>,
    /// Remove these
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',')]
    pub(super) remove: Vec<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RewriteArgs {
    /// Ids, beginnings of some, or `latest` [default: all that the filters leave]
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    #[command(flatten)]
    pub(super) excludes: ExcludeArgs,
    /// Instead, store anew what is sealed under keys from before the last `key rotate`; snapshots stay as they are,
    /// and `prune` deletes the old packs
    #[arg(long, conflicts_with_all = ["snapshots", "ExcludeArgs", "FilterArgs", "new_host", "new_time", "forget"])]
    pub(super) reencrypt: bool,
    /// Store no more than so much anew; the next run goes on from there
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "reencrypt")]
    pub(super) max_bytes: Option<u64>,
    /// Say that they are of this machine
    #[arg(long, value_name = "HOST")]
    pub(super) new_host: Option<String>,
    /// Say that they were made at TIME
    #[arg(long, value_name = "TIME")]
    pub(super) new_time: Option<String>,
    /// Forget those that were made again
    #[arg(long)]
    pub(super) forget: bool,
    /// How long those can be brought back with `undelete`
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_age, requires = "forget")]
    pub(super) undelete_window: u64,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RepairSnapshotsArgs {
    /// Ids, beginnings of some, or `latest` [default: all that the filters leave]
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    /// Forget those that lack something, so that garbage can be collected again
    #[arg(long)]
    pub(super) forget: bool,
    /// How long those can be brought back with `undelete`
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_age, requires = "forget")]
    pub(super) undelete_window: u64,
    /// Read and verify all that the snapshots hold, too
    #[arg(long)]
    pub(super) read_data: bool,
    /// Only say what would be left out
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}
