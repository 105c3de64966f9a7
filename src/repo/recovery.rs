//! The recovery sheet: an owner's key as a page of text that can be printed, and typed again from
//! paper years later (SPEC §4.6).
//!
//! It says what a key file says: the seed as words, the repository, and the root owner's verifying
//! key, so that a `config` somebody else put up is refused. Every line that matters begins with its
//! name; all others are for people. [`super::kit`] is the same page with copies of what it opens.

use std::fmt;

use zeroize::Zeroizing;

use super::secret::{KeyFile, Secret, secret_text};
use crate::crypto::key::SecretKey;
use crate::crypto::words::{Typed, WORDS, is_word, words_of};
use crate::error::{Error, Kind, Result};
use crate::format::access::Role;
use crate::id::{RepoId, hex, unhex};

/// The name that `key list` shows for the key of a sheet.
pub const RECOVERY_LABEL: &str = "recovery";

const TITLE: &str = "esker recovery sheet";
const VERSION: &str = "esker-sheet-1";
/// Words in a line of the sheet.
const WORDS_IN_LINE: usize = 4;

/// A sheet before it is written.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// The key it holds.
    pub key: KeyFile,
    /// Where the repository is.
    pub place: String,
    /// When the sheet was made, seconds since 1970.
    pub made_secs: i64,
}

impl Sheet {
    /// The page.
    pub fn to_text(&self) -> Zeroizing<String> {
        let words = words_of(&self.key.seed);
        let numbered = |f: &mut fmt::Formatter<'_>| {
            words.split(' ').zip(1..).try_for_each(|(word, number)| match number % WORDS_IN_LINE {
                0 => writeln!(f, "{number:>5} {word}"),
                _ => write!(f, "{number:>5} {word:<9}"),
            })
        };
        let key = self.key.credential().id().short();
        // A place with control characters would break the page.
        let place: String = self.place.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let quoted = shell_words::quote(&place);
        secret_text(format_args!(
            "ESKER RECOVERY SHEET  ({VERSION})\n\
             \n\
             The 24 words open this backup repository. Whoever has them can read and delete all that is\n\
             in it. Print this page, keep it away from the machines that are backed up, show it to nobody.\n\
             \n\
             Repository:  {}\n\
             Place:       {place}\n\
             Made:        {}\n\
             Key:         {key}\n\
             \n\
             Words:\n\
             {}\n\
             Root:        {}\n\
             Check:       {}\n\
             \n\
             When passwords and key files are lost, on any machine with esker:\n\
             \n    esker --repo {quoted} key recover\n\
             \n\
             asks for the words and sets a new password. With this page as a file, add\n\
             `--words-file FILE`. To read without changing anything:\n\
             \n    esker --repo {quoted} --key-file FILE snapshots\n\
             \n\
             When this page is lost or seen, make it worthless:\n\
             \n    esker --repo {quoted} key remove {key}\n",
            grouped(&self.key.repo.to_string()),
            date(self.made_secs),
            fmt::from_fn(numbered),
            grouped(&hex(&self.key.root_verifying)),
            checksum(&self.key),
        ))
    }
}

/// Digits in groups of eight, which are easier to type.
fn grouped(digits: &str) -> String {
    let groups: Vec<_> = digits.as_bytes().chunks(8).map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

fn date(secs: i64) -> String {
    jiff::Timestamp::from_second(secs).map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// Finds what was typed wrong in the lines that have no checksum of their own.
fn checksum(key: &KeyFile) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("esker v1 recovery sheet");
    hasher.update(key.repo.as_bytes());
    hasher.update(&key.root_verifying);
    hasher.update(key.credential().id().as_bytes());
    hex(&hasher.finalize().as_bytes()[..4])
}

/// What a file unlocks: a key file, a recovery sheet or kit, or nothing but recovery words.
pub fn secret_from_text(text: &str) -> Result<Secret> {
    let is_title = |line: &str| line.trim().get(..TITLE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TITLE));
    if text.lines().any(is_title) {
        return sheet_from_text(text).map(Secret::KeyFile);
    }
    match text.parse::<KeyFile>() {
        Ok(file) => Ok(Secret::KeyFile(file)),
        // Half of the words is enough to tell what the file is meant to be.
        Err(_) if text.split_whitespace().filter(|token| is_word(token)).count() >= WORDS / 2 => {
            words_from_text(text).map(Secret::Words)
        }
        Err(error) => Err(error),
    }
}

/// The seed that words stand for.
pub fn words_from_text(text: &str) -> Result<SecretKey> {
    let mut typed = Typed::default();
    let seed = typed.add(text).and_then(|()| typed.seed());
    seed.map_err(|error| Error::new(Kind::WrongKey, "cannot use the recovery words").because(error))
}

/// Reads a sheet. Case, spaces and everything but the five named lines are of no matter.
fn sheet_from_text(text: &str) -> Result<KeyFile> {
    let bad = |detail: String| Error::new(Kind::WrongKey, format!("cannot use the recovery sheet: {detail}"));
    let (mut repo, mut root, mut check) = (None, None, None);
    let mut typed = Typed::default();
    let mut in_words = false;
    for line in text.lines().take_while(|line| !line.starts_with(super::kit::BEGIN)) {
        let (label, rest) = line.split_once(':').unwrap_or(("", line));
        let field = match label.trim().to_lowercase().as_str() {
            "repository" => &mut repo,
            "root" => &mut root,
            "check" => &mut check,
            "words" => {
                in_words = true;
                typed.add(rest).map_err(|error| bad("a word is wrong".into()).because(error))?;
                continue;
            }
            _ => {
                if in_words && typed.count() < WORDS {
                    typed.add(line).map_err(|error| bad("a word is wrong".into()).because(error))?;
                }
                continue;
            }
        };
        in_words = false;
        field.get_or_insert(digits(rest));
    }
    let seed = typed.seed().map_err(|error| bad("the words are not right".into()).because(error))?;
    let line = |field: Option<String>, name: &str| field.ok_or_else(|| bad(format!("it has no line `{name}:`")));
    let (repo, root, check) = (line(repo, "Repository")?, line(root, "Root")?, line(check, "Check")?);
    let repo: RepoId = repo.parse().map_err(|_| bad("its line `Repository:` is not 32 digits".into()))?;
    let root_verifying = unhex(&root).and_then(|root| root.try_into().ok());
    let root_verifying = root_verifying.ok_or_else(|| bad("its line `Root:` is not 64 digits".into()))?;
    let key = KeyFile { role: Role::Owner, repo, root_verifying, seed };
    if checksum(&key) != check {
        let what = "its checksum does not fit: a digit in the lines `Repository:`, `Root:` or `Check:` is wrong";
        return Err(bad(what.into()));
    }
    Ok(key)
}

/// Hexadecimal digits as people type them.
fn digits(typed: &str) -> String {
    let meant = |c: char| match c {
        'o' => '0',
        'l' | 'i' => '1',
        other => other,
    };
    typed.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).map(meant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let seed = SecretKey::from_bytes(blake3::hash(b"seed").as_bytes());
        let key = KeyFile { role: Role::Owner, repo: RepoId::from_bytes([0xa1; 16]), root_verifying: [0x0b; 32], seed };
        Sheet { key, place: "/mnt/usb disk/backup".into(), made_secs: 981_173_106 }
    }

    fn reads_as_itself(text: &str) -> bool {
        let own = sheet().key;
        match secret_from_text(text) {
            Ok(Secret::KeyFile(key)) => {
                key.repo == own.repo
                    && key.root_verifying == own.root_verifying
                    && key.seed.expose() == own.seed.expose()
                    && key.role == Role::Owner
            }
            _ => false,
        }
    }

    #[test]
    fn a_sheet_reads_back_as_printed_and_as_people_type_it() {
        let text = sheet().to_text();
        assert!(text.contains("\nMade:        2001-02-03\n"), "{}", *text);
        assert!(text.contains("esker --repo '/mnt/usb disk/backup' key recover"), "{}", *text);
        assert!(text.lines().all(|line| line.len() < 100), "it is printed");
        assert!(reads_as_itself(&text));
        assert!(reads_as_itself(&text.to_uppercase()));
        assert!(reads_as_itself(&text.to_lowercase().replace('\n', "\r\n")));
        assert!(reads_as_itself(&text.replace("0b0b0b0b", "oboBob0b")), "letters that look like digits");
        let typed: String =
            words_of(&sheet().key.seed).split(' ').map(|word| format!("{}\n", &word[..word.len().min(4)])).collect();
        let only = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let short = ["Repository", "Root", "Check"].map(only).join("\n");
        assert!(reads_as_itself(&format!("{TITLE}\n{short}\nwords:\n{typed}")));
    }

    #[test]
    fn what_was_typed_wrong_is_named() {
        let text = sheet().to_text();
        let fails = |text: &str, expected: &str| {
            let error = secret_from_text(text).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), Kind::WrongKey);
            assert!(error.with_causes().contains(expected), "{}", error.with_causes());
        };
        let words = words_of(&sheet().key.seed);
        let first = words.split(' ').next().unwrap();
        fails(&text.replacen(&format!("1 {first}"), "1 qqqqq", 1), "word 1, `qqqqq`, is not in the list");
        fails(&text.replacen(&format!("1 {first}"), "1", 1), "23 words where 24 belong");
        fails(&text.replacen("a1a1a1a1", "a1a1a1a2", 1), "`Repository:`, `Root:` or `Check:`");
        fails(&text.replacen("0b0b0b0b", "0b0b0b0c", 1), "`Repository:`, `Root:` or `Check:`");
        fails(&text.replacen("0b0b0b0b", "0b0b0b", 1), "`Root:` is not 64 digits");
        fails(&text.replace("Root:", "Rot:"), "no line `Root:`");
        fails("nothing of the kind", "not an Esker key file");
    }

    #[test]
    fn words_alone_are_a_secret_too() {
        let words = words_of(&sheet().key.seed);
        match secret_from_text(&words.replace(' ', "\n")) {
            Ok(Secret::Words(seed)) => assert_eq!(seed.expose(), sheet().key.seed.expose()),
            other => panic!("{other:?}"),
        }
        let (_, fewer) = words.split_once(' ').unwrap();
        assert!(secret_from_text(fewer).unwrap_err().with_causes().contains("23 words"));
    }
}
