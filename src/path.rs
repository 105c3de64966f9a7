//! Names and paths inside a snapshot: raw bytes, as Linux has them, that can never escape a target.
//!
//! A [`Name`] is one component. A [`TreePath`] is absolute and normal: `/`, or `/a/b` without a
//! slash at the end, `.` or `..`. Both print lossily for people; the bytes are what is stored.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Longest name accepted. Linux file systems stop at 255 bytes; some others allow more.
pub const NAME_BYTES_MAX: usize = 1024;

/// A name or path that cannot stand in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, `.`, `..`, or containing `/` or NUL, or too long.
    #[error("`{0}` is not a file name")]
    Name(String),
    /// Not absolute and normal.
    #[error("`{0}` is not an absolute path without `.` and `..`")]
    Path(String),
}

/// One component of a path: not empty, not `.` or `..`, without `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes a name.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        let bad = bytes.is_empty()
            || bytes.len() > NAME_BYTES_MAX
            || *bytes == *b"."
            || *bytes == *b".."
            || bytes.iter().any(|&b| b == b'/' || b == 0);
        if bad { Err(PathError::Name(display_bytes(&bytes))) } else { Ok(Self(bytes)) }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system's string type.
    pub fn as_os(&self) -> &std::ffi::OsStr {
        std::ffi::OsStr::from_bytes(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_bytes(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", display_bytes(&self.0))
    }
}

/// An absolute, normal path inside a snapshot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The top, `/`.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// Takes a path of the operating system: absolute, `.` and doubled slashes folded, `..` refused.
    pub fn from_os(path: &Path) -> Result<Self, PathError> {
        let refuse = || PathError::Path(display_bytes(path.as_os_str().as_bytes()));
        let mut out = Self::root();
        let mut absolute = false;
        for component in path.components() {
            match component {
                Component::RootDir => absolute = true,
                Component::CurDir => {}
                Component::Normal(name) => out.push(&Name::new(name.as_bytes())?),
                Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
            }
        }
        if absolute { Ok(out) } else { Err(refuse()) }
    }

    /// Takes stored bytes, which must already be in the one accepted form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let path = Self::from_os(Path::new(std::ffi::OsStr::from_bytes(bytes)))?;
        if path.0 == bytes { Ok(path) } else { Err(PathError::Path(display_bytes(bytes))) }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path of the operating system.
    pub fn to_os(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.0))
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Appends a component.
    pub fn push(&mut self, name: &Name) {
        if !self.is_root() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name.as_bytes());
    }

    /// Removes the last component; `/` stays.
    pub fn pop(&mut self) {
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.0.truncate(cut.max(1));
    }

    /// This path with a component appended.
    pub fn join(&self, name: &Name) -> Self {
        let mut path = self.clone();
        path.push(name);
        path
    }

    /// The components from the top.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty()).map(|part| Name(part.into()))
    }

    /// The order in which a walk comes by: a directory, what is below it, and then what follows it.
    pub fn in_walk_order(&self, other: &TreePath) -> std::cmp::Ordering {
        // No name has a zero byte, so what ends a name comes before all that may be in one.
        let keys = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0.iter().map(keys).cmp(other.0.iter().map(keys))
    }

    /// Whether this is `other` or lies below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        other.is_root() || self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_bytes(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", display_bytes(&self.0))
    }
}

/// Whether a character changes the direction of those around it, or ends a line: what is shown would
/// not be what is there.
pub fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes as text for people: valid UTF-8 as it is; control characters, those that turn text around and
/// other bytes as `\xNN`, so that a hostile name cannot steer a terminal nor pass for another.
pub fn display_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c.is_control() || turns_text_around(c) {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).bytes().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
            } else {
                text.push(c);
            }
        }
        part.invalid().iter().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_directory() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; NAME_BYTES_MAX + 1]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"..."[..], b"a", b"\xff\xfe", b" ", &[b'x'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn a_path_has_one_form() {
        let path = TreePath::from_os(Path::new("/srv//app/./x/")).unwrap();
        assert_eq!(path.as_bytes(), b"/srv/app/x");
        assert_eq!(TreePath::from_bytes(b"/srv/app/x"), Ok(path.clone()));
        for bad in [&b"/srv//app"[..], b"srv", b"/srv/", b"/a/../b", b""] {
            assert!(TreePath::from_bytes(bad).is_err(), "{bad:?}");
        }
        assert!(TreePath::from_os(Path::new("/a/../b")).is_err());
        assert_eq!(path.components().map(|n| n.to_string()).collect::<Vec<_>>(), ["srv", "app", "x"]);
        let mut up = path.clone();
        up.pop();
        assert_eq!(up.as_bytes(), b"/srv/app");
        assert!(path.starts_with(&up) && path.starts_with(&path) && path.starts_with(&TreePath::root()));
        assert!(!TreePath::from_bytes(b"/srv/apple").unwrap().starts_with(&up));
        up.pop();
        up.pop();
        up.pop();
        assert!(up.is_root());
    }

    #[test]
    fn a_walk_comes_by_what_is_below_a_directory_before_its_neighbours() {
        let mut paths =
            ["/a-b", "/a/b/c", "/b", "/", "/a", "/a/b"].map(|path| TreePath::from_bytes(path.as_bytes()).unwrap());
        paths.sort_by(TreePath::in_walk_order);
        assert_eq!(paths.map(|path| path.to_string()), ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/b"]);
    }

    #[test]
    fn hostile_bytes_are_shown_escaped() {
        assert_eq!(display_bytes(b"caf\xc3\xa9 \x1b[31m \xff"), "café \\x1b[31m \\xff");
        // CSI in eight bits; what makes `fdp.exe` of `exe.pdf`.
        assert_eq!(display_bytes("\u{9b}2J \u{202e}fdp.exe".as_bytes()), "\\xc2\\x9b2J \\xe2\\x80\\xaefdp.exe");
    }
}
