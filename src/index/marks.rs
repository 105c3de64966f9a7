//! One bit for each row of a catalog.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of row numbers ([`super::Found::ordinal`]) that takes an eighth of a byte for each row
/// up to the highest one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// No row marked, and room for `rows` of them.
    pub fn with_rows(rows: u64) -> Self {
        Self { words: vec![0; place(rows).0 + 1] }
    }

    /// Marks a row; says whether it was marked before.
    pub fn set(&mut self, ordinal: u64) -> bool {
        let (word, bit) = place(ordinal);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let before = self.words[word];
        self.words[word] = before | bit;
        before & bit != 0
    }

    /// Whether a row is marked.
    pub fn get(&self, ordinal: u64) -> bool {
        let (word, bit) = place(ordinal);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many rows are marked.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The same for several threads, of as many rows as there are. What follows from a mark is each thread's to order:
/// a mark orders nothing else.
#[derive(Debug)]
pub struct SharedMarks {
    words: Vec<AtomicU64>,
}

impl SharedMarks {
    /// No row marked, of `rows`.
    pub fn with_rows(rows: u64) -> Self {
        Self { words: (0..=place(rows).0).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks a row; says whether it was marked before.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    pub fn set(&self, ordinal: u64) -> bool {
        let (word, bit) = place(ordinal);
        self.words[word].fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    /// Whether a row is marked.
    pub fn get(&self, ordinal: u64) -> bool {
        let (word, bit) = place(ordinal);
        self.words.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// What is marked by now.
    pub fn marks(&self) -> Marks {
        Marks { words: self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect() }
    }
}

fn place(ordinal: u64) -> (usize, u64) {
    let word = usize::try_from(ordinal / 64).expect("a row is in a mapped file, so its number fits in memory");
    (word, 1 << (ordinal % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_row_and_says_whether_it_was_set() {
        let mut marks = Marks::default();
        let chosen = [0, 1, 63, 64, 65, 127, 1000];
        for ordinal in chosen {
            assert!(!marks.set(ordinal), "{ordinal}");
            assert!(marks.set(ordinal), "{ordinal}");
        }
        for ordinal in 0..2000 {
            assert_eq!(marks.get(ordinal), chosen.contains(&ordinal), "{ordinal}");
        }
        assert_eq!(marks.count(), 7);
        assert!(!Marks::with_rows(64).get(64));
    }

    #[test]
    fn of_threads_that_set_a_mark_one_is_the_first() {
        let marks = SharedMarks::with_rows(1000);
        let set = || (0..1000).filter(|ordinal| !marks.set(*ordinal)).count();
        let firsts: usize = std::thread::scope(|scope| {
            let threads = [0; 4].map(|_| scope.spawn(set));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!((firsts, marks.marks().count()), (1000, 1000));
        assert!(marks.get(999) && !marks.get(5000));
    }
}
