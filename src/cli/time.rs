//! Moments: shown in local time, read in the forms people type.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::world::Time;

fn zoned(time: Time, zone: &TimeZone) -> Zoned {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    let moment = Timestamp::new(time.secs, nanos);
    // What no calendar holds is shown as the nearest it does.
    moment.unwrap_or(if time.secs < 0 { Timestamp::MIN } else { Timestamp::MAX }).to_zoned(zone.clone())
}

/// Local time to the second: `2001-02-03 04:05:07`.
pub(super) fn show(time: Time, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same as a part of a file's name, without what has a meaning in some: `2001-02-03T04-05-07`.
#[cfg(feature = "mount")]
pub(super) fn file_name(time: Time, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%Y-%m-%dT%H-%M-%S").to_string()
}

/// RFC 3339 with the local offset, for programs.
pub(super) fn rfc3339(time: Time, zone: &TimeZone) -> String {
    let zoned = zoned(time, zone);
    zoned.timestamp().display_with_offset(zoned.offset()).to_string()
}

/// Which end of a day a date without a time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DayEnd {
    First,
    Last,
}

/// Reads RFC 3339, a local date with or without a time, or how long ago: `2h ago`, or `2h`.
pub(super) fn parse(text: &str, now: Time, zone: &TimeZone, day: DayEnd) -> Result<Time, String> {
    let bad =
        || format!("expected a time such as `2026-01-15 10:30`, `2026-01-15T10:30:00Z` or `2h ago`, found `{text}`");
    let text = text.trim();
    if let Ok(age) = parse_age(text) {
        let age = i64::try_from(age).map_err(|_| bad())?;
        return Ok(Time { secs: now.secs.checked_sub(age).ok_or_else(bad)?, ..now });
    }
    let from = |moment: Timestamp| {
        let nanos = moment.as_nanosecond();
        let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| bad())?;
        Ok(Time { secs, nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| bad())? })
    };
    if let Ok(moment) = text.parse::<Timestamp>() {
        return from(moment);
    }
    if text.ends_with("ago") {
        let span: Span = text.parse().map_err(|_| bad())?;
        return from(zoned(now, zone).checked_add(span).map_err(|_| bad())?.timestamp());
    }
    let is_date = text.len() <= 10;
    let local = if is_date {
        let date: Date = text.parse().map_err(|_| bad())?;
        match day {
            DayEnd::First => date.at(0, 0, 0, 0),
            DayEnd::Last => date.at(23, 59, 59, 999_999_999),
        }
    } else {
        text.parse::<DateTime>().map_err(|_| bad())?
    };
    from(zone.to_ambiguous_zoned(local).compatible().map_err(|_| bad())?.timestamp())
}

/// Reads a length of time such as `30d`, `12h` or `2w 3d`, as seconds; a day has 24 hours.
pub(super) fn parse_age(text: &str) -> Result<u64, String> {
    let bad = || format!("expected a time such as `30d`, `12h` or `2w`, found `{text}`");
    let span: Span = text.trim().parse().map_err(|_| bad())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    u64::try_from(duration.as_secs()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_days_hours_and_weeks() {
        let read = [("30d", 30 * 86_400), ("12h", 43_200), ("2w", 14 * 86_400), ("1d 1h", 90_000), ("0s", 0)];
        for (text, secs) in read {
            assert_eq!(parse_age(text), Ok(secs), "{text}");
        }
        for bad in ["", "30", "-1d", "1 month", "ago", "2h ago"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_typed() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = Time::from_secs(1_768_473_000); // 2026-01-15 12:30 here
        let at = |text| parse(text, now, &zone, DayEnd::Last).map(|time| show(time, &zone));
        for (text, shown) in [
            ("2026-01-15 10:30", "2026-01-15 10:30:00"),
            ("2026-01-15T10:30:05", "2026-01-15 10:30:05"),
            ("2026-01-15T10:30:00Z", "2026-01-15 12:30:00"),
            ("2026-01-15T10:30:00+01:00", "2026-01-15 11:30:00"),
            ("2026-01-14", "2026-01-14 23:59:59"),
            ("2h ago", "2026-01-15 10:30:00"),
            ("7d", "2026-01-08 12:30:00"),
            ("1 day 30 min ago", "2026-01-14 12:00:00"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(shown), "{text}");
        }
        let first = parse("2026-01-14", now, &zone, DayEnd::First).unwrap();
        assert_eq!(show(first, &zone), "2026-01-14 00:00:00");
        for bad in ["", "yesterday", "ago", "2026-13-01", "2026-01-15 25:00", "5 parsecs ago"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!(rfc3339(now, &zone), "2026-01-15T12:30:00+02:00");
        assert_eq!(show(Time::from_secs(i64::MAX), &zone).get(..4), Some("9999"));
    }
}
