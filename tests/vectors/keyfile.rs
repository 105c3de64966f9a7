//! Vectors of key files (SPEC §4.4), which are text.

use esker::crypto::credential::Credential;
use esker::format::access::Role;
use esker::id::ObjectId;
use esker::repo::secret::KeyFile;

use super::make::*;

/// The key's line with other words, and the check that belongs to them.
fn with_words(text: &[u8], change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let line = text.lines().last().unwrap();
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words.pop();
    change(&mut words);
    let body = words.join(" ");
    format!("{body} {}\n", &ObjectId::of(body.as_bytes()).to_string()[..8]).into_bytes()
}

pub(super) fn vectors() -> Vec<Vector> {
    let root_verifying = Credential::from_seed(SEED.clone()).public().verifying;
    let file = |role: Role, name: &str| {
        let key = KeyFile { role, repo: REPO, root_verifying, seed: PRIVATE.clone() };
        good(name, "key file", "comments, then the key", key.to_text().as_bytes())
            .with("role", role.name())
            .hex("repo", REPO.as_bytes())
            .hex("root_verifying", root_verifying)
            .hex("credential", key.credential().id().as_bytes())
            .hex("seed", PRIVATE.expose())
    };
    let writer = file(Role::Writer, "key_file_writer");
    let words = |name: &str, expect, comment, change: &dyn Fn(&mut Vec<String>)| {
        writer.refused(name, expect, comment, |bytes| *bytes = with_words(bytes, change))
    };
    let line = |name: &str, expect, comment, change: &dyn Fn(&str) -> String| {
        writer.refused(name, expect, comment, |bytes| *bytes = change(std::str::from_utf8(bytes).unwrap()).into_bytes())
    };
    let comments =
        |text: &str| text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    vec![
        words("key_file_first_word", "unsupported", "the first word is esker-key-3", &|words| {
            words[0] = "esker-key-3".into();
        }),
        words("key_file_role", "malformed", "a role that there is not", &|words| words[1] = "reader".into()),
        words("key_file_repository", "malformed", "a repository id in uppercase", &|words| {
            words[2] = "AA".repeat(16);
        }),
        words("key_file_root", "malformed", "a root owner's key of 31 bytes", &|words| {
            words[3].truncate(62);
        }),
        words("key_file_other_credential", "wrong identity", "the seed is another credential's", &|words| {
            words[4] = "00".repeat(32);
        }),
        words("key_file_seed", "malformed", "a seed of 31 bytes", &|words| words[5].truncate(62)),
        words("key_file_more_words", "malformed", "a word behind the seed", &|words| words.push("more".into())),
        words("key_file_two_spaces", "malformed", "two spaces before the role", &|words| {
            words.insert(1, String::new())
        }),
        line("key_file_check", "malformed", "the last digit of the check is flipped", &|text| {
            let digit = if text.trim_end().ends_with('0') { '1' } else { '0' };
            format!("{}{digit}\n", &text.trim_end()[..text.trim_end().len() - 1])
        }),
        line("key_file_cut", "malformed", "the last 20 characters are missing, the check with them", &|text| {
            text[..text.len() - 20].to_owned()
        }),
        line("key_file_comments", "truncated", "comments only", &comments),
        line("key_file_empty", "truncated", "nothing", &|_| String::new()),
        writer,
        file(Role::Owner, "key_file_owner"),
    ]
}
