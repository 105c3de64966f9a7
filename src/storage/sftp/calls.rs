//! What is asked of a session, as calls: the right reply or a [`Refusal`].
//!
//! Whole files go over in pieces, of which [`PIECES_IN_FLIGHT`] are under way at once, so that
//! the distance to the server costs once and not with each piece.

use std::collections::VecDeque;

use super::session::{Answer, Session};
use super::wire::{self, Attributes, Code, Entry, Reply, Request, Space, Status};
use crate::storage::{Error, ErrorKind};

/// Pieces of one file under way at once: at 256 KiB each as much as a fast, far line holds.
const PIECES_IN_FLIGHT: usize = 64;

/// A request that a server did not fulfil.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It says so.
    Status(Status),
    /// The session is lost, or what came is no answer to what was asked.
    Session(Error),
}

pub(super) type Called<T> = std::result::Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl Refusal {
    /// The status the server gave.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) => Some(status.code),
            Self::Session(_) => None,
        }
    }

    pub(super) fn is_no_such_file(&self) -> bool {
        self.code() == Some(Code::NoSuchFile)
    }
}

/// What a reply of another kind than expected means.
fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Status(status) if status.code != Code::Ok => Refusal::Status(status),
        _ => unfit(),
    }
}

fn unfit() -> Refusal {
    Refusal::Session(Error::new(ErrorKind::Io, "the server's answer does not fit what was asked"))
}

/// An open file or directory of the server, closed when dropped.
#[derive(Debug)]
pub(super) struct Handle<'a> {
    session: &'a Session,
    bytes: Vec<u8>,
    closed: bool,
}

impl Handle<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Closes it, and says if that failed.
    pub(super) fn close(mut self) -> Called<()> {
        self.closed = true;
        self.session.send(&Request::Close { handle: &self.bytes })?.done()
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        if !self.closed {
            // Nothing depends on the answer.
            let _ = self.session.send(&Request::Close { handle: &self.bytes });
        }
    }
}

impl<'a> Answer<'a> {
    /// Waits for the word that it is done.
    pub(super) fn done(self) -> Called<()> {
        match self.wait()? {
            Reply::Status(status) if status.code == Code::Ok => Ok(()),
            other => Err(refusal(other)),
        }
    }

    /// Waits for what a file is.
    pub(super) fn attributes(self) -> Called<Attributes> {
        match self.wait()? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => Err(refusal(other)),
        }
    }

    /// Waits for an open file.
    pub(super) fn handle(self) -> Called<Handle<'a>> {
        let session = self.session();
        match self.wait()? {
            Reply::Handle(bytes) => Ok(Handle { session, bytes, closed: false }),
            other => Err(refusal(other)),
        }
    }

    /// Waits for more names of a directory; none after the last.
    pub(super) fn names(self) -> Called<Option<Vec<Entry>>> {
        match self.wait()? {
            Reply::Names(entries) => Ok(Some(entries)),
            Reply::Status(status) if status.code == Code::EndOfFile => Ok(None),
            other => Err(refusal(other)),
        }
    }
}

impl Session {
    /// The one absolute path of what is at `path`.
    pub(super) fn real_path(&self, path: &str) -> Called<String> {
        match self.send(&Request::RealPath { path })?.wait()? {
            Reply::Names(mut entries) if entries.len() == 1 => String::from_utf8(entries.swap_remove(0).name)
                .map_err(|_| Refusal::Session(Error::new(ErrorKind::Io, format!("the path of `{path}` is not UTF-8")))),
            other => Err(refusal(other)),
        }
    }

    /// What room is left where `path` is, if the server can tell.
    pub(super) fn space(&self, path: &str) -> Option<Space> {
        let answer = self.features().space.then(|| self.send(&Request::Space { path }))?;
        match answer.and_then(Answer::wait) {
            Ok(Reply::Extended(reply)) => wire::decode_space(&reply).ok(),
            _ => None,
        }
    }

    /// Fills `buffer` from `offset`. How much of it: less only where the file ends.
    pub(super) fn read(&self, handle: &Handle<'_>, offset: u64, buffer: &mut [u8]) -> Called<usize> {
        let piece = usize_of(self.features().read_bytes);
        let ask = |from: usize, to: usize| {
            let length = u32::try_from(to - from).expect("a piece is short");
            let offset = offset.checked_add(from as u64).ok_or_else(unfit)?;
            Ok::<_, Refusal>((from, to, self.send(&Request::Read { handle: handle.bytes(), offset, length })?))
        };
        let mut end = buffer.len();
        let mut asked = 0;
        let mut pieces = VecDeque::new();
        loop {
            while asked < end && pieces.len() < PIECES_IN_FLIGHT {
                let to = end.min(asked + piece);
                pieces.push_back(ask(asked, to)?);
                asked = to;
            }
            let Some((from, to, answer)) = pieces.pop_front() else { return Ok(end) };
            match answer.wait()? {
                Reply::Data(data) if (1..=to - from).contains(&data.len()) => {
                    let middle = from + data.len();
                    buffer[from..middle].copy_from_slice(&data);
                    if middle < to {
                        pieces.push_back(ask(middle, to)?);
                    }
                }
                Reply::Status(status) if status.code == Code::EndOfFile => end = end.min(from),
                other => return Err(refusal(other)),
            }
        }
    }

    /// Writes `bytes` at the beginning; done when the server has acknowledged every piece.
    pub(super) fn write(&self, handle: &Handle<'_>, bytes: &[u8]) -> Called<()> {
        let mut pieces = VecDeque::new();
        let mut offset = 0;
        for data in bytes.chunks(usize_of(self.features().write_bytes)) {
            if pieces.len() == PIECES_IN_FLIGHT
                && let Some(oldest) = pieces.pop_front()
            {
                Answer::done(oldest)?;
            }
            pieces.push_back(self.send(&Request::Write { handle: handle.bytes(), offset, data })?);
            offset += data.len() as u64;
        }
        pieces.into_iter().try_for_each(Answer::done)
    }
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The error of a call about `object`, an object or a directory of objects.
pub(super) fn failure(what: &str, place: &str, object: &str, refusal: Refusal) -> Error {
    let status = match refusal {
        Refusal::Session(error) => return error,
        Refusal::Status(status) => status,
    };
    if status.code == Code::NoSuchFile {
        return Error::not_found(object);
    }
    failed(what, place, status)
}

/// The error of making something, where something missing on the way is no missing object.
pub(super) fn write_failure(place: &str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Session(error) => error,
        Refusal::Status(status) => failed("cannot write", place, status),
    }
}

fn failed(what: &str, place: &str, status: Status) -> Error {
    let kind = match status.code {
        Code::PermissionDenied => ErrorKind::Denied,
        Code::NoConnection | Code::ConnectionLost => ErrorKind::Transient,
        _ => ErrorKind::Io,
    };
    let clean: String = status.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = match (clean.trim(), status.code) {
        ("", code) => format!("the server says: {code:?}"),
        // The one word OpenSSH has for all it has no code for.
        ("Failure", _) => "the server says no more than: Failure".to_owned(),
        (words, _) => format!("the server says: {words}"),
    };
    Error::new(kind, format!("{what} `{place}`")).because(words)
}
