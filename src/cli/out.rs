//! Results, on their way to stdout.
//!
//! When the reader of a pipe has gone, a summary has nobody to read it and is dropped; a listing
//! ends there, quietly.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::fail::{Fail, Result};
use crate::path::turns_text_around;

/// Stdout. Cheap to clone.
#[derive(Clone)]
pub(super) struct Out {
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Out {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)) }
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of a listing.
    pub(super) fn line(&self, text: &str) -> Result<()> {
        writeln!(self.lock(), "{text}").map_err(Fail::Output)
    }

    /// A summary of what was done; that nobody reads it takes nothing back.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        let mut writer = self.lock();
        match writeln!(writer, "{text}").and_then(|()| writer.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(Fail::Output),
        }
    }

    /// An object or array as a line of JSON.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|error| Fail::Output(error.into()))?;
        self.line(&escaped(text))
    }

    /// A part of a line.
    pub(super) fn part(&self, text: &str) -> Result<()> {
        write!(self.lock(), "{text}").map_err(Fail::Output)
    }

    /// An object or array as a part of a line of JSON.
    pub(super) fn json_part(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|error| Fail::Output(error.into()))?;
        self.part(&escaped(text))
    }

    /// The stream itself, for bytes.
    pub(super) fn with_stream<T>(&self, write: impl FnOnce(&mut dyn Write) -> T) -> T {
        write(&mut **self.lock())
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.lock().flush().map_err(Fail::Output)
    }
}

/// JSON that says the same and steers no terminal. Only strings have such characters, and JSON has a
/// way to write them.
pub(super) fn escaped(json: String) -> String {
    let steers = |c: char| c.is_control() || turns_text_around(c);
    if !json.contains(steers) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        // All of them are one unit of UTF-16.
        if steers(c) { text.push_str(&format!("\\u{:04x}", u32::from(c))) } else { text.push(c) }
    }
    text
}
