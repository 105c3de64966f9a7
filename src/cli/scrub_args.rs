//! What can be typed of `scrub` and `parity`.

use std::ffi::OsString;

use clap::Subcommand;

use super::text::parse_bytes;
use super::time::parse_age;
use crate::format::config::PARITY_PERCENT_MAX;
use crate::scrub::Shard;

const HOW_MUCH: &str = "How much to read";
const REPAIR: &str = "What to do about damage";

#[derive(Debug, clap::Args)]
pub(super) struct ScrubArgs {
    /// Ask for no password and compare stored bytes with their hashes: finds whatever has changed
    #[arg(long)]
    pub(super) without_key: bool,
    /// Only packs that were not found whole within this time: `30d`, `12h`, `2w`
    #[arg(long, value_name = "TIME", value_parser = parse_age, help_heading = HOW_MUCH)]
    pub(super) max_age: Option<u64>,
    /// About so many bytes, of the packs that were not read for longest
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = HOW_MUCH)]
    pub(super) max_bytes: Option<u64>,
    /// Begin no pack after this time: `2h`, `30m`
    #[arg(long, value_name = "TIME", value_parser = parse_age, help_heading = HOW_MUCH)]
    pub(super) max_duration: Option<u64>,
    /// Only the packs of the i-th of n parts, for several machines at once
    #[arg(long, value_name = "i/n", value_parser = parse_shard, help_heading = HOW_MUCH)]
    pub(super) shard: Option<Shard>,
    /// Put back what is damaged, from second copies, parity or --from
    #[arg(long, help_heading = REPAIR)]
    pub(super) repair: bool,
    /// Take what is missing or damaged from this copy of the same repository; no key of it is needed
    #[arg(long, value_name = "URL", requires = "repair", help_heading = REPAIR)]
    pub(super) from: Option<OsString>,
    /// An option of the storage that the copy is on
    #[arg(long, value_name = "KEY=VALUE", requires = "from", help_heading = REPAIR)]
    pub(super) from_option: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ParityArgs {
    #[command(subcommand)]
    pub(super) verb: ParityVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum ParityVerb {
    /// Store parity for the packs that have none, so that a damaged one can be made whole; needs no key
    Add {
        /// How much, of each pack [default: what the repository was made with, or 5%]
        #[arg(long, value_name = "x%", value_parser = parse_parity)]
        parity: Option<u32>,
    },
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let bad = || format!("expected a part such as `1/4`, found `{text}`");
    let (part, parts) = text.split_once('/').ok_or_else(bad)?;
    let (part, parts) = (part.trim().parse().map_err(|_| bad())?, parts.trim().parse().map_err(|_| bad())?);
    if (1..=parts).contains(&part) { Ok(Shard { part, parts }) } else { Err(bad()) }
}

pub(super) fn parse_parity(text: &str) -> Result<u32, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    percent
        .filter(|percent| (1..=PARITY_PERCENT_MAX).contains(percent))
        .ok_or_else(|| format!("expected a share of whole percents from `1%` to `100%`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_shares_are_within_their_bounds() {
        assert_eq!(parse_shard("2/4"), Ok(Shard { part: 2, parts: 4 }));
        for bad in ["0/4", "5/4", "4", "/", "a/b", "1/0"] {
            assert!(parse_shard(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_parity("5%"), parse_parity("100%")), (Ok(5), Ok(100)));
        for bad in ["0%", "101%", "5", "5.5%", "%", "-1%"] {
            assert!(parse_parity(bad).is_err(), "{bad}");
        }
    }
}
