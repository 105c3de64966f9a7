//! Dump: the bytes of one file, or a directory as an archive, to a stream.
//!
//! [`fetch`] reads ahead: while one batch of chunks is being written, the frames of the next are
//! read by several threads. Nothing is written that has not been checked against its id, so a
//! damaged file ends the dump at the damage with an error, after only right bytes.

use std::io::Write;

use crate::error::{Context, Error, Kind, Result};
use crate::format::tree::{Detail, Entry};
use crate::monitor::Monitor;
use crate::path::TreePath;
use crate::repo::fetch::{self, Broken, Part};
use crate::repo::reader::{ReadRepo, find};
use crate::repo::walk::Walk;

mod tar;
#[cfg(test)]
mod tests;
mod zip;

/// Threads that fetch frames.
const THREADS: usize = 4;

/// What an archive is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// POSIX tar (PAX): keeps everything but holes.
    Tar,
    /// Zip, deflated: keeps permissions, times to the second and symbolic links; hard links become
    /// copies, devices and fifos are left out. Its directory is kept in memory until the end.
    Zip,
}

/// Writes a file's bytes.
pub fn dump_file<R: ReadRepo + ?Sized>(repo: &R, entry: &Entry, out: &mut dyn Write) -> Result<()> {
    if !matches!(entry.detail, Detail::File { .. }) {
        let hint = "to dump a directory, add `--archive tar`";
        return Err(Error::new(Kind::Usage, "only a regular file can be dumped by itself").hint(hint));
    }
    let mut entries = std::iter::once(Ok((TreePath::root(), entry.clone())));
    fetch::run(repo, THREADS, &mut entries, &mut |part| match part {
        Part::Bytes(bytes) => out.write_all(&bytes).context(written),
        Part::Zeros(bytes) => write_zeros(out, bytes).context(written),
        Part::Begin(_) | Part::End => Ok(()),
    })?;
    out.flush().context(written)
}

/// Writes the entry at `path` below a snapshot's `root` as an archive: of a directory the
/// contents, with names relative to it; of anything else that alone.
///
/// What the format cannot hold is told to `monitor`. Unreadable data is an error, and the archive
/// then not complete.
pub fn dump_archive<R: ReadRepo + ?Sized>(
    repo: &R,
    root: &Entry,
    path: &TreePath,
    format: Archive,
    out: &mut dyn Write,
    monitor: &Monitor,
) -> Result<()> {
    let top = find(repo, root, path)?;
    match format {
        Archive::Tar => tar::write(repo, &top, out, monitor),
        Archive::Zip => zip::write(repo, &top, out, monitor),
    }
}

/// The entries of an archive of `top`: those below it with paths relative to it, or itself.
fn entries_of<'r, R: ReadRepo + ?Sized>(
    repo: &'r R,
    top: &Entry,
) -> Box<dyn Iterator<Item = Result<(TreePath, Entry), Broken>> + 'r> {
    if let Some(name) = top.name.as_ref().filter(|_| !matches!(top.detail, Detail::Directory { .. })) {
        return Box::new(std::iter::once(Ok((TreePath::root().join(name), top.clone()))));
    }
    let mut walk = Walk::below(repo, TreePath::root(), top);
    Box::new(std::iter::from_fn(move || {
        let entry = walk.next()?;
        let path = walk.path().clone();
        Some(match entry {
            Ok(entry) => Ok((path, entry)),
            Err(error) => Err((path, error)),
        })
    }))
}

fn written() -> &'static str {
    "cannot write the output"
}

/// Writes this many zero bytes.
fn write_zeros(out: &mut dyn Write, mut bytes: u64) -> std::io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while bytes > 0 {
        let part = usize::try_from(bytes).map_or(ZEROS.len(), |bytes| bytes.min(ZEROS.len()));
        out.write_all(&ZEROS[..part])?;
        bytes -= part as u64;
    }
    Ok(())
}
