//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions.
//!
//! Bytes to values and back, nothing else. A server is not trusted: a packet that ends early,
//! goes on too long or is of no known kind is [`Malformed`], and nothing is allocated for a
//! length that is not there.

#![expect(clippy::big_endian_bytes, reason = "SSH is big-endian")]

/// The version that is spoken, and that servers speak.
pub(super) const VERSION: u32 = 3;

/// The longest packet taken from a server. Data is asked for in pieces below it, and no server
/// sends names of a directory by the thousand.
pub(super) const PACKET_BYTES_MAX: usize = 1 << 20;

/// Flags of [`Request::Open`].
pub(super) const READ: u32 = 0x01;
pub(super) const WRITE: u32 = 0x02;
pub(super) const CREATE: u32 = 0x08;
pub(super) const EXCLUSIVE: u32 = 0x20;

const ATTRIBUTE_SIZE: u32 = 0x01;
const ATTRIBUTE_OWNER: u32 = 0x02;
const ATTRIBUTE_MODE: u32 = 0x04;
const ATTRIBUTE_TIMES: u32 = 0x08;
const ATTRIBUTE_EXTENDED: u32 = 0x8000_0000;

/// What is asked of a server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    Open {
        path: &'a str,
        flags: u32,
        mode: u32,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    /// Of the path itself, if it is a symbolic link.
    LinkStatus {
        path: &'a str,
    },
    Status {
        path: &'a str,
    },
    HandleStatus {
        handle: &'a [u8],
    },
    OpenDirectory {
        path: &'a str,
    },
    ReadDirectory {
        handle: &'a [u8],
    },
    Remove {
        path: &'a str,
    },
    MakeDirectory {
        path: &'a str,
        mode: u32,
    },
    RealPath {
        path: &'a str,
    },
    /// Which replaces nothing, as version 3 wants it.
    Rename {
        from: &'a str,
        to: &'a str,
    },
    /// `posix-rename@openssh.com`, which replaces.
    PosixRename {
        from: &'a str,
        to: &'a str,
    },
    /// `hardlink@openssh.com`.
    HardLink {
        from: &'a str,
        to: &'a str,
    },
    /// `fsync@openssh.com`.
    Sync {
        handle: &'a [u8],
    },
    /// `statvfs@openssh.com`.
    Space {
        path: &'a str,
    },
    /// `limits@openssh.com`.
    Limits,
}

impl Request<'_> {
    /// The packet, its length first.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        let mut packet = match self {
            Request::Write { data, .. } => Vec::with_capacity(data.len() + 64),
            _ => Vec::with_capacity(128),
        };
        packet.extend([0; 4]);
        let mut begin = |kind: u8| {
            packet.push(kind);
            packet.extend(id.to_be_bytes());
        };
        match *self {
            Request::Open { path, flags, mode } => {
                begin(3);
                put_string(&mut packet, path.as_bytes());
                packet.extend(flags.to_be_bytes());
                put_mode(&mut packet, mode);
            }
            Request::Close { handle } => {
                begin(4);
                put_string(&mut packet, handle);
            }
            Request::Read { handle, offset, length } => {
                begin(5);
                put_string(&mut packet, handle);
                packet.extend(offset.to_be_bytes());
                packet.extend(length.to_be_bytes());
            }
            Request::Write { handle, offset, data } => {
                begin(6);
                put_string(&mut packet, handle);
                packet.extend(offset.to_be_bytes());
                put_string(&mut packet, data);
            }
            Request::LinkStatus { path } => {
                begin(7);
                put_string(&mut packet, path.as_bytes());
            }
            Request::HandleStatus { handle } => {
                begin(8);
                put_string(&mut packet, handle);
            }
            Request::OpenDirectory { path } => {
                begin(11);
                put_string(&mut packet, path.as_bytes());
            }
            Request::ReadDirectory { handle } => {
                begin(12);
                put_string(&mut packet, handle);
            }
            Request::Remove { path } => {
                begin(13);
                put_string(&mut packet, path.as_bytes());
            }
            Request::MakeDirectory { path, mode } => {
                begin(14);
                put_string(&mut packet, path.as_bytes());
                put_mode(&mut packet, mode);
            }
            Request::RealPath { path } => {
                begin(16);
                put_string(&mut packet, path.as_bytes());
            }
            Request::Status { path } => {
                begin(17);
                put_string(&mut packet, path.as_bytes());
            }
            Request::Rename { from, to } => {
                begin(18);
                put_string(&mut packet, from.as_bytes());
                put_string(&mut packet, to.as_bytes());
            }
            Request::PosixRename { from, to } => {
                begin(200);
                put_extension(&mut packet, "posix-rename@openssh.com", &[from.as_bytes(), to.as_bytes()]);
            }
            Request::HardLink { from, to } => {
                begin(200);
                put_extension(&mut packet, "hardlink@openssh.com", &[from.as_bytes(), to.as_bytes()]);
            }
            Request::Sync { handle } => {
                begin(200);
                put_extension(&mut packet, "fsync@openssh.com", &[handle]);
            }
            Request::Space { path } => {
                begin(200);
                put_extension(&mut packet, "statvfs@openssh.com", &[path.as_bytes()]);
            }
            Request::Limits => {
                begin(200);
                put_extension(&mut packet, "limits@openssh.com", &[]);
            }
        }
        finish(packet)
    }
}

/// The first packet of a client.
pub(super) fn hello() -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 1];
    packet.extend(VERSION.to_be_bytes());
    finish(packet)
}

fn finish(mut packet: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(packet.len() - 4).expect("requests are far shorter than 4 GiB");
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn put_string(packet: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("strings of requests are far shorter than 4 GiB");
    packet.extend(length.to_be_bytes());
    packet.extend_from_slice(bytes);
}

fn put_mode(packet: &mut Vec<u8>, mode: u32) {
    packet.extend(ATTRIBUTE_MODE.to_be_bytes());
    packet.extend(mode.to_be_bytes());
}

fn put_extension(packet: &mut Vec<u8>, name: &str, strings: &[&[u8]]) {
    put_string(packet, name.as_bytes());
    strings.iter().for_each(|string| put_string(packet, string));
}

/// How many bytes follow the length of a packet.
pub(super) fn packet_bytes(length: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
}

/// A packet that is not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

type Decoded<T> = Result<T, Malformed>;

/// How a request ended, in the few words SFTP has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    /// The server's words, which often only repeat the code.
    pub(super) message: String,
}

/// A status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok,
    EndOfFile,
    NoSuchFile,
    PermissionDenied,
    /// Anything the protocol has no code for: a name that is taken, a full disk, a broken one.
    Failure,
    BadMessage,
    NoConnection,
    ConnectionLost,
    Unsupported,
    Other(u32),
}

/// What a server says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    pub(super) bytes: Option<u64>,
    /// File type and permissions as in `st_mode`.
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

/// What a path is, as far as storages care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    File,
    Directory,
    Other,
    /// The server did not say.
    Unknown,
}

impl Attributes {
    pub(super) fn file_type(&self) -> FileType {
        match self.mode.map(|mode| mode & 0o170_000) {
            Some(0o100_000) => FileType::File,
            Some(0o040_000) => FileType::Directory,
            Some(0) | None => FileType::Unknown,
            Some(_) => FileType::Other,
        }
    }
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// What `statvfs` tells, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) bytes_available: u64,
    pub(super) files_available: u64,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<Entry>),
    Attributes(Attributes),
    Extended(Vec<u8>),
}

impl Reply {
    /// The request this answers, and the answer. `packet` begins after its length.
    pub(super) fn decode(packet: &[u8]) -> Decoded<(u32, Self)> {
        let mut cursor = Cursor(packet);
        let kind = cursor.byte()?;
        let id = cursor.number()?;
        let reply = match kind {
            101 => {
                let code = match cursor.number()? {
                    0 => Code::Ok,
                    1 => Code::EndOfFile,
                    2 => Code::NoSuchFile,
                    3 => Code::PermissionDenied,
                    4 => Code::Failure,
                    5 => Code::BadMessage,
                    6 => Code::NoConnection,
                    7 => Code::ConnectionLost,
                    8 => Code::Unsupported,
                    other => Code::Other(other),
                };
                // Servers of older versions send no message, and some no language.
                let message = if cursor.0.is_empty() { &[] } else { cursor.string()? };
                cursor.0 = &[];
                Reply::Status(Status { code, message: String::from_utf8_lossy(message).into_owned() })
            }
            102 => Reply::Handle(cursor.string()?.to_vec()),
            103 => Reply::Data(cursor.string()?.to_vec()),
            104 => {
                let count = cursor.number()?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    let name = cursor.string()?.to_vec();
                    cursor.string()?;
                    entries.push(Entry { name, attributes: cursor.attributes()? });
                }
                // Some servers add a flag that says whether these are the last.
                cursor.0 = &[];
                Reply::Names(entries)
            }
            105 => Reply::Attributes(cursor.attributes()?),
            201 => Reply::Extended(std::mem::take(&mut cursor.0).to_vec()),
            _ => return Err(Malformed),
        };
        if cursor.0.is_empty() { Ok((id, reply)) } else { Err(Malformed) }
    }
}

/// Version and extensions of a server, from its first packet.
pub(super) fn decode_hello(packet: &[u8]) -> Decoded<(u32, Vec<String>)> {
    let mut cursor = Cursor(packet);
    if cursor.byte()? != 2 {
        return Err(Malformed);
    }
    let version = cursor.number()?;
    let mut extensions = Vec::new();
    while !cursor.0.is_empty() {
        extensions.push(String::from_utf8_lossy(cursor.string()?).into_owned());
        cursor.string()?;
    }
    Ok((version, extensions))
}

/// The longest read and the longest write that a server takes, from its answer to
/// [`Request::Limits`]; zero where it does not say.
pub(super) fn decode_limits(reply: &[u8]) -> Decoded<(u64, u64)> {
    let mut cursor = Cursor(reply);
    let _packet = cursor.long()?;
    Ok((cursor.long()?, cursor.long()?))
}

/// The answer to [`Request::Space`].
pub(super) fn decode_space(reply: &[u8]) -> Decoded<Space> {
    let mut cursor = Cursor(reply);
    let _block_bytes = cursor.long()?;
    let fragment_bytes = cursor.long()?;
    let (_blocks, _free) = (cursor.long()?, cursor.long()?);
    let available = cursor.long()?;
    let (_files, _files_free) = (cursor.long()?, cursor.long()?);
    let files_available = cursor.long()?;
    Ok(Space { bytes_available: available.saturating_mul(fragment_bytes), files_available })
}

/// What is left of a packet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn long(&mut self) -> Decoded<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn string(&mut self) -> Decoded<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    fn attributes(&mut self) -> Decoded<Attributes> {
        let flags = self.number()?;
        let mut attributes = Attributes::default();
        if flags & ATTRIBUTE_SIZE != 0 {
            attributes.bytes = Some(self.long()?);
        }
        if flags & ATTRIBUTE_OWNER != 0 {
            self.take(8)?;
        }
        if flags & ATTRIBUTE_MODE != 0 {
            attributes.mode = Some(self.number()?);
        }
        if flags & ATTRIBUTE_TIMES != 0 {
            self.take(4)?;
            attributes.modified = Some(self.number()?);
        }
        if flags & ATTRIBUTE_EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

/// Reads a packet from a server as each thing it may be; how many of them it is.
pub(crate) fn read_as_everything(packet: &[u8]) -> usize {
    let read = [
        Reply::decode(packet).is_ok(),
        decode_hello(packet).is_ok(),
        decode_limits(packet).is_ok(),
        decode_space(packet).is_ok(),
    ];
    read.iter().filter(|good| **good).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The draft's layouts, written out by hand.
    #[test]
    fn requests_are_laid_out_as_the_draft_says() {
        assert_eq!(hello(), hex("00000005 01 00000003"));
        let open = Request::Open { path: "a/b", flags: WRITE | CREATE | EXCLUSIVE, mode: 0o600 };
        assert_eq!(
            open.encode(7),
            hex("00000018 03 00000007 00000003 612f62 0000002a 00000004 00000180 ")[..].to_vec()
        );
        let write = Request::Write { handle: b"h", offset: 0x1_0000_0000, data: b"xyz" };
        assert_eq!(write.encode(1), hex("00000019 06 00000001 00000001 68 0000000100000000 00000003 78797a"));
        let sync = Request::Sync { handle: b"h" };
        assert_eq!(sync.encode(2), hex("0000001f c8 00000002 00000011 6673796e63406f70656e7373682e636f6d 00000001 68"));
    }

    #[test]
    fn replies_are_read_and_odd_ones_refused() {
        let status = hex("65 00000009 00000004 00000007 4661696c757265 00000000");
        let failure = Status { code: Code::Failure, message: "Failure".to_owned() };
        assert_eq!(Reply::decode(&status), Ok((9, Reply::Status(failure))));
        let bare = Status { code: Code::Ok, message: String::new() };
        assert_eq!(Reply::decode(&hex("65 00000001 00000000")), Ok((1, Reply::Status(bare))));
        let attributes = hex("69 00000001 0000000d 0000000000000005 000081a4 00000001 00000002");
        let found = Attributes { bytes: Some(5), mode: Some(0o100_644), modified: Some(2) };
        assert_eq!(found.file_type(), FileType::File);
        assert_eq!(Reply::decode(&attributes), Ok((1, Reply::Attributes(found))));
        for length in 0..attributes.len() {
            assert_eq!(Reply::decode(&attributes[..length]), Err(Malformed), "{length} bytes");
        }
        // A count of names, and a length, for which nothing may be allocated; an unknown kind.
        assert_eq!(Reply::decode(&hex("68 00000001 ffffffff")), Err(Malformed));
        assert_eq!(Reply::decode(&hex("67 00000001 ffffffff 00")), Err(Malformed));
        assert_eq!(Reply::decode(&hex("63 00000001")), Err(Malformed));
        assert_eq!(Reply::decode(&hex("67 00000001 00000001 78 00")), Err(Malformed), "bytes after the end");
    }

    #[test]
    fn a_server_may_say_hello_with_extensions() {
        let packet = hex("02 00000003 00000011 6673796e63406f70656e7373682e636f6d 00000001 31");
        assert_eq!(decode_hello(&packet), Ok((3, vec!["fsync@openssh.com".to_owned()])));
        assert_eq!(decode_hello(&packet[..packet.len() - 1]), Err(Malformed));
        assert_eq!(decode_hello(b"Welcome to this host"), Err(Malformed));
    }
}
