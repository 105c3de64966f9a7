//! Runs: immutable files of sorted fixed-width rows, looked up through a memory map.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic, which ends with the version |
//! | 8 | 4 | bytes of a row, u32 little-endian as all numbers |
//! | 12 | 4 | `bits`: how many leading bits of an id choose its bucket |
//! | 16 | 8 | how many rows |
//! | 24 | 8 | room: how many tags there is space for |
//! | 32 | 32 | zero |
//! | 64 | 4 × (2^bits + 1) | fan-out: the number of the first row of each bucket, then of all rows |
//! | the next multiple of 64 | room | tags: the last byte of each row's id |
//! | the next multiple of 64 | | the rows, in order of their bytes, none twice |
//!
//! A row begins with its 32-byte id. A bucket has about eight rows, so a lookup touches one place
//! of the fan-out, one of the tags and, when a tag fits, two or three rows: an id that is not
//! there, as those of a backup of new data, touches no row at all 29 times in 30. The BLAKE3 of
//! header and fan-out is the run's *seal*, which whoever names the file keeps; rows carry their
//! own check where they need one.

use std::fs::File;
use std::io::BufWriter;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::Advice;
use memmap2::Mmap;
use rustix::io::Errno;

use super::Error;
use super::io_error;
use super::rows::Fields;
use super::unnamed::unnamed_files;

const MAGIC: [u8; 8] = *b"ESKRRUN\x01";
const HEADER_BYTES: usize = 64;
const ID_BYTES: usize = 32;
const BUCKET_ROWS: u64 = 8;
/// In a larger bucket, such as somebody may have contrived, a search of the rows is quicker than one of the tags.
const TAGGED_BUCKET_ROWS_MAX: usize = 64;
const FAN_OUT_BITS_MAX: u32 = 22;
const ROWS_READ_AHEAD_BYTES_MAX: usize = 4 << 20;
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const TAG_BUFFER_BYTES: usize = 1 << 16;

/// The most rows a run can have: the fan-out counts in 32 bits.
const ROWS_MAX: u64 = u32::MAX as u64;

/// So many runs of a tier are merged into one of the next.
const TIER_RUNS: usize = 4;

/// Runs of fewer rows than this are all of the lowest tier.
const TIER_ROWS_MIN: u64 = 1 << 16;

/// The BLAKE3 of a run's header and fan-out.
pub(super) type Seal = [u8; 32];

/// Why a run cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file system failed.
    Io(std::io::Error),
    /// The file is not the run that was written.
    Damaged(&'static str),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    /// As an error about the run in `path`.
    pub(super) fn about(self, action: &'static str, path: &Path) -> Error {
        io_error(action, path)(match self {
            Fault::Io(error) => error,
            Fault::Damaged(message) => std::io::Error::new(std::io::ErrorKind::InvalidData, message),
        })
    }
}

/// An open run. It stays readable when its file is unlinked.
#[derive(Debug)]
pub(super) struct Run<const ROW: usize> {
    map: Mmap,
    bits: u32,
    rows: usize,
    tags_at: usize,
    rows_at: usize,
}

impl<const ROW: usize> Run<ROW> {
    /// Maps a run and checks that its header fits its length and, if given, its seal.
    pub(super) fn open(file: &File, seal: Option<&Seal>) -> Result<Self, Fault> {
        if file.metadata()?.len() < HEADER_BYTES as u64 {
            return Err(Fault::Damaged("the file is shorter than a header"));
        }
        let map = map(file)?;
        read_ahead(&map, HEADER_BYTES)?;
        let (bits, rows, room) = read_header(&map, ROW).ok_or(Fault::Damaged("the header makes no sense"))?;
        let (tags_at, rows_at) = (tags_at(bits), rows_at(bits, room));
        read_ahead(&map, rows_at.saturating_add(ROWS_READ_AHEAD_BYTES_MAX))?;
        let fits = usize::try_from(rows).ok().filter(|rows| {
            rows.checked_mul(ROW).and_then(|bytes| bytes.checked_add(rows_at)).is_some_and(|bytes| bytes == map.len())
        });
        let rows = fits.ok_or(Fault::Damaged("the length does not fit the header"))?;
        if seal.is_some_and(|seal| blake3::hash(&map[..tags_at]).as_bytes() != seal) {
            return Err(Fault::Damaged("the header and fan-out are not those written"));
        }
        Ok(Self { map, bits, rows, tags_at, rows_at })
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// Row `n`.
    pub(super) fn row(&self, n: usize) -> Option<&[u8; ROW]> {
        if n >= self.rows {
            return None;
        }
        self.map.get(self.rows_at + n * ROW..)?.first_chunk()
    }

    /// The rows of `id` with their numbers.
    pub(super) fn find<'a>(&'a self, id: &'a [u8; ID_BYTES]) -> impl Iterator<Item = (u64, &'a [u8; ROW])> {
        let first = self.first_row_of(id).unwrap_or(self.rows);
        (first..self.rows)
            .map_while(|n| self.row(n).map(|row| (n as u64, row)))
            .take_while(move |(_, row)| row.first_chunk() == Some(id))
    }

    /// The first row of `id`.
    pub(super) fn find_one(&self, id: &[u8; ID_BYTES]) -> Option<&[u8; ROW]> {
        self.row(self.first_row_of(id)?).filter(|row| row.first_chunk() == Some(id))
    }

    /// Where the rows of `id` begin, if there are any.
    fn first_row_of(&self, id: &[u8; ID_BYTES]) -> Option<usize> {
        let bucket = bucket(id, self.bits);
        let (mut low, mut high) = (self.fan_out(bucket)?, self.fan_out(bucket + 1)?.min(self.rows));
        let tags = self.map.get(self.tags_at..)?.get(low..high)?;
        if tags.len() <= TAGGED_BUCKET_ROWS_MAX && !tags.contains(&tag(id)) {
            return None;
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.row(middle)?[..ID_BYTES] < id[..] {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    fn fan_out(&self, bucket: usize) -> Option<usize> {
        let start = u32::from_le_bytes(*self.map.get(HEADER_BYTES + 4 * bucket..)?.first_chunk()?);
        usize::try_from(start).ok()
    }
}

/// Maps a run.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: a mapped file must not be changed or truncated while it is mapped. Runs lie in a
    // directory of our own, readable by us alone; they are mapped only once complete, and from
    // then on this program never writes to one and never truncates one: it only unlinks them,
    // which leaves the mapping whole. All reads go through bounds-checked slices of plain bytes,
    // so contents, whatever they are, cannot do harm.
    unsafe { Mmap::map(file) }
}

/// Has the kernel read the front of a run: what each lookup touches, and all of one that is not large.
///
/// A page that cannot be read when a lookup comes to it kills the process (SIGBUS); read here it
/// is an error. On a disk with bad sectors that is the difference between a cache begun anew and a
/// backup that dies each time. What is in the page cache already costs a millisecond for each 16
/// MiB, which every command pays. So most rows of a large run are left, and they, like pages that had
/// to go meanwhile, can still kill: `--no-cache` helps.
fn read_ahead(map: &Mmap, bytes: usize) -> std::io::Result<()> {
    match map.advise_range(Advice::PopulateRead, 0, map.len().min(bytes)) {
        // So it says that an access would have been answered by SIGBUS (madvise(2)).
        Err(error) if Errno::from_io_error(&error) == Some(Errno::FAULT) => Err(Errno::IO.into()),
        // Linux before 5.14 does not know it.
        _ => Ok(()),
    }
}

/// The fan-out bits, the number of rows and the room for tags, if the header is one.
fn read_header(bytes: &[u8], row_bytes: usize) -> Option<(u32, u64, u64)> {
    let mut fields = Fields(bytes);
    let (magic, width, bits) = (fields.array()?, fields.u32()?, fields.u32()?);
    let (rows, room) = (fields.u64()?, fields.u64()?);
    let known = magic == MAGIC && usize::try_from(width) == Ok(row_bytes);
    (known && bits <= FAN_OUT_BITS_MAX && rows <= room && room <= ROWS_MAX).then_some((bits, rows, room))
}

/// Where the tags begin.
fn tags_at(bits: u32) -> usize {
    (HEADER_BYTES + 4 * ((1 << bits) + 1)).next_multiple_of(64)
}

/// Where the rows begin.
fn rows_at(bits: u32, room: u64) -> usize {
    let room = usize::try_from(room).expect("room is at most 2^32, and memory maps need 64-bit addresses anyway");
    (tags_at(bits) + room).next_multiple_of(64)
}

/// The byte of an id that stands for it: the one furthest from those that choose the bucket.
fn tag(id: &[u8; ID_BYTES]) -> u8 {
    id[ID_BYTES - 1]
}

/// Which bucket an id is in: its leading bits.
fn bucket(id: &[u8], bits: u32) -> usize {
    let leading = id.first_chunk().map_or(0, |leading| u32::from_le_bytes(*leading).swap_bytes());
    leading.unbounded_shr(32 - bits) as usize
}

/// Writes a run from rows that come in order.
pub(super) struct RunWriter<const ROW: usize> {
    out: BufWriter<File>,
    bits: u32,
    /// Bytes before the tags: the header, and as much of the fan-out as is known.
    front: Vec<u8>,
    buckets: usize,
    /// Tags not written yet, and where they go.
    tags: Vec<u8>,
    tags_at: u64,
    room: u64,
    rows: u32,
    last: Option<[u8; ROW]>,
}

impl<const ROW: usize> RunWriter<ROW> {
    /// Begins a run of at most `rows` rows in an empty file.
    pub(super) fn new(mut file: File, rows: u64) -> Result<Self, Fault> {
        if rows > ROWS_MAX {
            return Err(Fault::Io(std::io::ErrorKind::FileTooLarge.into()));
        }
        let bits = (rows / BUCKET_ROWS).max(1).ilog2().min(FAN_OUT_BITS_MAX);
        let front_bytes = tags_at(bits);
        file.seek(SeekFrom::Start(rows_at(bits, rows) as u64))?;
        let mut front = Vec::with_capacity(front_bytes);
        front.resize(HEADER_BYTES, 0);
        Ok(Self {
            out: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            bits,
            front,
            buckets: 0,
            tags: Vec::new(),
            tags_at: front_bytes as u64,
            room: rows,
            rows: 0,
            last: None,
        })
    }

    /// Appends a row, unless it is the same as the one before.
    pub(super) fn push(&mut self, row: &[u8; ROW]) -> Result<(), Fault> {
        match &self.last {
            Some(last) if last == row => return Ok(()),
            Some(last) if last > row => return Err(Fault::Damaged("the rows are not in order")),
            _ => {}
        }
        if u64::from(self.rows) == self.room {
            return Err(Fault::Damaged("there are more rows than were announced"));
        }
        self.fill_fan_out(bucket(row, self.bits) + 1);
        self.tags.push(row[ID_BYTES - 1]);
        if self.tags.len() == TAG_BUFFER_BYTES {
            self.write_tags()?;
        }
        self.out.write_all(row)?;
        self.rows += 1;
        self.last = Some(*row);
        Ok(())
    }

    /// Makes the run durable under whatever name its file has, and returns it, open.
    pub(super) fn finish(mut self) -> Result<(Run<ROW>, Seal), Fault> {
        self.fill_fan_out((1 << self.bits) + 1);
        self.front.resize(tags_at(self.bits), 0);
        self.write_tags()?;
        let width = u32::try_from(ROW).expect("a row is a few bytes");
        self.front[..8].copy_from_slice(&MAGIC);
        self.front[8..12].copy_from_slice(&width.to_le_bytes());
        self.front[12..16].copy_from_slice(&self.bits.to_le_bytes());
        self.front[16..24].copy_from_slice(&u64::from(self.rows).to_le_bytes());
        self.front[24..32].copy_from_slice(&self.room.to_le_bytes());
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        // Without rows nothing has been written where they would begin.
        file.set_len((rows_at(self.bits, self.room) + self.rows as usize * ROW) as u64)?;
        file.write_all_at(&self.front, 0)?;
        file.sync_all()?;
        let seal = *blake3::hash(&self.front).as_bytes();
        Ok((Run::open(&file, Some(&seal))?, seal))
    }

    fn write_tags(&mut self) -> Result<(), Fault> {
        self.out.get_ref().write_all_at(&self.tags, self.tags_at)?;
        self.tags_at += self.tags.len() as u64;
        self.tags.clear();
        Ok(())
    }

    /// Says of all buckets below `bucket` not yet begun that they begin at the next row.
    fn fill_fan_out(&mut self, bucket: usize) {
        for _ in self.buckets..bucket {
            self.front.extend_from_slice(&self.rows.to_le_bytes());
        }
        self.buckets = self.buckets.max(bucket);
    }
}

/// Writes the rows of all `sources` to one run, rows that are the same once.
pub(super) fn merge<const ROW: usize>(sources: &[&Run<ROW>], file: File) -> Result<(Run<ROW>, Seal), Fault> {
    let mut writer = RunWriter::new(file, sources.iter().map(|run| run.rows()).sum())?;
    let mut heads: Vec<_> = sources.iter().map(|run| (run.row(0), 0, *run)).collect();
    while let Some((head, n, run)) = heads.iter_mut().filter(|(head, ..)| head.is_some()).min_by_key(|(head, ..)| *head)
    {
        if let Some(row) = head {
            writer.push(row)?;
        }
        *n += 1;
        *head = run.row(*n);
    }
    writer.finish()
}

/// Writes rows, which are in order, to a run, rows that are the same once.
pub(super) fn write_sorted<const ROW: usize>(rows: &[[u8; ROW]], file: File) -> Result<(Run<ROW>, Seal), Fault> {
    let mut writer = RunWriter::new(file, rows.len() as u64)?;
    rows.iter().try_for_each(|row| writer.push(row))?;
    writer.finish()
}

/// Has a run written to a file without a name, to the first of [`unnamed_files`] that takes it.
pub(super) fn write_unnamed<const ROW: usize>(
    dir: &Path,
    write: impl Fn(File) -> Result<(Run<ROW>, Seal), Fault>,
) -> Result<(Run<ROW>, Seal), Fault> {
    let mut first = None;
    for file in unnamed_files(dir) {
        match file.map_err(Fault::Io).and_then(&write) {
            Err(Fault::Io(error)) => first = first.or(Some(error)),
            done => return done,
        }
    }
    Err(Fault::Io(first.unwrap_or_else(|| std::io::ErrorKind::StorageFull.into())))
}

/// Which of the runs of these sizes to merge into one: those of the lowest tier that has
/// [`TIER_RUNS`], with all smaller ones. Empty when each tier has fewer.
///
/// So a lookup asks at most three runs in each tier, a tier's runs being four times as large as
/// those of the tier below, and a row is written again once for each tier it rises.
pub(super) fn due(sizes: &[u64]) -> Vec<usize> {
    let tier = |rows: u64| (rows / TIER_ROWS_MIN).max(1).ilog(4);
    for full in 0..=tier(ROWS_MAX) {
        if sizes.iter().filter(|rows| tier(**rows) == full).count() >= TIER_RUNS {
            let chosen: Vec<usize> = (0..sizes.len()).filter(|i| tier(sizes[*i]) <= full).collect();
            let fits = chosen.iter().map(|i| sizes[*i]).sum::<u64>() <= ROWS_MAX;
            return if fits { chosen } else { Vec::new() };
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unnamed::unnamed_file;
    use super::*;

    type Row = [u8; 40];

    fn row(id: u64, tail: u64) -> Row {
        let mut row = [0; 40];
        row[..8].copy_from_slice(&id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        row[31] = row[5];
        row[32..].copy_from_slice(&tail.to_le_bytes());
        row
    }

    fn id(id: u64) -> [u8; 32] {
        *row(id, 0).first_chunk().unwrap()
    }

    fn run(mut rows: Vec<Row>) -> Run<40> {
        rows.sort_unstable();
        write_sorted(&rows, unnamed_file(&std::env::temp_dir()).unwrap()).unwrap().0
    }

    fn tails(run: &Run<40>, id_of: u64) -> Vec<u64> {
        run.find(&id(id_of)).map(|(_, row)| u64::from_le_bytes(*row[32..].first_chunk().unwrap())).collect()
    }

    #[test]
    fn a_run_finds_each_id_it_has_and_no_other() {
        for count in [0, 1, 2, 7, 8, 16, 100, 5000] {
            let run = run((0..count).map(|n| row(n, n)).collect());
            assert_eq!(run.rows(), count);
            for n in 0..count {
                assert_eq!(tails(&run, n), [n]);
            }
            assert!((count..count + 1000).all(|n| run.find_one(&id(n)).is_none()));
        }
    }

    #[test]
    fn a_run_holds_a_row_once_and_all_rows_of_an_id() {
        let run = run((0..6000).map(|n| row(n % 3, n % 2000)).collect());
        assert_eq!(run.rows(), 6000);
        assert_eq!(tails(&run, 1).len(), 2000);
        let merged = merge(&[&run, &run, &run], unnamed_file(&std::env::temp_dir()).unwrap()).unwrap().0;
        assert_eq!(merged.rows(), 6000);
        assert_eq!(tails(&merged, 1), tails(&run, 1));
    }

    #[test]
    fn ids_that_share_all_leading_bits_are_still_found() {
        let crowded = |n: u8| {
            let mut row = [7; 40];
            row[30] = n;
            row
        };
        let run = run((0..=254).step_by(2).map(crowded).collect());
        for n in 0..=255 {
            assert_eq!(run.find_one(crowded(n).first_chunk().unwrap()).is_some(), n % 2 == 0, "{n}");
        }
    }

    #[test]
    fn rows_out_of_order_or_too_many_are_not_written() {
        let mut writer = RunWriter::<40>::new(unnamed_file(&std::env::temp_dir()).unwrap(), 1).unwrap();
        writer.push(&[1; 40]).unwrap();
        assert!(matches!(writer.push(&[2; 40]), Err(Fault::Damaged(_))));
        let mut writer = RunWriter::<40>::new(unnamed_file(&std::env::temp_dir()).unwrap(), 2).unwrap();
        writer.push(&[2; 40]).unwrap();
        assert!(matches!(writer.push(&[1; 40]), Err(Fault::Damaged(_))));
    }

    #[test]
    fn a_damaged_file_is_refused_or_answers_without_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let create = || File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let mut rows: Vec<Row> = (0..40).map(|n| row(n, n)).collect();
        rows.sort_unstable();
        let (run, seal) = write_sorted(&rows, create()).unwrap();
        let sealed = run.tags_at;
        drop(run);
        let bytes = std::fs::read(&path).unwrap();
        let open = |bytes: &[u8], seal| {
            create().write_all(bytes).unwrap();
            Run::<40>::open(&File::open(&path).unwrap(), seal)
        };
        for length in 0..bytes.len() {
            assert!(matches!(open(&bytes[..length], None), Err(Fault::Damaged(_))), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x81;
            assert_eq!(open(&flipped, Some(&seal)).is_err(), at < sealed, "flipped at {at}");
            // Without the seal, as if it had been made for hostile content.
            if let Ok(run) = open(&flipped, None) {
                (0..80).for_each(|n| assert!(tails(&run, n).len() <= 2));
                // Each one synchronises a file, so not all.
                if at % 13 == 0 {
                    let _ = merge(&[&run, &run], unnamed_file(dir.path()).unwrap());
                }
            }
        }
        assert!(matches!(Run::<64>::open(&File::open(&path).unwrap(), None), Err(Fault::Damaged(_))));
    }

    #[test]
    fn runs_are_merged_four_of_a_size_together_with_the_smaller_ones() {
        const TIER: u64 = TIER_ROWS_MIN;
        assert_eq!(due(&[]), Vec::<usize>::new());
        assert_eq!(due(&[1, TIER, 3]), Vec::<usize>::new());
        assert_eq!(due(&[1, 2, 4 * TIER, 3, TIER]), [0, 1, 3, 4]);
        assert_eq!(due(&[4 * TIER, 1, 5 * TIER, 6 * TIER, 99 * TIER, 7 * TIER]), [0, 1, 2, 3, 5]);
        assert_eq!(due(&[ROWS_MAX; 4]), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn merged_runs_hold_what_their_sources_held(
            sources in prop::collection::vec(prop::collection::vec((0..300_u64, 0..3_u64), 0..200), 1..6),
        ) {
            let mut expected: Vec<Row> = sources.iter().flatten().map(|(id, tail)| row(*id, *tail)).collect();
            expected.sort_unstable();
            expected.dedup();
            let runs: Vec<_> =
                sources.iter().map(|rows| run(rows.iter().map(|(id, tail)| row(*id, *tail)).collect())).collect();
            let merged = merge(&runs.iter().collect::<Vec<_>>(), unnamed_file(&std::env::temp_dir()).unwrap()).unwrap().0;
            let found: Vec<Row> = (0..).map_while(|n| merged.row(n).copied()).collect();
            prop_assert_eq!(&found, &expected);
            for id_of in 0..300 {
                let wanted: Vec<_> = expected.iter().filter(|row| row[..32] == id(id_of)).map(|row| row[32]).collect();
                let found: Vec<_> = merged.find(&id(id_of)).map(|(_, row)| row[32]).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
