use std::process::Command;

/// A program of Prometheus'. Without it the test is skipped aloud, and fails where `ESKER_REQUIRE` names `prometheus`.
#[allow(clippy::print_stderr)] // a skipped test says so
pub(crate) fn tool(name: &str) -> Option<Command> {
    if Command::new(name).arg("--version").output().is_ok() {
        return Some(Command::new(name));
    }
    let required = std::env::var("ESKER_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == "prometheus"));
    assert!(!required, "ESKER_REQUIRE names prometheus, and there is no `{name}`");
    eprintln!("skipped: needs `{name}` (deploy/check installs it)");
    None
}
