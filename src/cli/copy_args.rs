//! What can be typed of `copy`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::args::FilterArgs;
use super::retention_args::parse_percent;
use super::unlock::Given;
use crate::chunk::compress::Level;

const TO: &str = "The other repository";
const MIRROR: &str = "Mirrors";

#[derive(Debug, clap::Args)]
pub(super) struct CopyArgs {
    /// Copy only these: ids, the beginnings of some, or `latest`
    #[arg(value_name = "SNAPSHOT", conflicts_with = "mirror")]
    pub(super) snapshots: Vec<String>,
    #[command(flatten)]
    pub(super) to: ToArgs,
    /// Only say what would be copied
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    /// Read each copy back, every id computed again; of a mirror, what is there already
    #[arg(long)]
    pub(super) verify: bool,
    /// off, fast, auto, better, max or a number from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "auto", conflicts_with = "mirror")]
    pub(super) compression: Level,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Copy all stored objects as they are instead, to a place of their own; needs no key
    #[arg(long, help_heading = MIRROR, conflicts_with_all = ["host", "tag", "path", "before", "after"])]
    pub(super) mirror: bool,
    /// Delete at the mirror what is not in the repository
    #[arg(long, help_heading = MIRROR, requires = "mirror")]
    pub(super) delete: bool,
    /// Refuse to delete a larger share of a mirror of more than 1 GiB
    #[arg(long, value_name = "x%", default_value = "30%", value_parser = parse_percent, help_heading = MIRROR)]
    #[arg(requires = "delete")]
    pub(super) max_delete: f64,
}

/// Where things are brought to, and how that is unlocked.
#[derive(Debug, clap::Args)]
pub(super) struct ToArgs {
    /// Where to copy to: a directory or a URL [env: ESKER_TO_REPOSITORY]
    #[arg(long, value_name = "URL", help_heading = TO)]
    pub(super) to: Option<OsString>,
    /// Read its password from this file [env: ESKER_TO_PASSWORD_FILE, or the password in ESKER_TO_PASSWORD]
    #[arg(long, value_name = "FILE", help_heading = TO)]
    #[arg(conflicts_with_all = ["to_password_command", "to_password_fd", "to_key_file"])]
    to_password_file: Option<PathBuf>,
    /// Take its password from the output of this command [env: ESKER_TO_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = TO, conflicts_with_all = ["to_password_fd", "to_key_file"])]
    to_password_command: Option<String>,
    /// Read its password from this file descriptor
    #[arg(long, value_name = "N", help_heading = TO, conflicts_with = "to_key_file")]
    to_password_fd: Option<u32>,
    /// Unlock it with a key file or a recovery sheet [env: ESKER_TO_KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = TO)]
    to_key_file: Option<PathBuf>,
    /// An option of its storage, in the place of all that `-o` says; repeat for several
    #[arg(long, value_name = "KEY=VALUE", help_heading = TO)]
    to_option: Vec<String>,
}

impl ToArgs {
    /// What is said of what unlocks it.
    pub(super) fn given(&self) -> Given<'_> {
        Given {
            password_file: self.to_password_file.as_deref(),
            password_command: self.to_password_command.as_deref(),
            password_fd: self.to_password_fd,
            key_file: self.to_key_file.as_deref(),
        }
    }

    /// The options of its storage, if it has its own.
    pub(super) fn options(&self) -> Option<&[String]> {
        Some(self.to_option.as_slice()).filter(|options| !options.is_empty())
    }
}
