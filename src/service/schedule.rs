//! When something is due: cron expressions in a time zone, and intervals.
//!
//! An expression speaks of clocks on walls. `croner` walks the wall clock, where no hour is missing or
//! doubled; here its times become moments. Where the clock is put forward, what is due in the hour that does
//! not exist is due at its end. Where it is put back, what is due in the hour that exists twice is due once, the first
//! time; only expressions for every hour are due in both.
//!
//! `every 10m` is counted from 1970 plus a phase of the job's own, so that a restart shifts nothing and jobs do
//! not all begin together. Jitter moves each occurrence of an expression by an amount that depends on the job and the
//! occurrence alone, and never past the next one: a restart neither skips nor repeats.
//!
//! Times are milliseconds since 1970.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::Timestamp;
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;

/// Longest interval.
const EVERY_MAX_MS: i64 = 366 * 86_400_000;
/// An expression without a year that ever matches does so within 40 years: a 29 February on a given weekday
/// across 2100.
const AHEAD_MS: i64 = 41 * 366 * 86_400_000;

/// When something is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    kind: Kind,
    /// What phase and jitter are drawn from.
    key: u64,
    jitter_ms: i64,
}

#[derive(Debug, Clone)]
enum Kind {
    Every { period_ms: i64 },
    Cron { cron: Box<Cron>, zone: TimeZone, each_hour: bool },
}

impl Schedule {
    /// Reads `every 10m`, five fields of cron, six with seconds first, or `@daily` and the like.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        let text = text.trim();
        let fault = |why: &str| format!("`{text}` is not a schedule: {why}");
        let kind = match text.strip_prefix("every ") {
            Some(period) => Kind::Every { period_ms: period_ms(period).map_err(|why| fault(&why))? },
            None => {
                let cron = cron(text).map_err(|why| fault(&why))?;
                // No weekday falls on a date that the 400 years of the calendar do not have.
                if civil_next(&cron, date(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
                    return Err(fault("no day matches it"));
                }
                let each_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
                Kind::Cron { cron: Box::new(cron), zone: zone.clone(), each_hour }
            }
        };
        Ok(Self { text: text.to_owned(), kind, key: 0, jitter_ms: 0 })
    }

    /// The same for one of many jobs: with a phase of its own, or moved by up to `jitter`. `seed` is the machine's; it
    /// should stay what it is.
    #[must_use]
    pub fn of(mut self, job: &str, seed: u64, jitter: Duration) -> Self {
        self.key = draw(&[&seed.to_le_bytes(), job.as_bytes(), b"\0", self.text.as_bytes()]);
        if matches!(self.kind, Kind::Cron { .. }) {
            self.jitter_ms = jitter.as_millis().try_into().unwrap_or(i64::MAX).min(EVERY_MAX_MS);
        }
        self
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first occurrence after a moment.
    pub fn next_after(&self, ms: i64) -> Option<i64> {
        if self.jitter_ms > 0 {
            // What is due before `ms` may have been moved after it, but only the last such.
            if let Some(last) = self.exact_last(ms, ms.saturating_sub(self.jitter_ms + 1)) {
                let moved = self.moved(last);
                if moved > ms {
                    return Some(moved);
                }
            }
        }
        self.exact_next(ms).map(|at| self.moved(at))
    }

    /// The last occurrence up to `now_ms` that lies after `not_before_ms`.
    pub fn last_before(&self, now_ms: i64, not_before_ms: i64) -> Option<i64> {
        last(|ms| self.next_after(ms), now_ms, not_before_ms)
    }

    fn exact_last(&self, now_ms: i64, not_before_ms: i64) -> Option<i64> {
        last(|ms| self.exact_next(ms), now_ms, not_before_ms)
    }

    /// Where jitter moves an occurrence to.
    fn moved(&self, at: i64) -> i64 {
        if self.jitter_ms == 0 {
            return at;
        }
        let room = self.exact_next(at).map_or(self.jitter_ms, |next| (next - at - 1).min(self.jitter_ms));
        let by = draw(&[&self.key.to_le_bytes(), &at.to_le_bytes()]) % (room.unsigned_abs() + 1);
        at + by.cast_signed()
    }

    fn exact_next(&self, ms: i64) -> Option<i64> {
        match &self.kind {
            Kind::Every { period_ms } => {
                let phase = (self.key % period_ms.unsigned_abs()).cast_signed();
                let periods = ms.checked_sub(phase)?.div_euclid(*period_ms) + 1;
                periods.checked_mul(*period_ms)?.checked_add(phase)
            }
            Kind::Cron { cron, zone, each_hour } => cron_next(cron, zone, *each_hour, ms),
        }
    }
}

/// The last of what `next` gives that is in `(not_before, now]`, found by halving.
fn last(next: impl Fn(i64) -> Option<i64>, now: i64, not_before: i64) -> Option<i64> {
    let up_to_now = |ms| next(ms).filter(|at| *at <= now);
    let mut found = up_to_now(not_before)?;
    // There is one after `found - 1` and none after `beyond`.
    let mut beyond = now;
    while found < beyond {
        let middle = found + (beyond - found) / 2;
        match up_to_now(middle) {
            Some(at) => found = at,
            None => beyond = middle,
        }
    }
    Some(found)
}

/// The first moment after `ms` at which the wall clock shows what `cron` asks for.
///
/// A zone is a row of stretches of constant offset, and in each of them wall clock and time go alike. At the seams the wall clock
/// jumps: `from` is where the search goes on.
fn cron_next(cron: &Cron, zone: &TimeZone, each_hour: bool, ms: i64) -> Option<i64> {
    let at = Timestamp::from_second(ms.div_euclid(1000)).ok()?;
    let mut offset = zone.to_offset(at);
    let mut from = offset.to_datetime(at).checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
    let after = at.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
    if let Some(seam) = zone.preceding(after).next().filter(|_| !each_hour) {
        let before = zone.to_offset(seam.timestamp().checked_sub(jiff::SignedDuration::from_secs(1)).ok()?);
        from = from.max(before.to_datetime(seam.timestamp()));
    }
    let mut begin = after;
    let mut known: Option<(DateTime, DateTime)> = None;
    let mut seams = zone.following(at);
    loop {
        let seam = seams.next();
        let shown = match known {
            Some((since, shown)) if since <= from && from <= shown => shown,
            _ => civil_next(cron, from)?,
        };
        known = Some((from, shown));
        let Some(seam) = seam.filter(|seam| shown >= offset.to_datetime(seam.timestamp())) else {
            return Some(offset.to_timestamp(shown).ok()?.max(begin).as_millisecond());
        };
        // Forward, what the clock leaves out is looked at as well, and becomes the seam; back, what it shows again is left out.
        from = offset.to_datetime(seam.timestamp());
        offset = seam.offset();
        begin = seam.timestamp();
        if each_hour {
            from = from.min(offset.to_datetime(begin));
        }
        if begin.as_millisecond() - ms > AHEAD_MS {
            return None;
        }
    }
}

/// The first time at or after `from` on a wall clock that is never changed.
fn civil_next(cron: &Cron, from: DateTime) -> Option<DateTime> {
    cron.find_next_occurrence(&from, true).ok()
}

fn cron(text: &str) -> Result<Cron, String> {
    let text = if text.eq_ignore_ascii_case("@midnight") { "@daily" } else { text };
    let parser = CronParser::builder().year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| {
        use croner::errors::CronError;
        match error {
            CronError::EmptyPattern => "it is empty".to_owned(),
            CronError::InvalidPattern(_) => {
                "it has neither the five fields of cron (minute hour day month weekday), nor six with seconds first, nor begins with `every`".to_owned()
            }
            CronError::IllegalCharacters(why) | CronError::ComponentError(why) => lower_first(&why.replace("CronPattern", "it")),
            error => lower_first(&error.to_string()),
        }
    })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// `10m`, `1h30m`, `2 d`.
fn period_ms(text: &str) -> Result<i64, String> {
    let fault = || format!("`{}` is not a time such as `20s`, `10m`, `1h30m` or `2d`", text.trim());
    let mut rest = text.trim();
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
        let number: i64 = rest[..digits].parse().map_err(|_| fault())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "s" | "sec" | "second" | "seconds" => 1000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "w" | "week" | "weeks" => 7 * 86_400_000,
            _ => return Err(fault()),
        };
        sum = number.checked_mul(unit).and_then(|more| sum.checked_add(more)).ok_or_else(fault)?;
        rest = rest[letters..].trim_start();
    }
    match sum {
        0 if text.trim().is_empty() => Err(fault()),
        ..1000 => Err("an interval is at least a second".to_owned()),
        EVERY_MAX_MS.. => Err("an interval is less than 366 days".to_owned()),
        sum => Ok(sum),
    }
}

/// A number that depends on `parts` alone.
pub(super) fn draw(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 1440 * MINUTE;
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    /// The last puts its clock back by half an hour, the one before at a minute past midnight.
    const ZONES: [&str; 5] = [
        "UTC0",
        BERLIN,
        "EST5EDT,M3.2.0,M11.1.0",
        "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01",
        "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    ];

    fn zone(text: &str) -> TimeZone {
        TimeZone::posix(text).unwrap()
    }

    fn schedule(text: &str, tz: &str) -> Schedule {
        Schedule::parse(text, &zone(tz)).unwrap()
    }

    /// A moment by a clock in `tz`; the first, where there are two.
    fn ms(tz: &str, text: &str) -> i64 {
        zone(tz).to_ambiguous_timestamp(text.parse().unwrap()).compatible().unwrap().as_millisecond()
    }

    fn shown(tz: &str, ms: i64) -> String {
        Timestamp::from_millisecond(ms).unwrap().to_zoned(zone(tz)).strftime("%F %T %:z").to_string()
    }

    fn all(schedule: &Schedule, begin: i64, end: i64) -> Vec<i64> {
        std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at))
            .take_while(|at| *at <= end)
            .collect()
    }

    /// The days on which `text` is due in Berlin.
    fn days(text: &str, begin: &str, end: &str) -> Vec<String> {
        all(&schedule(text, BERLIN), ms(BERLIN, begin) - 1, ms(BERLIN, end))
            .iter()
            .map(|at| shown(BERLIN, *at))
            .collect()
    }

    /// What a field means, by the slowest and plainest way.
    fn field(text: &str, first: i64, last: i64) -> Vec<i64> {
        text.split(',')
            .flat_map(|part| {
                let (range, step) =
                    part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
                let (low, high) = match range.split_once('-') {
                    Some((low, high)) => (low.parse().unwrap(), high.parse().unwrap()),
                    None if range == "*" => (first, last),
                    None => (range.parse().unwrap(), range.parse().unwrap()),
                };
                (low..=high).step_by(step)
            })
            .collect()
    }

    /// All moments in `(begin, end]` at which `text` is due, found by looking at a clock each minute.
    fn walk(text: &str, tz: &TimeZone, begin: i64, end: i64) -> Vec<i64> {
        let fields: Vec<&str> = text.split(' ').collect();
        let [minutes, hours, days, months, weekdays] = [(0, 0, 59), (1, 0, 23), (2, 1, 31), (3, 1, 12), (4, 0, 6)]
            .map(|(at, low, high)| field(fields[at], low, high));
        let due = |at: DateTime| {
            let by_day = days.contains(&i64::from(at.day()));
            let by_weekday = weekdays.contains(&i64::from(at.weekday().to_sunday_zero_offset()));
            minutes.contains(&i64::from(at.minute()))
                && hours.contains(&i64::from(at.hour()))
                && months.contains(&i64::from(at.month()))
                && match (fields[2], fields[4]) {
                    ("*", _) | (_, "*") => by_day && by_weekday,
                    _ => by_day || by_weekday,
                }
        };
        let each_hour = hours.len() == 24;
        let clock = |ms: i64| tz.to_datetime(Timestamp::from_millisecond(ms).unwrap());
        let mut seen = std::collections::HashSet::new();
        let mut found = Vec::new();
        // From half a day before, so that it is known what clocks have shown already.
        for at in (begin - DAY / 2 + 1..=end).filter(|ms| ms.rem_euclid(MINUTE) == 0) {
            let now = clock(at);
            let mut left_out = clock(at - MINUTE) + jiff::SignedDuration::from_mins(1);
            let mut is_due = due(now) && (each_hour || !seen.contains(&now));
            while left_out < now {
                is_due |= due(left_out);
                left_out += jiff::SignedDuration::from_mins(1);
            }
            seen.insert(now);
            if is_due && at > begin {
                found.push(at);
            }
        }
        found
    }

    fn expression() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let minute = prop_oneof![
            Just("*".to_owned()),
            (0..60u8).prop_map(|m| m.to_string()),
            (1..40u8).prop_map(|m| format!("*/{m}")),
            (0..30u8, 30..60u8).prop_map(|(a, b)| format!("{a},{b}"))
        ];
        let hour = prop_oneof![2 => Just("*".to_owned()), 3 => (0..4u8).prop_map(|h| h.to_string()), 1 => (0..24u8).prop_map(|h| h.to_string()), 1 => (1..8u8).prop_map(|h| format!("*/{h}")), 1 => (0..3u8, 3..24u8).prop_map(|(a, b)| format!("{a}-{b}"))];
        let day = prop_oneof![3 => Just("*".to_owned()), 1 => (1..32u8).prop_map(|d| d.to_string())];
        let weekday = prop_oneof![3 => Just("*".to_owned()), 1 => (0..7u8).prop_map(|d| d.to_string())];
        (minute, hour, day, weekday)
            .prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        /// Around the seams of each zone, and anywhere.
        #[test]
        fn expressions_are_due_when_a_clock_looked_at_each_minute_says_so(
            text in expression(), zone_at in 0..ZONES.len(), at_seam: bool, start in 0..400i64 * DAY, shift in -DAY..DAY,
            looks in proptest::collection::vec((0.0..1.0f64, 0.0..1.0f64), 10),
        ) {
            let tz = zone(ZONES[zone_at]);
            let base = ms("UTC0", "2026-01-01T00:00:00") + start;
            let seam = tz.following(Timestamp::from_millisecond(base).unwrap()).next().filter(|_| at_seam);
            let begin = seam.map_or(base, |seam| seam.timestamp().as_millisecond()) + shift / 2 - DAY / 2;
            let end = begin + 3 * DAY / 2;
            let schedule = Schedule::parse(&text, &tz).unwrap();
            let expected = walk(&text, &tz, begin, end);
            proptest::prop_assert_eq!(all(&schedule, begin, end), expected.clone());
            for (now, since) in looks {
                let now = begin + ((end - begin) as f64 * now) as i64;
                let since = begin + ((now - begin) as f64 * since) as i64;
                let last = expected.iter().copied().rfind(|at| *at > since && *at <= now);
                proptest::prop_assert_eq!(schedule.last_before(now, since), last);
                let next = expected.iter().copied().find(|at| *at > now);
                proptest::prop_assert_eq!(schedule.next_after(now).filter(|at| *at <= end), next);
            }
        }

        /// Whatever moment it is asked at, jitter gives the same occurrences: each once, in order, none too late.
        #[test]
        fn jitter_moves_each_occurrence_and_neither_loses_nor_doubles_one(
            text in expression(), seed: u64, jitter_secs in 1..20_000u64, start in 0..400i64 * DAY, asked in 0.0..1.0f64,
        ) {
            let exact = schedule(&text, BERLIN);
            let jitter = Duration::from_secs(jitter_secs);
            let moved = exact.clone().of("job", seed, jitter);
            let begin = ms("UTC0", "2026-01-01T00:00:00") + start;
            let end = begin + 2 * DAY;
            let times = all(&exact, begin - DAY, end);
            let expected: Vec<i64> = times.iter().map(|at| moved.moved(*at)).filter(|at| *at > begin && *at <= end).collect();
            proptest::prop_assert_eq!(all(&moved, begin, end), expected.clone());
            for pair in times.windows(2) {
                let to = moved.moved(pair[0]);
                proptest::prop_assert!(to >= pair[0] && to < pair[1] && to - pair[0] <= jitter.as_millis() as i64);
            }
            let now = begin + ((end - begin) as f64 * asked) as i64;
            proptest::prop_assert_eq!(moved.next_after(now).filter(|at| *at <= end), expected.iter().copied().find(|at| *at > now));
            proptest::prop_assert_eq!(moved.last_before(now, begin), expected.iter().copied().rfind(|at| *at <= now));
        }
    }

    #[test]
    fn a_time_that_a_day_does_not_have_or_has_twice_is_due_once() {
        assert_eq!(
            days("30 2 * * *", "2026-03-28T00:00:00", "2026-03-31T00:00:00"),
            ["2026-03-28 02:30:00 +01:00", "2026-03-29 03:00:00 +02:00", "2026-03-30 02:30:00 +02:00"]
        );
        assert_eq!(
            days("30 2,14 * * *", "2026-10-25T00:00:00", "2026-10-26T00:00:00"),
            ["2026-10-25 02:30:00 +02:00", "2026-10-25 14:30:00 +01:00"]
        );
        let second = ms("UTC0", "2026-10-25T01:10:00");
        assert_eq!(shown(BERLIN, second), "2026-10-25 02:10:00 +01:00");
        let next = schedule("30 2,14 * * *", BERLIN).next_after(second).unwrap();
        assert_eq!(
            shown(BERLIN, next),
            "2026-10-25 14:30:00 +01:00",
            "also when it is asked in the hour that is the second"
        );
        assert_eq!(
            days("30 * * * *", "2026-10-25T01:00:00", "2026-10-25T04:00:00"),
            [
                "2026-10-25 01:30:00 +02:00",
                "2026-10-25 02:30:00 +02:00",
                "2026-10-25 02:30:00 +01:00",
                "2026-10-25 03:30:00 +01:00"
            ]
        );
    }

    /// Samoa went from the 29th to the 31st of December 2011.
    #[test]
    fn what_was_due_on_a_day_that_a_zone_left_out_is_due_after_it() {
        let samoa = TimeZone::get("Pacific/Apia").expect("the zones of the world, as tzdata has them");
        let noon = Schedule::parse("0 12 * * *", &samoa).unwrap();
        let begin: Timestamp = "2011-12-29T00:00:00Z".parse().unwrap();
        let times = all(&noon, begin.as_millisecond(), begin.as_millisecond() + 5 * DAY / 2);
        let times: Vec<_> =
            times.iter().map(|ms| samoa.to_datetime(Timestamp::from_millisecond(*ms).unwrap()).to_string()).collect();
        assert_eq!(times, ["2011-12-29T12:00:00", "2011-12-31T00:00:00", "2011-12-31T12:00:00"]);
    }

    #[test]
    fn leap_days_and_the_last_of_the_month_are_found_however_far_away() {
        assert_eq!(
            days("0 3 29 2 *", "2026-01-01T00:00:00", "2033-01-01T00:00:00"),
            ["2028-02-29 03:00:00 +01:00", "2032-02-29 03:00:00 +01:00"]
        );
        // A leap day on a Monday.
        assert_eq!(
            days("0 3 29 2 +1", "2072-01-01T00:00:00", "2130-01-01T00:00:00"),
            ["2072-02-29 03:00:00 +01:00", "2112-02-29 03:00:00 +01:00"]
        );
        assert_eq!(
            days("0 0 L 2 *", "2027-01-01T00:00:00", "2028-12-01T00:00:00"),
            ["2027-02-28 00:00:00 +01:00", "2028-02-29 00:00:00 +01:00"]
        );
    }

    #[test]
    fn shorthands_and_seconds_are_understood() {
        for (short, long) in [
            ("@yearly", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * 0"),
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 0 * * *"),
            ("@hourly", "0 * * * *"),
            (" 0 8 * * mon-fri ", "0 8 * * 1-5"),
        ] {
            let begin = ms(BERLIN, "2026-01-01T00:00:00");
            assert_eq!(
                all(&schedule(short, BERLIN), begin, begin + 400 * DAY)[..],
                all(&schedule(long, BERLIN), begin, begin + 400 * DAY)[..],
                "{short}"
            );
        }
        assert_eq!(days("*/20 0 3 * * *", "2026-01-01T03:00:00", "2026-01-01T03:01:00").len(), 3);
    }

    #[test]
    fn an_interval_goes_on_where_it_was_after_a_restart_and_each_job_has_its_phase() {
        let begin = ms("UTC0", "2026-01-01T00:00:00");
        let of = |job: &str| schedule("every 10m", BERLIN).of(job, 7, Duration::from_secs(99));
        let times = all(&of("a"), begin, begin + DAY);
        assert_eq!(times.len(), 144);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 10 * MINUTE));
        for now in (begin..begin + DAY).step_by(77_777) {
            assert_eq!(
                of("a").next_after(now),
                times.iter().copied().find(|at| *at > now).or(Some(times[143] + 10 * MINUTE))
            );
            assert_eq!(of("a").last_before(now, begin), times.iter().copied().rfind(|at| *at <= now));
        }
        let phases: std::collections::BTreeSet<i64> =
            (0..100).map(|job| of(&job.to_string()).next_after(begin).unwrap() - begin).collect();
        assert!(phases.len() > 95 && *phases.last().unwrap() - *phases.first().unwrap() > 8 * MINUTE, "{phases:?}");
        assert_eq!(schedule("every 1h30m", BERLIN).next_after(0), Some(90 * MINUTE));
        assert_eq!(schedule("every 2 days", BERLIN).next_after(0), Some(2 * DAY));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_reason() {
        let refused = |text: &str| Schedule::parse(text, &TimeZone::UTC).unwrap_err();
        let all: Vec<String> = [
            "",
            "0 0 30 2 *",
            "0 0 31 4,6,9,11 *",
            "61 * * * *",
            "* * * *",
            "0 0 1 1 * 2030 x",
            "0 0 0 1 1 * 2030",
            "@reboot",
            "a b c d e",
            "every",
            "every 0s",
            "every 10",
            "every m",
            "every 500ms",
            "every 10 parsecs",
            "every 9999999999999999999s",
            "every 999999999999w",
            "every 2000d",
        ]
        .map(refused)
        .to_vec();
        let expected = [
            "`` is not a schedule: it is empty",
            "`0 0 30 2 *` is not a schedule: no day matches it",
            "`0 0 31 4,6,9,11 *` is not a schedule: no day matches it",
            "`61 * * * *` is not a schedule: number out of bounds",
            "`* * * *` is not a schedule: FIELDS",
            "`0 0 1 1 * 2030 x` is not a schedule: FIELDS",
            "`0 0 0 1 1 * 2030` is not a schedule: FIELDS",
            "`@reboot` is not a schedule: FIELDS",
            "`a b c d e` is not a schedule: it contains illegal character 'A' in part 'A'",
            "`every` is not a schedule: FIELDS",
            "`every 0s` is not a schedule: an interval is at least a second",
            "`every 10` is not a schedule: `10` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every m` is not a schedule: `m` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every 500ms` is not a schedule: `500ms` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every 10 parsecs` is not a schedule: `10 parsecs` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every 9999999999999999999s` is not a schedule: `9999999999999999999s` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every 999999999999w` is not a schedule: `999999999999w` is not a time such as `20s`, `10m`, `1h30m` or `2d`",
            "`every 2000d` is not a schedule: an interval is less than 366 days",
        ];
        let fields = "it has neither the five fields of cron (minute hour day month weekday), nor six with seconds first, nor begins with `every`";
        assert_eq!(all, expected.map(|line| line.replace("FIELDS", fields)));
    }

    /// Near the ends of time and far from now.
    #[test]
    fn no_moment_makes_it_panic() {
        let table = ["* * * * * *", "0 0 29 2 *", "every 1s", "every 365d", "30 2 * * *"];
        for text in table {
            for jitter in [0, 100_000_000_000] {
                let schedule = schedule(text, BERLIN).of("job", 1, Duration::from_secs(jitter));
                for at in
                    [i64::MIN, i64::MIN + 1, -377_705_116_800_000, -1, 0, 253_402_207_200_000, i64::MAX - 1, i64::MAX]
                {
                    let _ = (
                        schedule.next_after(at),
                        schedule.last_before(at, at.saturating_sub(1000)),
                        schedule.last_before(at, i64::MIN),
                    );
                }
            }
        }
    }
}
