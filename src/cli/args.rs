//! What can be typed: the one definition that parsing, `--help`, completions, manual pages and the
//! keys of a configuration come from.
//!
//! Where the help of a flag names a variable `ESKER_…`, that variable stands for the flag: it is
//! named nowhere else, and what is configured for the flag stands back for it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::copy_args::CopyArgs;
use super::drill_args::DrillArgs;
use super::remake_args::{RepairSnapshotsArgs, RewriteArgs, TagArgs};
use super::retention_args::{ForgetArgs, PruneArgs, UndeleteArgs};
use super::scrub_args::{ParityArgs, ScrubArgs, parse_parity};
use super::storage_args::StorageArgs;
use super::text::parse_bytes;
use crate::check::ReadData;
use crate::chunk::compress::Level;
use crate::service::history::Trigger;

/// Encrypted, deduplicated backups.
#[derive(Debug, Parser)]
#[command(
    name = "esker",
    version,
    max_term_width = 110,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Flags win over the environment, which wins over the configuration. New here? Run `esker demo`."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const GLOBAL: &str = "Global options";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// Where the repository is: a directory, or s3://, gs://, azblob://, sftp://, webdav:// [env: ESKER_REPOSITORY]
    #[arg(short, long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub(super) repo: Option<OsString>,
    /// Read the password from this file [env: ESKER_PASSWORD_FILE, or the password in ESKER_PASSWORD]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    #[arg(conflicts_with_all = ["password_command", "password_fd", "key_file"])]
    pub(super) password_file: Option<PathBuf>,
    /// Take the password from the output of this command; run without a shell [env: ESKER_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", help_heading = GLOBAL)]
    #[arg(conflicts_with_all = ["password_fd", "key_file"])]
    pub(super) password_command: Option<String>,
    /// Read the password from this file descriptor
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL, conflicts_with = "key_file")]
    pub(super) password_fd: Option<u32>,
    /// Unlock with a key file or a recovery sheet instead of a password [env: ESKER_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(super) key_file: Option<PathBuf>,
    /// Results and errors as JSON, for programs
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) json: bool,
    /// No progress and no summary
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Name everything that was left out or skipped; twice: every call of the storage, too
    #[arg(short, long, global = true, help_heading = GLOBAL, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Take settings from this file [env: ESKER_CONFIG] [default: ~/.config/esker/esker.toml or, without it, /etc/esker/esker.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(super) config: Option<PathBuf>,
    /// Use this profile of the configuration [default: the one named `default`]
    #[arg(short = 'P', long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(super) profile: Option<String>,
    /// Where to keep what may be deleted [env: ESKER_CACHE_DIR] [default: $XDG_CACHE_HOME/esker]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(super) cache_dir: Option<PathBuf>,
    /// Keep nothing on this machine; a backup keeps its change record in the repository
    #[arg(long, global = true, help_heading = GLOBAL, conflicts_with = "cache_dir")]
    pub(super) no_cache: bool,
    /// Where to keep what should not be deleted [env: ESKER_STATE_DIR] [default: $XDG_STATE_HOME/esker]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(super) state_dir: Option<PathBuf>,
    /// Go on although this storage is older than what was seen before
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) accept_rollback: bool,
    /// Write down in the repository what is about to be read (restore, dump, mount, ls, find, diff, copy, drill);
    /// what cannot be written down is refused [env: ESKER_AUDIT]
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) audit: bool,
    /// How many threads work [default: one for each core]
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) threads: Option<u32>,
    #[command(flatten)]
    pub(super) storage: StorageArgs,
}

/// A verb stands here when it works, not before.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a repository
    Init(InitArgs),
    /// Make a snapshot of files and directories
    Backup(BackupArgs),
    /// List snapshots, oldest first
    Snapshots(SnapshotsArgs),
    /// List what is in a snapshot
    Ls(LsArgs),
    /// Find where a name is in snapshots, or the versions of a file
    Find(FindArgs),
    /// Compare two snapshots, or a snapshot and a local directory
    Diff(DiffArgs),
    /// Bring files back from a snapshot
    Restore(RestoreArgs),
    /// Write a file of a snapshot, or a directory as an archive, to stdout
    Dump(DumpArgs),
    /// Show snapshots as directories, read-only, until it is unmounted
    #[cfg(feature = "mount")]
    Mount(MountArgs),
    /// Try a restore: in a directory of its own, compared, timed, and removed again
    Drill(Box<DrillArgs>),
    /// Find out whether everything is there and undamaged
    Check(CheckArgs),
    /// Read stored data again, longest unread first, and repair what is damaged
    Scrub(ScrubArgs),
    /// Add parity, by which damaged packs can be made whole
    Parity(ParityArgs),
    /// Count what the repository holds, or what snapshots do, and what that takes
    Stats(StatsArgs),
    /// Say which snapshots are not wanted any more, by a policy or by name
    Forget(Box<ForgetArgs>),
    /// Bring back a forgotten snapshot, or list those that can be
    Undelete(UndeleteArgs),
    /// Delete what no snapshot needs, beside any number of running backups
    Prune(PruneArgs),
    /// Copy snapshots into another repository, or keep a mirror of this one
    Copy(Box<CopyArgs>),
    /// Change the tags of snapshots
    Tag(TagArgs),
    /// Make snapshots again without some of what is in them
    Rewrite(RewriteArgs),
    /// Say what happened in the repository, and who did it
    Audit(AuditArgs),
    /// Say how old the newest snapshots are, and what was verified and collected when
    Status(StatusArgs),
    /// List backups under way or broken off, and what `prune` waits for
    Sessions(SessionsArgs),
    /// List, add, remove and recover the passwords and key files that open the repository
    Key(KeyArgs),
    /// Put back what is lost or damaged, from what is there
    Repair(RepairArgs),
    /// Try everything out on a copy of your files, in a temporary directory
    Demo(DemoArgs),
    /// List and clear what is kept locally of repositories
    Cache(CacheArgs),
    /// Run the jobs of the configuration when they are due
    #[cfg(feature = "service")]
    Serve,
    /// Tell the notifiers of the configuration
    #[cfg(feature = "service")]
    Notify(NotifyArgs),
    /// Run or list the jobs of the configuration
    Job(JobArgs),
    /// Check the configuration, or show what comes of it
    Config(ConfigArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages, one for each command
    Man(ManArgs),
    /// Print the version of the program and of the repositories it makes
    Version,
}

/// About how large chunks are, unless told otherwise.
pub(super) const CHUNK_AVERAGE_BYTES: u32 = 64 << 10;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct InitArgs {
    /// About how large chunks are, a power of two; smaller finds more duplicates and costs memory
    #[arg(long, value_name = "SIZE", default_value_t = CHUNK_AVERAGE_BYTES, value_parser = parse_average)]
    pub(super) chunk_average: u32,
    /// The name of your key in `key list` [default: user@host]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Write the recovery sheet to this new file instead of showing it
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    pub(super) recovery_key_file: Option<PathBuf>,
    /// Make no recovery sheet
    #[arg(long)]
    pub(super) no_recovery: bool,
    /// Store so much parity with each pack, by which it can be made whole if it is damaged: `5%`
    #[arg(long, value_name = "x%", value_parser = parse_parity)]
    pub(super) parity: Option<u32>,
    /// Give content the same ids as in this repository of yours, so that copies between the two need
    /// store nothing twice
    #[arg(long, value_name = "URL", conflicts_with = "chunk_average")]
    pub(super) like: Option<OsString>,
    #[command(flatten)]
    pub(super) from: FromArgs,
}

impl InitArgs {
    /// What `backup --init` makes.
    pub(super) fn plain() -> Self {
        Self {
            chunk_average: CHUNK_AVERAGE_BYTES,
            name: None,
            recovery_key_file: None,
            no_recovery: false,
            parity: None,
            like: None,
            from: FromArgs::default(),
        }
    }
}

/// How the other repository is unlocked that something is taken from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct FromArgs {
    /// Read the other repository's password from this file [env: ESKER_FROM_PASSWORD_FILE, or ESKER_FROM_PASSWORD]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_password_command", "from_key_file"])]
    pub(super) from_password_file: Option<PathBuf>,
    /// Take it from the output of this command [env: ESKER_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", conflicts_with = "from_key_file")]
    pub(super) from_password_command: Option<String>,
    /// Unlock the other repository with a key file [env: ESKER_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) from_key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    #[command(subcommand)]
    pub(super) verb: RepairVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum RepairVerb {
    /// Put back what is lost of the configuration, password slots and access statements; needs no key
    Config {
        /// Take what the repository has no whole copy of from this recovery kit
        #[arg(long, value_name = "KIT")]
        from: Option<PathBuf>,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Put into the index what is in packs and stands in no segment any more; also saves what snapshots
    /// need from packs of sessions whose commit is lost
    Index {
        /// Read every pack that is added whole, even where every key is an owner's
        #[arg(long)]
        read_packs: bool,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Make snapshots of what is whole of those that lack something
    Snapshots(RepairSnapshotsArgs),
}

/// What is left out by its path.
#[derive(Debug, clap::Args)]
pub(super) struct ExcludeArgs {
    /// Leave out what matches; `*`, `?`, `[a-z]`, `**`, and `!` to take back
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) exclude: Vec<OsString>,
    /// The same, with upper and lower case alike
    #[arg(long, value_name = "PATTERN")]
    pub(super) iexclude: Vec<OsString>,
    /// Leave out what the patterns in a file match, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) exclude_file: Vec<PathBuf>,
    /// The same, with upper and lower case alike
    #[arg(long, value_name = "FILE")]
    pub(super) iexclude_file: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// Files and directories; with --stdin-from-command, the command
    #[arg(value_name = "PATH")]
    #[arg(required_unless_present_any = ["stdin", "files_from", "files_from_verbatim", "files_from_raw"])]
    pub(super) paths: Vec<PathBuf>,
    /// Make the repository if there is none
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) init: bool,
    /// Only say what would be added
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    /// Make no snapshot if it would hold the same as the last one
    #[arg(long)]
    pub(super) skip_if_unchanged: bool,
    /// Back up what is piped in, as one file
    #[arg(long, conflicts_with_all = ["paths", "stdin_from_command", "files_from", "files_from_verbatim", "files_from_raw"])]
    pub(super) stdin: bool,
    /// Back up the output of the command after `--`; if it fails there is no snapshot
    #[arg(long, conflicts_with_all = ["files_from", "files_from_verbatim", "files_from_raw"])]
    pub(super) stdin_from_command: bool,
    /// What the file is called, and where it is [default: stdin]
    #[arg(long, value_name = "PATH")]
    pub(super) stdin_filename: Option<PathBuf>,
    /// Back up what the patterns in a file match, too, one a line (`-` for stdin)
    #[arg(long, value_name = "FILE")]
    pub(super) files_from: Vec<PathBuf>,
    /// Back up the paths in a file, too, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) files_from_verbatim: Vec<PathBuf>,
    /// Back up the paths in a file, too, each ended by a NUL
    #[arg(long, value_name = "FILE")]
    pub(super) files_from_raw: Vec<PathBuf>,
    /// Label the snapshot; several apart with commas, or repeat
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub(super) tag: Vec<String>,
    /// The machine whose files these are [default: this one]
    #[arg(long)]
    pub(super) host: Option<String>,
    #[command(flatten)]
    pub(super) excludes: ExcludeArgs,
    /// Of files take only those that match one of these; directories are looked through
    #[arg(long, value_name = "PATTERN")]
    pub(super) include: Vec<OsString>,
    /// Leave out what is in directories tagged with CACHEDIR.TAG
    #[arg(long)]
    pub(super) exclude_caches: bool,
    /// Leave out what is in directories with a file of this name (that begins with HEADER)
    #[arg(long, value_name = "NAME[:HEADER]")]
    pub(super) exclude_if_present: Vec<OsString>,
    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(super) exclude_larger_than: Option<u64>,
    /// Stay on the file systems of the given paths
    #[arg(short = 'x', long)]
    pub(super) one_file_system: bool,
    /// off, fast, auto, better, max or a number from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    pub(super) compression: Level,
    /// About how many bytes of new data are compressed together, 64K to 8M: more makes the repository
    /// smaller, less makes single small files quicker to get back
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_frame)]
    pub(super) frame_size: u64,
    /// About how large packs of data are, 4M to 256M: the storage's objects, each of which is in memory
    /// while it is sent over a network
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = parse_pack)]
    pub(super) pack_size: u64,
    /// Commit what is stored so far each time it is this much, or 5 minutes have passed; a backup that
    /// is stopped goes on from there
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_bytes)]
    pub(super) checkpoint: u64,
    /// Read every file, even if it looks unchanged
    #[arg(short, long)]
    pub(super) force: bool,
    /// Fail unless this snapshot is the one that changes are told from
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "force")]
    pub(super) parent: Option<String>,
    /// Tell whether a file changed by its size and mtime alone
    #[arg(long)]
    pub(super) ignore_ctime: bool,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct FilterArgs {
    /// Only snapshots of this machine; repeat for any of several
    #[arg(long, help_heading = "Which snapshots")]
    pub(super) host: Vec<String>,
    /// Only snapshots with all of these tags
    #[arg(long, value_delimiter = ',', help_heading = "Which snapshots")]
    pub(super) tag: Vec<String>,
    /// Only snapshots of this path
    #[arg(long, help_heading = "Which snapshots")]
    pub(super) path: Vec<PathBuf>,
    /// Only snapshots made at or before TIME: `2026-01-15 10:30`, a date, RFC 3339, `2h ago`
    #[arg(long, value_name = "TIME", help_heading = "Which snapshots")]
    pub(super) before: Option<String>,
    /// Only snapshots made at or after TIME
    #[arg(long, value_name = "TIME", help_heading = "Which snapshots")]
    pub(super) after: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SnapshotArgs {
    /// An id, the beginning of one, `latest` or `latest~2`; add `:PATH` for what is below PATH
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: OsString,
    /// With `latest`: the newest snapshot at or before TIME
    #[arg(long, value_name = "TIME", help_heading = "Which snapshots", conflicts_with = "before")]
    pub(super) at: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

/// What snapshots have in common to be of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GroupBy {
    #[value(alias = "hosts")]
    Host,
    #[value(alias = "path")]
    Paths,
    #[value(alias = "tag")]
    Tags,
}

#[derive(Debug, clap::Args)]
pub(super) struct SnapshotsArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Only the newest N of each group (of each host and paths, unless grouped otherwise)
    #[arg(long, value_name = "N")]
    pub(super) latest: Option<usize>,
    /// Show those together that have these in common
    #[arg(short, long, value_delimiter = ',', value_name = "host,paths,tags")]
    pub(super) group_by: Vec<GroupBy>,
    /// Fewer columns
    #[arg(short, long)]
    pub(super) compact: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    pub(super) snapshot: SnapshotArgs,
    /// List only what is directly in these directories
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// With mode, owner, size and time
    #[arg(short, long)]
    pub(super) long: bool,
    /// List everything below PATH
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct FindArgs {
    /// Names (`*.conf`) or paths (`/etc/**/*.conf`); with --history, paths as they are
    #[arg(value_name = "PATTERN", required = true)]
    pub(super) patterns: Vec<OsString>,
    /// The versions of each path over all snapshots, oldest first
    #[arg(long, conflicts_with_all = ["ignore_case", "oldest", "newest"])]
    pub(super) history: bool,
    /// Upper and lower case alike
    #[arg(short, long)]
    pub(super) ignore_case: bool,
    /// Only in this snapshot, whatever the filters say; repeat for several
    #[arg(short, long, value_name = "SNAPSHOT", help_heading = "Which snapshots")]
    pub(super) snapshot: Vec<String>,
    /// Only what was modified at or after TIME
    #[arg(short = 'O', long, value_name = "TIME")]
    pub(super) oldest: Option<String>,
    /// Only what was modified at or before TIME
    #[arg(short = 'N', long, value_name = "TIME")]
    pub(super) newest: Option<String>,
    /// With mode, owner, size and time
    #[arg(short, long)]
    pub(super) long: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// The snapshot to compare from; `:PATH` for what is below PATH
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) first: OsString,
    /// The snapshot to compare with, or a local directory or file
    #[arg(value_name = "SNAPSHOT[:PATH] or DIR")]
    pub(super) second: OsString,
    /// Tell of other owners, modes, times and extended attributes, too
    #[arg(long)]
    pub(super) metadata: bool,
    /// With a directory: read also files whose size and mtime are the same
    #[arg(long)]
    pub(super) content: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[cfg(feature = "mount")]
#[derive(Debug, clap::Args)]
pub(super) struct MountArgs {
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Show only this snapshot, or what is below PATH in it [default: all, by time, host, tag and id]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: Option<OsString>,
    /// Let other users in, too, as far as the stored modes do
    #[arg(long)]
    pub(super) allow_other: bool,
    /// Show everything as if root owned it
    #[arg(long)]
    pub(super) owner_root: bool,
    /// With `latest`: the newest snapshot at or before TIME
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Which snapshots",
        conflicts_with = "before",
        requires = "snapshot"
    )]
    pub(super) at: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    /// Only what happened at or after TIME: a date, a time, or an age such as `7d`
    #[arg(long = "after", visible_alias = "since", value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only what happened at or before TIME
    #[arg(long, value_name = "TIME")]
    pub(super) before: Option<String>,
    /// Only what is called so in JSON: `restore`, `key_added`, `drill`; repeat for any of several
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) action: Vec<String>,
    #[command(subcommand)]
    pub(super) verb: Option<AuditVerb>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum AuditVerb {
    /// Find out whether anything was taken out of the history
    Verify,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Of the configuration's jobs, what they promise and what is so [default: if no repository is named]
    #[arg(long, conflicts_with_all = ["max_age", "host", "tag", "path", "before", "after"])]
    pub(super) jobs: bool,
    /// Fail when the newest snapshot of any host and paths is older than this
    #[arg(long, value_name = "TIME", value_parser = super::time::parse_age)]
    pub(super) max_age: Option<u64>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SessionsArgs {
    /// Those too that have committed and are still announced
    #[arg(short, long)]
    pub(super) all: bool,
    /// Find out what each has stored that no snapshot names, and which are lost; reads a little of each
    /// such pack
    #[arg(long)]
    pub(super) packs: bool,
}

/// What becomes of files that are in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OverwriteArg {
    /// Replace those that differ
    Always,
    /// The same, taking files of equal size and time for equal
    IfChanged,
    /// Replace those that are older
    IfNewer,
    /// Leave them alone
    Never,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) snapshot: SnapshotArgs,
    /// The directory to restore into; `/` restores in place
    #[arg(short, long, value_name = "DIR")]
    pub(super) target: PathBuf,
    /// Restore only what matches
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) include: Vec<OsString>,
    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) exclude: Vec<OsString>,
    /// What becomes of files that are there already
    #[arg(long, value_enum, value_name = "WHEN", default_value = "always")]
    pub(super) overwrite: OverwriteArg,
    /// Remove what the snapshot does not have
    #[arg(long)]
    pub(super) delete: bool,
    /// Read every file again once it is written
    #[arg(long)]
    pub(super) verify: bool,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    /// First make a snapshot of what will be replaced or removed
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) safety_snapshot: bool,
    /// Give files to the stored user ids, whatever the names say
    #[arg(long)]
    pub(super) numeric_ids: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ArchiveArg {
    /// Keeps everything but holes
    Tar,
    /// Keeps permissions, times and links
    Zip,
}

#[derive(Debug, clap::Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub(super) snapshot: SnapshotArgs,
    /// The file or directory, unless given as SNAPSHOT:PATH
    #[arg(value_name = "PATH")]
    pub(super) entry: Option<PathBuf>,
    /// Write an archive
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(super) archive: Option<ArchiveArg>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Only what this snapshot needs
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshot: Option<String>,
    /// Read and verify all stored data, too
    #[arg(long)]
    pub(super) read_data: bool,
    /// Read part of it: the n-th of t parts, a random share, or about SIZE
    #[arg(long, value_name = "n/t, x% or SIZE", value_parser = parse_subset, conflicts_with = "read_data")]
    pub(super) read_data_subset: Option<ReadData>,
    /// Vouch for what was read whole, so that every machine may reuse what others have stored; takes an
    /// owner, and writes one note to the repository
    #[arg(long)]
    pub(super) attest: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatsArgs {
    /// Count one snapshot, or what is below PATH in it [default: everything, or what the filters leave]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: Option<OsString>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    pub(super) verb: CacheVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheVerb {
    /// List the repositories of which something is kept here
    List,
    /// Remove what is kept; a next command reads it from the repository again
    Clear {
        /// Of the repository whose id begins so
        #[arg(long, value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        repository: Option<String>,
        /// Of all repositories
        #[arg(long)]
        all: bool,
    },
    /// Remove what no command has used for some time
    Prune {
        /// Keep what was used in the last so many days, hours or weeks: `30d`, `12h`, `2w`
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = super::time::parse_age)]
        max_age: u64,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    pub(super) verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// List who can open the repository
    List,
    /// Add an owner, with a password or (--out) a key file
    Add {
        /// Write a key file instead of taking a password
        #[arg(long, value_name = "FILE", conflicts_with = "new_password_file")]
        out: Option<PathBuf>,
        /// Its name in `key list` [default: user@host]
        #[arg(long)]
        name: Option<String>,
        /// Read the new password from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Add a key file that can make backups and read nothing back
    Writer {
        /// Where to write the key file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Its name in `key list`
        #[arg(long)]
        name: String,
    },
    /// Change your password (or give a key file's owner one)
    Passwd {
        /// Read the new password from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Write a recovery kit: a new key as words to print, with copies of what it needs
    Export {
        /// Where to write the kit
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Open the repository with recovery words and add an owner with a new password
    Recover {
        /// Read the words, a recovery sheet or a kit from this file; `-` is standard input
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
        /// The new owner's name in `key list` [default: user@host]
        #[arg(long)]
        name: Option<String>,
        /// Read the new password from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Find out whether recovery words, a sheet or a kit would open the repository; changes nothing
    TestRecovery {
        /// Read the words, a recovery sheet or a kit from this file; `-` is standard input
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
    },
    /// Remove somebody, or one of somebody's passwords; the snapshots made until now stay
    Remove {
        /// The id in `key list`, or the beginning of it
        id: String,
        /// Give everybody who is left new keys, too, as `key rotate` does
        #[arg(long)]
        rotate: bool,
    },
    /// Seal what is stored from now on with new keys, for everybody who is not removed
    Rotate,
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// What to try it on; it is only read [default: a small tree made up for the purpose]
    pub(super) path: Option<PathBuf>,
    /// Work in this new directory and leave everything there to look at
    #[arg(long, value_name = "DIR")]
    pub(super) keep: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    #[command(subcommand)]
    pub(super) verb: JobVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum JobVerb {
    /// List the jobs of the configuration, and how they went
    List,
    /// Run jobs once, one after the other, as the service would
    Run {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Run what follows from a job after its success, too
        #[arg(long)]
        follow: bool,
        /// Why they run, for the record
        #[arg(long, hide = true)]
        trigger: Option<Trigger>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    pub(super) verb: NotifyVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum NotifyVerb {
    /// Send a test message, to see whether it arrives
    Test {
        /// The notifiers' names [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) verb: ConfigVerb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum ConfigVerb {
    /// Say what is wrong with the configuration, by line and column
    Check,
    /// Show what a profile comes to, secrets masked, and where each setting stands
    Show,
    /// Print a configuration with an example of everything
    Example,
    /// Print the JSON schema of configurations, for editors
    Schema,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The directory to write them to; it is made if need be
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}

fn parse_average(text: &str) -> Result<u32, String> {
    u32::try_from(parse_bytes(text)?).map_err(|_| "expected at most 1M".into())
}

fn parse_frame(text: &str) -> Result<u64, String> {
    parse_within(text, "64K", "8M")
}

fn parse_pack(text: &str) -> Result<u64, String> {
    parse_within(text, "4M", "256M")
}

fn parse_within(text: &str, least: &str, most: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let within = (parse_bytes(least)?..=parse_bytes(most)?).contains(&bytes);
    if within { Ok(bytes) } else { Err(format!("expected {least} to {most}")) }
}

fn parse_subset(text: &str) -> Result<ReadData, String> {
    let bad = || format!("expected `2/10`, `5%` or a size such as `50G`, found `{text}`");
    if let Some((part, parts)) = text.split_once('/') {
        let (part, parts) = (part.trim().parse().map_err(|_| bad())?, parts.trim().parse().map_err(|_| bad())?);
        return if (1..=parts).contains(&part) { Ok(ReadData::Part { part, parts }) } else { Err(bad()) };
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.trim().parse().map_err(|_| bad())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(ReadData::Percent(percent)) } else { Err(bad()) };
    }
    parse_bytes(text).ok().filter(|bytes| *bytes > 0).map(ReadData::Bytes).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn subsets_are_parts_shares_or_sizes() {
        assert_eq!(parse_subset("2/10"), Ok(ReadData::Part { part: 2, parts: 10 }));
        assert_eq!(parse_subset("2.5%"), Ok(ReadData::Percent(2.5)));
        assert_eq!(parse_subset("1G"), Ok(ReadData::Bytes(1 << 30)));
        for bad in ["0/3", "4/3", "/", "0%", "101%", "NaN%", "0", "", "all"] {
            assert!(parse_subset(bad).is_err(), "{bad}");
        }
    }
}
