//! Listing a directory tree of the server: all of it or an error.
//!
//! One thread keeps many requests in flight: a repository has hundreds of directories, and going
//! through them one by one would cost three round trips each.

use std::collections::VecDeque;

use super::calls::{Called, Handle, failure};
use super::session::{Answer, Session};
use super::wire::{Attributes, Code, Entry, FileType, Request};
use super::{Server, object_bytes};
use crate::storage::{Error, Listed, Result, name};

/// Requests in flight.
const REQUESTS: usize = 64;

/// What is awaited of a directory.
enum Step<'a> {
    Opened(String, Answer<'a>),
    Read(String, Handle<'a>, Answer<'a>),
    /// The server did not say in the directory what this is.
    Looked(String, Answer<'a>),
}

impl Server {
    /// Lists what stands under `prefix`, which is empty or ends in a slash.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let session = self.pool.session()?;
        let mut walk = Walk { server: self, session: &session, listed: Vec::new(), pending: Vec::new() };
        if walk.is_directory(prefix)? {
            walk.pending.push(prefix.to_owned());
            walk.run()?;
        }
        walk.listed.sort();
        // A directory that changes while it is read may show a name twice.
        walk.listed.dedup_by(|a, b| a.name == b.name);
        Ok(walk.listed)
    }
}

struct Walk<'a> {
    server: &'a Server,
    session: &'a Session,
    listed: Vec<Listed>,
    /// Directories to open.
    pending: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Whether something can stand under `prefix`. A server follows symbolic links on the way and
    /// says "no such file" of one that leads nowhere, which must not pass for an empty directory.
    fn is_directory(&self, prefix: &str) -> Result<bool> {
        let ends = prefix.match_indices('/').map(|(end, _)| &prefix[..end]);
        let look =
            |directory| Ok((directory, self.session.send(&Request::LinkStatus { path: &self.path(directory) })?));
        let looked: Vec<(&str, Answer<'_>)> = ends.map(look).collect::<Result<_>>()?;
        for (directory, answer) in looked {
            match answer.attributes() {
                Ok(attributes) => match attributes.file_type() {
                    FileType::Directory => {}
                    // Nothing can stand under an object.
                    FileType::File => return Ok(false),
                    FileType::Other | FileType::Unknown => return Err(self.server.no_file(directory)),
                },
                Err(refusal) if refusal.is_no_such_file() => return Ok(false),
                Err(refusal) => return Err(self.fault(directory, refusal)),
            }
        }
        Ok(true)
    }

    fn run(&mut self) -> Result<()> {
        let mut steps: VecDeque<Step<'a>> = VecDeque::new();
        loop {
            while steps.len() < REQUESTS
                && let Some(directory) = self.pending.pop()
            {
                let path = self.path(directory.trim_end_matches('/'));
                steps.push_back(Step::Opened(directory, self.session.send(&Request::OpenDirectory { path: &path })?));
            }
            let Some(step) = steps.pop_front() else { return Ok(()) };
            match step {
                Step::Opened(directory, answer) => match answer.handle() {
                    Ok(handle) => steps.push_back(self.read(directory, handle)?),
                    // Removed since its name was read.
                    Err(refusal) if refusal.is_no_such_file() && !directory.is_empty() => {}
                    Err(refusal) => return Err(self.fault(&directory, refusal)),
                },
                Step::Read(directory, handle, answer) => {
                    if let Some(entries) = answer.names().map_err(|refusal| self.fault(&directory, refusal))? {
                        for entry in entries {
                            steps.extend(self.entry(&directory, &entry)?);
                        }
                        steps.push_back(self.read(directory, handle)?);
                    }
                }
                Step::Looked(name, answer) => self.looked(name, answer.attributes())?,
            }
        }
    }

    fn read(&self, directory: String, handle: Handle<'a>) -> Result<Step<'a>> {
        let answer = self.session.send(&Request::ReadDirectory { handle: handle.bytes() })?;
        Ok(Step::Read(directory, handle, answer))
    }

    /// Takes in one entry, or asks what it is.
    fn entry(&mut self, directory: &str, entry: &Entry) -> Result<Option<Step<'a>>> {
        let Ok(file_name) = std::str::from_utf8(&entry.name) else { return Ok(None) };
        if !name::is_component(file_name) || directory.is_empty() && file_name == name::TEMPORARY {
            return Ok(None);
        }
        let name = format!("{directory}{file_name}");
        match (entry.attributes.file_type(), entry.attributes.bytes) {
            (FileType::Unknown, _) | (FileType::File, None) => {
                let answer = self.session.send(&Request::LinkStatus { path: &self.path(&name) })?;
                Ok(Some(Step::Looked(name, answer)))
            }
            _ => self.found(name, &entry.attributes).map(|()| None),
        }
    }

    fn looked(&mut self, name: String, attributes: Called<Attributes>) -> Result<()> {
        match attributes {
            Ok(attributes) => self.found(name, &attributes),
            // Deleted since its name was read.
            Err(refusal) if refusal.code() == Some(Code::NoSuchFile) => Ok(()),
            Err(refusal) => Err(self.fault(&name, refusal)),
        }
    }

    fn found(&mut self, name: String, attributes: &Attributes) -> Result<()> {
        if attributes.file_type() == FileType::Directory {
            self.pending.push(name + "/");
        } else {
            let bytes = object_bytes(self.server, &name, attributes)?;
            self.listed.push(Listed { name, bytes });
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.server.path(name)
    }

    fn fault(&self, directory: &str, refusal: super::calls::Refusal) -> Error {
        let place = self.server.place_of(directory);
        // A directory that cannot be listed is no missing object.
        match refusal.is_no_such_file() {
            true => failure("cannot list", &place, &place, refusal),
            false => failure("cannot list", &place, directory, refusal),
        }
    }
}
