//! What can be typed of `forget`, `undelete` and `prune`.

use jiff::Span;

use super::args::{FilterArgs, GroupBy};
use super::text::parse_bytes;
use super::time::parse_age;
use crate::forget::policy::Count;
use crate::prune::fold::WORTH_IT;
use crate::prune::plan::Unused;

const KEEP: &str = "What to keep";
const GARBAGE: &str = "What to collect";

#[derive(Debug, clap::Args)]
pub(super) struct ForgetArgs {
    /// Forget these; without a policy only these
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    /// The newest N, or `unlimited`
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_last: Option<Count>,
    /// The newest of each of the last N hours that have any
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_hourly: Option<Count>,
    /// The newest of each of the last N days that have any
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_daily: Option<Count>,
    /// The newest of each of the last N weeks that have any
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_weekly: Option<Count>,
    /// The newest of each of the last N months that have any
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_monthly: Option<Count>,
    /// The newest of each of the last N years that have any
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = KEEP)]
    pub(super) keep_yearly: Option<Count>,
    /// All made within this time of the newest, such as `7d` or `1y6m`
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within: Option<Span>,
    /// The newest of each hour within this time of the newest
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within_hourly: Option<Span>,
    /// The newest of each day within this time of the newest
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within_daily: Option<Span>,
    /// The newest of each week within this time of the newest
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within_weekly: Option<Span>,
    /// The newest of each month within this time of the newest
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within_monthly: Option<Span>,
    /// The newest of each year within this time of the newest
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = KEEP)]
    pub(super) keep_within_yearly: Option<Span>,
    /// All with these tags (commas between); repeat for others
    #[arg(long, value_name = "TAG[,TAG]", help_heading = KEEP)]
    pub(super) keep_tag: Vec<String>,
    /// Apply the policy to those together that have these in common
    #[arg(short, long, value_delimiter = ',', value_name = "host,paths,tags", default_value = "host,paths")]
    pub(super) group_by: Vec<GroupBy>,
    /// How long they can be brought back with `undelete`
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_age)]
    pub(super) undelete_window: u64,
    /// Then collect garbage, as `prune` does
    #[arg(long)]
    pub(super) prune: bool,
    /// Only say what would be forgotten
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    #[command(flatten)]
    pub(super) collect: CollectArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct UndeleteArgs {
    /// Ids of forgotten snapshots, or the beginnings of some; without any they are listed
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Only say what would be deleted, rewritten and kept
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) collect: CollectArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct CollectArgs {
    /// How much may stay unused in packs that are in use: a share of what is live, a size, or `unlimited`
    #[arg(long, value_name = "x%, SIZE", default_value = "5%", value_parser = parse_unused, help_heading = GARBAGE)]
    pub(super) max_unused: Unused,
    /// Rewrite no more than this much
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = GARBAGE)]
    pub(super) max_repack_size: Option<u64>,
    /// Refuse to delete a larger share of a repository of more than 1 GiB
    #[arg(long, value_name = "x%", default_value = "30%", value_parser = parse_percent, help_heading = GARBAGE)]
    pub(super) max_delete: f64,
    /// Ask backups that show no sign of life for so long whether they have finished; one that goes on
    /// after all has to look at everything again
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = parse_age, help_heading = GARBAGE)]
    pub(super) patience: u64,
    /// Go by this machine's clock though it is far from what others have signed
    #[arg(long, help_heading = GARBAGE)]
    pub(super) ignore_clock: bool,
    /// Put single commits, notes and records of collections together in logs from so many of a kind on
    #[arg(long, value_name = "N", default_value_t = WORTH_IT, help_heading = GARBAGE)]
    pub(super) fold_from: usize,
    /// Give up what sessions have stored that have lost both announcement and commit
    #[arg(long, help_heading = GARBAGE)]
    pub(super) close_lost_sessions: bool,
}

fn parse_count(text: &str) -> Result<Count, String> {
    match text {
        "unlimited" | "-1" => Ok(Count::Unlimited),
        _ => text.parse().map(Count::Of).map_err(|_| format!("expected a number or `unlimited`, found `{text}`")),
    }
}

/// A time of calendar units, as restic writes it (`1y5m7d2h`, m being months), or as `jiff` does.
fn parse_span(text: &str) -> Result<Span, String> {
    let bad = || format!("expected a time such as `30d`, `2w` or `1y6m`, found `{text}`");
    let mut span = Span::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: i64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = rest[digits..].chars().next().ok_or_else(bad)?;
        span = match unit {
            'y' => span.try_years(number),
            'm' => span.try_months(number),
            'w' => span.try_weeks(number),
            'd' => span.try_days(number),
            'h' => span.try_hours(number),
            _ => return Err(bad()),
        }
        .map_err(|_| bad())?;
        rest = rest[digits + unit.len_utf8()..].trim_start();
    }
    Ok(span)
}

pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| format!("expected a share such as `30%`, found `{text}`"))
}

fn parse_unused(text: &str) -> Result<Unused, String> {
    if text == "unlimited" {
        return Ok(Unused::Unlimited);
    }
    if text.ends_with('%') {
        return parse_percent(text).map(Unused::Percent);
    }
    parse_bytes(text).map(Unused::Bytes).map_err(|_| format!("expected `5%`, a size or `unlimited`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_restic_writes_them() {
        let span = parse_span("1y5m7d2h").unwrap();
        assert_eq!((span.get_years(), span.get_months(), span.get_days(), span.get_hours()), (1, 5, 7, 2));
        assert_eq!(parse_span("2w").unwrap().get_weeks(), 2);
        for bad in ["", "5", "d", "5x", "-1d", "1d5", "99999999999y"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_and_counts_are_bounded() {
        assert_eq!(parse_count("unlimited"), Ok(Count::Unlimited));
        assert_eq!(parse_count("7"), Ok(Count::Of(7)));
        assert!(parse_count("-2").is_err());
        assert_eq!(parse_unused("12.5%"), Ok(Unused::Percent(12.5)));
        assert_eq!(parse_unused("1M"), Ok(Unused::Bytes(1 << 20)));
        for bad in ["130%", "-1%", "x", "NaN%"] {
            assert!(parse_unused(bad).is_err(), "{bad}");
        }
    }
}
