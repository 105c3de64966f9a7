//! A tree as a zip file, for machines that know nothing better.

use std::io::{Seek, Write};

use ::zip::write::{FullFileOptions, ZipWriter};
use ::zip::{CompressionMethod, DateTime};

use super::{THREADS, entries_of, write_zeros, written};
use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Attributes, Detail, Entry};
use crate::monitor::{Monitor, Severity};
use crate::path::TreePath;
use crate::repo::fetch::{self, Part};
use crate::repo::reader::ReadRepo;
use crate::world::Time;

pub(super) fn write<R: ReadRepo + ?Sized>(repo: &R, top: &Entry, out: &mut dyn Write, monitor: &Monitor) -> Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    let mut entries = entries_of(repo, top);
    fetch::run(repo, THREADS, &mut entries, &mut |part| match part {
        Part::Begin(begun) => {
            monitor.done(1, begun.1.size());
            begin(&mut zip, &begun.0, &begun.1, monitor)
        }
        Part::Bytes(bytes) => zip.write_all(&bytes).context(written),
        Part::Zeros(bytes) => write_zeros(&mut zip, bytes).context(written),
        Part::End => Ok(()),
    })?;
    let mut out = zip.finish().map_err(failed)?;
    out.flush().context(written)
}

fn begin<W: Write + Seek>(zip: &mut ZipWriter<W>, path: &TreePath, entry: &Entry, monitor: &Monitor) -> Result<()> {
    let name = name_of(&path.as_bytes()[1..]);
    let options = options(&entry.attributes)?;
    match &entry.detail {
        Detail::File { size, .. } => {
            let options = options.large_file(*size >= u64::from(u32::MAX) / 2);
            zip.start_file(name, options).map_err(failed)
        }
        Detail::Directory { .. } => zip.add_directory(name, options).map_err(failed),
        Detail::Symlink { target } => zip.add_symlink(name, String::from_utf8_lossy(target), options).map_err(failed),
        Detail::Fifo | Detail::CharDevice { .. } | Detail::BlockDevice { .. } => {
            monitor.problem(Severity::Warning, path.to_string(), "a zip file holds no devices and fifos: left out");
            Ok(())
        }
    }
}

fn options(attributes: &Attributes) -> Result<FullFileOptions<'static, 'static>> {
    let options = FullFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(dos_time(attributes.mtime))
        .unix_permissions(attributes.mode & 0o7777);
    let mut options = options;
    if let Ok(secs) = i32::try_from(attributes.mtime.secs) {
        // "UT": one flag for the time of change, then the time.
        let mut field = vec![1];
        field.extend_from_slice(&secs.to_le_bytes());
        options.add_extra_field(0x5455, field, false).map_err(failed)?;
    }
    Ok(options)
}

/// The nearest time that the old field has: 1980 to 2107, in UTC.
fn dos_time(time: Time) -> DateTime {
    let civil = jiff::Timestamp::from_second(time.secs).map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).datetime());
    let small = |number: i8| u8::try_from(number).unwrap_or(1);
    civil
        .ok()
        .and_then(|at| {
            let year = u16::try_from(at.year()).ok()?;
            let (hour, minute, second) = (small(at.hour()), small(at.minute()), small(at.second()));
            DateTime::from_date_and_time(year, small(at.month()), small(at.day()), hour, minute, second).ok()
        })
        .unwrap_or_default()
}

/// A name as zip has them, in UTF-8. Backslashes separate directories for some programs, and so,
/// like control characters and what is not UTF-8, are written as `%5C`.
fn name_of(bytes: &[u8]) -> String {
    let mut name = String::new();
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c == '\\' || c.is_ascii_control() {
                name.push_str(&format!("%{:02X}", u32::from(c)));
            } else {
                name.push(c);
            }
        }
        part.invalid().iter().for_each(|byte| name.push_str(&format!("%{byte:02X}")));
    }
    name
}

fn failed(error: ::zip::result::ZipError) -> Error {
    Error::new(Kind::Failed, "cannot write the zip file").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_a_path() {
        assert_eq!(name_of(b"a/caf\xc3\xa9"), "a/café");
        assert_eq!(name_of(b"..\\..\\x\xff\n"), "..%5C..%5Cx%FF%0A");
    }

    #[test]
    fn a_time_outside_the_range_of_the_field_is_no_error() {
        assert_eq!(dos_time(Time::from_secs(981_173_106)).to_string(), "2001-02-03 04:05:06");
        assert_eq!(dos_time(Time::from_secs(-5)), DateTime::default());
        assert_eq!(dos_time(Time::from_secs(i64::MAX)), DateTime::default());
    }
}
