//! Where to cut: FastCDC with a secret gear table (SPEC §6.1).
//!
//! A gear hash rolls over the data: shifted left by one and increased by the table's entry for
//! each byte. A chunk ends before the first byte, at least `min_bytes` into it, after which the
//! hash has zeros under a mask: a strict one up to `avg_bytes` and a loose one beyond, so that
//! lengths gather around the average (normalisation level 2). At `max_bytes` it ends anyway.
//!
//! The next cut depends on the bytes after the last one only. Hence cutting can resume at any
//! boundary, and after an insertion the old boundaries return within a few chunks.
//!
//! The table comes from the repository's key `K_cdc`, so that chunk lengths alone do not tell
//! an observer which known file was stored. It is a hurdle, not a proof: what hides lengths is
//! that frames and packs are sealed. [`Cutter::scan`] is the definition; production runs the
//! `fastcdc` crate's loop, faster and held equal to it by test.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Domain of the gear table's derivation from `K_cdc`.
const GEAR_CONTEXT: &str = "esker v1 gear table";

/// Log2 of the smallest and the largest average.
const AVG_BITS: std::ops::RangeInclusive<u32> = 9..=20;

/// A chunk is never larger, whatever a repository's parameters say; frames and readers rely on it.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;

/// The masks, by the log2 of the distance they lead to, from 7 (128 B) to 22 (4 MiB). An average
/// of 2^n takes that of n + 2 as the strict one and that of n - 2 as the loose one.
const MASKS: [u64; 16] = [
    0x0000_0000_1803_5100,
    0x0000_0018_0003_5300,
    0x0000_0190_0035_3000,
    0x0000_5900_0353_0000,
    0x0000_d900_0353_0000,
    0x0000_d901_0353_0000,
    0x0000_d903_0353_0000,
    0x0000_d903_1353_0000,
    0x0000_d90f_0353_0000,
    0x0000_d903_0353_7000,
    0x0000_d907_0353_7000,
    0x0000_d907_0753_7000,
    0x0000_d917_0753_7000,
    0x0000_d917_4753_7000,
    0x0000_d917_6753_7000,
    0x0000_d937_6753_7000,
];

/// How large chunks are; frozen in a repository's `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// No chunk is shorter, but the last before a run of zeros or the end.
    pub min_bytes: u32,
    /// What lengths gather around; a power of two.
    pub avg_bytes: u32,
    /// No chunk is longer.
    pub max_bytes: u32,
}

impl Parameters {
    /// A quarter of the average to four times the average.
    ///
    /// Whether a repository may have it is [`check`](Self::check)'s to say.
    pub const fn with_average(avg_bytes: u32) -> Self {
        Self { min_bytes: avg_bytes / 4, avg_bytes, max_bytes: avg_bytes.saturating_mul(4) }
    }

    /// Says which rule the parameters break, if any.
    ///
    /// The average is a power of two from 512 B to 1 MiB, the minimum is below it and at least
    /// 64, the maximum above it and at most [`CHUNK_BYTES_MAX`], and both are even.
    pub fn check(&self) -> Result<(), String> {
        let Self { min_bytes, avg_bytes, max_bytes } = *self;
        if !avg_bytes.is_power_of_two() || !AVG_BITS.contains(&avg_bytes.ilog2()) {
            return Err(format!("average chunk of {avg_bytes} bytes, expected a power of two from 512 to 1048576"));
        }
        if !(64..avg_bytes).contains(&min_bytes) || min_bytes % 2 != 0 {
            return Err(format!(
                "smallest chunk of {min_bytes} bytes, expected an even number from 64 and below {avg_bytes}"
            ));
        }
        if max_bytes <= avg_bytes || max_bytes > CHUNK_BYTES_MAX || max_bytes % 2 != 0 {
            return Err(format!(
                "largest chunk of {max_bytes} bytes, expected an even number above {avg_bytes} and up to {CHUNK_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}

/// Whether more data may follow what is being cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The data ends here: at the end of the stream or before a run of zeros.
    Here,
    /// More may follow.
    Open,
}

/// Finds the ends of chunks.
#[derive(ZeroizeOnDrop)]
pub struct Cutter {
    #[zeroize(skip)]
    parameters: Parameters,
    #[zeroize(skip)]
    mask_strict: u64,
    #[zeroize(skip)]
    mask_loose: u64,
    gear: Box<[u64; 256]>,
    /// The same, each shifted left by one, for the two-bytes-a-step loop.
    gear_shifted: Box<[u64; 256]>,
}

impl Cutter {
    /// A cutter for a repository's parameters and its `K_cdc`.
    ///
    /// # Panics
    ///
    /// When `parameters` fail [`Parameters::check`]; whoever reads them from a repository
    /// checks them first.
    pub fn new(parameters: Parameters, gear_key: &[u8; 32]) -> Self {
        if let Err(fault) = parameters.check() {
            panic!("unchecked parameters: {fault}");
        }
        let gear = gear_table(gear_key);
        let mut gear_shifted = gear.clone();
        gear_shifted.iter_mut().for_each(|entry| *entry <<= 1);
        let index = (parameters.avg_bytes.ilog2() - 7) as usize;
        Self { parameters, mask_strict: MASKS[index + 2], mask_loose: MASKS[index - 2], gear, gear_shifted }
    }

    /// What the cutter was made with.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// The length of the chunk that `data` begins with.
    ///
    /// `None` means that it takes more data to say: with [`End::Open`] while there are fewer
    /// than `max_bytes`, with [`End::Here`] only when `data` is empty.
    pub fn cut(&self, data: &[u8], end: End) -> Option<usize> {
        let Parameters { min_bytes, avg_bytes, max_bytes } = self.parameters;
        let enough = match end {
            End::Here => !data.is_empty(),
            End::Open => data.len() >= max_bytes as usize,
        };
        enough.then(|| {
            let (_hash, length) = fastcdc::v2020::cut_gear(
                data,
                min_bytes as usize,
                avg_bytes as usize,
                max_bytes as usize,
                self.mask_strict,
                self.mask_loose,
                self.mask_strict << 1,
                self.mask_loose << 1,
                &self.gear[..],
                &self.gear_shifted[..],
            );
            length
        })
    }

    /// The length of the chunk that `data` begins with, as SPEC §6.1 defines it, where `data`
    /// reaches to the end or has at least `max_bytes`.
    ///
    /// The hash starts at `min_bytes`; the byte that completes a match opens the next chunk.
    /// When the data (or `max_bytes`, which is even) ends after an odd number of bytes, no cut
    /// is looked for before the last one.
    ///
    /// The definition, to test and measure [`cut`](Self::cut) against.
    pub fn scan(&self, data: &[u8]) -> usize {
        let Parameters { min_bytes, avg_bytes, max_bytes } = self.parameters;
        let end = data.len().min(max_bytes as usize);
        let mut hash = 0_u64;
        for (at, byte) in data.iter().enumerate().take(end & !1).skip(min_bytes as usize) {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            let mask = if at < avg_bytes as usize { self.mask_strict } else { self.mask_loose };
            if hash & mask == 0 {
                return at;
            }
        }
        end
    }
}

#[cfg(test)]
impl Cutter {
    /// The BLAKE3 of the table as little-endian bytes, which vectors name.
    pub(super) fn gear_blake3(&self) -> String {
        let bytes: Vec<u8> = self.gear.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        blake3::hash(&bytes).to_string()
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// 256 little-endian integers from the output of BLAKE3 in its key derivation mode.
fn gear_table(gear_key: &[u8; 32]) -> Box<[u64; 256]> {
    let mut hasher = blake3::Hasher::new_derive_key(GEAR_CONTEXT);
    hasher.update(gear_key);
    let mut output = hasher.finalize_xof();
    let mut table = Box::new([0; 256]);
    for entry in table.iter_mut() {
        let mut bytes = [0; 8];
        output.fill(&mut bytes);
        *entry = u64::from_le_bytes(bytes);
    }
    hasher.zeroize();
    output.zeroize();
    table
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that do not repeat, from a seed.
    pub(crate) fn noise(seed: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cutter(avg_bytes: u32) -> Cutter {
        Cutter::new(Parameters::with_average(avg_bytes), b"a key for tests, of 32 bytes ...")
    }

    fn cuts(cutter: &Cutter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = cutter.cut(data, End::Here) {
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    #[test]
    fn parameters_accept_every_average_and_refuse_what_the_loop_cannot_take() {
        for bits in AVG_BITS {
            assert_eq!(Parameters::with_average(1 << bits).check(), Ok(()));
        }
        let good = Parameters::with_average(65_536);
        for bad in [
            Parameters::with_average(0),
            Parameters::with_average(256),
            Parameters::with_average(1000),
            Parameters::with_average(1 << 21),
            Parameters::with_average(1 << 31),
            Parameters { min_bytes: 62, ..good },
            Parameters { min_bytes: 16_385, ..good },
            Parameters { min_bytes: 65_536, ..good },
            Parameters { max_bytes: 65_536, ..good },
            Parameters { max_bytes: 100_001, ..good },
            Parameters { max_bytes: CHUNK_BYTES_MAX + 2, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn our_masks_are_those_of_the_crate() {
        use fastcdc::v2020::{Normalization, select_masks};
        for bits in AVG_BITS {
            let cutter = cutter(1 << bits);
            assert_eq!((cutter.mask_strict, cutter.mask_loose), select_masks(1 << bits, Normalization::Level2));
            assert_eq!((cutter.mask_strict | cutter.mask_loose) >> 63, 0, "two bytes a step needs the top bit free");
        }
    }

    #[test]
    fn lengths_stay_in_bounds_and_gather_around_the_average() {
        let cutter = cutter(4096);
        let lengths = cuts(&cutter, &noise("bounds", 4 << 20));
        let (last, others) = lengths.split_last().unwrap();
        assert!(others.iter().all(|length| (1024..=16_384).contains(length)));
        assert!((1..=16_384).contains(last));
        let mean = (4 << 20) / lengths.len();
        assert!((3500..6500).contains(&mean), "mean {mean}");
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise("keys", 256 << 10);
        let other = Cutter::new(Parameters::with_average(4096), b"another key for tests, 32 bytes.");
        assert_ne!(cuts(&cutter(4096), &data), cuts(&other, &data));
    }

    #[test]
    fn an_open_end_waits_for_the_largest_chunk() {
        let cutter = cutter(512);
        let data = noise("open", 2048);
        assert_eq!(cutter.cut(&data[..2047], End::Open), None);
        assert_eq!(cutter.cut(&data, End::Open), cutter.cut(&data, End::Here));
        assert_eq!(cutter.cut(&[], End::Here), None);
        assert_eq!(cutter.cut(&[7], End::Here), Some(1));
    }

    /// Boundaries some way behind an insertion are the old ones, moved.
    #[test]
    fn an_insertion_moves_few_boundaries() {
        let cutter = cutter(1024);
        let before = noise("insertion", 512 << 10);
        let mut after = before.clone();
        after.splice(100_000..100_000, *b"seventeen bytes !");
        let ends = |data: &[u8]| -> Vec<usize> {
            cuts(&cutter, data)
                .iter()
                .scan(0, |end, length| {
                    *end += length;
                    Some(*end)
                })
                .collect()
        };
        let moved: Vec<usize> = ends(&before).iter().filter(|end| **end > 100_000).map(|end| end + 17).collect();
        let after = ends(&after);
        let kept = moved.iter().filter(|end| after.binary_search(end).is_ok()).count();
        assert!(moved.len() - kept < 20, "{kept} of {} boundaries kept", moved.len());
    }

    /// Noise, constant bytes, or a short pattern, of any length.
    pub(crate) fn any_data(length_max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            ("[a-z]{4}", 0..length_max).prop_map(|(seed, length)| noise(&seed, length)),
            (any::<u8>(), 0..length_max).prop_map(|(byte, length)| vec![byte; length]),
            (proptest::collection::vec(any::<u8>(), 1..40), 0..length_max).prop_map(|(pattern, length)| pattern
                .into_iter()
                .cycle()
                .take(length)
                .collect()),
        ]
    }

    proptest! {
        #[test]
        fn the_crate_cuts_where_the_definition_says(data in any_data(40_000), bits in 9..=12_u32, key in any::<[u8; 32]>()) {
            let cutter = Cutter::new(Parameters::with_average(1 << bits), &key);
            let mut rest = &data[..];
            while let Some(length) = cutter.cut(rest, End::Here) {
                prop_assert_eq!(length, cutter.scan(rest));
                rest = &rest[length..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn cutting_resumes_at_any_boundary(data in any_data(40_000), which in any::<prop::sample::Index>()) {
            let cutter = cutter(512);
            let all = cuts(&cutter, &data);
            let skip = which.index(all.len() + 1);
            let from: usize = all[..skip].iter().sum();
            prop_assert_eq!(&cuts(&cutter, &data[from..])[..], &all[skip..]);
        }
    }
}
