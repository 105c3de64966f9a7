//! Doors for the targets of `fuzz/` into decoders that are private. No part of the API.

use std::fs::File;

use crate::backup;
use crate::cli;
use crate::format;
use crate::index;
use crate::world::Time;

/// Reads the rows in the opened text of a block of a change record; gives them written again.
pub fn rewritten_change_record(block: &[u8]) -> format::Result<Vec<u8>> {
    backup::rewritten_rows(block)
}

/// Opens a run of the local catalog and asks it for each of its rows, for `strangers` and for all
/// at once by merging it. How many rows it has, or `None` when it is refused.
pub fn ask_run(file: &File, strangers: &[[u8; 32]]) -> Option<u64> {
    index::ask_run(file, strangers)
}

/// Reads a packet from an SFTP server as each thing it may be; how many of them it is.
#[cfg(feature = "sftp")]
pub fn read_sftp_packet(packet: &[u8]) -> usize {
    crate::storage::sftp::wire::read_as_everything(packet)
}

/// Reads the body of a pins file, its checksum made right; gives it written again.
pub fn rewritten_pins(body: &str) -> Option<String> {
    crate::repo::pins::file::rewritten(body)
}

/// Reads the body of a file of a scrub's ages, its checksum made right; gives it written again.
pub fn rewritten_ages(body: &str) -> Option<String> {
    crate::scrub::ages::rewritten(body)
}

/// Reads a size as it is typed.
pub fn parse_size(text: &str) -> Option<u64> {
    cli::parse_size(text)
}

/// Reads a moment as it is typed, in UTC.
pub fn parse_time(text: &str, now: Time) -> Option<Time> {
    cli::parse_time(text, now)
}
