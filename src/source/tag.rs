//! Files that say: what else is in this directory need not be kept.

use std::os::fd::AsFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::dir::{Dir, open_noatime};
use super::stat::{Kind, Stat};
use crate::path::Name;

/// A file whose presence leaves the rest of its directory out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    name: Name,
    begins_with: Vec<u8>,
}

impl Tag {
    /// The file `name`, if it is a regular file that begins with these bytes.
    pub fn new(name: Name, begins_with: impl Into<Vec<u8>>) -> Self {
        Self { name, begins_with: begins_with.into() }
    }

    /// The tag of directories that hold only what can be made again
    /// (<https://bford.info/cachedir/>).
    pub fn cache_directory() -> Self {
        let name = Name::new(*b"CACHEDIR.TAG").expect("this is a file name");
        Self::new(name, *b"Signature: 8a477f597d28d172789f06886806bc55")
    }

    /// The file's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether the directory, which has an entry of the tag's name, has the tag.
    pub(super) fn is_on(&self, dir: &Dir) -> bool {
        self.begins_with.is_empty() || self.begins(dir).unwrap_or(false)
    }

    /// A tag that cannot be read is none: then more is kept, not less.
    fn begins(&self, dir: &Dir) -> Result<bool, Errno> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = open_noatime(dir.as_fd(), self.name.as_os(), flags)?;
        if !Stat::of(&fd).is_ok_and(|stat| stat.kind == Kind::File) {
            return Ok(false);
        }
        let mut head = vec![0; self.begins_with.len()];
        let mut filled = 0;
        while filled < head.len() {
            match rustix::io::pread(&fd, &mut head[filled..], filled as u64)? {
                0 => return Ok(false),
                n => filled += n,
            }
        }
        Ok(head == self.begins_with)
    }
}
