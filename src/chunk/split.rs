//! Splits a stream of bytes into chunks and runs of zeros (SPEC §6.2).
//!
//! The rule: a maximal run of at least [`ZEROS_BYTES_MIN`] zero bytes is one piece, whatever its
//! length; each stretch between two such runs is cut by [`Cutter`] as if it were a file of its
//! own. So the pieces depend on the stream's bytes alone. A hole is zero bytes nobody had to
//! read: it joins zeros before and after it, and a short one becomes part of a chunk.
//!
//! The buffer holds one stretch's bytes that are not handed out yet, between three marks:
//!
//! ```text
//!          head           body             tail
//! ─ done ──┼─── stretch ───┼─ zeros so far ─┼── free ──
//! ```
//!
//! Invariant between calls: no byte of the stretch belongs to a long run. The byte before `body`
//! is not zero (or the stretch is empty), and from `body` to `tail` there are zeros only, which
//! the next byte either makes part of the stretch or of a long run. Zeros of a long run are
//! counted in `run` and not kept.

use std::sync::Arc;

use super::cut::{Cutter, End};

/// How long a run of zero bytes is to be a piece of its own.
pub const ZEROS_BYTES_MIN: u64 = 64 << 10;

/// How many bytes [`Splitter::space`] offers at most.
const READ_BYTES: usize = 1 << 20;

/// Below this much space the unfinished bytes move to the buffer's front.
const SPACE_BYTES_MIN: usize = 256 << 10;

/// Distance of the words that are looked at to find runs. Any run of [`ZEROS_BYTES_MIN`] has a
/// whole word at every place of this grid that it covers.
const PROBE_STRIDE: usize = 32 << 10;
const WORD: usize = 8;
const _: () = assert!(PROBE_STRIDE + WORD <= ZEROS_BYTES_MIN as usize);

/// A piece of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split<'a> {
    /// One chunk.
    Chunk {
        /// Its bytes, never empty.
        bytes: &'a [u8],
        /// Where in the splitter's buffer they stand.
        offset: usize,
    },
    /// This many zero bytes, at least [`ZEROS_BYTES_MIN`].
    Zeros(u64),
}

/// Splits one stream after another, in one buffer of 1 MiB and a little more than the largest chunk.
///
/// The bytes of chunks stay where they are until the buffer is full, so whoever wants to have them
/// takes the whole buffer then, and leaves another: [`is_full`](Self::is_full), [`swap`](Self::swap).
///
/// ```text
/// loop {
///     let bytes = read(file, splitter.space())?;
///     if bytes == 0 { break }
///     splitter.filled(bytes, &mut sink)?;
/// }
/// splitter.finish(&mut sink)?;
/// ```
///
/// Pieces come out in order, as soon as they are certain. After `finish` the splitter is ready
/// for the next stream; after an error, or to give a stream up, call [`reset`](Self::reset).
#[derive(Debug)]
pub struct Splitter {
    cutter: Arc<Cutter>,
    buffer: Vec<u8>,
    head: usize,
    body: usize,
    tail: usize,
    /// How many zeros the stream ends with so far. Below [`ZEROS_BYTES_MIN`] they are the bytes
    /// from `body` to `tail`, else they are in the buffer no longer.
    run: u64,
    /// Bytes before `head` may be wanted.
    handed_out: bool,
}

impl Splitter {
    /// A splitter with an empty stream.
    pub fn new(cutter: Arc<Cutter>) -> Self {
        let buffer = vec![0; Self::buffer_bytes(&cutter)];
        Self { cutter, buffer, head: 0, body: 0, tail: 0, run: 0, handed_out: false }
    }

    /// How long the buffer of a splitter is.
    pub fn buffer_bytes(cutter: &Cutter) -> usize {
        // Unfinished are less than one largest chunk and a run that is not yet long.
        cutter.parameters().max_bytes as usize + ZEROS_BYTES_MIN as usize + READ_BYTES
    }

    /// Forgets the stream. Costs nothing.
    pub fn reset(&mut self) {
        (self.head, self.body, self.run) = (self.tail, self.tail, 0);
    }

    /// Whether the bytes handed out so far are given up by the next call of [`space`](Self::space).
    pub fn is_full(&self) -> bool {
        self.handed_out && self.lacks_space()
    }

    fn lacks_space(&self) -> bool {
        self.buffer.len() - self.tail < SPACE_BYTES_MIN
    }

    /// Exchanges the buffer, with all chunks handed out since it was last exchanged or given up, for
    /// `other`, whose content does not matter.
    pub fn swap(&mut self, other: &mut Vec<u8>) {
        other.resize(self.buffer.len(), 0);
        let unfinished = self.head..self.tail;
        other[..unfinished.len()].copy_from_slice(&self.buffer[unfinished]);
        self.moved_to_front();
        std::mem::swap(&mut self.buffer, other);
    }

    fn moved_to_front(&mut self) {
        self.body -= self.head;
        self.tail -= self.head;
        self.head = 0;
        self.handed_out = false;
    }

    /// Where to put the stream's next bytes: up to 1 MiB of space, never none. Its content is
    /// left over from earlier.
    pub fn space(&mut self) -> &mut [u8] {
        if self.lacks_space() || (self.head == self.tail && !self.handed_out) {
            self.buffer.copy_within(self.head..self.tail, 0);
            self.moved_to_front();
        }
        let end = self.buffer.len().min(self.tail + READ_BYTES);
        &mut self.buffer[self.tail..end]
    }

    /// Takes the first `bytes` of [`space`](Self::space) as the stream's next and hands out the
    /// pieces that are now certain.
    ///
    /// # Panics
    ///
    /// When `bytes` is more than there was space.
    pub fn filled<E>(&mut self, bytes: usize, sink: &mut impl FnMut(Split<'_>) -> Result<(), E>) -> Result<(), E> {
        let from = self.tail;
        assert!(bytes <= self.buffer.len() - from, "{bytes} bytes were put where there was space for fewer");
        self.tail += bytes;
        let mut zeros_end = from + leading_zeros(&self.buffer[from..self.tail]);
        self.run += (zeros_end - from) as u64;
        loop {
            if self.run >= ZEROS_BYTES_MIN {
                self.cut(End::Here, sink)?;
                (self.head, self.body) = (zeros_end, zeros_end);
            }
            if zeros_end == self.tail {
                break;
            }
            // A byte that is not zero follows, so this run is over.
            if self.run >= ZEROS_BYTES_MIN {
                sink(Split::Zeros(self.run))?;
            }
            let run = next_run(&self.buffer[..self.tail], zeros_end);
            (self.body, zeros_end) = (run.start, run.end);
            self.run = run.len() as u64;
        }
        self.cut(End::Open, sink)
    }

    /// Takes a hole, or zeros known to be, as the stream's next bytes.
    pub fn push_zeros<E>(&mut self, bytes: u64, sink: &mut impl FnMut(Split<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.run.saturating_add(bytes) >= ZEROS_BYTES_MIN {
            self.cut(End::Here, sink)?;
            (self.head, self.body) = (self.tail, self.tail);
            self.run = self.run.saturating_add(bytes);
        } else if bytes > 0 {
            // Fewer than 64 KiB, for which there always is space.
            self.space()[..bytes as usize].fill(0);
            self.tail += bytes as usize;
            self.run += bytes;
        }
        Ok(())
    }

    /// Takes a copy of `bytes` as the stream's next.
    pub fn push<E>(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Split<'_>) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            let space = self.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.filled(now.len(), sink)?;
            bytes = later;
        }
        Ok(())
    }

    /// Ends the stream, hands out what is left of it, and begins another.
    pub fn finish<E>(&mut self, sink: &mut impl FnMut(Split<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.run >= ZEROS_BYTES_MIN {
            sink(Split::Zeros(self.run))?;
        } else {
            self.body = self.tail;
            self.cut(End::Here, sink)?;
        }
        self.reset();
        Ok(())
    }

    /// Hands out the stretch's chunks, all of them when its end is known.
    fn cut<E>(&mut self, end: End, sink: &mut impl FnMut(Split<'_>) -> Result<(), E>) -> Result<(), E> {
        while let Some(length) = self.cutter.cut(&self.buffer[self.head..self.body], end) {
            let offset = self.head;
            self.head += length;
            self.handed_out = true;
            sink(Split::Chunk { bytes: &self.buffer[offset..self.head], offset })?;
        }
        Ok(())
    }
}

/// The first run of zeros at or after `from` that is long or reaches the end of `data`; the
/// empty run at the end when there is none. The byte at `from` is not zero.
///
/// Looks at one word in 32 KiB where there are no zeros.
fn next_run(data: &[u8], from: usize) -> std::ops::Range<usize> {
    // All runs from before `clear` are known to be short and over.
    let mut clear = from;
    while let Some(word) = data.get(clear + PROBE_STRIDE..clear + PROBE_STRIDE + WORD) {
        let probe = clear + PROBE_STRIDE;
        let zeros = leading_zeros(word);
        if zeros < WORD {
            // A run that starts at or before this byte would be over by now, or not be long.
            clear = probe + zeros;
            continue;
        }
        let start = probe - trailing_zeros(&data[clear..probe]);
        let end = probe + leading_zeros(&data[probe..]);
        if (end - start) as u64 >= ZEROS_BYTES_MIN || end == data.len() {
            return start..end;
        }
        clear = end;
    }
    data.len() - trailing_zeros(&data[clear..])..data.len()
}

/// Zeros to compare with; the C library's `memcmp` is the fastest scan there is.
static ZEROS: [u8; 1024] = [0; 1024];

/// How many zero bytes `data` begins with.
fn leading_zeros(data: &[u8]) -> usize {
    let whole: usize =
        data.chunks(ZEROS.len()).take_while(|block| **block == ZEROS[..block.len()]).map(<[u8]>::len).sum();
    whole + data[whole..].iter().take_while(|byte| **byte == 0).count()
}

/// How many zero bytes `data` ends with.
fn trailing_zeros(data: &[u8]) -> usize {
    let whole: usize =
        data.rchunks(ZEROS.len()).take_while(|block| **block == ZEROS[..block.len()]).map(<[u8]>::len).sum();
    let rest = &data[..data.len() - whole];
    whole + rest.iter().rev().take_while(|byte| **byte == 0).count()
}

#[cfg(test)]
pub(super) mod tests {
    //! The risk is a run that is missed, or found with wrong ends, where buffers, holes and
    //! probes meet. The method: compare with a splitter so plain that it is plainly right, over
    //! streams of runs whose lengths lie around every threshold.

    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::cut::Parameters;
    use super::super::cut::tests::noise;
    use super::*;

    const LONG: usize = ZEROS_BYTES_MIN as usize;

    /// A piece that owns its bytes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Owned {
        Chunk(Vec<u8>),
        Zeros(u64),
    }

    impl From<Split<'_>> for Owned {
        fn from(split: Split<'_>) -> Self {
            match split {
                Split::Chunk { bytes, .. } => Owned::Chunk(bytes.to_vec()),
                Split::Zeros(bytes) => Owned::Zeros(bytes),
            }
        }
    }

    /// The rule, byte by byte, with the defining scan.
    pub(crate) fn plain_split(cutter: &Cutter, data: &[u8]) -> Vec<Owned> {
        let mut pieces = Vec::new();
        let cut_all = |mut stretch: &[u8], pieces: &mut Vec<Owned>| {
            while !stretch.is_empty() {
                let (chunk, rest) = stretch.split_at(cutter.scan(stretch));
                pieces.push(Owned::Chunk(chunk.to_vec()));
                stretch = rest;
            }
        };
        let (mut stretch, mut at) = (0, 0);
        while at < data.len() {
            let run = data[at..].iter().take_while(|byte| **byte == 0).count();
            if run >= LONG {
                cut_all(&data[stretch..at], &mut pieces);
                pieces.push(Owned::Zeros(run as u64));
                stretch = at + run;
            }
            at += run.max(1);
        }
        cut_all(&data[stretch..], &mut pieces);
        pieces
    }

    /// How a stream comes in.
    #[derive(Debug, Clone)]
    enum Input {
        Bytes(Vec<u8>),
        Hole(u64),
    }

    fn split(splitter: &mut Splitter, inputs: &[Input]) -> Vec<Owned> {
        let mut pieces = Vec::new();
        let mut sink = |split: Split<'_>| -> Result<(), Infallible> {
            pieces.push(split.into());
            Ok(())
        };
        for input in inputs {
            let Ok(()) = match input {
                Input::Bytes(bytes) => splitter.push(bytes, &mut sink),
                Input::Hole(bytes) => splitter.push_zeros(*bytes, &mut sink),
            };
        }
        let Ok(()) = splitter.finish(&mut sink);
        pieces
    }

    pub(crate) fn split_whole(cutter: &Arc<Cutter>, data: &[u8]) -> Vec<Owned> {
        split(&mut Splitter::new(cutter.clone()), &[Input::Bytes(data.to_vec())])
    }

    fn cutter() -> Arc<Cutter> {
        Arc::new(Cutter::new(Parameters::with_average(4096), b"a key for tests, of 32 bytes ..."))
    }

    fn logical(inputs: &[Input]) -> Vec<u8> {
        inputs
            .iter()
            .flat_map(|input| match input {
                Input::Bytes(bytes) => bytes.clone(),
                Input::Hole(bytes) => vec![0; *bytes as usize],
            })
            .collect()
    }

    #[test]
    fn a_run_is_a_piece_from_64_kib_on_and_not_before() {
        let cutter = cutter();
        for (run, expected) in [(LONG - 1, false), (LONG, true), (LONG + 1, true)] {
            for (before, after) in [(0, 0), (1, 0), (0, 1), (1, 1), (33_000, 70_001), (LONG, LONG)] {
                let data = [vec![7; before], vec![0; run], vec![9; after]].concat();
                let pieces = split_whole(&cutter, &data);
                let zeros: Vec<&Owned> = pieces.iter().filter(|piece| matches!(piece, Owned::Zeros(_))).collect();
                assert_eq!(zeros.len(), usize::from(expected), "{before} {run} {after}");
                assert!(zeros.iter().all(|piece| **piece == Owned::Zeros(run as u64)), "{before} {run} {after}");
                assert_eq!(pieces, plain_split(&cutter, &data));
            }
        }
    }

    #[test]
    fn a_hole_of_many_terabytes_is_one_piece_and_takes_no_memory() {
        let hole = 1 << 45;
        let inputs = [Input::Bytes(vec![1, 0]), Input::Hole(hole), Input::Bytes(vec![0, 2])];
        assert_eq!(
            split(&mut Splitter::new(cutter()), &inputs),
            [Owned::Chunk(vec![1]), Owned::Zeros(hole + 2), Owned::Chunk(vec![2])]
        );
    }

    #[test]
    fn short_holes_become_bytes_of_a_chunk_and_join_to_long_runs() {
        let short = ZEROS_BYTES_MIN / 2;
        let hole = Input::Hole(short);
        let byte = Input::Bytes(vec![5]);
        let mut splitter = Splitter::new(cutter());
        let apart = split(&mut splitter, &[hole.clone(), byte.clone(), hole.clone()]);
        assert!(apart.iter().all(|piece| matches!(piece, Owned::Chunk(_))));
        let joined = split(&mut splitter, &[hole.clone(), Input::Bytes(Vec::new()), Input::Hole(0), hole, byte]);
        assert_eq!(joined, [Owned::Zeros(2 * short), Owned::Chunk(vec![5])]);
    }

    #[test]
    fn an_empty_stream_has_no_pieces() {
        assert_eq!(split(&mut Splitter::new(cutter()), &[]), []);
    }

    #[test]
    fn a_splitter_that_was_reset_remembers_nothing() {
        let mut splitter = Splitter::new(cutter());
        let mut ignore = |_: Split<'_>| Ok::<_, Infallible>(());
        for garbage in [noise("garbage", 100_000), vec![0; 50_000], vec![0; 100_000]] {
            let Ok(()) = splitter.push(&garbage, &mut ignore);
            splitter.reset();
            assert_eq!(split(&mut splitter, &[Input::Bytes(vec![0, 1])]), [Owned::Chunk(vec![0, 1])]);
        }
    }

    #[test]
    fn the_sink_s_error_comes_back_at_once() {
        let mut splitter = Splitter::new(cutter());
        let mut calls = 0;
        let mut sink = |_: Split<'_>| {
            calls += 1;
            Err("full")
        };
        assert_eq!(splitter.push(&noise("error", 300_000), &mut sink), Err("full"));
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_large_stream_fits_the_buffer_however_it_comes() {
        let cutter = cutter();
        // A long run and a short one, each where the buffer has just been filled.
        let parts = [
            Input::Bytes(noise("large", 3 << 20)),
            Input::Hole(200_000),
            Input::Bytes(noise("more", (1 << 20) - 200_000)),
            Input::Hole(60_000),
            Input::Bytes(noise("most", 2 << 20)),
        ];
        let data = logical(&parts);
        let expected = plain_split(&cutter, &data);
        let mut splitter = Splitter::new(cutter);
        for step in [4093, 65_536, READ_BYTES, 5 << 20] {
            let inputs: Vec<Input> = data.chunks(step).map(|bytes| Input::Bytes(bytes.to_vec())).collect();
            assert!(split(&mut splitter, &inputs) == expected, "in steps of {step}");
        }
        assert!(split(&mut splitter, &parts) == expected, "with holes");
    }

    /// Lengths around every threshold there is.
    fn any_length() -> impl Strategy<Value = usize> {
        let near = |length: usize| (length - 9)..(length + 10);
        prop_oneof![0..40_usize, near(PROBE_STRIDE), near(LONG), near(LONG + PROBE_STRIDE), 0..3 * LONG]
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            ("[a-z]{3}", any_length()).prop_map(|(seed, length)| Input::Bytes(noise(&seed, length))),
            any_length().prop_map(|length| Input::Bytes(vec![0; length])),
            any_length().prop_map(|length| Input::Hole(length as u64)),
            Just(Input::Bytes(vec![1])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn pieces_depend_on_the_bytes_alone(
            inputs in proptest::collection::vec(any_input(), 0..8),
            steps in proptest::collection::vec(any_length(), 1..5),
        ) {
            let cutter = cutter();
            let data = logical(&inputs);
            let expected = plain_split(&cutter, &data);
            prop_assert_eq!(split_whole(&cutter, &data), &expected[..]);
            prop_assert_eq!(split(&mut Splitter::new(cutter.clone()), &inputs), &expected[..]);

            let mut parts = Vec::new();
            let mut rest = &data[..];
            for step in steps.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(step + 1));
                parts.push(Input::Bytes(now.to_vec()));
                rest = later;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(split(&mut Splitter::new(cutter), &parts), &expected[..]);
        }

        #[test]
        fn pieces_joined_are_the_stream(inputs in proptest::collection::vec(any_input(), 0..8)) {
            let joined: Vec<u8> = split(&mut Splitter::new(cutter()), &inputs).into_iter().flat_map(|piece| match piece {
                Owned::Chunk(bytes) => bytes,
                Owned::Zeros(bytes) => vec![0; bytes as usize],
            }).collect();
            prop_assert!(joined == logical(&inputs));
        }
    }
}
