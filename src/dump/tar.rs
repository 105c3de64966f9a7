//! A tree as a POSIX tar stream.
//!
//! What the old header has no room for (long or odd names, fractions of seconds, times before
//! 1970, large ids and sizes, extended attributes) stands in PAX records before it, as GNU tar and
//! bsdtar write and read them.

use std::collections::HashMap;
use std::io::Write;

use ::tar::{EntryType, Header};

use super::{THREADS, entries_of, write_zeros, written};
use crate::error::{Context, Result};
use crate::format::tree::{Attributes, Detail, Entry};
use crate::id::LinkGroup;
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::fetch::{self, Part};
use crate::repo::reader::ReadRepo;
use crate::world::Time;

const BLOCK: u64 = 512;

/// Largest number in the octal fields of 8 and 12 bytes.
const SMALL_MAX: u64 = 0o7_777_777;
const LARGE_MAX: u64 = 0o77_777_777_777;

pub(super) fn write<R: ReadRepo + ?Sized>(repo: &R, top: &Entry, out: &mut dyn Write, monitor: &Monitor) -> Result<()> {
    let mut seen: HashMap<LinkGroup, Vec<u8>> = HashMap::new();
    let mut entries = entries_of(repo, top).map(|entry| {
        let (path, mut entry) = entry?;
        let name = path.as_bytes()[1..].to_vec();
        // A further name of a file has no bytes of its own.
        let first = entry.linked_file().and_then(|group| match seen.get(&group) {
            Some(first) => Some(first.clone()),
            None => {
                seen.insert(group, name);
                None
            }
        });
        if let Some(first) = first {
            entry.detail = Detail::Symlink { target: first };
        } else {
            entry.attributes.link_group = None;
        }
        Ok((path, entry))
    });
    let mut bytes = 0;
    fetch::run(repo, THREADS, &mut entries, &mut |part| match part {
        Part::Begin(begun) => {
            let (path, entry) = *begun;
            bytes = entry.size();
            monitor.done(1, bytes);
            out.write_all(&headers(&path, &entry)).context(written)
        }
        Part::Bytes(bytes) => out.write_all(&bytes).context(written),
        Part::Zeros(bytes) => write_zeros(out, bytes).context(written),
        Part::End => write_zeros(out, bytes.next_multiple_of(BLOCK) - bytes).context(written),
    })?;
    write_zeros(out, 2 * BLOCK).and_then(|()| out.flush()).context(written)
}

/// The header of an entry, with PAX records before it where they are needed. A link with a link
/// group is a hard link.
fn headers(path: &TreePath, entry: &Entry) -> Vec<u8> {
    let attributes = &entry.attributes;
    let mut pax = Pax(Vec::new());
    let mut header = Header::new_ustar();
    let mut name = path.as_bytes()[1..].to_vec();
    let kind = match &entry.detail {
        Detail::File { .. } => EntryType::Regular,
        Detail::Directory { .. } => {
            name.push(b'/');
            EntryType::Directory
        }
        Detail::Symlink { target } => {
            pax.name(&mut header.as_old_mut().linkname, "linkpath", target);
            if attributes.link_group.is_some() { EntryType::Link } else { EntryType::Symlink }
        }
        Detail::Fifo => EntryType::Fifo,
        Detail::CharDevice { .. } => EntryType::Char,
        Detail::BlockDevice { .. } => EntryType::Block,
    };
    header.set_entry_type(kind);
    pax.name(&mut header.as_old_mut().name, "path", &name);
    if let Detail::CharDevice { major, minor } | Detail::BlockDevice { major, minor } = entry.detail {
        let ustar = header.as_ustar_mut().expect("the header was made as one");
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    header.set_mode(attributes.mode);
    header.set_uid(pax.number("uid", u64::from(attributes.uid), SMALL_MAX));
    header.set_gid(pax.number("gid", u64::from(attributes.gid), SMALL_MAX));
    header.set_size(pax.number("size", entry.size(), LARGE_MAX));
    header.set_mtime(pax.time(attributes.mtime));
    pax.owners(&mut header, attributes);
    if kind != EntryType::Link {
        pax.xattrs(attributes);
    }
    header.set_cksum();
    let mut out = pax.encode();
    out.extend_from_slice(header.as_bytes());
    out
}

/// PAX records being collected.
struct Pax(Vec<u8>);

impl Pax {
    /// `<length> <key>=<value>\n`, the length counting itself.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Puts a name into its field, and into a record where it does not fit or is not ASCII.
    fn name(&mut self, field: &mut [u8; 100], key: &str, name: &[u8]) {
        let fits = name.len() <= field.len();
        if !fits || !name.is_ascii() {
            if std::str::from_utf8(name).is_err() {
                self.record(b"hdrcharset", b"BINARY");
            }
            self.record(key.as_bytes(), name);
        }
        let part = &name[..name.len().min(field.len())];
        field[..part.len()].copy_from_slice(part);
    }

    /// What goes into the field of a number; a record as well if that is not all of it.
    fn number(&mut self, key: &str, value: u64, max: u64) -> u64 {
        if value > max {
            self.record(key.as_bytes(), value.to_string().as_bytes());
            return 0;
        }
        value
    }

    fn time(&mut self, time: Time) -> u64 {
        let field = u64::try_from(time.secs).ok().filter(|secs| *secs <= LARGE_MAX);
        if field.is_none() || time.nanos != 0 {
            self.record(b"mtime", decimal(time).as_bytes());
        }
        field.unwrap_or(0)
    }

    fn owners(&mut self, header: &mut Header, attributes: &Attributes) {
        let ustar = header.as_ustar_mut().expect("the header was made as one");
        let fields = [(&mut ustar.uname, "uname", &attributes.user), (&mut ustar.gname, "gname", &attributes.group)];
        for (field, key, name) in fields {
            let name = name.as_deref().unwrap_or("").as_bytes();
            if name.len() < field.len() && name.is_ascii() {
                field[..name.len()].copy_from_slice(name);
            } else {
                self.record(key.as_bytes(), name);
            }
        }
    }

    fn xattrs(&mut self, attributes: &Attributes) {
        for xattr in &attributes.xattrs {
            let mut key = b"SCHILY.xattr.".to_vec();
            for &byte in &xattr.name {
                match byte {
                    // The first `=` ends a key; GNU tar escapes it like this.
                    b'=' => key.extend_from_slice(b"%3D"),
                    b'%' => key.extend_from_slice(b"%25"),
                    byte => key.push(byte),
                }
            }
            self.record(&key, &xattr.value);
        }
    }

    /// The records as an entry of their own, or nothing when there are none.
    fn encode(self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        let name = b"PaxHeaders/entry";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mode(0o644);
        header.set_size(self.0.len() as u64);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(&self.0);
        out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
        out
    }
}

/// A time as a decimal number of seconds.
fn decimal(time: Time) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    if time.secs >= 0 {
        return format!("{}.{:09}", time.secs, time.nanos);
    }
    // -2 s and 500,000,001 ns after it is -1.499999999.
    format!("-{}.{:09}", (time.secs + 1).unsigned_abs(), 1_000_000_000 - time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_decimal_number() {
        let at = |secs, nanos| decimal(Time { secs, nanos });
        assert_eq!(at(5, 0), "5");
        assert_eq!(at(5, 1), "5.000000001");
        assert_eq!(at(-2, 500_000_001), "-1.499999999");
        assert_eq!(at(-1, 1), "-0.999999999");
        assert_eq!(at(-1, 0), "-1");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        let record = |value: &str| {
            let mut pax = Pax(Vec::new());
            pax.record(b"k", value.as_bytes());
            String::from_utf8(pax.0).unwrap()
        };
        assert_eq!(record("v"), "6 k=v\n");
        for length in 0..1200 {
            let record = record(&"v".repeat(length));
            assert_eq!(record.split(' ').next().unwrap().parse(), Ok(record.len()));
        }
    }
}
