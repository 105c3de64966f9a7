//! The sealed secrets of sessions, while there is no database to keep them in.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::unnamed::UnnamedWriter;
use super::unnamed::unnamed_files;

/// Envelopes by their BLAKE3, in a file without a name: each is longer than a kilobyte, there is
/// one for each session, and few are asked for.
pub(super) struct Envelopes {
    file: UnnamedWriter,
    places: HashMap<[u8; 32], Place>,
}

struct Place {
    file: Arc<File>,
    start: u64,
    length: usize,
}

impl std::fmt::Debug for Envelopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Envelopes({})", self.places.len())
    }
}

impl Envelopes {
    /// None, and a directory for the file.
    pub(super) fn new(dir: &Path) -> Self {
        Self { file: UnnamedWriter::new(unnamed_files(dir)), places: HashMap::new() }
    }

    /// Remembers one. What cannot be written is forgotten: it is in the repository.
    pub(super) fn put(&mut self, hash: [u8; 32], envelope: &[u8]) {
        if !self.places.contains_key(&hash)
            && let Ok((file, start)) = self.file.append(envelope)
        {
            self.places.insert(hash, Place { file, start, length: envelope.len() });
        }
    }

    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Vec<u8>> {
        let place = self.places.get(hash)?;
        let mut envelope = vec![0; place.length];
        place.file.read_exact_at(&mut envelope, place.start).ok()?;
        Some(envelope)
    }
}
