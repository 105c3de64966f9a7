//! What an input says: a list of edits, `op u8 || site u8 || at u16 || arg u32`, and data for those that take some.

use esker::format::cbor;
use esker::format::pack::{Frame, FrameKind};
use esker::id::ChunkId;

/// Edits taken from one input.
const EDITS_MAX: usize = 12;
/// Buffers do not grow beyond this by repetition.
const GROWN_BYTES_MAX: usize = 1 << 16;
/// Numbers that have been trouble somewhere.
const NUMBERS: [u64; 12] =
    [0, 1, 16, 255, 4096, 65_536, 1 << 24, u32::MAX as u64, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];
/// Names and texts that have.
const TEXTS: [&[u8]; 8] = [b"..", b".", b"", b"/", b"../beside", b"../beside/precious", b"a\0", &[b'n'; 2000]];

/// What is done. What is done by who has a key is done to a buffer before it is named, sealed and signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Xor,
    Insert,
    Delete,
    Overwrite,
    Repeat,
    Truncate,
    /// The id of one content for that of another.
    OtherId,
    /// The content keeps the id it had before it was changed.
    KeepId,
    /// The record is by the other key.
    OtherSigner,
    ItemNumber,
    ItemBytes,
    ItemDelete,
    ItemRepeat,
    ItemCopy,
    /// A field of a frame, in the directory and in the index alike.
    Frame,
    // From here on it is what a storage does.
    Lose,
    Flip,
    Cut,
    Swap,
    Replay,
    Append,
    MakeUp,
}

const OPS: [Op; 22] = {
    use Op::*;
    [
        Xor,
        Insert,
        Delete,
        Overwrite,
        Repeat,
        Truncate,
        OtherId,
        KeepId,
        OtherSigner,
        ItemNumber,
        ItemBytes,
        ItemDelete,
        ItemRepeat,
        ItemCopy,
        Frame,
        Lose,
        Flip,
        Cut,
        Swap,
        Replay,
        Append,
        MakeUp,
    ]
};

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) op: Op,
    pub(super) site: usize,
    pub(super) at: usize,
    pub(super) arg: u32,
    pub(super) data: Vec<u8>,
}

/// The edits that an input says.
pub(super) fn edits(mut input: &[u8]) -> Vec<Edit> {
    let mut edits = Vec::new();
    while let Some((&[op, site, at0, at1, arg @ ..], rest)) = input.split_first_chunk::<8>()
        && edits.len() < EDITS_MAX
    {
        let (op, arg) = (OPS[usize::from(op) % OPS.len()], u32::from_le_bytes(arg));
        let takes = matches!(op, Op::Insert | Op::ItemBytes | Op::Append | Op::MakeUp);
        let (data, rest) = rest.split_at(if takes { rest.len().min(arg as usize % 128) } else { 0 });
        let at = usize::from(u16::from_le_bytes([at0, at1]));
        edits.push(Edit { op, site: usize::from(site), at, arg, data: data.to_vec() });
        input = rest;
    }
    edits
}

impl Edit {
    /// Whether it takes a key.
    pub(super) fn is_keyed(&self) -> bool {
        (self.op as usize) < Op::Lose as usize
    }

    fn number(&self) -> u64 {
        NUMBERS[self.arg as usize % NUMBERS.len()].wrapping_add(u64::from(self.arg >> 24))
    }

    /// Does it to a buffer. `ids` are those that contents have.
    pub(super) fn apply(&self, bytes: &mut Vec<u8>, ids: &[ChunkId]) {
        let length = bytes.len();
        let at = self.at % length.max(1);
        let some = at..at + (self.arg as usize % 64).min(length.saturating_sub(at));
        match self.op {
            Op::Xor if length > 0 => bytes[at] ^= (self.arg as u8).max(1),
            Op::Insert => drop(bytes.splice(at..at, self.data.iter().copied())),
            Op::Delete => drop(bytes.drain(some)),
            Op::Overwrite if length >= at + 4 => bytes[at..at + 4].copy_from_slice(&self.arg.to_le_bytes()),
            Op::Repeat if length < GROWN_BYTES_MAX => drop(bytes.splice(at..at, bytes[some].to_vec())),
            Op::Truncate => bytes.truncate(at),
            Op::OtherId if !ids.is_empty() => {
                let [from, to, ..] = self.arg.to_le_bytes().map(|n| ids[usize::from(n) % ids.len()]);
                replace(bytes, from.as_bytes(), to.as_bytes());
            }
            Op::ItemNumber | Op::ItemBytes | Op::ItemDelete | Op::ItemRepeat | Op::ItemCopy => {
                if let Some(mut item) = Item::decode(bytes) {
                    self.apply_to(&mut item);
                    bytes.clear();
                    item.encode(bytes);
                }
            }
            _ => {}
        }
    }

    fn apply_to(&self, top: &mut Item) {
        let count = top.count();
        let other = top.nth(&mut (self.arg as usize % count)).cloned();
        let Some(item) = top.nth(&mut (self.at % count)) else { return };
        // A key goes with its value.
        let step = if item.major == 5 { 2 } else { 1 };
        let places = item.items.len() / step;
        let place = self.arg as usize % places.max(1) * step;
        match self.op {
            Op::ItemNumber => *item = Item::number(u8::from(self.arg & 0x80_0000 != 0), self.number()),
            Op::ItemBytes => {
                // Some data, or a text from the list.
                let listed = self.data.is_empty().then(|| TEXTS[(self.arg >> 8) as usize % TEXTS.len()].to_vec());
                let bytes = listed.unwrap_or_else(|| self.data.clone());
                *item = Item { bytes, ..Item::number(2 + (self.arg >> 7 & 1) as u8, 0) };
            }
            Op::ItemDelete if places > 0 => drop(item.items.drain(place..place + step)),
            Op::ItemRepeat if places > 0 && count < 4096 => {
                let again = item.items[place..place + step].to_vec();
                item.items.splice(place..place, again);
            }
            Op::ItemCopy => *item = other.unwrap_or_else(|| item.clone()),
            _ => {}
        }
    }

    /// Does it to a frame's entry in the table.
    pub(super) fn apply_to_frame(&self, frame: &mut Frame, ids: &[ChunkId]) {
        const KINDS: [FrameKind; 4] = [FrameKind::Data, FrameKind::Directory, FrameKind::List, FrameKind::Snapshot];
        if self.op != Op::Frame {
            return;
        }
        let place = self.at / 8 % frame.chunks.len().max(1);
        match (self.at % 8, frame.chunks.get_mut(place)) {
            (0, _) => frame.compression = self.arg as u8,
            (1, _) => frame.plain_bytes = self.number() as u32,
            (2, _) => frame.sealed_bytes = self.number() as u32,
            (3, _) => frame.plain_bytes = self.arg,
            (4, _) => frame.kind = KINDS[self.arg as usize % KINDS.len()],
            (5, Some(chunk)) => chunk.bytes = self.arg,
            (6, Some(chunk)) => chunk.id = ids[self.arg as usize % ids.len()],
            _ => frame.chunks.truncate(place),
        }
    }
}

/// Puts `to` in the place of every `from`, which has as many bytes.
pub(super) fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            at += to.len();
        } else {
            at += 1;
        }
    }
}

/// An item of CBOR, as far as it has to be understood to be changed: of a map, keys and values follow each other.
#[derive(Debug, Clone)]
struct Item {
    major: u8,
    argument: u64,
    bytes: Vec<u8>,
    items: Vec<Item>,
}

impl Item {
    fn number(major: u8, argument: u64) -> Self {
        Self { major, argument, bytes: Vec::new(), items: Vec::new() }
    }

    /// What is one item and nothing else.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        Self::read(&mut bytes, 0).filter(|_| bytes.is_empty())
    }

    fn read(from: &mut &[u8], depth: usize) -> Option<Self> {
        let first = *from.split_off_first()?;
        let argument = match first & 31 {
            small @ 0..24 => u64::from(small),
            long @ 24..28 => {
                let bytes = from.split_off(..1 << (long - 24))?;
                bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => return None,
        };
        let mut item = Self::number(first >> 5, argument);
        let items = match item.major {
            2 | 3 => {
                item.bytes = from.split_off(..usize::try_from(argument).ok()?)?.to_vec();
                0
            }
            4 => argument,
            5 => argument.checked_mul(2)?,
            _ => 0,
        };
        if depth == 32 {
            return None;
        }
        for _ in 0..items {
            item.items.push(Self::read(from, depth + 1)?);
        }
        Some(item)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let argument = match self.major {
            2 | 3 => self.bytes.len(),
            4 => self.items.len(),
            5 => self.items.len() / 2,
            _ => usize::try_from(self.argument).unwrap_or(usize::MAX),
        };
        let head = out.len();
        cbor::push_u64(out, argument as u64);
        out[head] |= self.major << 5;
        out.extend_from_slice(&self.bytes);
        self.items.iter().for_each(|item| item.encode(out));
    }

    /// How many items it is, with those in it.
    fn count(&self) -> usize {
        1 + self.items.iter().map(Self::count).sum::<usize>()
    }

    /// The item of this number, itself being the first.
    fn nth(&mut self, number: &mut usize) -> Option<&mut Self> {
        if *number == 0 {
            return Some(self);
        }
        *number -= 1;
        self.items.iter_mut().find_map(|item| item.nth(number))
    }
}
