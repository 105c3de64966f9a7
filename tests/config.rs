//! A configuration stands for what nobody has to type, and never for anything else.
//!
//! The risk: a setting that is silently not used, so that a backup lacks what everybody believes
//! is in it; a profile that wins over what was typed; a secret shown. Whole commands run in
//! process on files as people write them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[path = "support/cli.rs"]
#[allow(dead_code, reason = "each file of tests uses its part")]
mod support;

use support::{Machine, Output};

/// The whole output of a command is this.
macro_rules! prints {
    ($output:expr, @$expected:literal) => { insta::assert_snapshot!($output.to_string(), @$expected) };
}

/// A machine with a repository, some files, and this configuration.
fn configured(text: &str) -> Machine {
    let mut machine = Machine::with_repository();
    for name in ["files/notes.txt", "files/a.log", "files/b.tmp", "other/x"] {
        machine.write(name, name);
    }
    write_config(&machine, text);
    machine.set("ESKER_CONFIG", "etc/esker.toml");
    machine
}

fn write_config(machine: &Machine, text: &str) {
    machine.write("etc/esker.toml", text);
}

/// The names in the newest snapshot, directories aside.
fn names(machine: &Machine) -> BTreeSet<String> {
    let nodes = machine.esker(["ls", "latest", "--json", "--config", "/dev/null"]).success().json();
    let files = nodes.iter().filter(|node| node["type"] == "file");
    files.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn names_of(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn newest(machine: &Machine) -> serde_json::Value {
    let list = machine.esker(["snapshots", "--json", "--config", "/dev/null"]).success().json().remove(0);
    list.as_array().unwrap().last().unwrap().clone()
}

// --- what is configured is used -----------------------------------------------------------

#[test]
fn a_profile_gives_a_verb_its_paths_and_flags() {
    let machine = configured(
        r#"
        [profiles.default.backup]
        paths = ["../files", "../other"]
        exclude = ["*.tmp", "*.log"]
        tag = ["daily", "auto"]
        host = "server"
        exclude-larger-than = 100
        one-file-system = true
        "#,
    );
    machine.write("files/large", [1; 200]);
    machine.esker(["backup"]).success();
    assert_eq!(names(&machine), names_of(&["notes.txt", "x"]));
    let snapshot = newest(&machine);
    assert_eq!((&snapshot["hostname"], &snapshot["tags"]), (&"server".into(), &serde_json::json!(["auto", "daily"])));
}

#[test]
fn what_is_typed_takes_the_place_of_what_is_configured_lists_as_a_whole() {
    let machine = configured(
        r#"
        [profiles.default.backup]
        paths = ["../files"]
        exclude = ["*.tmp", "*.log"]
        tag = ["daily"]
        "#,
    );
    machine.esker(["backup", "other", "files", "--exclude", "*.txt"]).success();
    assert_eq!(names(&machine), names_of(&["a.log", "b.tmp", "x"]));
    assert_eq!(newest(&machine)["tags"], serde_json::json!(["daily"]));
    machine.esker(["backup", "--tag", "by-hand"]).success();
    assert_eq!(names(&machine), names_of(&["notes.txt"]));
    assert_eq!(newest(&machine)["tags"], serde_json::json!(["by-hand"]));
    // Escaped paths are typed paths.
    machine.esker(["backup", "--", "other"]).success();
    assert_eq!(names(&machine), names_of(&["x"]));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_profile() {
    let mut machine = configured(
        r#"
        [repositories.main]
        url = "memory:"
        key-file = "../key"
        [profiles.default]
        repository = "main"
        [profiles.broken]
        extends = "default"
        key-file = "nowhere"
        "#,
    );
    // From the profile alone.
    machine.unset("ESKER_REPOSITORY");
    machine.unset("ESKER_KEY_FILE");
    machine.esker(["snapshots"]).success();
    machine.esker(["-P", "broken", "snapshots"]).fails(1);
    // The environment wins, and a flag over both.
    machine.set("ESKER_KEY_FILE", "key");
    machine.esker(["-P", "broken", "snapshots"]).success();
    machine.set("ESKER_KEY_FILE", "nowhere");
    machine.esker(["snapshots"]).fails(1);
    machine.esker(["snapshots", "--key-file", "key"]).success();
    machine.esker(["-P", "broken", "snapshots", "--key-file", "key"]).success();
    // Any way to unlock that is nearer puts the configured one out of force.
    machine.unset("ESKER_KEY_FILE");
    machine.set("ESKER_PASSWORD", "wrong");
    machine.esker(["snapshots"]).fails(12);
    fs::write(machine.path("pw"), "wrong too").unwrap();
    machine.esker(["snapshots", "--password-file", "pw"]).fails(12);
    machine.unset("ESKER_PASSWORD");
    machine.esker(["snapshots", "--password-file", "pw"]).fails(12);
}

#[test]
fn how_to_get_at_one_repository_is_not_used_for_another() {
    let mut machine = configured(
        r#"
        [repositories.main]
        url = "memory:"
        key-file = "../key"
        [profiles.default]
        repository = "main"
        "#,
    );
    machine.unset("ESKER_REPOSITORY");
    machine.unset("ESKER_KEY_FILE");
    let typed = machine.esker(["snapshots", "--repo", "memory:"]).fails(2);
    assert!(typed.err().contains("no password was given"), "{typed}");
    machine.set("ESKER_REPOSITORY", "memory:");
    machine.esker(["snapshots"]).fails(2);
}

#[test]
fn a_profile_extends_others_and_the_nearer_key_wins_as_a_whole() {
    let machine = configured(
        r#"
        [profiles.base.backup]
        paths = ["../files"]
        exclude = ["*.tmp", "*.log"]
        tag = "base"
        host = "base"
        [profiles.tagged.backup]
        tag = ["tagged"]
        [profiles.default]
        extends = ["base", "tagged"]
        backup.exclude = ["*.txt"]
        "#,
    );
    machine.esker(["backup"]).success();
    assert_eq!(names(&machine), names_of(&["a.log", "b.tmp"]));
    let snapshot = newest(&machine);
    assert_eq!((&snapshot["hostname"], &snapshot["tags"]), (&"base".into(), &serde_json::json!(["tagged"])));
    machine.esker(["-P", "base", "backup"]).success();
    assert_eq!(names(&machine), names_of(&["notes.txt"]));
}

#[test]
fn what_cannot_go_together_stands_back_for_what_is_nearer() {
    let machine = configured(
        r#"
        [profiles.default]
        quiet = true
        [profiles.loud]
        extends = "default"
        verbose = 1
        [profiles.off]
        extends = "default"
        quiet = false
        "#,
    );
    let printed = |args: &[&str]| machine.esker(args.iter().copied().chain(["backup", "files"])).success().out();
    assert_eq!(printed(&[]), "");
    assert!(printed(&["-v"]).contains("snapshot"));
    assert!(printed(&["-P", "loud"]).contains("snapshot"));
    assert!(printed(&["-P", "off"]).contains("snapshot"));
    assert!(printed(&["--config", "/dev/null"]).contains("snapshot"));
}

#[test]
fn a_table_of_a_verb_below_a_verb_is_found() {
    let machine = configured(
        r#"
        [profiles.default.key.writer]
        name = "laptop"
        out = "../writer"
        "#,
    );
    machine.esker(["key", "writer"]).success();
    let list = machine.esker(["key", "list", "--json"]).success().json().remove(0);
    assert!(list.as_array().unwrap().iter().any(|member| member["label"] == "laptop"), "{list}");
    assert!(machine.path("writer").exists());
}

#[test]
fn paths_begin_at_the_file_and_a_tilde_is_home() {
    let mut machine = configured(
        r#"
        [profiles.default.backup]
        paths = ["~/notes.txt", "../other"]
        exclude-file = "excludes"
        "#,
    );
    machine.set("HOME", machine.path("files"));
    machine.write("etc/excludes", "x\n");
    machine.esker(["backup"]).success();
    assert_eq!(names(&machine), names_of(&["notes.txt"]));
}

#[test]
fn the_file_is_looked_for_where_it_is_usual() {
    let mut machine = configured("");
    machine.unset("ESKER_CONFIG");
    let tagged = |tag: &str| format!("[profiles.default.backup]\ntag = [\"{tag}\"]\npaths = [\"{}\"]\n", "/dev/null");
    machine.set("HOME", machine.path("home"));
    machine.write("home/.config/esker/esker.toml", tagged("home"));
    machine.write("xdg/esker/esker.toml", tagged("xdg"));
    machine.write("typed.toml", tagged("typed"));
    machine.write("env.toml", tagged("env"));
    let tag = |machine: &Machine, args: &[&str]| {
        machine.esker(["backup", "files"].iter().chain(args)).success();
        newest(machine)["tags"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(tag(&machine, &[]), "home");
    machine.set("XDG_CONFIG_HOME", machine.path("xdg"));
    assert_eq!(tag(&machine, &[]), "xdg");
    machine.set("ESKER_CONFIG", "env.toml");
    assert_eq!(tag(&machine, &[]), "env");
    assert_eq!(tag(&machine, &["--config", "typed.toml"]), "typed");
    // One that is named is there; one that is usual need not be.
    machine.esker(["backup", "files", "--config", "gone.toml"]).fails(1);
    machine.unset("ESKER_CONFIG");
    machine.set("XDG_CONFIG_HOME", machine.path("nowhere"));
    machine.esker(["snapshots"]).success();
    let output = machine.esker(["snapshots", "-P", "x", "--config", "/dev/null"]).fails(2);
    assert!(output.err().contains("there is no profile `x`"), "{output}");
}

// --- what makes no sense is refused -------------------------------------------------------

/// What is said of a configuration, the place of the fault first.
fn fault(text: &str) -> String {
    let machine = configured(text);
    let output = machine.esker(["snapshots"]).fails(2);
    assert!(output.out().is_empty(), "{output}");
    let said = output.to_string();
    said.split_once("esker.toml`: ")
        .map_or(said.clone(), |(_, rest)| rest.trim_end_matches("[exit 2]").trim().to_owned())
}

#[test]
fn every_fault_is_told_by_line_and_column() {
    for (text, said) in [
        ("a = ", "line 1, column 5: string values must be quoted"),
        ("\n[profils.x]\n", "line 2, column 2: unknown table `profils`\n\nhint: did you mean `profiles`?"),
        (
            "[profiles.x.backup]\n  exlude = ['a']",
            "line 2, column 3: unknown key `exlude`\n\nhint: did you mean `exclude`?",
        ),
        ("[profiles.x.bakcup]\n", "line 1, column 13: unknown key `bakcup`\n\nhint: did you mean `backup`?"),
        ("[profiles.x]\nquiet = 'yes'", "line 2, column 9: `quiet` takes true or false, found string"),
        ("[profiles.x]\nthreads = [1, 2]", "line 2, column 11: `threads` takes one value, found array"),
        ("[profiles.x]\nthreads = true", "line 2, column 11: `threads` takes one value, found boolean"),
        ("[profiles.x]\nthreads = 0", "line 2, column 1: `threads`: invalid value '0' for '--threads <N>'"),
        (
            "[profiles.x.restore]\noverwrite = 'often'",
            "line 2, column 1: `overwrite`: invalid value 'often' for '--overwrite <WHEN>' [possible values: always",
        ),
        ("[profiles.x.backup]\nexclude = [{}]", "line 2, column 12: `exclude` takes a string, found table"),
        ("[profiles.x]\nquiet = true\nverbose = 1", "these do not go together"),
        ("[profiles.x]\nextends = 'y'\n[profiles.z]", "there is no"),
        ("[profiles.default]\nextends = 'bace'\n[profiles.base]", "line 2, column 11: unknown profile `bace`"),
        ("[profiles.default]\nextends = 'default'", "line 2, column 11: profile `default` extends itself"),
        ("[profiles.default]\nrepository = 'usb'", "line 2, column 14: unknown repository `usb`"),
        (
            "[profiles.x]\nrepo = '/x'",
            "`repo` does not stand here\n\nhint: describe the place as `[repositories.NAME]`",
        ),
        ("[profiles.x]\npassword = 'x'", "a password does not stand in a configuration"),
        ("[repositories.x]\npassword = 'x'", "hint: name where it is: `password-file` or `password-command`"),
        ("[repositories.x]\nurl = 7", "line 2, column 7: `url` takes a string, found integer"),
        ("[repositories.x]\nurl = ''", "line 2, column 7: `url` is empty"),
        (
            "[repositories.x.options]\na = { flie = 'x' }",
            "unknown source of a value `flie`\n\nhint: did you mean `file`?",
        ),
        ("[repositories.x.options]\na = { file = 'x', env = 'Y' }", "`a` is a value or one of { file = … }"),
        ("[repositories]\nx = 1", "line 2, column 5: `repositories.x` is a table, found integer"),
        ("profiles = 1", "line 1, column 12: `profiles` holds tables with names, found integer"),
        ("[profiles.x]\nbackup = 1", "line 2, column 10: `backup` is a verb and so a table, found integer"),
        ("[profiles.x.snapshots]\nlatest = 'many'", "line 2, column 1: `latest`: invalid value 'many'"),
    ] {
        if said == "there is no" {
            // A profile that is not used may extend what another file has; `config check` says so.
            configured(text).esker(["snapshots"]).success();
            continue;
        }
        let found = fault(text);
        assert!(found.contains(said), "{text}\n--- said:\n{found}\n--- expected:\n{said}");
    }
}

#[test]
fn a_profile_that_is_not_there_is_refused_with_the_nearest() {
    let machine = configured("[profiles.laptop]\n[profiles.server]\n");
    let output = machine.esker(["snapshots", "-P", "lapto"]).fails(2);
    assert!(output.err().contains("did you mean `laptop`?"), "{output}");
    let output = machine.esker(["snapshots", "-P", "zzz"]).fails(2);
    assert!(output.err().contains("it has `laptop`, `server`"), "{output}");
    let output = machine.esker(["snapshots", "-P", "zzz", "--json"]).fails(2);
    assert_eq!(output.json_err().pop().unwrap()["code"], 2);
}

#[test]
fn verbs_that_need_no_configuration_do_not_fail_for_one() {
    let machine = configured("this is not TOML");
    machine.esker(["snapshots"]).fails(2);
    machine.esker(["version"]).success();
    machine.esker(["completions", "bash"]).success();
    machine.esker(["--help"]).success();
    machine.esker(["backup", "--help"]).success();
}

#[test]
fn a_profile_that_breaks_a_command_line_is_named() {
    let machine = configured("[profiles.default]\njson = true\n[profiles.default.restore]\ndry-run = true\n");
    let output = machine.esker(["-P", "default", "restore", "latest"]).fails(2);
    assert_eq!(output.json_err().pop().unwrap()["message_type"], "exit_error");
    write_config(&machine, "[profiles.default.restore]\ndry-run = true\n");
    let output = machine.esker(["restore", "latest"]).fails(2);
    assert!(output.err().contains("note: profile `default` of ") && output.err().contains("--target"), "{output}");
    // What makes no sense by itself is told as always.
    let output = machine.esker(["restore", "--frob"]).fails(2);
    assert!(!output.err().contains("esker.toml"), "{output}");
}

#[test]
fn a_file_that_anybody_may_write_is_refused() {
    let machine = configured("[profiles.default]\n");
    let path = machine.path("etc/esker.toml");
    machine.esker(["snapshots"]).success();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let output = machine.esker(["snapshots"]).fails(2);
    assert!(output.err().contains("anybody may write to this file"), "{output}");
}

#[test]
fn a_secret_that_everybody_can_read_is_warned_about() {
    let secret = "[repositories.x.options]\nsecret_access_key = 'hunter2'\n";
    for (text, warned) in [
        (secret, true),
        ("[repositories.x]\nurl = 'webdav://me:hunter2@host/x'\n", true),
        ("[repositories.x.options]\nsecret_access_key = { file = 'key' }\nregion = 'x'\n", false),
    ] {
        let machine = configured(text);
        let output = machine.esker(["snapshots"]).success();
        assert_eq!(output.err().contains("holds a secret and everybody can read it"), warned, "{text}: {output}");
        assert!(!output.err().contains("hunter2"), "{output}");
        fs::set_permissions(machine.path("etc/esker.toml"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(machine.esker(["snapshots"]).success().err(), "", "{text}");
    }
}

// --- looking at it ------------------------------------------------------------------------

const HOME: &str = r#"
[repositories.usb]
url = "s3://bucket/x?endpoint=https://e&sas_token=hunter1"
password-command = "pass show hunter2"
options.secret_access_key = "hunter3"
options.region = "eu"
options.session_token = { env = "TOKEN" }

[profiles.base]
threads = 2
backup.exclude = ["*.tmp", "*.log"]

[profiles.default]
extends = "base"
repository = "usb"

[profiles.default.backup]
paths = ["/home", "../files"]
one-file-system = true
"#;

#[test]
fn config_show_says_what_a_profile_comes_to_without_secrets() {
    let mut machine = configured(HOME);
    fs::set_permissions(machine.path("etc/esker.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    prints!(machine.esker(["config", "show"]), @r#"
    # [DIR]/etc/esker.toml, profile `default`, which extends `base`
    # not repositories.usb: another repository is named
    threads = "2"  # profiles.base, line 10

    [backup]
    exclude = ["*.tmp","*.log"]  # profiles.base.backup, line 11
    one-file-system = true  # profiles.default.backup, line 19
    paths = ["/home","[DIR]/etc/../files"]  # profiles.default.backup, line 18
    [exit 0]
    "#);
    machine.unset("ESKER_REPOSITORY");
    machine.unset("ESKER_KEY_FILE");
    prints!(machine.esker(["config", "show"]), @r#"
    # [DIR]/etc/esker.toml, profile `default`, which extends `base`
    repo = "s3://bucket/x?endpoint=https://e&sas_token=…"  # repositories.usb
    options.region = "eu"
    options.secret_access_key = "…"
    options.session_token = { env = "TOKEN" }
    password-command = "pass …"  # repositories.usb, line 4
    threads = "2"  # profiles.base, line 10

    [backup]
    exclude = ["*.tmp","*.log"]  # profiles.base.backup, line 11
    one-file-system = true  # profiles.default.backup, line 19
    paths = ["/home","[DIR]/etc/../files"]  # profiles.default.backup, line 18
    [exit 0]
    "#);
    prints!(machine.esker(["config", "show", "-P", "base"]), @r#"
    # [DIR]/etc/esker.toml, profile `base`
    threads = "2"  # profiles.base, line 10

    [backup]
    exclude = ["*.tmp","*.log"]  # profiles.base.backup, line 11
    [exit 0]
    "#);
    let shown = machine.esker(["config", "show", "--json"]).success();
    assert!(!shown.to_string().contains("hunter"), "{shown}");
    let shown = shown.json().remove(0);
    assert_eq!(shown["verbs"]["backup"]["exclude"], serde_json::json!(["*.tmp", "*.log"]));
    assert_eq!(shown["repository"]["options"]["session_token"], serde_json::json!({ "env": "TOKEN" }));
    write_config(&machine, "[profiles.x]");
    prints!(machine.esker(["config", "show"]), @"
    # [DIR]/etc/esker.toml: no profile is used; there is none named `default`
    # to use one, add `-P x`
    [exit 0]
    ");
    machine.set("ESKER_CONFIG", "/dev/null");
    prints!(machine.esker(["config", "show"]), @"
    # /dev/null: no profile is used; there is none named `default`
    [exit 0]
    ");
}

#[test]
fn config_check_tells_all_faults_at_once() {
    let machine = configured(HOME);
    fs::set_permissions(machine.path("etc/esker.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    prints!(machine.esker(["config", "check"]), @"
    [DIR]/etc/esker.toml can be used: 1 repository, 2 profiles
    [exit 0]
    ");
    write_config(
        &machine,
        "[profiles.x]\nextends = 'y'\nthreads = 'many'\n[profiles.x.backup]\nexlude = []\n[profiles.z]\nextends = 'x'\n",
    );
    prints!(machine.esker(["config", "check"]), @"
    error: [DIR]/etc/esker.toml:2:11: unknown profile `y`
    error: [DIR]/etc/esker.toml:3:1: `threads`: invalid value 'many' for '--threads <N>': invalid digit found in string
    error: [DIR]/etc/esker.toml:5:1: unknown key `exlude`; did you mean `exclude`?
    error: the configuration `[DIR]/etc/esker.toml` cannot be used: 3 faults, named above
    [exit 2]
    ");
    let output = machine.esker(["config", "check", "--json"]).fails(2);
    let lines = output.json();
    assert_eq!((&lines[0]["line"], &lines[0]["column"]), (&2.into(), &11.into()));
    assert_eq!(lines.last().unwrap()["num_errors"], 3);
}

// --- global flags -------------------------------------------------------------------------

#[test]
fn progress_is_what_the_environment_says() {
    let mut machine = configured("");
    machine.set("ESKER_PROGRESS", "sometimes");
    let output = machine.esker(["snapshots"]).fails(2);
    assert!(output.err().contains("set it to auto, always or never"), "{output}");
    for progress in ["", "auto", "always", "never"] {
        machine.set("ESKER_PROGRESS", progress);
        machine.esker(["snapshots"]).success();
    }
}

#[test]
fn told_twice_to_be_verbose_it_tells_every_call_of_the_storage() {
    let machine = configured("");
    let once = machine.esker(["-v", "snapshots"]).success();
    assert_eq!(once.err(), "");
    let calls = |output: &Output| output.err().lines().filter(|line| line.starts_with("note: storage: ")).count();
    let twice = machine.esker(["-vv", "backup", "files"]).success();
    assert!(calls(&twice) > 5 && twice.err().contains("storage: put snapshots/"), "{twice}");
    assert!(twice.err().contains("storage: put packs/"), "{twice}");
    machine.esker(["-q", "-v", "snapshots"]).fails(2);
}

/// Global flags with the variable that stands for each, as the contract of the command line has them.
const GLOBAL: [(&str, &str); 14] = [
    ("-r, --repo <URL>", "ESKER_REPOSITORY"),
    ("--password-file <FILE>", "ESKER_PASSWORD_FILE"),
    ("--password-file <FILE>", "ESKER_PASSWORD"),
    ("--password-command <COMMAND>", "ESKER_PASSWORD_COMMAND"),
    ("--password-fd <N>", ""),
    ("--key-file <FILE>", "ESKER_KEY_FILE"),
    ("--config <FILE>", "ESKER_CONFIG"),
    ("-P, --profile <NAME>", ""),
    ("--json", ""),
    ("-q, --quiet", ""),
    ("-v, --verbose", ""),
    ("--cache-dir <DIR>", "ESKER_CACHE_DIR"),
    ("--no-cache", ""),
    ("--threads <N>", ""),
];

#[test]
fn every_global_flag_is_in_the_help_of_every_verb_with_its_variable() {
    let machine = Machine::new();
    let help = machine.esker(["--help"]).success().out();
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for verb in verbs.lines().filter_map(|line| line.split_whitespace().next()) {
        let help = machine.esker([verb, "--help"]).success().out();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (flag, variable) in GLOBAL {
            let Some((_, after)) = words.split_once(flag) else { panic!("{verb}: {flag}\n{help}") };
            let own = after.split(" --").next().unwrap();
            assert!(own.contains(variable), "{verb}: {flag} without {variable}: {own}");
        }
    }
}

#[test]
fn global_flags_work_before_and_after_the_verb_and_win_over_their_variables() {
    let mut machine = configured("");
    machine.set("ESKER_REPOSITORY", "nowhere");
    machine.esker(["snapshots"]).fails(10);
    for args in [["--repo", "memory:", "snapshots"], ["snapshots", "--repo", "memory:"], ["-r", "memory:", "snapshots"]]
    {
        machine.esker(args).success();
    }
    machine.set("ESKER_REPOSITORY", "memory:");
    machine.esker(["-r", "nowhere", "snapshots"]).fails(10);
    machine.set("ESKER_CACHE_DIR", "from-env");
    machine.esker(["snapshots", "--cache-dir", "from-flag"]).success();
    assert!(machine.path("from-flag").exists() && !machine.path("from-env").exists());
    machine.esker(["snapshots", "--no-cache"]).success();
    assert!(!machine.path("from-env").exists());
    machine.esker(["snapshots"]).success();
    assert!(machine.path("from-env").exists());
    machine.esker(["snapshots", "--no-cache", "--cache-dir", "x"]).fails(2);
    machine.esker(["--threads", "1", "backup", "files"]).success();
    for threads in ["0", "1025", "many"] {
        machine.esker(["--threads", threads, "snapshots"]).fails(2);
    }
    assert_eq!(machine.esker(["-q", "backup", "files"]).success().to_string(), "[exit 0]");
    machine.esker(["--json", "backup", "files"]).success().json();
}

#[test]
fn options_of_a_repository_are_looked_up_where_they_are_and_only_then() {
    let mut machine = configured(
        "[repositories.x]\nurl = 'memory:'\noptions.key = { env = 'THE_KEY' }\n[profiles.default]\nrepository = 'x'\n",
    );
    // A repository that is named otherwise has other options.
    machine.esker(["snapshots"]).success();
    machine.unset("ESKER_REPOSITORY");
    let output = machine.esker(["snapshots"]).fails(2);
    assert!(output.err().contains("THE_KEY is not set"), "{output}");
    write_config(
        &machine,
        "[repositories.x]\nurl = 'memory:'\noptions.key = { file = 'gone' }\n[profiles.default]\nrepository = 'x'\n",
    );
    let output = machine.esker(["snapshots"]).fails(1);
    assert!(output.err().contains("cannot read the option `key` of the configured repository"), "{output}");
    write_config(
        &machine,
        "[repositories.x]\nurl = 'memory:'\noptions.key = { command = 'false' }\n[profiles.default]\nrepository = 'x'\n",
    );
    machine.esker(["snapshots"]).fails(1);
}

// --- what is generated --------------------------------------------------------------------

#[test]
fn the_example_can_be_used_and_names_nothing_that_is_not_there() {
    let mut machine = configured(include_str!("../docs/esker.toml"));
    machine.set("HOME", machine.path("files"));
    let output = machine.esker(["config", "check"]).success();
    assert!(output.out().contains("3 repositories, 4 profiles"), "{output}");
    assert_eq!(output.err(), "");
    for profile in ["base", "default", "offsite", "web"] {
        machine.esker(["config", "show", "-P", profile]).success();
    }
    machine.esker(["backup", "--exclude", "x"]).success();
    assert_eq!(newest(&machine)["tags"], serde_json::json!(["home"]));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let machine = Machine::new();
    let output = machine.esker(["man", "share/man1"]).success();
    let pages: BTreeSet<_> = fs::read_dir(machine.path("share/man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(output.out().starts_with(&format!("wrote {} manual pages", pages.len())), "{output}");
    let help = machine.esker(["--help"]).success().out();
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for verb in verbs.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(pages.contains(&format!("esker-{verb}.1")), "{verb}: {pages:?}");
    }
    assert!(pages.contains("esker.1") && pages.contains("esker-key-add.1"), "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(machine.path("share/man1").join(page)).unwrap();
        let title = format!(".TH {} 1", page.trim_end_matches(".1"));
        assert!(text.contains(&title) && text.contains(".SH SYNOPSIS"), "{page}:\n{text}");
    }
    let page = fs::read_to_string(machine.path("share/man1/esker-backup.1")).unwrap();
    assert!(page.contains("exclude\\-larger\\-than"), "{page}");
    // Written again by the next version.
    machine.esker(["man", "share/man1"]).success();
    machine.write("file", "");
    machine.esker(["man", "file/below"]).fails(1);
}
