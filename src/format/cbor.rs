//! Deterministic CBOR (RFC 8949 §4.2.1) with integer keys, read strictly (SPEC §1.3).
//!
//! [`MapWriter`] writes fields in ascending key order; [`MapReader`] takes them in the same
//! order. A key below 64 that this program does not know refuses the record; keys from 64 up
//! are kept verbatim in [`Extra`] and written back. [`decode`] adds the last rule, that encoding
//! the result gives the same bytes, which rejects trailing bytes, long integers and the rest.

use minicbor::{Decoder, Encoder};
use zeroize::Zeroizing;

use super::{DecodeError, Result, item};

/// Unknown fields with keys from 64 up, in ascending key order, values as encoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra(Vec<(u64, Box<[u8]>)>);

/// First key that a reader may ignore.
const FIRST_IGNORABLE_KEY: u64 = 64;

/// A structure stored as one CBOR map.
pub trait Record: Sized {
    /// Its name in errors and in the spec.
    const WHAT: &'static str;
    /// Writes the fields in ascending key order.
    fn encode_map(&self, map: &mut MapWriter<'_>);
    /// Takes the fields in ascending key order.
    fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self>;

    /// Appends the encoding to `out`.
    fn encode_into(&self, out: &mut Vec<u8>) {
        let mut map = MapWriter::new(out);
        self.encode_map(&mut map);
        map.end();
    }

    /// Reads one from the middle of a CBOR item.
    fn decode_from(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut map = MapReader::new(Self::WHAT, decoder)?;
        let value = Self::decode_map(&mut map)?;
        map.end()?;
        Ok(value)
    }
}

/// The encoding of a record.
pub fn encode<R: Record>(record: &R) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode_into(&mut out);
    out
}

/// Reads a record from exactly these bytes, which must be its one encoding.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R> {
    let record = R::decode_from(&mut Decoder::new(bytes))?;
    if encode(&record) == bytes { Ok(record) } else { Err(not_the_one_encoding::<R>()) }
}

fn not_the_one_encoding<R: Record>() -> DecodeError {
    DecodeError::malformed(R::WHAT, "not in deterministic encoding, or followed by other bytes")
}

/// Room for a record of secrets: a vector that grows leaves what it held behind.
const SECRET_BYTES: usize = 256;

/// The encoding of a record of secrets, wiped when dropped.
pub fn encode_secret<R: Record>(record: &R) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(SECRET_BYTES));
    record.encode_into(&mut out);
    out
}

/// [`decode`] for a record of secrets, which leaves no copy behind.
pub fn decode_secret<R: Record>(bytes: &[u8]) -> Result<R> {
    let record = R::decode_from(&mut Decoder::new(bytes))?;
    if *encode_secret(&record) == *bytes { Ok(record) } else { Err(not_the_one_encoding::<R>()) }
}

/// Writes one map. The number of fields is filled in at [`MapWriter::end`].
#[derive(Debug)]
pub struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fields: u64,
    last_key: Option<u64>,
}

macro_rules! put {
    ($self:ident, $method:ident, $value:expr) => {{
        // Writing to a Vec cannot fail.
        Encoder::new(&mut *$self.out).$method($value).map(|_| ()).expect("a vector takes bytes");
    }};
}

impl<'a> MapWriter<'a> {
    /// Begins a map at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(0xa0);
        Self { out, start, fields: 0, last_key: None }
    }

    /// Begins the field `key` and gives the place where its one value goes.
    pub fn field(&mut self, key: u64) -> &mut Vec<u8> {
        assert!(self.last_key.is_none_or(|last| last < key), "fields ascend");
        self.last_key = Some(key);
        self.fields += 1;
        put!(self, u64, key);
        self.out
    }

    /// An unsigned integer.
    pub fn u64(&mut self, key: u64, value: u64) {
        self.field(key);
        put!(self, u64, value);
    }

    /// A signed integer.
    pub fn i64(&mut self, key: u64, value: i64) {
        self.field(key);
        put!(self, i64, value);
    }

    /// A byte string.
    pub fn bytes(&mut self, key: u64, value: &[u8]) {
        self.field(key);
        put!(self, bytes, value);
    }

    /// A text string.
    pub fn text(&mut self, key: u64, value: &str) {
        self.field(key);
        put!(self, str, value);
    }

    /// An unsigned integer, left out when it is zero.
    pub fn u64_unless_zero(&mut self, key: u64, value: u64) {
        if value != 0 {
            self.u64(key, value);
        }
    }

    /// A nested record.
    pub fn record<R: Record>(&mut self, key: u64, value: &R) {
        value.encode_into(self.field(key));
    }

    /// An array, one call of `each` an item; left out when empty.
    pub fn list<T>(&mut self, key: u64, items: &[T], each: impl FnMut(&mut Vec<u8>, &T)) {
        if !items.is_empty() {
            list(self.field(key), items, each);
        }
    }

    /// The fields that were not known when this was read.
    pub fn extra(&mut self, extra: &Extra) {
        for (key, value) in &extra.0 {
            self.field(*key).extend_from_slice(value);
        }
    }

    /// Fills in the number of fields.
    pub fn end(self) {
        // Most maps have few fields, and their head is in place.
        if self.fields < 24 {
            self.out[self.start] |= self.fields.to_le_bytes()[0];
            return;
        }
        let mut head = Vec::with_capacity(9);
        Encoder::new(&mut head).map(self.fields).map(|_| ()).expect("a vector takes bytes");
        self.out.splice(self.start..=self.start, head);
    }
}

/// Appends an array to `out`.
pub fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    Encoder::new(&mut *out).array(items.len() as u64).map(|_| ()).expect("a vector takes bytes");
    items.iter().for_each(|item| each(out, item));
}

/// Appends a byte string to `out`.
pub fn push_bytes(out: &mut Vec<u8>, value: &[u8]) {
    Encoder::new(out).bytes(value).map(|_| ()).expect("a vector takes bytes");
}

/// Appends an unsigned integer to `out`.
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    Encoder::new(out).u64(value).map(|_| ()).expect("a vector takes bytes");
}

/// Appends a text string to `out`.
pub fn push_text(out: &mut Vec<u8>, value: &str) {
    Encoder::new(out).str(value).map(|_| ()).expect("a vector takes bytes");
}

/// Takes the fields of one map in ascending key order.
#[derive(Debug)]
pub struct MapReader<'d, 'b> {
    what: &'static str,
    decoder: &'d mut Decoder<'b>,
    /// Fields whose key has not been read yet.
    left: u64,
    next_key: Option<u64>,
}

impl<'d, 'b> MapReader<'d, 'b> {
    /// Begins to read a map of definite length.
    pub fn new(what: &'static str, decoder: &'d mut Decoder<'b>) -> Result<Self> {
        let left = decoder
            .map()
            .map_err(|error| fault(what, &error))?
            .ok_or_else(|| DecodeError::malformed(what, "a map of indefinite length"))?;
        let mut reader = Self { what, decoder, left, next_key: None };
        reader.advance(None)?;
        Ok(reader)
    }

    fn advance(&mut self, last: Option<u64>) -> Result<()> {
        self.next_key = None;
        if self.left > 0 {
            self.left -= 1;
            let key = self.decoder.u64().map_err(|error| fault(self.what, &error))?;
            if last.is_some_and(|last| last >= key) {
                return Err(DecodeError::malformed(self.what, format!("key {key} repeated or out of order")));
            }
            self.next_key = Some(key);
        }
        Ok(())
    }

    /// Reads the field `key` with `read`, or `None` when the map does not have it.
    pub fn optional<T>(&mut self, key: u64, read: impl FnOnce(&mut Decoder<'b>) -> Result<T>) -> Result<Option<T>> {
        match self.next_key {
            Some(next) if next == key => {
                let value = read(self.decoder)?;
                self.advance(Some(key))?;
                Ok(Some(value))
            }
            Some(next) if next < key => Err(DecodeError::unsupported(self.what, format!("field {next}"))),
            _ => Ok(None),
        }
    }

    /// Reads the field `key`, which must be there.
    pub fn required<T>(&mut self, key: u64, read: impl FnOnce(&mut Decoder<'b>) -> Result<T>) -> Result<T> {
        let what = self.what;
        self.optional(key, read)?.ok_or_else(|| DecodeError::malformed(what, format!("field {key} is missing")))
    }

    /// An unsigned integer that must be there.
    pub fn u64(&mut self, key: u64) -> Result<u64> {
        let what = self.what;
        self.required(key, |decoder| decoder.u64().map_err(|error| fault(what, &error)))
    }

    /// An unsigned integer of 32 bits that must be there.
    pub fn u32(&mut self, key: u64) -> Result<u32> {
        let what = self.what;
        self.required(key, |decoder| decoder.u32().map_err(|error| fault(what, &error)))
    }

    /// An unsigned integer that is zero when left out, and never zero when there.
    pub fn u64_or_zero(&mut self, key: u64) -> Result<u64> {
        let what = self.what;
        Ok(self.optional(key, |decoder| decoder.u64().map_err(|error| fault(what, &error)))?.unwrap_or(0))
    }

    /// A signed integer that must be there.
    pub fn i64(&mut self, key: u64) -> Result<i64> {
        let what = self.what;
        self.required(key, |decoder| decoder.i64().map_err(|error| fault(what, &error)))
    }

    /// A byte string that must be there.
    pub fn bytes(&mut self, key: u64) -> Result<&'b [u8]> {
        let what = self.what;
        self.required(key, |decoder| read_bytes(what, decoder))
    }

    /// A byte string that may be left out.
    pub fn optional_bytes(&mut self, key: u64) -> Result<Option<&'b [u8]>> {
        let what = self.what;
        self.optional(key, |decoder| read_bytes(what, decoder))
    }

    /// A byte string of exactly `N` bytes that must be there.
    pub fn array<const N: usize>(&mut self, key: u64) -> Result<[u8; N]> {
        let what = self.what;
        self.required(key, |decoder| read_array(what, decoder))
    }

    /// A text string that must be there.
    pub fn text(&mut self, key: u64) -> Result<&'b str> {
        let what = self.what;
        self.required(key, |decoder| read_text(what, decoder))
    }

    /// A text string that may be left out.
    pub fn optional_text(&mut self, key: u64) -> Result<Option<&'b str>> {
        let what = self.what;
        self.optional(key, |decoder| read_text(what, decoder))
    }

    /// A nested record that must be there.
    pub fn record<R: Record>(&mut self, key: u64) -> Result<R> {
        self.required(key, R::decode_from)
    }

    /// An array; empty when left out, and never empty when there.
    pub fn list<T>(&mut self, key: u64, each: impl FnMut(&mut Decoder<'b>) -> Result<T>) -> Result<Vec<T>> {
        let what = self.what;
        let items = self.optional(key, |decoder| read_list(what, decoder, each))?;
        match items {
            Some(items) if items.is_empty() => Err(DecodeError::malformed(what, format!("field {key} is empty"))),
            items => Ok(items.unwrap_or_default()),
        }
    }

    /// The same of no more than `most` items.
    pub fn list_of_at_most<T>(
        &mut self,
        key: u64,
        most: usize,
        mut each: impl FnMut(&mut Decoder<'b>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let what = self.what;
        let mut left = most;
        self.list(key, |decoder| {
            left = left
                .checked_sub(1)
                .ok_or_else(|| DecodeError::malformed(what, format!("field {key} has more than {most} items")))?;
            each(decoder)
        })
    }

    /// An array in ascending order with nothing twice; empty when left out, and never empty when there.
    pub fn ascending<T: Ord>(&mut self, key: u64, each: impl FnMut(&mut Decoder<'b>) -> Result<T>) -> Result<Vec<T>> {
        let what = self.what;
        let items = self.list(key, each)?;
        if items.is_sorted_by(|a, b| a < b) {
            Ok(items)
        } else {
            Err(DecodeError::malformed(what, format!("the items of field {key} are out of order or repeated")))
        }
    }

    /// The remaining fields, all of which must be ignorable.
    pub fn extra(&mut self) -> Result<Extra> {
        let mut extra = Extra::default();
        while let Some(key) = self.next_key {
            if key < FIRST_IGNORABLE_KEY {
                return Err(DecodeError::unsupported(self.what, format!("field {key}")));
            }
            let start = self.decoder.position();
            let value = &self.decoder.input()[start..];
            let value = &value[..item::length(self.what, value)?];
            extra.0.push((key, value.into()));
            self.decoder.set_position(start + value.len());
            self.advance(Some(key))?;
        }
        Ok(extra)
    }

    /// Refuses any field that was not taken.
    fn end(self) -> Result<()> {
        match self.next_key {
            None => Ok(()),
            Some(key) => Err(DecodeError::unsupported(self.what, format!("field {key}"))),
        }
    }
}

/// Reads an array of definite length, growing as items arrive and never from the claimed length.
pub fn read_list<'b, T>(
    what: &'static str,
    decoder: &mut Decoder<'b>,
    mut each: impl FnMut(&mut Decoder<'b>) -> Result<T>,
) -> Result<Vec<T>> {
    let claimed = decoder
        .array()
        .map_err(|error| fault(what, &error))?
        .ok_or_else(|| DecodeError::malformed(what, "an array of indefinite length"))?;
    // Every item takes at least a byte, so a longer claim cannot be true.
    let left = decoder.input().len().saturating_sub(decoder.position()) as u64;
    if claimed > left {
        return Err(DecodeError::Truncated { what, needed: claimed, found: left });
    }
    let mut items = Vec::new();
    for _ in 0..claimed {
        items.push(each(decoder)?);
    }
    Ok(items)
}

/// Reads a byte string of definite length.
pub fn read_bytes<'b>(what: &'static str, decoder: &mut Decoder<'b>) -> Result<&'b [u8]> {
    decoder.bytes().map_err(|error| fault(what, &error))
}

/// Reads a byte string of exactly `N` bytes.
pub fn read_array<const N: usize>(what: &'static str, decoder: &mut Decoder<'_>) -> Result<[u8; N]> {
    let bytes = read_bytes(what, decoder)?;
    bytes.try_into().map_err(|_| DecodeError::malformed(what, format!("{} bytes where {N} belong", bytes.len())))
}

/// Reads a text string of definite length.
pub fn read_text<'b>(what: &'static str, decoder: &mut Decoder<'b>) -> Result<&'b str> {
    decoder.str().map_err(|error| fault(what, &error))
}

/// Reads an unsigned integer.
pub fn read_u64(what: &'static str, decoder: &mut Decoder<'_>) -> Result<u64> {
    decoder.u64().map_err(|error| fault(what, &error))
}

/// A library error as one of ours.
pub fn fault(what: &'static str, error: &minicbor::decode::Error) -> DecodeError {
    if error.is_end_of_input() {
        DecodeError::Truncated { what, needed: 1, found: 0 }
    } else {
        DecodeError::malformed(what, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        number: u64,
        name: String,
        items: Vec<u64>,
        extra: Extra,
    }

    impl Record for Sample {
        const WHAT: &'static str = "sample";
        fn encode_map(&self, map: &mut MapWriter<'_>) {
            map.u64(1, self.number);
            map.text(2, &self.name);
            map.list(5, &self.items, |out, item| push_u64(out, *item));
            map.extra(&self.extra);
        }
        fn decode_map(map: &mut MapReader<'_, '_>) -> Result<Self> {
            Ok(Self {
                number: map.u64(1)?,
                name: map.text(2)?.to_owned(),
                items: map.list(5, |decoder| read_u64("sample", decoder))?,
                extra: map.extra()?,
            })
        }
    }

    fn sample() -> Sample {
        Sample { number: 300, name: "x".into(), items: vec![1, 2], extra: Extra::default() }
    }

    #[test]
    fn a_record_has_one_encoding() {
        let bytes = encode(&sample());
        assert_eq!(crate::id::hex(&bytes), "a301190 12c026178058 20102".replace(' ', ""));
        assert_eq!(decode::<Sample>(&bytes), Ok(sample()));
    }

    #[test]
    fn other_encodings_of_the_same_value_are_refused() {
        let bytes = encode(&sample());
        let hex = |text: &str| crate::id::unhex(text).unwrap();
        let trailing = [&bytes[..], &[0]].concat();
        for (bad, why) in [
            (trailing, "trailing byte"),
            (hex("a3011a0000012c02617805820102"), "a long integer"),
            (hex("a3026178011901 2c05820102".replace(' ', "").as_str()), "out of order"),
            (hex("a3011901 2c011901 2c026178".replace(' ', "").as_str()), "a key twice"),
            (hex("bf0119012c02617805820102ff"), "an indefinite map"),
            (hex("a30119012c02617805 80".replace(' ', "").as_str()), "an empty list that should be left out"),
            (hex("a30119012c026178059bffffffffffffffff"), "a giant list"),
            (hex("a10119012c"), "a missing field"),
            (bytes[..bytes.len() - 1].to_vec(), "cut short"),
            (vec![], "nothing"),
        ] {
            assert!(decode::<Sample>(&bad).is_err(), "{why}");
        }
    }

    #[test]
    fn an_unknown_key_refuses_below_64_and_is_kept_from_64_up() {
        let low = crate::id::unhex("a40119012c0261780582010206f6").unwrap();
        assert!(matches!(decode::<Sample>(&low), Err(DecodeError::Unsupported { .. })));
        let high = crate::id::unhex("a40119012c02617805820102184082f6f5").unwrap();
        let record = decode::<Sample>(&high).unwrap();
        assert_ne!(record.extra, Extra::default());
        assert_eq!(encode(&record), high);
    }
}
