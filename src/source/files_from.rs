//! Lists of what to back up, as restic reads them (`--files-from` and its two siblings).
//!
//! Three forms: *patterns*, one a line, with comments, each standing for the paths it matches;
//! *lines*, each a path as it is; *raw* paths that each end with a NUL.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::exclude::{Glob, PatternError};

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A line is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A raw list was cut off, or has an empty path.
    #[error("{0}")]
    Raw(&'static str),
}

/// The paths of a list of patterns: white space around them, blank lines and lines that begin
/// with `#` are ignored. Gives the patterns that match nothing apart. Relative ones begin at
/// `directory`.
pub fn patterns(text: &[u8], directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ListError> {
    let (mut paths, mut unmatched) = (Vec::new(), Vec::new());
    for line in lines(text).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
        let found = expand(line, directory)?;
        if found.is_empty() {
            unmatched.push(PathBuf::from(OsStr::from_bytes(line)));
        }
        paths.extend(found);
    }
    Ok((paths, unmatched))
}

/// The paths of a list that has one a line, as they stand there. Empty lines are ignored.
pub fn verbatim(text: &[u8]) -> Vec<PathBuf> {
    lines(text).filter(|line| !line.is_empty()).map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()
}

/// The paths of a list that ends each with a NUL.
pub fn raw(text: &[u8]) -> Result<Vec<PathBuf>, ListError> {
    let Some(body) = text.strip_suffix(b"\0") else {
        let cut_off = ListError::Raw("it does not end with a NUL: it may have been cut off");
        return if text.is_empty() { Ok(Vec::new()) } else { Err(cut_off) };
    };
    body.split(|&b| b == 0)
        .map(|path| match path {
            b"" => Err(ListError::Raw("a path in it is empty")),
            path => Ok(PathBuf::from(OsStr::from_bytes(path))),
        })
        .collect()
}

/// Lines without their ends, and without a byte order mark.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The paths a pattern matches, in order of name. As in restic (and unlike a shell) `*` also
/// takes names that begin with a dot, and `**` is no more than `*`.
fn expand(pattern: &[u8], directory: &Path) -> Result<Vec<PathBuf>, PatternError> {
    if !pattern.iter().any(|b| b"\\[*?".contains(b)) {
        let path = PathBuf::from(OsStr::from_bytes(pattern));
        // One that is not there is asked for all the same, so that it is missed.
        return Ok(vec![path]);
    }
    let mut found = vec![if pattern.starts_with(b"/") { PathBuf::from("/") } else { PathBuf::new() }];
    for part in pattern.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        let glob = Glob::parse(part)?;
        let mut next = Vec::new();
        for path in found {
            match glob.literal() {
                Some(literal) => {
                    let path = path.join(OsStr::from_bytes(literal));
                    if directory.join(&path).symlink_metadata().is_ok() {
                        next.push(path);
                    }
                }
                None => next.extend(
                    matching(&directory.join(&path), &glob)
                        .unwrap_or_default()
                        .into_iter()
                        .map(|name| path.join(OsStr::from_bytes(&name))),
                ),
            }
        }
        found = next;
    }
    Ok(found)
}

/// The names in a directory that a pattern matches. One that cannot be read has none, as in restic.
fn matching(directory: &Path, glob: &Glob) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().into_vec();
        if glob.matches(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn patterns_stand_for_what_they_match() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.txt", "a/y.txt", "a/.hidden.txt", "b/x.txt", "b/[z]", "with space"] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), "").unwrap();
        }
        let at = dir.path();
        for (text, expected) in [
            ("a/*.txt", &["a/.hidden.txt", "a/x.txt", "a/y.txt"][..]),
            ("*/x.txt\r\n", &["a/x.txt", "b/x.txt"]),
            ("# comment\n\n  with space  \n", &["with space"]),
            ("[ab]/?.txt", &["a/x.txt", "a/y.txt", "b/x.txt"]),
            ("b/\\[z\\]", &["b/[z]"]),
            ("no/such/plain/path", &["no/such/plain/path"]),
            ("\u{feff}a", &["a"]),
        ] {
            assert_eq!(patterns(text.as_bytes(), at).unwrap(), (paths(expected), vec![]), "{text:?}");
        }
        assert_eq!(patterns(b"*.none\na", at).unwrap(), (paths(&["a"]), paths(&["*.none"])));
        let absolute = format!("{}/*/y.txt", at.display());
        assert_eq!(patterns(absolute.as_bytes(), Path::new("/")).unwrap().0, [at.join("a/y.txt")]);
        assert!(patterns(b"a/[", at).is_err());
    }

    #[test]
    fn other_lists_are_taken_as_they_are() {
        assert_eq!(verbatim(b"# no comment\n\n *.x \nlast"), paths(&["# no comment", " *.x ", "last"]));
        assert_eq!(raw(b"a\nb\0*\0").unwrap(), paths(&["a\nb", "*"]));
        assert!(raw(b"").unwrap().is_empty());
        for bad in [&b"a"[..], b"a\0b", b"a\0\0", b"\0"] {
            assert!(raw(bad).is_err(), "{bad:?}");
        }
    }
}
