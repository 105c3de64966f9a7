//! Which snapshots a policy keeps, with restic's names and meanings.
//!
//! Snapshots are taken in groups, newest first. Of each hour (day, week, month, year) that has any, the
//! newest is kept, for as many of these as the policy says; when there are fewer, the oldest snapshot is kept
//! in the place of those. What is kept for any reason is kept.
//!
//! Each key's snapshots are a group of their own: what a stolen key signs, dated as it likes, takes nobody
//! else's place. A snapshot from the future counts as made now.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::error::{Error, Kind, Result};
use crate::repo::snapshots::SnapshotInfo;
use crate::world::Time;

/// How many of something are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Of(u64),
    /// All.
    Unlimited,
}

/// A stretch of the calendar of which one snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// All periods, and what people call them.
pub const PERIODS: [(Period, &str); 5] = [
    (Period::Hour, "hourly"),
    (Period::Day, "daily"),
    (Period::Week, "weekly"),
    (Period::Month, "monthly"),
    (Period::Year, "yearly"),
];

/// What is kept of a group.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The newest.
    pub last: Option<Count>,
    /// One of each such period, for so many of them.
    pub periods: Vec<(Period, Count)>,
    /// All within this span of the newest.
    pub within: Option<Span>,
    /// One of each such period within this span of the newest.
    pub within_periods: Vec<(Period, Span)>,
    /// Those with all of these tags, for any of these lists.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// Whether it would keep nothing, whatever there is.
    pub fn is_empty(&self) -> bool {
        let none = |count: &Count| *count == Count::Of(0);
        self.last.as_ref().is_none_or(none)
            && self.periods.iter().all(|(_, count)| none(count))
            && self.within.is_none()
            && self.within_periods.is_empty()
            && self.tags.is_empty()
    }

    /// Why each snapshot of a group, which is oldest first, is kept; no reason means it is to be forgotten.
    pub fn reasons(&self, group: &[SnapshotInfo], now: Time, zone: &TimeZone) -> Result<Vec<Vec<String>>> {
        let moments: Vec<Zoned> = group.iter().map(|info| moment(info.snapshot.time.min(now), zone)).collect();
        let mut reasons = vec![Vec::new(); group.len()];
        let Some(newest) = moments.iter().max().cloned() else { return Ok(reasons) };
        // By the time that counts; of equal ones the one committed later is newer.
        let mut order: Vec<usize> = (0..group.len()).collect();
        order.sort_by(|a, b| moments[*b].cmp(&moments[*a]).then(b.cmp(a)));
        let from = |span: &Span| {
            newest.checked_sub(*span).map_err(|error| {
                Error::new(Kind::Usage, "a `--keep-within` reaches out of the calendar").because(error)
            })
        };
        match self.last {
            Some(Count::Unlimited) => order.iter().for_each(|at| reasons[*at].push("last".to_owned())),
            Some(Count::Of(count)) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                order.iter().take(count).for_each(|at| reasons[*at].push("last".to_owned()));
            }
            None => {}
        }
        for (period, count) in &self.periods {
            let mut left = match count {
                Count::Of(count) => *count,
                Count::Unlimited => u64::MAX,
            };
            let mut current = None;
            for at in &order {
                let bucket = bucket(*period, &moments[*at]);
                let is_oldest = Some(at) == order.last();
                if left > 0 && (current != Some(bucket) || is_oldest) {
                    let name = name_of(*period);
                    reasons[*at].push(match current == Some(bucket) {
                        true => format!("oldest {name}"),
                        false => name.to_owned(),
                    });
                    left -= 1;
                }
                current = Some(bucket);
            }
        }
        if let Some(span) = &self.within {
            let from = from(span)?;
            order.iter().filter(|at| moments[**at] >= from).for_each(|at| reasons[*at].push("within".to_owned()));
        }
        for (period, span) in &self.within_periods {
            let from = from(span)?;
            let mut current = None;
            for at in order.iter().filter(|at| moments[**at] >= from) {
                let bucket = bucket(*period, &moments[*at]);
                if current != Some(bucket) {
                    reasons[*at].push(format!("{} within", name_of(*period)));
                    current = Some(bucket);
                }
            }
        }
        for (at, info) in group.iter().enumerate() {
            if self.tags.iter().any(|tags| tags.iter().all(|tag| info.snapshot.tags.contains(tag))) {
                reasons[at].push("tag".to_owned());
            }
        }
        Ok(reasons)
    }
}

fn name_of(period: Period) -> &'static str {
    PERIODS.iter().find(|(known, _)| *known == period).map_or("", |(_, name)| name)
}

fn moment(time: Time, zone: &TimeZone) -> Zoned {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    let moment = Timestamp::new(time.secs, nanos);
    moment.unwrap_or(if time.secs < 0 { Timestamp::MIN } else { Timestamp::MAX }).to_zoned(zone.clone())
}

/// A number that snapshots of one period share and others of that kind do not.
fn bucket(period: Period, moment: &Zoned) -> i64 {
    let year = i64::from(moment.year());
    match period {
        Period::Year => year,
        Period::Month => year * 12 + i64::from(moment.month()),
        Period::Week => {
            let week = moment.date().iso_week_date();
            i64::from(week.year()) * 60 + i64::from(week.week())
        }
        Period::Day => year * 366 + i64::from(moment.day_of_year()),
        // By the clock: the hour that comes twice when summer ends is one, as in restic.
        Period::Hour => (year * 366 + i64::from(moment.day_of_year())) * 24 + i64::from(moment.hour()),
    }
}
