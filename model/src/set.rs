//! Small sets of numbers: sessions, packs, chunks, collections.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// A set of numbers below 16.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(u16);

impl Set {
    /// Nothing.
    pub const EMPTY: Self = Self(0);

    /// These.
    pub fn of(members: impl IntoIterator<Item = usize>) -> Self {
        Self(members.into_iter().fold(0, |bits, member| bits | 1 << member))
    }

    /// Only this.
    pub fn only(member: usize) -> Self {
        Self(1 << member)
    }

    /// Whether `member` is in it.
    pub fn has(self, member: usize) -> bool {
        self.0 >> member & 1 == 1
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both have a member in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..16).filter(move |&member| self.has(member))
    }

    /// The lowest member.
    pub fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    /// Every set of these members, the empty one first.
    pub fn subsets(self) -> impl Iterator<Item = Self> {
        let mut next = Some(0_u16);
        std::iter::from_fn(move || {
            let subset = next?;
            next = (subset != self.0).then(|| subset.wrapping_sub(self.0) & self.0);
            Some(Self(subset))
        })
    }
}

impl BitOr for Set {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Set {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Set {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Set {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_all_there_and_each_once() {
        let subsets: Vec<_> = Set::of([0, 3]).subsets().collect();
        assert_eq!(subsets, [Set::EMPTY, Set::only(0), Set::only(3), Set::of([0, 3])]);
        assert_eq!(Set::EMPTY.subsets().count(), 1);
    }
}
