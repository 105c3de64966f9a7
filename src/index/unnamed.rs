//! Files without a name, for what memory has no room for and nobody needs to find again.
//!
//! The system frees them when they are closed and unmapped, however the program ends.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::fs::memfd_create;

/// Empty files, each made when it is asked for: in `dir`, then, for when that is full, failing or
/// knows no memory maps, in the system's temporary directory, then, for when that is too, in
/// memory. So a cache that cannot be used costs room elsewhere, never a backup.
pub(crate) fn unnamed_files(dir: &Path) -> impl Iterator<Item = std::io::Result<File>> + Send + Sync + use<> {
    let dir = dir.to_path_buf();
    (0..3).map(move |place| match place {
        0 => unnamed_file(&dir),
        1 => unnamed_file(&std::env::temp_dir()),
        _ => Ok(File::from(memfd_create("esker-spilled", MemfdFlags::CLOEXEC)?)),
    })
}

/// Appends to a file without a name or, when that takes no more, to one in another place.
pub(crate) struct UnnamedWriter {
    files: Box<dyn Iterator<Item = std::io::Result<File>> + Send + Sync>,
    /// The file at hand and its length.
    file: Option<(Arc<File>, u64)>,
}

impl UnnamedWriter {
    /// Nothing yet, and files of which each is made when the one before takes no more.
    pub(crate) fn new(files: impl Iterator<Item = std::io::Result<File>> + Send + Sync + 'static) -> Self {
        Self { files: Box::new(files), file: None }
    }

    /// Appends bytes; says to which file, and where they begin. The error is the first of all places'.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> std::io::Result<(Arc<File>, u64)> {
        let mut first = None;
        loop {
            if let Some((file, length)) = &mut self.file {
                match file.write_all_at(bytes, *length) {
                    Ok(()) => {
                        let start = *length;
                        *length += bytes.len() as u64;
                        return Ok((file.clone(), start));
                    }
                    Err(error) => first = first.or(Some(error)),
                }
            }
            self.file = match self.files.next() {
                Some(Ok(file)) => Some((Arc::new(file), 0)),
                Some(Err(error)) => {
                    first = first.or(Some(error));
                    None
                }
                None => return Err(first.unwrap_or_else(|| ErrorKind::StorageFull.into())),
            };
        }
    }
}

/// An empty file that has no name any more.
pub(super) fn unnamed_file(dir: &Path) -> std::io::Result<File> {
    loop {
        let path = dir.join(format!("unnamed-{:016x}", unique()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Somebody has cleared the cache meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && !dir.exists() => {
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A number unlikely to be seen twice. It decides nothing that is stored in a repository, so it
/// need not come from the [`crate::world::World`].
pub(super) fn unique() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id())
}
