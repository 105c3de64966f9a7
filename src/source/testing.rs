//! What the tests of several files here share.

/// Whether the test may go on: it needs root. Skips aloud, or fails where root was promised.
pub(super) fn has_root() -> bool {
    rustix::process::geteuid().is_root() || skip("root")
}

/// Says that a test is skipped for want of `what`; fails if `ESKER_REQUIRE` promises it.
#[allow(clippy::print_stderr)]
pub(super) fn skip(what: &str) -> bool {
    let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "root"));
    assert!(!required, "{what} is required");
    eprintln!("skipped: needs {what}");
    false
}
