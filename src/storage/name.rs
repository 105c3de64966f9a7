//! Which names objects may have; every storage refuses the others alike.

use super::{Error, ErrorKind, Result};

/// Where a local storage keeps what is not yet an object.
pub(super) const TEMPORARY: &str = "tmp";

/// What the top of a directory may hold in which a repository is to be made: what a new file system
/// comes with, and what a making that was interrupted has left.
pub(super) const MAY_EXIST: [&str; 7] = [TEMPORARY, "packs", "access", "copies", "keys", "probe", "lost+found"];

/// Whether an object in such a directory may be of a making that was interrupted: one of those
/// that `init` puts before `config` (SPEC §9.6), or a probe. Without `config` it counts for nothing.
pub(super) fn is_of_a_making(object: &str) -> bool {
    let original = object.strip_prefix("copies/").unwrap_or(object);
    let mut components = original.split('/');
    let folder = components.next().unwrap_or_default();
    let is_id = |id: &str| id.len() >= 32 && id.bytes().all(|c| c.is_ascii_hexdigit());
    let has_id = matches!(folder, "access" | "keys" | "probe") && components.next().is_some_and(is_id);
    has_id || object == "copies/config"
}

/// Whether this may stand between two slashes: `[a-z0-9._-]`, at least one, the first no dot.
pub(super) fn is_component(text: &str) -> bool {
    let legal = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(legal)
}

/// Accepts components joined by `/`, the first of them not `tmp`.
pub(super) fn check(name: &str) -> Result<()> {
    let mut components = name.split('/');
    if components.clone().next() != Some(TEMPORARY) && components.all(is_component) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, format!("not an object name: `{}`", name.escape_debug())))
}

/// Accepts nothing, or a name and a `/`.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    match prefix.strip_suffix('/') {
        Some(name) => check(name),
        None if prefix.is_empty() => Ok(()),
        None => {
            let prefix = prefix.escape_debug();
            Err(Error::new(ErrorKind::Io, format!("not a prefix of object names (no `/` at its end): `{prefix}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_init_puts_before_the_config_is_taken_for_that() {
        let id = "0123456789abcdef".repeat(2);
        let of = ["access/ID", "keys/ID", "copies/access/ID", "copies/keys/ID", "copies/config", "probe/ID/a"];
        let not =
            ["config", "packs/00/ID", "snapshots/ID", "sessions/ID", "keys/mine", "access", "copies/ID", "copies"];
        assert!(of.iter().all(|name| is_of_a_making(&name.replace("ID", &id))));
        assert!(not.iter().all(|name| !is_of_a_making(&name.replace("ID", &id))));
    }

    #[test]
    fn names_that_could_leave_the_repository_are_refused() {
        for bad in [
            "", "/", "/etc", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", "A", "a b", "a\0", "ä", "a\\b", "tmp",
            "tmp/a",
        ] {
            assert_eq!(check(bad).unwrap_err().kind(), ErrorKind::Io, "{bad:?}");
        }
        for good in ["config", "packs/9f/9f3c", "a/tmp", "tmp2", "-", "_", "a..b", "0."] {
            check(good).unwrap();
        }
    }

    #[test]
    fn a_prefix_is_empty_or_ends_in_a_slash() {
        for bad in ["/", "packs", "packs//", "../", "tmp/", "packs/../"] {
            assert_eq!(check_prefix(bad).unwrap_err().kind(), ErrorKind::Io, "{bad:?}");
        }
        for good in ["", "packs/", "packs/9f/"] {
            check_prefix(good).unwrap();
        }
    }
}
