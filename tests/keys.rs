//! The risk: the one who comes years later with a sheet of paper, or after losing half of the
//! configuration, does not get in; or somebody does who should not.
//!
//! Method: whole commands. Sheets are typed again as people do, kits outlive changes of keys, each
//! object that is needed before unlocking is lost and damaged on either side and on both.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/cli.rs"]
mod support;

use support::Machine;

const PASSWORD: &str = "correct horse";

/// A machine with a repository in the directory `repo` that a password opens, a recovery sheet in
/// `sheet`, and a snapshot.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.set("ESKER_REPOSITORY", "repo");
    machine.unset("ESKER_KEY_FILE");
    machine.set("ESKER_PASSWORD", PASSWORD);
    machine.write("files/notes.txt", "hello\n");
    machine.esker(["init", "--recovery-key-file", "sheet"]).success();
    machine.esker(["backup", "files"]).success();
    fs::write(machine.path("new-password"), "another\n").unwrap();
    machine
}

/// The words on a sheet, in order.
fn words(sheet: &str) -> Vec<String> {
    let lines = sheet.lines().skip_while(|line| *line != "Words:").skip(1).take(6);
    let words: Vec<_> =
        lines.flat_map(str::split_whitespace).filter(|word| word.parse::<u32>().is_err()).map(str::to_owned).collect();
    assert_eq!(words.len(), 24, "{sheet}");
    words
}

fn read(machine: &Machine, name: &str) -> String {
    fs::read_to_string(machine.path(name)).unwrap()
}

/// Without any password, with this as the key file.
fn opens_with(machine: &Machine, key: &str) {
    let listed = machine.esker(["snapshots", "--key-file", key]).success();
    assert_eq!(listed.out().matches("/files").count(), 1, "{listed}");
}

fn objects(machine: &Machine, folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(machine.path("repo").join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

// --- making a sheet -----------------------------------------------------------------------

#[test]
fn init_writes_the_sheet_to_a_file_of_ones_own_and_nowhere_else() {
    let machine = machine();
    let sheet = read(&machine, "sheet");
    let mode = fs::metadata(machine.path("sheet")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for line in ["Repository:", "Place:", "Made:", "Root:", "Check:"] {
        assert!(sheet.lines().any(|found| found.starts_with(line)), "{line} is not in\n{sheet}");
    }
    assert!(sheet.contains("key recover"), "{sheet}");
    let machine = Machine::new();
    let made = machine.esker(["init", "--recovery-key-file", "sheet", "--json"]).success();
    let sheet = read(&machine, "sheet");
    let all = [made.out(), made.err()].concat();
    assert!(words(&sheet).windows(2).all(|pair| !all.contains(&pair.join(" "))), "{made}");
    assert_eq!(made.json()[0]["recovery_key_file"].as_str().unwrap(), machine.path("sheet").to_str().unwrap());
    assert_eq!(made.err(), "");
}

#[test]
fn a_sheet_that_cannot_be_written_is_no_repository() {
    let machine = Machine::new();
    machine.write("sheet", "there already");
    machine.esker(["init", "--recovery-key-file", "sheet"]).fails(2);
    machine.esker(["init", "--recovery-key-file", "no/such/directory"]).fails(1);
    assert!(machine.memory.snapshot().is_empty(), "something was made");
    assert!(!machine.path("key").exists());
    assert_eq!(read(&machine, "sheet"), "there already");
    machine.esker(["init", "--recovery-key-file", "sheet", "--no-recovery"]).fails(2);
}

#[test]
fn words_are_shown_on_a_terminal_once_and_go_nowhere_else() {
    let new = || {
        let mut machine = Machine::new();
        machine.unset("ESKER_KEY_FILE");
        machine.type_next(&[PASSWORD, PASSWORD]);
        machine
    };
    let mut machine = new();
    machine.stdout_is_terminal = true;
    let shown = machine.esker(["init"]).success();
    assert_eq!(shown.err(), "");
    let sheet = shown.out();
    fs::write(machine.path("typed"), words(&sheet).join("\n")).unwrap();
    machine.esker(["snapshots", "--key-file", "typed"]).success();

    // A terminal to type at does not mean that what is printed goes to one.
    for (args, on_terminal) in [(&["init"][..], false), (&["init", "--json"], true), (&["init", "--no-recovery"], true)]
    {
        let mut machine = new();
        machine.stdout_is_terminal = on_terminal;
        let made = machine.esker(args.iter().copied()).success();
        assert!(!made.out().contains("Words:"), "{made}");
        assert_eq!(made.err().contains("key export --out"), !args.contains(&"--no-recovery"), "{made}");
        machine.type_next(&[PASSWORD]);
        assert_eq!(machine.esker(["key", "list"]).success().out().lines().count(), 2);
    }
}

// --- using it -----------------------------------------------------------------------------

#[test]
fn a_sheet_does_as_a_key_file_and_sets_a_new_password() {
    let mut machine = machine();
    machine.unset("ESKER_PASSWORD");
    opens_with(&machine, "sheet");
    machine.esker(["snapshots", "--password-file", "new-password"]).fails(12);
    let recovered =
        machine.esker(["key", "recover", "--words-file", "sheet", "--new-password-file", "new-password"]).success();
    assert!(recovered.out().contains("added owner"), "{recovered}");
    machine.esker(["snapshots", "--password-file", "new-password"]).success();
    machine.esker(["backup", "files", "--password-file", "new-password"]).success();
    let restored = machine.esker(["restore", "latest", "--target", "out", "--password-file", "new-password"]);
    restored.success();
    machine.esker(["check", "--read-data", "--password-file", "new-password"]).success();
    // Both the old password and the sheet still open it.
    machine.set("ESKER_PASSWORD", PASSWORD);
    machine.esker(["snapshots"]).success();
    machine.esker(["snapshots", "--key-file", "sheet"]).success();
}

#[test]
fn words_are_typed_as_people_type_them() {
    let mut machine = machine();
    machine.unset("ESKER_PASSWORD");
    let words = words(&read(&machine, "sheet"));
    let first: String =
        words[..10].iter().enumerate().map(|(at, word)| format!("{}. {}  ", at + 1, word.to_uppercase())).collect();
    let wrong = format!("{} xyzzy", words[10]);
    let rest: Vec<_> = words[10..].iter().map(|word| &word[..word.len().min(4)]).collect();
    machine.type_next(&[&first, &wrong, &rest.join(","), "another", "another"]);
    let recovered = machine.esker(["key", "recover"]).success();
    assert!(recovered.err().contains("word 12, `xyzzy`, is not in the list"), "{recovered}");
    assert!(recovered.err().contains("words alone cannot tell"), "{recovered}");
    assert!(!recovered.out().contains(&words[3]) || words[3].len() < 4, "{recovered}");
    machine.esker(["snapshots", "--password-file", "new-password"]).success();
    machine.typed = None;
    let refused = machine.esker(["key", "recover", "--new-password-file", "new-password"]).fails(2);
    assert!(refused.err().contains("--words-file"), "{refused}");
}

#[test]
fn wrong_words_are_told_by_name_or_by_their_checksum() {
    let mut machine = machine();
    machine.unset("ESKER_PASSWORD");
    let sheet = read(&machine, "sheet");
    let right = words(&sheet);
    let recover = |text: &str| {
        fs::write(machine.path("typed"), text).unwrap();
        machine
            .esker(["key", "recover", "--words-file", "typed", "--new-password-file", "new-password"])
            .fails(12)
            .err()
    };
    // One exchange in 256 has a right checksum; then the repository does not know the key.
    let mut found = 0;
    for at in 0..23 {
        let mut swapped = right.clone();
        swapped.swap(at, at + 1);
        found += usize::from(recover(&swapped.join(" ")).contains("checksum"));
    }
    assert!(found >= 20, "{found}");
    assert!(recover(&right[..23].join(" ")).contains("there are 23 words where 24 belong"));
    let mut unknown = right.clone();
    unknown[4] = "zzzz".into();
    assert!(recover(&unknown.join(" ")).contains("word 5, `zzzz`"));
    assert!(recover(&sheet.replacen("Root:        ", "Root:        0", 1)).contains("`Root:` is not 64 digits"));
    let other = Machine::seeded(8);
    other.esker(["init", "--recovery-key-file", "sheet"]).success();
    assert!(recover(&read(&other, "sheet")).contains("the key file is for repository"));
    assert!(recover(&words(&read(&other, "sheet")).join(" ")).contains("this repository does not know it"));
}

/// What a storage could put up to be given the new password, and all later backups.
#[test]
fn a_sheet_refuses_a_false_config() {
    let mut machine = machine();
    machine.unset("ESKER_PASSWORD");
    let digits = |line: &str| line.split_once(':').unwrap().1.replace(' ', "");
    let sheet = read(&machine, "sheet");
    let root = digits(sheet.lines().find(|line| line.starts_with("Root:")).unwrap());
    assert_eq!(root.len(), 64);
    // The same repository, as a sheet with another root would see it.
    use esker::repo::secret::{KeyFile, Secret};
    let Secret::KeyFile(mut key) = esker::repo::recovery::secret_from_text(&sheet).unwrap() else { panic!() };
    key.root_verifying[0] ^= 1;
    let false_sheet = esker::repo::recovery::Sheet { key: KeyFile { ..key }, place: "x".into(), made_secs: 0 };
    fs::write(machine.path("typed"), &*false_sheet.to_text()).unwrap();
    let refused =
        machine.esker(["key", "recover", "--words-file", "typed", "--new-password-file", "new-password"]).fails(6);
    assert!(refused.err().contains("its root owner is not the one the key file knows"), "{refused}");
    machine.esker(["snapshots", "--password-file", "new-password"]).fails(12);
}

#[test]
fn lost_words_are_removed_like_any_key() {
    let machine = machine();
    let list = machine.esker(["key", "list"]).success().out();
    let line = list.lines().find(|line| line.contains("recovery words")).expect(&list);
    let id = line.split_whitespace().next().unwrap();
    assert!(read(&machine, "sheet").contains(&format!("key remove {id}")));
    machine.esker(["key", "remove", id]).success();
    machine.esker(["snapshots", "--key-file", "sheet"]).fails(6);
    machine.esker(["key", "recover", "--words-file", "sheet", "--new-password-file", "new-password"]).fails(6);
}

/// With the real program: from a pipe, and onto a pipe.
#[test]
fn words_come_through_a_pipe_and_none_goes_into_one() {
    let machine = machine();
    let program = |args: &[&str], input: &str| {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.current_dir(machine.path("")).env_clear().envs(&machine.env).env_remove("ESKER_PASSWORD");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    };
    let words = words(&read(&machine, "sheet"));
    let recover = ["key", "recover", "--words-file", "-", "--new-password-file", "new-password"];
    let said = program(&recover, &words.join("\n"));
    assert!(!words.windows(2).any(|pair| said.contains(&pair.join(" "))), "{said}");
    program(&["snapshots", "--password-file", "new-password"], "");
    let made = program(&["init", "--repo", "second", "--password-file", "new-password"], "");
    assert!(made.contains("key export --out recovery.txt"), "{made}");
    assert!(!made.contains("Words:"), "{made}");
}

// --- the kit ------------------------------------------------------------------------------

#[test]
fn a_kit_and_a_sheet_outlive_changes_of_passwords_and_keys() {
    let mut machine = machine();
    machine.esker(["key", "export", "--out", "kit"]).success();
    let mode = fs::metadata(machine.path("kit")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    machine.esker(["key", "export", "--out", "kit"]).fails(2);
    machine.esker(["key", "add", "--name", "second", "--new-password-file", "new-password"]).success();
    let added = machine.esker(["key", "add", "--name", "gone", "--out", "gone", "--json"]).success().json();
    machine.esker(["key", "remove", added[0]["id"].as_str().unwrap()]).success();
    fs::write(machine.path("third"), "third").unwrap();
    machine.esker(["key", "passwd", "--new-password-file", "third"]).success();
    for key in ["sheet", "kit"] {
        opens_with(&machine, key);
    }
    // The statements of the kit are old, and serve: the newer ones are still there.
    let kit = read(&machine, "kit");
    let name = kit.split_whitespace().find(|word| word.starts_with("access/")).unwrap();
    fs::remove_file(machine.path("repo").join(name)).unwrap();
    fs::remove_file(machine.path("repo/copies").join(name)).unwrap();
    machine.unset("ESKER_PASSWORD");
    machine.esker(["repair", "config", "--from", "kit"]).success();
    machine.esker(["snapshots", "--password-file", "third"]).success();
    machine.esker(["snapshots", "--password-file", "new-password"]).success();
    machine.esker(["snapshots", "--key-file", "gone"]).fails(6);
    machine.esker(["key", "recover", "--words-file", "kit", "--new-password-file", "new-password"]).success();
    machine.esker(["check", "--password-file", "third"]).success();
}

#[test]
fn a_kit_brings_back_everything_that_is_needed_before_unlocking() {
    let machine = machine();
    machine.esker(["key", "export", "--out", "kit"]).success();
    for lost in ["access", "keys", "copies"] {
        fs::remove_dir_all(machine.path("repo").join(lost)).unwrap();
    }
    fs::remove_file(machine.path("repo/config")).unwrap();
    machine.esker(["snapshots"]).fails(10);
    let without = machine.esker(["repair", "config"]).fails(1);
    assert!(without.err().contains("--from KIT"), "{without}");
    let planned = machine.esker(["repair", "config", "--from", "kit", "--dry-run"]).success();
    assert!(planned.out().contains("would be put back"), "{planned}");
    assert!(!machine.path("repo/config").exists());
    let done = machine.esker(["repair", "config", "--from", "kit", "--json"]).success().json();
    assert_eq!(done.last().unwrap()["lost"].as_array().unwrap().len(), 0);
    assert!(done.iter().any(|line| line["object"] == "config" && line["from"] == "recovery kit"));
    assert_eq!(machine.esker(["snapshots"]).success().err(), "");
    machine.esker(["check", "--read-data"]).success();
    machine.esker(["repair", "config", "--from", "kit"]).success().out().find("nothing to repair").unwrap();
}

#[test]
fn what_is_damaged_in_a_kit_is_named_and_the_rest_serves() {
    let machine = machine();
    machine.esker(["key", "export", "--out", "kit"]).success();
    let kit = read(&machine, "kit");
    let at = kit.find("object keys/").unwrap();
    let digits = kit[at..].find('\n').unwrap() + at + 1;
    let mut bad = kit.clone();
    bad.replace_range(digits..digits + 2, if &kit[digits..digits + 2] == "00" { "01" } else { "00" });
    fs::write(machine.path("bad"), bad).unwrap();
    fs::remove_file(machine.path("repo/config")).unwrap();
    fs::remove_dir_all(machine.path("repo/copies")).unwrap();
    let told = machine.esker(["repair", "config", "--from", "bad"]).success();
    assert!(told.err().contains("`keys/"), "{told}");
    machine.esker(["snapshots"]).success();
    machine.esker(["check"]).success();
    let no_kit = machine.esker(["repair", "config", "--from", "sheet"]).fails(2);
    assert!(no_kit.err().contains("is not a recovery kit"), "{no_kit}");
}

/// Everybody can make statements; only those that count are brought into a repository.
#[test]
fn a_kit_of_another_repository_is_refused() {
    let machine = machine();
    let mut other = Machine::seeded(8);
    other.set("ESKER_REPOSITORY", "repo");
    other.esker(["init", "--no-recovery"]).success();
    other.esker(["key", "export", "--out", "kit"]).success();
    let kit = other.path("kit");
    let refused = machine.esker(["repair", "config", "--from", kit.to_str().unwrap()]).fails(6);
    assert!(refused.err().contains("are both valid and differ"), "{refused}");
    // Even where nothing is left to compare it with, what was seen here before stands.
    fs::remove_file(machine.path("repo/config")).unwrap();
    fs::remove_file(machine.path("repo/copies/config")).unwrap();
    let text = fs::read_to_string(&kit).unwrap();
    let begin = text.find("object config ").unwrap();
    let end = begin + text[begin..].find("object keys/").unwrap_or(text[begin..].find("end esker").unwrap());
    let without_config = format!("{}{}", &text[..begin], &text[end..]);
    fs::write(machine.path("foreign"), without_config).unwrap();
    machine.esker(["repair", "config", "--from", "foreign"]).fails(1);
    assert!(!machine.path("repo/config").exists());
}

// --- repair -------------------------------------------------------------------------------

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn lose(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Each object that has a second copy, each side of it, lost and damaged.
#[test]
fn every_object_is_put_back_from_its_second_copy() {
    let mut machine = machine();
    // Does the same as the password, in a hundredth of the time.
    machine.unset("ESKER_PASSWORD");
    machine.set("ESKER_KEY_FILE", "sheet");
    let mut names = vec![PathBuf::from("config")];
    for folder in ["keys", "access"] {
        names.extend(objects(&machine, folder).iter().map(|path| Path::new(folder).join(path.file_name().unwrap())));
    }
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        for side in [PathBuf::new(), "copies".into()] {
            let path = machine.path("repo").join(side).join(name);
            let whole = fs::read(&path).unwrap();
            for (was, damage) in [("missing", lose as fn(&Path)), ("damaged", flip)] {
                damage(&path);
                let object = path.strip_prefix(machine.path("repo")).unwrap().to_str().unwrap();
                if object != "config" || was == "damaged" {
                    let checked = machine.esker(["check"]).fails(4);
                    assert!(checked.err().contains(name.to_str().unwrap()), "{object} {was}: {checked}");
                    assert!(checked.err().contains("repair config"), "{object} {was}: {checked}");
                    machine.esker(["snapshots"]).success();
                } else {
                    let hint = machine.esker(["snapshots"]).fails(10);
                    assert!(hint.err().contains("esker repair config"), "{hint}");
                }
                let done = machine.esker(["repair", "config"]).success();
                assert!(done.out().contains(&format!("{object} from ")) && done.out().contains(was), "{done}");
                assert!(done.out().ends_with("1 object put back\n"), "{done}");
                assert_eq!(fs::read(&path).unwrap(), whole);
            }
        }
    }
    assert_eq!(machine.esker(["check"]).success().err(), "");
    let again = machine.esker(["repair", "config"]).success();
    assert!(again.out().starts_with("nothing to repair"), "{again}");
}

#[test]
fn what_is_lost_on_both_sides_is_named_and_nothing_whole_is_touched() {
    let machine = machine();
    let slot = objects(&machine, "keys").remove(0);
    flip(&slot);
    let copy = machine.path("repo/copies/keys").join(slot.file_name().unwrap());
    fs::remove_file(&copy).unwrap();
    let damaged = fs::read(&slot).unwrap();
    let told = machine.esker(["repair", "config"]).fails(1);
    assert!(told.err().contains(slot.file_name().unwrap().to_str().unwrap()), "{told}");
    assert_eq!(fs::read(&slot).unwrap(), damaged);
    assert!(!copy.exists());
    // The password may be right, and the hint says what helps; a wrong one says something else.
    let unlocked = machine.esker(["snapshots"]).fails(1);
    assert!(unlocked.err().contains("1 of 1 password slots are lost"), "{unlocked}");
    assert!(unlocked.err().contains("repair config"), "{unlocked}");
    opens_with(&machine, "sheet");
    machine.esker(["key", "add", "--key-file", "sheet", "--new-password-file", "new-password"]).success();
    machine.esker(["snapshots", "--password-file", "new-password"]).success();
    let either = machine.esker(["snapshots"]).fails(1);
    assert!(either.err().contains("not that of 1 of 2 slots, and 1 cannot be read"), "{either}");
}

#[test]
fn a_wrong_password_is_no_damage() {
    let mut machine = machine();
    machine.set("ESKER_PASSWORD", "wrong");
    let wrong = machine.esker(["snapshots"]).fails(12);
    assert!(wrong.err().starts_with("error: wrong password"), "{wrong}");
    assert!(wrong.err().contains("key recover"), "{wrong}");
    // One side damaged: the other serves, and the password is still wrong.
    let slot = objects(&machine, "keys").remove(0);
    flip(&slot);
    machine.esker(["snapshots"]).fails(12);
    machine.set("ESKER_PASSWORD", PASSWORD);
    machine.esker(["snapshots"]).success();
}

#[test]
fn two_whole_configs_that_differ_are_left_alone() {
    let machine = machine();
    let mut other = Machine::seeded(8);
    other.set("ESKER_REPOSITORY", "repo");
    other.esker(["init", "--no-recovery"]).success();
    let foreign = fs::read(other.path("repo/config")).unwrap();
    let own = fs::read(machine.path("repo/config")).unwrap();
    fs::write(machine.path("repo/copies/config"), &foreign).unwrap();
    flip(&objects(&machine, "copies/access").remove(0));
    let refused = machine.esker(["repair", "config"]).fails(6);
    assert!(refused.err().contains("both valid and differ"), "{refused}");
    assert_eq!(fs::read(machine.path("repo/config")).unwrap(), own);
    assert_eq!(fs::read(machine.path("repo/copies/config")).unwrap(), foreign);
}

/// `backup --init` from cron, on a storage where nothing else would be in the way.
#[test]
fn no_repository_is_made_over_one_that_has_lost_its_config() {
    let machine = Machine::with_repository();
    machine.write("files/x", "x");
    machine.esker(["backup", "files"]).success();
    let mut content = machine.memory.snapshot();
    content.remove("config").unwrap();
    machine.memory.restore(content);
    fs::copy(machine.path("key"), machine.path("old-key")).unwrap();
    fs::remove_file(machine.path("key")).unwrap();
    let refused = machine.esker(["backup", "files", "--init"]).fails(6);
    assert!(refused.err().contains("esker repair config"), "{refused}");
    assert!(!machine.path("key").exists());
    machine.esker(["init"]).fails(6);
    machine.esker(["repair", "config"]).success();
    assert_eq!(machine.esker(["snapshots", "--key-file", "old-key"]).success().err(), "");
}

#[test]
fn where_there_is_no_repository_nothing_is_repaired() {
    let mut machine = Machine::new();
    machine.esker(["repair", "config"]).fails(10);
    machine.set("ESKER_REPOSITORY", "nowhere");
    machine.esker(["repair", "config"]).fails(10);
    assert!(!machine.path("nowhere").exists());
}

// --- init --like --------------------------------------------------------------------------

/// The ids of the node of a directory and of the chunks of a file in it, in the newest snapshot.
fn ids_of(machine: &Machine, directory: &Path, file: &str) -> Vec<String> {
    use esker::format::tree::{Detail, Piece};
    use esker::path::TreePath;
    use esker::repo::Repository;
    use esker::repo::content::Reader;
    use esker::repo::open::Local;
    use esker::repo::reader::{Pieces, find};
    use esker::repo::snapshots::Filter;
    use std::sync::Arc;
    let storage = esker::storage::local::Local::open(machine.path("repo")).unwrap();
    let secret = esker::repo::recovery::secret_from_text(&read(machine, "key")).unwrap();
    let world = esker::world::World::system();
    let repo = Repository::open(Arc::new(storage), world, &secret, Local::default()).unwrap();
    let reader = Reader::without_cache(&repo).unwrap();
    let root = reader.find_snapshot("latest", &Filter::default()).unwrap().snapshot.root;
    let at = |path: &Path| find(&reader, &root, &TreePath::from_os(path).unwrap()).unwrap().detail;
    let Detail::Directory { id, .. } = at(directory) else { panic!("no directory") };
    let Detail::File { content, .. } = at(&directory.join(file)) else { panic!("no file") };
    let mut ids = vec![id.to_string()];
    for piece in Pieces::new(&reader, &content) {
        let Piece::Chunk { id, .. } = piece.unwrap() else { continue };
        ids.push(id.to_string());
    }
    ids
}

#[test]
fn repositories_made_alike_give_the_same_content_the_same_ids() {
    let mut noise = vec![0; 600_000];
    blake3::Hasher::new_keyed(&[7; 32]).finalize_xof().fill(&mut noise);
    let mut first = Machine::new();
    first.set("ESKER_REPOSITORY", "repo");
    first.esker(["init", "--no-recovery", "--chunk-average", "16K"]).success();
    first.esker(["key", "writer", "--name", "w", "--out", "writer"]).success();
    let url = first.path("repo").into_os_string().into_string().unwrap();
    let made = |seed, args: &[&str]| {
        let mut machine = Machine::seeded(seed);
        machine.set("ESKER_REPOSITORY", "repo");
        machine.esker(["init", "--no-recovery"].iter().chain(args).copied()).success();
        machine
    };
    let key = first.path("key").into_os_string().into_string().unwrap();
    let alike = made(8, &["--like", &url, "--from-key-file", &key]);
    let unlike = made(9, &["--chunk-average", "16K"]);
    first.write("files/large", noise);
    first.write("files/below/small", "hello");
    let source = first.path("files").canonicalize().unwrap();
    let ids = [&first, &alike, &unlike].map(|machine| {
        machine.esker(["backup", source.to_str().unwrap()]).success();
        ids_of(machine, &source, "large")
    });
    assert!(ids[0].len() > 20, "{ids:?}");
    assert_eq!(ids[0], ids[1]);
    assert!(!ids[0].iter().any(|id| ids[2].contains(id)));
    // All else is the new repository's own: neither opens the other.
    alike.esker(["snapshots", "--key-file", &key]).fails(12);
    let config = |machine: &Machine| fs::read(machine.path("repo/config")).unwrap();
    assert_ne!(config(&first), config(&alike));

    let refuses = |args: &[&str], code| {
        let machine = Machine::seeded(10);
        let refused = machine.esker(["init"].iter().chain(args).copied()).fails(code);
        assert!(machine.memory.snapshot().is_empty() && !machine.path("key").exists(), "{refused}");
    };
    let writer = first.path("writer").into_os_string().into_string().unwrap();
    refuses(&["--like", &url, "--from-key-file", &writer], 6);
    refuses(&["--like", &url], 2);
    refuses(&["--like", "nowhere", "--from-key-file", &key], 10);
    refuses(&["--like", &url, "--from-key-file", &key, "--chunk-average", "16K"], 2);
    let mut machine = Machine::seeded(11);
    machine.set("ESKER_FROM_KEY_FILE", &key);
    machine.esker(["init", "--like", &url]).success();
}

// --- rotating -----------------------------------------------------------------------------

#[test]
fn what_opens_the_repository_opens_it_after_a_rotation_too() {
    let machine = machine();
    machine.esker(["key", "writer", "--out", "writer.key", "--name", "web-1"]).success();
    let rotated = machine.esker(["key", "rotate"]).success();
    assert!(rotated.out().starts_with("new keys for 3 credentials:"), "{rotated}");
    machine.esker(["backup", "files", "--key-file", "writer.key"]).success();
    machine.esker(["backup", "files"]).success();
    let listed = machine.esker(["snapshots", "--key-file", "sheet"]).success();
    assert_eq!(listed.out().matches("/files").count(), 3, "{listed}");
    machine.esker(["restore", "latest", "--target", "out"]).success();
    machine.esker(["check", "--read-data"]).success();
    machine.esker(["key", "rotate", "--key-file", "writer.key"]).fails(6);
    let list = machine.esker(["key", "list", "--json"]).success().json();
    assert!(list[0].as_array().unwrap().iter().all(|member| member["up_to_date"] == true), "{list:?}");
}

#[test]
fn somebody_is_removed_and_the_keys_are_rotated_in_one_command() {
    let machine = machine();
    machine.esker(["key", "writer", "--out", "writer.key", "--name", "web-1"]).success();
    let list = machine.esker(["key", "list"]).success().out();
    let id = list.lines().find(|line| line.contains("web-1")).unwrap().split_whitespace().next().unwrap();
    let removed = machine.esker(["key", "remove", "--rotate", id]).success();
    assert!(removed.out().contains("new keys for 2 credentials"), "{removed}");
    machine.esker(["backup", "files", "--key-file", "writer.key"]).fails(6);
}

#[test]
fn a_password_is_taken_away_by_its_own_id() {
    let machine = machine();
    let list = machine.esker(["key", "list", "--json"]).success().json();
    let slot = list[0][0]["slots"][0].as_str().unwrap().to_owned();
    let removed = machine.esker(["key", "remove", &slot]).success();
    assert!(removed.out().starts_with("removed password"), "{removed}");
    machine.esker(["snapshots"]).fails(12);
    opens_with(&machine, "sheet");
    machine.esker(["key", "remove", &slot, "--key-file", "sheet"]).fails(2);
    machine.esker(["prune", "--key-file", "sheet"]).success();
    assert!(objects(&machine, "keys").is_empty() && objects(&machine, "copies/keys").is_empty());
    machine.esker(["check", "--key-file", "sheet"]).success();
}

#[test]
fn a_sheet_is_tested_without_changing_anything() {
    let machine = machine();
    let before = [objects(&machine, "access"), objects(&machine, "keys"), objects(&machine, "sessions")];
    let tested = machine.esker(["key", "test-recovery", "--words-file", "sheet"]).success();
    assert!(tested.out().contains("it opens the repository as owner"), "{tested}");
    assert!(tested.out().contains("was opened with it"), "{tested}");
    assert_eq!(before, [objects(&machine, "access"), objects(&machine, "keys"), objects(&machine, "sessions")]);
    machine.esker(["key", "writer", "--out", "writer.key", "--name", "web-1"]).success();
    let refused = machine.esker(["key", "test-recovery", "--words-file", "writer.key"]).fails(6);
    assert!(refused.err().contains("can read nothing back"), "{refused}");
    let other = Machine::seeded(77);
    other.esker(["init", "--recovery-key-file", "sheet"]).success();
    fs::copy(other.path("sheet"), machine.path("foreign")).unwrap();
    machine.esker(["key", "test-recovery", "--words-file", "foreign"]).fails(12);
}
