//! Compression of frames: one zstd frame, or the bytes as they are (SPEC §7.2).
//!
//! How a frame is stored, and its plain length, stand in authenticated data beside it. So the
//! zstd frame carries no lengths, checksum or dictionary id of its own, and its plain length is
//! the exact bound for decoding. What a compressor makes is decoded and compared before anyone
//! relies on it: compressors have been wrong in ways nobody noticed until a restore.

use std::fmt;
use std::io;
use std::str::FromStr;

use zstd::zstd_safe;

/// How a frame is stored. The values are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// As it is.
    Raw = 0,
    /// As one zstd frame, smaller than the plain bytes.
    Zstd = 1,
}

impl Compression {
    /// The compression with this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Not at all.
    Off,
    /// As zstd's level of that number, from 1 to 19. The negative one is for `fast`.
    Number(i32),
}

const LEVEL_NAMES: [(&str, Level); 5] = [
    ("off", Level::Off),
    ("fast", Level::Number(-5)),
    ("auto", Level::Number(1)),
    ("better", Level::Number(6)),
    ("max", Level::Number(19)),
];

/// `auto`: what a processor compresses while a disk reads (`docs/tuning.md` has the table).
impl Default for Level {
    fn default() -> Self {
        Self::Number(1)
    }
}

/// The name where there is one, else the number.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (LEVEL_NAMES.iter().find(|(_, level)| level == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Number(number)) => number.fmt(f),
            (None, Self::Off) => unreachable!("`off` has a name"),
        }
    }
}

/// A string was not the name or number of a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected off, fast, auto, better, max or a number from 1 to 19, found `{0}`")]
pub struct ParseLevelError(String);

impl FromStr for Level {
    type Err = ParseLevelError;

    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        let named = LEVEL_NAMES.iter().find(|(name, _)| *name == text).map(|(_, level)| *level);
        let numbered = || text.parse().ok().filter(|number| (1..=19).contains(number)).map(Self::Number);
        named.or_else(numbered).ok_or_else(|| ParseLevelError(text.chars().take(80).collect()))
    }
}

/// What became of plain bytes that were to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are stored compressed.
    Compressed,
    /// They are stored as they are, compressed they would not be smaller.
    Incompressible,
    /// They are stored as they are because compression failed or gave bytes that do not decode
    /// to them. The stored form is right, but the machine or the library is not: say so.
    Faulty,
}

impl Outcome {
    /// How the bytes are stored.
    pub fn compression(self) -> Compression {
        match self {
            Self::Compressed => Compression::Zstd,
            Self::Incompressible | Self::Faulty => Compression::Raw,
        }
    }
}

/// Compresses frame after frame, verifying each.
pub struct Compressor {
    /// None when the level is off.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// None when verification was turned off.
    decompressor: Option<Decompressor>,
    scratch: Vec<u8>,
    decoded: Vec<u8>,
}

impl Compressor {
    /// A compressor that decodes and compares all it makes.
    pub fn new(level: Level) -> Self {
        Self { decompressor: Some(Decompressor::new()), ..Self::without_verification(level) }
    }

    /// A compressor that trusts the library, for measuring what verification costs.
    pub fn without_verification(level: Level) -> Self {
        let zstd = match level {
            Level::Off => None,
            Level::Number(number) => Some(zstd_compressor(number).expect("zstd clamps levels and knows these flags")),
        };
        Self { zstd, decompressor: None, scratch: Vec::new(), decoded: Vec::new() }
    }

    /// Puts the form in which `plain` is to be stored into `stored`, in place of what it held.
    pub fn compress(&mut self, plain: &[u8], stored: &mut Vec<u8>) -> Outcome {
        let outcome = self.encode(plain, stored);
        if outcome.compression() == Compression::Raw {
            stored.clear();
            stored.extend_from_slice(plain);
        }
        outcome
    }

    /// Turns the plain bytes behind the first `head_bytes` of a buffer into the form in which they
    /// are to be stored, without touching those that stay as they are.
    pub fn compress_in_place(&mut self, buffer: &mut Vec<u8>, head_bytes: usize) -> Outcome {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.encode(&buffer[head_bytes..], &mut scratch);
        if outcome == Outcome::Compressed {
            buffer.truncate(head_bytes);
            buffer.extend_from_slice(&scratch);
        }
        self.scratch = scratch;
        outcome
    }

    /// `out` is of use only when the outcome is `Compressed`.
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Outcome {
        let Some(zstd) = &mut self.zstd else { return Outcome::Incompressible };
        out.clear();
        out.reserve(zstd::compress_bound(plain.len()));
        match zstd.compress_to_buffer(plain, out) {
            Err(_) => Outcome::Faulty,
            Ok(_) if out.len() >= plain.len() => Outcome::Incompressible,
            Ok(_) if self.decodes_to(plain, out) => Outcome::Compressed,
            Ok(_) => Outcome::Faulty,
        }
    }

    fn decodes_to(&mut self, plain: &[u8], encoded: &[u8]) -> bool {
        let Some(decompressor) = &mut self.decompressor else { return true };
        let decoded =
            decompressor.decompress_into(encoded, Compression::Zstd, plain.len(), plain.len(), &mut self.decoded);
        decoded.is_ok() && self.decoded == plain
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

fn zstd_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(level)?;
    zstd.include_checksum(false)?;
    zstd.include_contentsize(false)?;
    zstd.include_dictid(false)?;
    Ok(zstd)
}

/// Why stored bytes are not the frame they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The frame is said to be larger than the reader takes; nothing was decoded.
    #[error("frame of {plain_bytes} bytes, expected at most {limit_bytes}")]
    TooLarge {
        /// What the directory says.
        plain_bytes: usize,
        /// What the reader takes.
        limit_bytes: usize,
    },
    /// The bytes are another number than they should be.
    #[error("frame of {found_bytes} bytes, expected {plain_bytes}")]
    Length {
        /// What the directory says.
        plain_bytes: usize,
        /// What there are.
        found_bytes: usize,
    },
    /// The bytes are not exactly one zstd frame of the kind that is written.
    #[error("malformed zstd frame: {0}")]
    Malformed(String),
}

/// Turns stored frames back.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Decompressor {
    /// A decompressor.
    pub fn new() -> Self {
        Self { zstd: zstd::bulk::Decompressor::default() }
    }

    /// The frame that `stored` holds, of exactly `plain_bytes`.
    ///
    /// `limit_bytes` is the most that the caller's place in the format allows, and the most that
    /// is ever allocated.
    pub fn decompress(
        &mut self,
        stored: &[u8],
        compression: Compression,
        plain_bytes: usize,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, DecompressError> {
        let mut plain = Vec::new();
        self.decompress_into(stored, compression, plain_bytes, limit_bytes, &mut plain)?;
        Ok(plain)
    }

    /// Like [`decompress`](Self::decompress), into a buffer that is used again. After an error
    /// `plain` is empty.
    pub fn decompress_into(
        &mut self,
        stored: &[u8],
        compression: Compression,
        plain_bytes: usize,
        limit_bytes: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        plain.clear();
        if plain_bytes > limit_bytes {
            return Err(DecompressError::TooLarge { plain_bytes, limit_bytes });
        }
        if compression == Compression::Zstd {
            check_zstd_frame(stored, plain_bytes)?;
        } else if stored.len() != plain_bytes {
            return Err(DecompressError::Length { plain_bytes, found_bytes: stored.len() });
        }
        plain.reserve_exact(plain_bytes);
        match compression {
            Compression::Raw => plain.extend_from_slice(stored),
            Compression::Zstd => {
                // The vector's capacity bounds what is written.
                if let Err(error) = self.zstd.decompress_to_buffer(stored, plain) {
                    plain.clear();
                    return Err(DecompressError::Malformed(error.to_string()));
                }
            }
        }
        if plain.len() != plain_bytes {
            let found_bytes = plain.len();
            plain.clear();
            return Err(DecompressError::Length { plain_bytes, found_bytes });
        }
        Ok(())
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

/// What begins a zstd frame of ours: the magic number and a descriptor that announces a window
/// and nothing else. Skippable frames and those with lengths, checksums or dictionaries differ.
const ZSTD_START: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0];

/// Accepts exactly one frame from the first byte to the last, smaller than what it stands for.
fn check_zstd_frame(stored: &[u8], plain_bytes: usize) -> Result<(), DecompressError> {
    let malformed = |detail: String| Err(DecompressError::Malformed(detail));
    if !stored.starts_with(&ZSTD_START) {
        return malformed(format!("begins {:02x?}, expected {ZSTD_START:02x?}", &stored[..stored.len().min(5)]));
    }
    if stored.len() >= plain_bytes {
        return malformed(format!("{} bytes stand for {plain_bytes}, expected fewer", stored.len()));
    }
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(bytes) if bytes == stored.len() => Ok(()),
        Ok(bytes) => malformed(format!("{} bytes follow it", stored.len() - bytes)),
        Err(code) => malformed(zstd_safe::get_error_name(code).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cut::tests::{any_data, noise};
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..).flat_map(|line: u32| format!("line {line} of a text\n").into_bytes()).take(length).collect()
    }

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut stored = Vec::new();
        assert_eq!(Compressor::new(Level::default()).compress(plain, &mut stored), Outcome::Compressed);
        stored
    }

    fn decompress(stored: &[u8], plain_bytes: usize) -> Result<Vec<u8>, DecompressError> {
        Decompressor::new().decompress(stored, Compression::Zstd, plain_bytes, 1 << 20)
    }

    #[track_caller]
    fn assert_malformed(stored: &[u8], plain_bytes: usize) {
        let result = decompress(stored, plain_bytes);
        assert!(matches!(result, Err(DecompressError::Malformed(_))), "{result:?}");
    }

    #[test]
    fn levels_parse_from_what_they_print() {
        for level in (1..=19).map(Level::Number).chain([Level::Off, Level::Number(-5)]) {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("1".parse(), Ok(Level::default()));
        assert_eq!("fast".parse(), Ok(Level::Number(-5)));
        assert_eq!(Level::default().to_string(), "auto");
        for bad in ["", "0", "20", "-1", "Auto", "fastest", "3 "] {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_compression_has_the_number_it_is_read_from() {
        for number in 0..=255 {
            assert!(Compression::from_u8(number).is_none_or(|compression| compression as u8 == number));
        }
        assert_eq!(Compression::from_u8(1), Some(Compression::Zstd));
        assert_eq!(Compression::from_u8(2), None);
    }

    #[test]
    fn text_comes_back_from_every_level() {
        let plain = [text(100_000), noise("level", 30_000), vec![0; 50_000]].concat();
        for level in (1..=19).map(Level::Number).chain([Level::Off, Level::Number(-5)]) {
            let mut stored = b"left over".to_vec();
            let outcome = Compressor::new(level).compress(&plain, &mut stored);
            assert_eq!(outcome == Outcome::Compressed, level != Level::Off);
            let back = Decompressor::new().decompress(&stored, outcome.compression(), plain.len(), plain.len());
            assert!(back.as_ref() == Ok(&plain), "level {level}");
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let mut compressor = Compressor::new(Level::default());
        for plain in [noise("raw", 100_000), b"abc".to_vec(), Vec::new()] {
            let mut stored = Vec::new();
            assert_eq!(compressor.compress(&plain, &mut stored), Outcome::Incompressible);
            assert_eq!(stored, plain);
            assert_eq!(compressor.compress_in_place(&mut stored, 0), Outcome::Incompressible);
            assert_eq!(stored, plain);
        }
    }

    #[test]
    fn compressing_in_place_gives_the_same_bytes() {
        let mut compressor = Compressor::new(Level::default());
        for plain in [text(5000), noise("place", 5000), text(70_000)] {
            for head in [&b""[..], b"head"] {
                let (mut apart, mut in_place) = (Vec::new(), [head, &plain].concat());
                let outcome = compressor.compress(&plain, &mut apart);
                assert_eq!(compressor.compress_in_place(&mut in_place, head.len()), outcome);
                assert_eq!([head, &apart].concat(), in_place);
            }
        }
    }

    #[test]
    fn verification_notices_a_wrong_byte() {
        let plain = text(50_000);
        let mut compressor = Compressor::new(Level::default());
        let stored = compressed(&plain);
        assert!(compressor.decodes_to(&plain, &stored));
        let mut other = plain.clone();
        other[25_000] ^= 1;
        assert!(!compressor.decodes_to(&other, &stored));
        assert!(!compressor.decodes_to(&plain, &stored[..stored.len() - 1]));
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_decoding() {
        let too_large = Err(DecompressError::TooLarge { plain_bytes: 11, limit_bytes: 10 });
        for compression in [Compression::Raw, Compression::Zstd] {
            assert_eq!(Decompressor::new().decompress(b"hello world", compression, 11, 10), too_large);
        }
    }

    #[test]
    fn a_bomb_is_refused_and_allocates_no_more_than_was_expected() {
        let bomb = compressed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 10_000);
        let mut plain = Vec::new();
        let result = Decompressor::new().decompress_into(&bomb, Compression::Zstd, 100_000, 1 << 20, &mut plain);
        assert!(result.is_err());
        assert!(plain.is_empty() && plain.capacity() < 200_000);
    }

    #[test]
    fn another_plain_length_is_refused() {
        let plain = text(50_000);
        let stored = compressed(&plain);
        assert_eq!(decompress(&stored, 50_000), Ok(plain.clone()));
        let found = |plain_bytes| Err(DecompressError::Length { plain_bytes, found_bytes: 50_000 });
        assert_eq!(decompress(&stored, 50_001), found(50_001));
        assert!(decompress(&stored, 49_999).is_err());
        assert!(decompress(&stored, 0).is_err());
        for wrong in [0, 49_999, 50_001] {
            assert_eq!(Decompressor::new().decompress(&plain, Compression::Raw, wrong, 1 << 20), found(wrong));
        }
        // A buffer with room for more does not hide it.
        let mut roomy = Vec::with_capacity(1 << 20);
        let result = Decompressor::new().decompress_into(&stored, Compression::Zstd, 49_999, 1 << 20, &mut roomy);
        assert_eq!(
            (result, roomy.len()),
            (Err(DecompressError::Length { plain_bytes: 49_999, found_bytes: 50_000 }), 0)
        );
    }

    #[test]
    fn a_truncated_frame_is_refused_at_every_length() {
        let stored = compressed(&text(3000));
        for length in 0..stored.len() {
            assert_malformed(&stored[..length], 3000);
        }
    }

    #[test]
    fn bytes_after_the_frame_are_refused() {
        let stored = compressed(&text(3000));
        let skippable = b"\x50\x2a\x4d\x18\x02\0\0\0xx";
        for tail in [&b"\0"[..], skippable, &compressed(&text(2000))] {
            assert_malformed(&[&stored[..], tail].concat(), 3000);
            assert_malformed(&[&stored[..], tail].concat(), 5000);
        }
    }

    #[test]
    fn skippable_frames_and_frames_that_say_more_are_refused() {
        let plain = text(3000);
        let skippable = b"\x50\x2a\x4d\x18\x02\0\0\0xx";
        assert_malformed(skippable, 3000);
        assert_malformed(&[&skippable[..], &compressed(&plain)].concat(), 3000);
        let with_length = zstd::bulk::compress(&plain, 3).unwrap();
        assert_malformed(&with_length, 3000);
    }

    #[test]
    fn a_compressed_form_that_is_not_smaller_is_refused() {
        let mut stored = Vec::with_capacity(2000);
        let plain = noise("larger", 1000);
        zstd_compressor(3).unwrap().compress_to_buffer(&plain, &mut stored).unwrap();
        assert!(stored.len() > 1000);
        assert_malformed(&stored, 1000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_data_comes_back(plain in any_data(60_000), level in 1..=9) {
            let mut stored = Vec::new();
            let outcome = Compressor::new(Level::Number(level)).compress(&plain, &mut stored);
            prop_assert!(outcome != Outcome::Faulty);
            prop_assert_eq!(Decompressor::new().decompress(&stored, outcome.compression(), plain.len(), plain.len()), Ok(plain));
        }

        #[test]
        fn damage_never_panics_or_lengthens(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut stored = compressed(&text(3000));
            let at = at.index(stored.len());
            stored[at] ^= flip;
            if let Ok(plain) = decompress(&stored, 3000) {
                prop_assert_eq!(plain.len(), 3000);
            }
        }
    }
}
