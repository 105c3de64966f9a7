//! The recovery kit: a recovery sheet, and below it copies of `config`, the key slots and the access
//! statements, from which [`super::repair`] can put them back (SPEC §4.6).
//!
//! All of it is text. Each object stands in hexadecimal under a line with its name, length and
//! checksum, so a kit that is damaged in one place still serves for the rest.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::Repository;
use super::open::{CONFIG, COPIES, parse_config};
use super::recovery::Sheet;
use crate::error::{Context, Error, Kind, Result};
use crate::id::{ObjectId, SlotId, hex, unhex};
use crate::storage::{ErrorKind, Storage};

/// How the line begins that the objects follow.
pub(super) const BEGIN: &str = "begin esker kit 1";
const END: &str = "end esker kit";
/// Bytes in a line.
const LINE_BYTES: usize = 32;

/// The objects of a kit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kit {
    /// By name.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// What of the kit is damaged, and left out.
    pub faults: Vec<String>,
}

/// Whether a kit may hold an object of this name.
fn belongs(name: &str) -> bool {
    let (folder, rest) = name.split_once('/').unwrap_or((name, ""));
    match folder {
        "access" => rest.parse::<ObjectId>().is_ok(),
        "keys" => rest.parse::<SlotId>().is_ok(),
        _ => name == CONFIG,
    }
}

/// Its length, and the BLAKE3 of its name, a zero and its bytes.
fn described(name: &str, bytes: &[u8]) -> String {
    let hash = blake3::Hasher::new().update(name.as_bytes()).update(&[0]).update(bytes).finalize();
    format!("{} {}", bytes.len(), hash.to_hex())
}

impl Kit {
    /// The text of the objects.
    pub fn to_text(&self) -> String {
        let mut text = format!("{BEGIN}\n");
        for (name, bytes) in &self.objects {
            text.push_str(&format!("object {name} {}\n", described(name, bytes)));
            for line in bytes.chunks(LINE_BYTES) {
                text.push_str(&hex(line));
                text.push('\n');
            }
        }
        text.push_str(&format!("{END} {}\n", self.objects.len()));
        text
    }

    /// Reads a kit. What is damaged in it is left out and named; a text without one is an error.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).skip_while(|line| *line != BEGIN);
        if lines.next().is_none() {
            return Err(Error::new(Kind::Usage, "it is not a recovery kit")
                .hint("to make one, while the repository still opens, run `esker key export --out FILE`"));
        }
        let mut kit = Self::default();
        let mut object: Option<(String, String, Zeroizing<String>)> = None;
        let mut ended = None;
        for line in lines {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["object", name, length, hash] => {
                    kit.take(object.take());
                    object = Some((name.to_owned(), format!("{length} {hash}"), Zeroizing::default()));
                }
                ["end", "esker", "kit", count] => {
                    kit.take(object.take());
                    ended = Some(count.to_owned());
                    break;
                }
                _ => {
                    if let Some((_, _, digits)) = &mut object {
                        digits.push_str(line);
                    }
                }
            }
        }
        kit.take(object.take());
        let count = kit.objects.len() + kit.faults.len();
        if ended != Some(count.to_string()) {
            kit.faults.push(format!("it is not complete: it ends after {count} objects"));
        }
        Ok(kit)
    }

    fn take(&mut self, object: Option<(String, String, Zeroizing<String>)>) {
        let Some((name, as_described, digits)) = object else { return };
        let bytes = unhex(&digits).unwrap_or_default();
        if belongs(&name) && as_described == described(&name, &bytes) {
            self.objects.insert(name, bytes);
        } else {
            self.faults.push(format!("`{}` in it is damaged", name.escape_debug()));
        }
    }
}

impl Repository {
    /// A sheet with copies of everything that must be readable before anything is unlocked.
    ///
    /// Reads all of it anew, so that what the sheet's own key rests on is among it.
    pub fn recovery_kit(&self, sheet: &Sheet) -> Result<Zeroizing<String>> {
        let what = || "cannot make a recovery kit";
        let storage = &*self.storage;
        let mut kit = Kit::default();
        let config = whole(storage, CONFIG, &|bytes| parse_config(CONFIG, bytes).is_ok()).context(what)?;
        kit.objects.insert(CONFIG.to_owned(), config);
        for object in storage.list("access/").context(what)? {
            let bytes = whole(storage, &object.name, &|bytes| {
                object.name.strip_prefix("access/") == Some(&ObjectId::of(bytes).to_string())
            });
            match bytes {
                Ok(bytes) => drop(kit.objects.insert(object.name, bytes)),
                // No statement, or lost on both sides: `check` names it, and a kit could not help.
                Err(error) if error.kind() == Kind::Damaged => {}
                Err(error) => return Err(error).context(what),
            }
        }
        for slot in self.access.slots() {
            let name = format!("keys/{}", slot.slot);
            let bytes = whole(storage, &name, &|bytes| ObjectId::of(bytes) == slot.hash).context(what)?;
            kit.objects.insert(name, bytes);
        }
        let (sheet, objects) = (sheet.to_text(), kit.to_text());
        let between = "\nWhat follows is for esker. It holds no key; `repair config --from` this file puts back what it\n\
                       names, should it be lost from the repository.\n\n";
        // Of one size from the start: what it grew out of would not be wiped.
        let mut text = Zeroizing::new(String::with_capacity(sheet.len() + between.len() + objects.len()));
        [&sheet, between, &objects].iter().for_each(|part| text.push_str(part));
        Ok(text)
    }
}

/// An object, or its second copy, whichever is whole.
fn whole(storage: &dyn Storage, name: &str, is_whole: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    for name in [name.to_owned(), format!("{COPIES}{name}")] {
        match storage.get(&name) {
            Ok(bytes) if is_whole(&bytes) => return Ok(bytes),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
            Err(error) => return Err(error).context(|| format!("cannot read `{name}`")),
        }
    }
    Err(Error::new(Kind::Damaged, format!("neither `{name}` nor its second copy is whole")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit() -> Kit {
        let access = format!("access/{}", "0".repeat(64));
        let slot = format!("keys/{}", "1".repeat(32));
        let objects = [(CONFIG.to_owned(), vec![1; 100]), (access, vec![2; 64]), (slot, vec![])];
        Kit { objects: objects.into(), faults: vec![] }
    }

    #[test]
    fn a_kit_reads_back_below_any_text() {
        let text = format!("some page\n\n{}", kit().to_text());
        assert_eq!(Kit::from_text(&text).unwrap(), kit());
        assert_eq!(Kit::from_text(&text.replace('\n', "  \r\n")).unwrap(), kit());
        assert!(Kit::from_text("some page").is_err());
    }

    #[test]
    fn what_is_damaged_is_named_and_the_rest_serves() {
        let text = kit().to_text();
        let damaged = Kit::from_text(&text.replacen("0101", "0102", 1)).unwrap();
        assert_eq!(damaged.faults, ["`config` in it is damaged"]);
        assert_eq!(damaged.objects.len(), 2);
        let cut = Kit::from_text(&text[..text.len() / 2]).unwrap();
        assert!(!cut.faults.is_empty() && cut.objects.len() < 3, "{cut:?}");
        let renamed = Kit::from_text(&text.replace("object config", "object packs/00/x")).unwrap();
        assert_eq!(renamed.faults.len(), 1);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            if let Ok(read) = Kit::from_text(&String::from_utf8(bad).unwrap()) {
                assert!(read.objects.iter().all(|(name, bytes)| kit().objects.get(name) == Some(bytes)), "byte {at}");
                assert!(!read.faults.is_empty() || read == kit(), "byte {at}");
            }
        }
    }
}
