//! Finding out, before a repository is made, whether a storage keeps what SPEC §2.1 asks of it.
//!
//! Small objects below `probe/` and a random name are put, read, listed, replaced and deleted.
//! A credential that may not delete passes all the same: what is left harms nothing and is said.
//! Whether *create new* is kept is found out too, once in sequence and once in a race, because
//! services claim it that do not; nothing rests on it, but a bucket policy can build on it.

use std::sync::Barrier;

use super::{Error, ErrorKind, Result, Storage, WriteMode};

/// Folder of the probes; what is in it is no part of a repository (SPEC §2.1).
pub const PROBE: &str = "probe/";

/// How many race for one name.
const RACERS: u8 = 4;

/// Bytes of a probe: more than a server would keep beside its metadata.
const PROBE_BYTES: usize = 6000;

/// How a storage keeps [`WriteMode::CreateNew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creates {
    /// What is there is never replaced.
    Exactly,
    /// What is there is not replaced, but of several at the same time more than one may succeed.
    NotInRaces,
    /// It replaces what is there.
    Replacing,
}

/// What a probe found of a storage that will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// How it keeps *create new*.
    pub creates: Creates,
    /// Whether deleted objects are seen for a while, which does no harm.
    pub deletes_late: bool,
    /// The objects that may not be deleted by this credential, and so are still there.
    pub leftovers: Vec<String>,
}

/// Tries out what a repository needs. `random` names the objects and fills them.
///
/// An error names what the storage lacks or what it did not do.
pub fn probe(storage: &dyn Storage, random: [u8; 16]) -> Result<Findings> {
    let prober = Prober { storage, folder: format!("{PROBE}{}/", crate::id::hex(&random)), random };
    let found = prober.needs().and_then(|deletes_late| Ok((deletes_late, prober.creates()?)));
    // Whatever came of it, nothing is left if that can be.
    let leftovers = prober.clean_up(found.is_ok());
    let (deletes_late, creates) = found?;
    Ok(Findings { creates, deletes_late, leftovers: leftovers? })
}

struct Prober<'s> {
    storage: &'s dyn Storage,
    folder: String,
    random: [u8; 16],
}

impl Prober<'_> {
    /// Bytes that nobody else has put, different for each number.
    fn bytes(&self, number: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.random).update(&[number]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    /// The error that something is not as it must be.
    fn lacks(&self, what: &str) -> Error {
        Error::new(ErrorKind::Io, format!("the storage `{}` will not do: {what}", self.storage.place()))
    }

    /// Passes a result on; of an error, says what was tried.
    fn tried<T>(&self, what: &str, result: Result<T>) -> Result<T> {
        result.map_err(|error| Error::new(error.kind(), format!("the storage does not let us {what}")).because(error))
    }

    /// What SPEC §2.1 asks for, in the order in which a repository uses it. Gives whether a deleted
    /// object is still seen.
    fn needs(&self) -> Result<bool> {
        let (storage, name, first) = (self.storage, self.name("a"), self.bytes(0, PROBE_BYTES));
        self.tried("put an object", storage.put(&name, &first, WriteMode::CreateNew))?;
        self.tried("make puts durable", storage.barrier())?;
        let read = |after: &str, expected: &[u8]| match storage.get(&name) {
            Ok(found) if found == expected => Ok(()),
            Ok(_) => Err(self.lacks(&format!("a read after {after} gives other bytes"))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(self.lacks(&format!("a read after {after} does not find the object")))
            }
            Err(error) => self.tried("read an object", Err(error)),
        };
        let listed = || {
            let listed = self.tried("list objects", storage.list(&self.folder))?;
            Ok(listed.iter().find(|object| object.name == name).map(|object| object.bytes))
        };
        let list = |after: &str, expected: usize| match listed()? {
            Some(bytes) if bytes == expected as u64 => Ok(()),
            Some(_) => Err(self.lacks(&format!("a list after {after} gives a wrong size"))),
            None => Err(self.lacks(&format!("a list after {after} does not show the object"))),
        };
        read("a put", &first)?;
        list("a put", first.len())?;
        let part = self.tried("read a part of an object", storage.get_range(&name, 1234, 2000))?;
        if part != first[1234..3234] {
            return Err(self.lacks("a read of a part gives other bytes"));
        }
        if storage.get_range(&name, 0, PROBE_BYTES as u64 + 1).is_ok() {
            return Err(self.lacks("a read beyond the end of an object is no error"));
        }
        match storage.get(&self.name("none")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => return Err(self.lacks("it has bytes for an object that was never put")),
            Err(error) => return self.tried("ask for an object that is not there", Err(error)),
        }
        let second = self.bytes(1, PROBE_BYTES / 2);
        self.tried("replace an object", storage.put(&name, &second, WriteMode::Replace))?;
        read("a replacement", &second)?;
        list("a replacement", second.len())?;
        match storage.delete(&name) {
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(false),
            deleted => self.tried("delete an object", deleted)?,
        }
        Ok(storage.get(&name).is_ok() || listed()?.is_some())
    }

    /// How *create new* is kept.
    fn creates(&self) -> Result<Creates> {
        let name = self.name("b");
        let first = self.bytes(2, 100);
        self.tried("put an object", self.storage.put(&name, &first, WriteMode::CreateNew))?;
        match self.storage.put(&name, &self.bytes(3, 100), WriteMode::CreateNew) {
            Err(error) if error.kind() == ErrorKind::Exists => {}
            put => return self.tried("put an object", put).map(|()| Creates::Replacing),
        }
        let (name, start) = (self.name("c"), Barrier::new(RACERS.into()));
        let race = |racer: u8| {
            let bytes = self.bytes(4 + racer, PROBE_BYTES);
            start.wait();
            self.storage.put(&name, &bytes, WriteMode::CreateNew)
        };
        let race = &race;
        let results: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
            racers.into_iter().filter_map(|racer| racer.join().ok()).collect()
        });
        let mut winners = 0;
        for result in results {
            match result {
                Ok(()) => winners += 1,
                Err(error) if error.kind() == ErrorKind::Exists => {}
                Err(error) => return self.tried("put an object", Err(error)),
            }
        }
        Ok(if winners == 1 { Creates::Exactly } else { Creates::NotInRaces })
    }

    /// Deletes what is there; gives what could not be. Where the probe has failed, an error here
    /// would hide why.
    fn clean_up(&self, passed: bool) -> Result<Vec<String>> {
        let listed = match self.storage.list(&self.folder) {
            Err(_) if !passed => return Ok(Vec::new()),
            listed => self.tried("list objects", listed)?,
        };
        let mut left = Vec::new();
        for object in listed {
            match self.storage.delete(&object.name) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Denied || !passed => left.push(object.name),
                deleted => self.tried("delete an object", deleted)?,
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fault::{Faulty, Plan};
    use super::super::memory::Memory;
    use super::super::record::Operation;
    use super::super::{Listed, ObjectWriter};
    use super::*;

    const RANDOM: [u8; 16] = [7; 16];

    /// A memory with one thing wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Wrong {
        ListsLate,
        ListsDeleted,
        ReadsOld,
        KeepsHalf,
        IgnoresRanges,
        ReplacesOnCreate,
        CreatesTwice,
    }

    #[derive(Debug)]
    struct Weak(Memory, Wrong);

    impl Storage for Weak {
        fn place(&self) -> String {
            "weak".into()
        }
        fn put(&self, name: &str, bytes: &[u8], mode: WriteMode) -> Result<()> {
            match self.1 {
                Wrong::KeepsHalf => self.0.put(name, &bytes[..bytes.len() / 2], mode),
                Wrong::ReadsOld if self.0.stat(name).is_ok() && mode == WriteMode::Replace => Ok(()),
                Wrong::ReplacesOnCreate => self.0.put(name, bytes, WriteMode::Replace),
                Wrong::CreatesTwice if bytes.len() == PROBE_BYTES => self.0.put(name, bytes, WriteMode::Replace),
                _ => self.0.put(name, bytes, mode),
            }
        }
        fn writer(&self) -> Result<Box<dyn ObjectWriter>> {
            self.0.writer()
        }
        fn get(&self, name: &str) -> Result<Vec<u8>> {
            self.0.get(name)
        }
        fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
            match self.1 {
                Wrong::IgnoresRanges => self.0.get(name),
                _ => self.0.get_range(name, offset, length),
            }
        }
        fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
            let mut listed = self.0.list(prefix)?;
            match self.1 {
                Wrong::ListsLate => drop(listed.pop()),
                Wrong::ListsDeleted if listed.is_empty() => {
                    listed.push(Listed { name: format!("{prefix}a"), bytes: 1 });
                }
                _ => {}
            }
            Ok(listed)
        }
        fn stat(&self, name: &str) -> Result<u64> {
            self.0.stat(name)
        }
        fn delete(&self, name: &str) -> Result<()> {
            self.0.delete(name)
        }
        fn barrier(&self) -> Result<()> {
            Ok(())
        }
        fn cover(&self, _: &str) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_storage_that_does_all_passes_and_is_empty_again() {
        let memory = Memory::new();
        let findings = probe(&memory, RANDOM).unwrap();
        assert_eq!(findings, Findings { creates: Creates::Exactly, deletes_late: false, leftovers: vec![] });
        assert!(memory.list("").unwrap().is_empty());
    }

    #[test]
    fn each_thing_that_is_missing_is_named_and_nothing_is_left() {
        for (wrong, expected) in [
            (Wrong::ListsLate, "a list after a put does not show the object"),
            (Wrong::ReadsOld, "a read after a replacement gives other bytes"),
            (Wrong::KeepsHalf, "a read after a put gives other bytes"),
            (Wrong::IgnoresRanges, "a read of a part gives other bytes"),
        ] {
            let memory = Memory::new();
            let error = probe(&Weak(memory.clone(), wrong), RANDOM).unwrap_err();
            assert!(error.to_string().contains(expected), "{wrong:?}: {error}");
            // One that hides objects from lists hides them from those that clean up, too.
            assert!(wrong == Wrong::ListsLate || memory.list("").unwrap().is_empty(), "{wrong:?}");
        }
    }

    #[test]
    fn a_storage_that_shows_deleted_objects_for_a_while_will_do() {
        let findings = probe(&Weak(Memory::new(), Wrong::ListsDeleted), RANDOM).unwrap();
        assert_eq!(findings, Findings { creates: Creates::Exactly, deletes_late: true, leftovers: vec![] });
    }

    #[test]
    fn how_create_new_is_kept_is_found_out() {
        for (wrong, expected) in
            [(Wrong::ReplacesOnCreate, Creates::Replacing), (Wrong::CreatesTwice, Creates::NotInRaces)]
        {
            assert_eq!(probe(&Weak(Memory::new(), wrong), RANDOM).unwrap().creates, expected);
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        for (operation, expected) in [
            (Operation::Put, "does not let us put an object"),
            (Operation::Get, "does not let us read an object"),
            (Operation::List, "does not let us list objects"),
            (Operation::GetRange, "does not let us read a part of an object"),
        ] {
            let plan = Plan::none().failing_from(operation, "", 1, ErrorKind::Denied);
            let error = probe(&Faulty::new(Arc::new(Memory::new()), plan), RANDOM).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn who_may_not_delete_passes_and_is_told_what_is_left() {
        let plan = Plan::none().failing_from(Operation::Delete, "", 1, ErrorKind::Denied);
        let memory = Memory::new();
        let findings = probe(&Faulty::new(Arc::new(memory.clone()), plan), RANDOM).unwrap();
        let there: Vec<_> = memory.list("").unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!((findings.leftovers, findings.creates), (there, Creates::Exactly));
    }
}
