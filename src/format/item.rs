//! One CBOR item of any kind, held to its one encoding (SPEC §1.3): the value of a field that is ignored.
//!
//! What is not looked into is kept and written again byte for byte, so it must be such that nobody can
//! say the same in other bytes: shortest heads, keys in order, floats in the fewest bytes that hold them.

use super::{DecodeError, Result};

/// So many arrays, maps and tags may be nested in such a value.
const DEPTH_MAX: u32 = 32;

/// How long the item at the front of `bytes` is.
pub(super) fn length(what: &'static str, bytes: &[u8]) -> Result<usize> {
    let mut item = Item { what, bytes, at: 0 };
    item.read(DEPTH_MAX)?;
    Ok(item.at)
}

struct Item<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Item<'a> {
    fn malformed(&self, detail: &str) -> DecodeError {
        DecodeError::malformed(self.what, format!("a field to be ignored holds {detail}"))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count));
        let taken = taken.ok_or(DecodeError::Truncated { what: self.what, needed: count, found: left.len() as u64 })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn read(&mut self, depth: u32) -> Result<()> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let number = match info {
            0..24 => u64::from(info),
            24..28 => {
                let size = 1 << (info - 24);
                let number = self.take(size)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                let least = if size == 1 { 24 } else { 1 << (size * 4) };
                if major < 7 && number < least {
                    return Err(self.malformed("a number in more bytes than it takes"));
                }
                number
            }
            _ => return Err(self.malformed("a length that is indefinite or reserved")),
        };
        if matches!(major, 4..=6) && depth == 0 {
            return Err(self.malformed("too much nested in each other"));
        }
        match major {
            0 | 1 => {}
            2 => drop(self.take(number)?),
            3 => {
                if std::str::from_utf8(self.take(number)?).is_err() {
                    return Err(self.malformed("text that is not UTF-8"));
                }
            }
            4 => self.items(number, number, |item| item.read(depth - 1))?,
            5 => {
                let mut before: &[u8] = &[];
                self.items(number, number.saturating_mul(2), |item| {
                    let start = item.at;
                    item.read(depth - 1)?;
                    let key = &item.bytes[start..item.at];
                    if before >= key {
                        return Err(item.malformed("keys repeated or out of order"));
                    }
                    before = key;
                    item.read(depth - 1)
                })?;
            }
            6 => self.read(depth - 1)?,
            _ => self.simple(info, number)?,
        }
        Ok(())
    }

    /// Reads so many items, which take at least so many bytes.
    fn items(&mut self, count: u64, least: u64, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let left = (self.bytes.len() - self.at) as u64;
        if least > left {
            return Err(DecodeError::Truncated { what: self.what, needed: least, found: left });
        }
        (0..count).try_for_each(|_| each(self))
    }

    /// A simple value, or a float.
    fn simple(&self, info: u8, number: u64) -> Result<()> {
        let shortest = match info {
            24 => number >= 32,
            25 => !is_nan(number, 10, 5) || number == 0x7e00,
            26 => !is_nan(number, 23, 8) && !fits(number, (23, 8), (10, 5)),
            27 => !is_nan(number, 52, 11) && !fits(number, (52, 11), (23, 8)),
            _ => true,
        };
        shortest.then_some(()).ok_or_else(|| self.malformed("a float or simple value in more bytes than it takes"))
    }
}

/// Whether an IEEE float of so many bits of fraction and exponent is not a number.
fn is_nan(bits: u64, fraction: u32, exponent: u32) -> bool {
    let ones = (1 << exponent) - 1;
    bits >> fraction & ones == ones && bits & ((1 << fraction) - 1) != 0
}

/// Whether a float, not NaN, is one of a smaller format too.
fn fits(bits: u64, (fraction, exponent): (u32, u32), (small_fraction, small_exponent): (u32, u32)) -> bool {
    let ones = (1_i64 << exponent) - 1;
    let raw = (bits >> fraction).cast_signed() & ones;
    let rest = bits & ((1 << fraction) - 1);
    if raw == ones || raw == 0 && rest == 0 {
        return true;
    }
    if raw == 0 {
        // Smaller than any number of the smaller format.
        return false;
    }
    let power = raw - (ones >> 1);
    let bias = (1_i64 << (small_exponent - 1)) - 1;
    // Below the smallest normal number there are fewer bits of fraction.
    let lost = i64::from(fraction) - i64::from(small_fraction) + (1 - bias - power).max(0);
    power <= bias
        && lost <= i64::from(fraction)
        && rest.trailing_zeros().min(fraction) >= u32::try_from(lost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(hex: &str) -> bool {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        length("test", &bytes) == Ok(bytes.len())
    }

    /// From the examples of RFC 8949, appendix A, and their longer forms.
    #[test]
    fn each_value_has_one_encoding() {
        for good in [
            "00",
            "17",
            "1818",
            "1903e8",
            "1bffffffffffffffff",
            "3903e7",
            "f90000",
            "f98000",
            "f93c00",
            "fb3ff199999999999a",
            "f97bff",
            "fa47c35000",
            "fa7f7fffff",
            "fb7e37e43c8800759c",
            "f90001",
            "f90400",
            "fbc010666666666666",
            "f97c00",
            "f97e00",
            "f4",
            "f6",
            "f0",
            "f8ff",
            "c074323031332d30332d32315432303a30343a30305a",
            "4401020304",
            "62c3bc",
            "80",
            "83010203",
            "a0",
            "a201020304",
            "a26161016162820203",
            "fa33800001",
        ] {
            assert!(is_one(good), "{good}");
        }
        for bad in [
            "1817",
            "190017",
            "1a000003e8",
            "1b00000000ffffffff",
            "581801",
            "9f01ff",
            "5f4101ff",
            "ff",
            "1c",
            "fa3f800000",
            "fb3ff0000000000000",
            "fa7fc00000",
            "fb7ff8000000000000",
            "f97e01",
            "fa7f800000",
            "f814",
            "a203040102",
            "a201020102",
            "61ff",
            "8301",
            "a201",
            "fa33800000",
            "fb36a0000000000000",
        ] {
            assert!(!is_one(bad), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(is_one(&format!("{}00", "81".repeat(32))));
        assert!(!is_one(&format!("{}00", "81".repeat(33))));
        assert!(length("test", &[0xd8; 1_000_000]).is_err());
    }
}
