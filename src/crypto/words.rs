//! Recovery words: a 32-byte seed as 24 words that people can keep on paper (SPEC §5.7).
//!
//! The words are BIP39's English list with its checksum of eight bits. What is typed back is taken
//! kindly: case, numbers, punctuation and line breaks do not matter, and the first four letters of
//! a word are enough, because they tell all words of the list apart.

use std::fmt;

use bip39::{Language, Mnemonic};
use zeroize::{Zeroize, Zeroizing};

use super::key::{KEY_BYTES, SecretKey};
use super::wipe;

/// How many words a seed is.
pub const WORDS: usize = 24;
/// So many letters tell every word of the list from all others.
const PREFIX_LETTERS: usize = 4;
/// No word of the list is longer; what is longer is cut in messages.
const SHOWN_LETTERS_MAX: usize = 16;

/// Why words are not a seed. Names the position and never more than one word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A word is not in the list.
    #[error("word {position}, `{typed}`, is not in the list{}", maybe(.nearest))]
    Unknown {
        /// Its position, from 1.
        position: usize,
        /// What was typed.
        typed: String,
        /// The words of the list that differ least from it.
        nearest: Vec<&'static str>,
    },
    /// There are too few words or too many.
    #[error("there are {0} words where {WORDS} belong")]
    Count(usize),
    /// All words are in the list, but together they are no seed.
    #[error(
        "each word is in the list, but their checksum is wrong: a word was probably taken for another, or two stand in the wrong order"
    )]
    Checksum,
}

fn maybe(nearest: &[&str]) -> String {
    match nearest {
        [] => String::new(),
        words => {
            format!("; did you mean {}?", words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "))
        }
    }
}

/// Words as they are typed, one line after the other.
#[derive(Default)]
pub struct Typed {
    /// Their places in the list; on the heap, since what is moved leaves a copy behind.
    words: Box<Zeroizing<[u16; WORDS]>>,
    /// How many there are, those too many included, which are not kept.
    count: usize,
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Typed({} words)", self.count)
    }
}

impl Typed {
    /// Takes the words of some text. When one of them is not in the list none is taken.
    pub fn add(&mut self, text: &str) -> Result<(), WordsError> {
        let mut count = self.count;
        for token in text.split(|c: char| !c.is_alphabetic()).filter(|token| !token.is_empty()) {
            let token = Zeroizing::new(token.to_lowercase());
            let word = find(&token).ok_or_else(|| WordsError::Unknown {
                position: count + 1,
                typed: token.chars().take(SHOWN_LETTERS_MAX).collect(),
                nearest: nearest(&token),
            })?;
            if let Some(place) = self.words.get_mut(count) {
                *place = word;
            }
            count += 1;
        }
        self.count = count;
        Ok(())
    }

    /// How many words there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The seed they stand for.
    pub fn seed(&self) -> Result<SecretKey, WordsError> {
        if self.count != WORDS {
            return Err(WordsError::Count(self.count));
        }
        // The library keeps the words' places in what it moves about.
        wipe::after(|| self.decoded())
    }

    fn decoded(&self) -> Result<SecretKey, WordsError> {
        let list = Language::English.word_list();
        let phrase = phrase(self.words.iter().map(|word| list[usize::from(*word)]));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &phrase).map_err(|_| WordsError::Checksum)?;
        let (mut entropy, length) = mnemonic.to_entropy_array();
        let seed = entropy.first_chunk::<KEY_BYTES>().filter(|_| length == KEY_BYTES).map(SecretKey::from_bytes);
        entropy.zeroize();
        seed.ok_or(WordsError::Checksum)
    }
}

/// Where in the list the word is that was meant: itself, or its beginning of four letters or more.
fn find(token: &str) -> Option<u16> {
    let list = Language::English.word_list();
    let is_long = token.chars().count() >= PREFIX_LETTERS;
    let found = list.iter().position(|word| *word == token);
    let found = found.or_else(|| list.iter().position(|word| is_long && word.starts_with(token)));
    found.and_then(|place| u16::try_from(place).ok())
}

/// Words with a space between two, in one place.
fn phrase(words: impl Iterator<Item = &'static str>) -> Zeroizing<String> {
    let mut phrase = Zeroizing::new(String::with_capacity(WORDS * (SHOWN_LETTERS_MAX + 1)));
    for word in words {
        let between = if phrase.is_empty() { "" } else { " " };
        phrase.push_str(between);
        phrase.push_str(word);
    }
    phrase
}

/// Words of the list that differ from what was typed by a letter or by two that changed places;
/// if there are none and the word is long, those that differ by two letters.
fn nearest(token: &str) -> Vec<&'static str> {
    let letters = token.chars().count();
    if letters > SHOWN_LETTERS_MAX {
        return Vec::new();
    }
    let list = Language::English.word_list();
    let first =
        |takes: &dyn Fn(&str) -> bool| list.iter().filter(|word| takes(word)).take(3).copied().collect::<Vec<_>>();
    let close = first(&|word| edits(token, word) == 1 || are_swapped(token, word));
    if close.is_empty() && letters > PREFIX_LETTERS { first(&|word| edits(token, word) == 2) } else { close }
}

/// Whether two neighbouring letters in the other order make one of the other.
fn are_swapped(from: &str, to: &str) -> bool {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    (1..from.len()).any(|at| {
        let mut swapped = from.clone();
        swapped.swap(at - 1, at);
        swapped == to
    })
}

/// How many letters must be put in, taken out or changed to make one of the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// Whether this is a word of the list, or tells one.
pub fn is_word(typed: &str) -> bool {
    find(&Zeroizing::new(typed.to_lowercase())).is_some()
}

/// The words of a seed, in order, with a space between two.
pub fn words_of(seed: &SecretKey) -> Zeroizing<String> {
    wipe::after(|| spelled(seed))
}

fn spelled(seed: &SecretKey) -> Zeroizing<String> {
    let mnemonic = Mnemonic::from_entropy_in(Language::English, seed.expose()).expect("32 bytes are 24 words");
    phrase(mnemonic.words())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed_of(text: &str) -> Result<[u8; 32], WordsError> {
        let mut typed = Typed::default();
        typed.add(text)?;
        typed.seed().map(|seed| *seed.expose())
    }

    /// The test vectors of BIP39 for 32 bytes.
    #[test]
    fn words_are_those_of_bip39() {
        let zeros = format!("{}art", "abandon ".repeat(23));
        assert_eq!(*words_of(&SecretKey::from_bytes(&[0; 32])), zeros);
        assert_eq!(seed_of(&zeros), Ok([0; 32]));
        let sevens = "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth \
                      useful legal winner thank year wave sausage worth title";
        assert_eq!(*words_of(&SecretKey::from_bytes(&[0x7f; 32])), sevens);
        assert_eq!(seed_of(sevens), Ok([0x7f; 32]));
    }

    #[test]
    fn case_numbers_spaces_and_four_letters_are_taken_kindly() {
        let seed = SecretKey::from_bytes(blake3::hash(b"seed").as_bytes());
        let words = words_of(&seed);
        let words: Vec<_> = words.split(' ').collect();
        let numbered: String =
            words.iter().enumerate().map(|(at, word)| format!("{:>3}. {}\r\n", at + 1, word.to_uppercase())).collect();
        let short: Vec<_> = words.iter().map(|word| &word[..word.len().min(4)]).collect();
        for text in [numbered, short.join(", "), words.join("\t\n  ")] {
            assert_eq!(seed_of(&text), Ok(*seed.expose()), "{text}");
        }
        let mut typed = Typed::default();
        words.iter().for_each(|word| typed.add(word).unwrap());
        assert_eq!(typed.seed().unwrap().expose(), seed.expose());
    }

    #[test]
    fn every_first_four_letters_are_of_one_word() {
        for (place, word) in Language::English.word_list().iter().enumerate() {
            assert_eq!(find(&word[..word.len().min(4)]).map(usize::from), Some(place));
            assert_eq!(find(word).map(usize::from), Some(place));
        }
        assert_eq!(find("aba"), None, "three letters are not enough");
        assert_eq!(find(""), None);
    }

    #[test]
    fn the_word_that_is_wrong_is_named_and_nothing_of_that_line_is_taken() {
        let mut typed = Typed::default();
        typed.add("legal winner").unwrap();
        let error = typed.add("thank yaer").unwrap_err();
        assert!(error.to_string().starts_with("word 4, `yaer`, is not in the list; did you mean"), "{error}");
        assert!(error.to_string().contains("`year`"), "{error}");
        assert_eq!(typed.count(), 2);
        assert_eq!(typed.seed().map(|_| ()), Err(WordsError::Count(2)));
        let long = typed.add(&"x".repeat(5000)).unwrap_err();
        assert!(long.to_string().len() < 80);
        assert!(typed.add("größe").is_err());
    }

    #[test]
    fn an_exchanged_word_is_a_wrong_checksum() {
        let right = words_of(&SecretKey::from_bytes(&[0x7f; 32]));
        let right: Vec<_> = right.split(' ').collect();
        let mut found = 0;
        for at in 0..WORDS {
            let mut wrong = right.clone();
            wrong[at] = if wrong[at] == "zoo" { "abandon" } else { "zoo" };
            found += usize::from(seed_of(&wrong.join(" ")) == Err(WordsError::Checksum));
        }
        // Eight bits: one mistake in 256 passes, and the credential's id finds it then.
        assert!(found >= WORDS - 2, "{found}");
    }
}
