//! Numbers in words, and tables.

use std::time::Duration;

use crate::repo::drills::Outcome;

/// A size with an IEC unit: `512 B`, `3.0 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 is one of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with its thousands apart: `41,872`.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 file`, `2 files`.
pub(super) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A length of time: `40 ms`, `0.4 s`, `3 min 12 s`, `1 h 02 min`.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 if time.as_millis() < 100 => format!("{} ms", time.as_millis()),
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        secs @ 10..60 => format!("{secs} s"),
        secs @ 60..3600 => format!("{} min {:02} s", secs / 60, secs % 60),
        secs => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
    }
}

/// A share in percent, or a dash of nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}

/// Reads a size: a number with an optional unit of 1024, `10M`, `64KiB`, `1 GB`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("expected a size such as 500M or 2GiB, found `{text}`");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let power = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let factor = 1_u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if value.is_finite() && value < u64::MAX as f64 { Ok(value as u64) } else { Err(bad()) }
}

/// Text for a terminal: control characters, which could steer it, as `\xNN`.
pub(super) fn plain(text: &str) -> String {
    crate::path::display_bytes(text.as_bytes())
}

/// How a drill ended.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Incomplete => "passed in part",
        Outcome::Damaged => "FAILED: damaged",
        Outcome::Different => "FAILED: different",
        Outcome::CheckFailed => "FAILED: check command",
        Outcome::TooSlow => "FAILED: too slow",
    }
}

/// Which side of its column a cell stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows with aligned columns, two spaces apart.
#[derive(Debug, Default)]
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()],
        }
    }

    /// A table without headings.
    pub(super) fn bare(sides: &[Side]) -> Self {
        Self { sides: sides.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Its lines, without spaces at their ends.
    pub(super) fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (column, ((cell, width), side)) in row.iter().zip(&widths).zip(&self.sides).enumerate() {
                let gap = if column == 0 { 0 } else { 2 };
                let padding = width - cell.chars().count();
                let (before, after) = if *side == Side::Left { (gap, padding) } else { (gap + padding, 0) };
                line.extend(std::iter::repeat_n(' ', before));
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', after));
            }
            line.truncate(line.trim_end().len());
            line
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3 << 20, "3.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (text, count) in [("0", 0), ("10M", 10 << 20), ("64KiB", 65536), ("1.5k", 1536), ("1 GB", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(count), "{text}");
        }
        for bad in ["", "x", "-1", "1Q", "99999999999999999999T", "1e400"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_times_are_grouped() {
        assert_eq!([number(7), number(999), number(41_872), number(1_000_000)], ["7", "999", "41,872", "1,000,000"]);
        assert_eq!(count(1, "file", "files"), "1 file");
        let times = [0.04, 0.41, 12.9, 192.0, 3725.0].map(|secs| duration(Duration::from_secs_f64(secs)));
        assert_eq!(times, ["40 ms", "0.4 s", "12 s", "3 min 12 s", "1 h 02 min"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("ID", Side::Left), ("Size", Side::Right), ("", Side::Left)]);
        table.row(["a".into(), "10 B".into(), "x".into()]);
        table.row(["bcd".into(), "9 B".into(), String::new()]);
        assert_eq!(table.lines(), ["ID   Size", "a    10 B  x", "bcd   9 B"]);
    }
}
