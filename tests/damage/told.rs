//! What people are told, in full: by the restore, by the check, and how the commands end.

use super::machine::{Machine, Output};
use super::repo::noise;

/// The whole output of a command is this, but for what differs from run to run.
macro_rules! prints {
    ($output:expr, @$expected:literal) => {
        insta::with_settings!({ filters => [
            (r"\b\d+(\.\d)? m?s\b", "[TIME]"),
            (r"packs/[0-9a-f]{2}/[0-9a-f]{64}", "packs/[PACK]"),
            (r"(chunk|node) `[0-9a-f]{8}`", "$1 `[ID]`"),
            (r"pack `[0-9a-f]{8}`", "pack `[ID]`"),
            (r"in [\d.]+ MiB", "in [SIZE]"),
            (r"(read  +)[\d.]+ \w+ in", "$1[SIZE] in"),
            (r"\b\d{5,}\b", "[BYTES]"),
            (r"look up `/\w+`", "look up `/[TOP]`"),
        ]}, { insta::assert_snapshot!($output.to_string(), @$expected) })
    };
}

/// A machine with two snapshots: of some files, so large that their data and their tree are in packs of
/// their own, and of the same with one more, which is in a third with what has changed of the tree.
fn machine() -> Machine {
    let machine = Machine::with_repository();
    for n in 0..4 {
        machine.write(&format!("files/large-{n}"), noise(n, 1_500_000));
    }
    machine.write("files/docs/notes.txt", "hello\n");
    machine.write("files/docs/old/letter.txt", "dear\n");
    machine.esker(["backup", "files"]).success();
    machine.write("files/more.txt", "more\n");
    machine.esker(["backup", "files"]).success();
    machine
}

impl Machine {
    /// The first snapshot's packs: that of the data and that of the tree.
    fn packs(&self) -> (String, String) {
        let content = self.memory.snapshot();
        let mut packs: Vec<_> = content.iter().filter(|(name, _)| name.starts_with("packs/")).collect();
        packs.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
        assert_eq!(packs.len(), 3);
        // The session's id, in the trailer.
        let session = |bytes: &[u8]| bytes[bytes.len() - 32..bytes.len() - 16].to_vec();
        let first = session(packs[0].1);
        let tree = packs[1..].iter().find(|(_, bytes)| session(bytes) == first).unwrap();
        (packs[0].0.clone(), tree.0.clone())
    }

    fn damage(&self, name: &str, how: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.memory.snapshot();
        let mut bytes = content[name].to_vec();
        how(&mut bytes);
        content.insert(name.to_owned(), bytes.into());
        self.memory.restore(content);
    }

    fn lose(&self, name: &str) {
        let mut content = self.memory.snapshot();
        content.remove(name).unwrap();
        self.memory.restore(content);
    }

    /// What was backed up, in the newest snapshot.
    fn latest(&self) -> String {
        format!("latest:{}", self.path("files").canonicalize().unwrap().display())
    }

    fn restore(&self) -> Output {
        self.esker(["restore", &self.latest(), "--target", "out"])
    }
}

#[test]
fn a_lost_data_pack() {
    let machine = machine();
    machine.lose(&machine.packs().0);
    prints!(machine.restore(), @"
    snapshot e59f3edb restored to [DIR]/out in [TIME]
      written      5 B in 1 file
      directories  3
    error: [DIR]/files/docs/notes.txt: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: [DIR]/files/docs/old/letter.txt: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: [DIR]/files/large-0: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: [DIR]/files/large-1: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: [DIR]/files/large-2: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: [DIR]/files/large-3: not restored: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: snapshot `e59f3edb` was not restored in full: 6 files and attributes could not be restored; see above
      Caused by: the data of 6 files is missing or damaged

    hint: to see every affected file, run `esker check --read-data e59f3edb`
    [exit 5]
    ");
    prints!(machine.esker(["check"]), @"
    checked 2 snapshots in [TIME]: 1 object damaged
      packs  3
      read   structure only; add --read-data to read every stored byte
    damaged: packs/[PACK]: it is missing
      affects 371a5713:[DIR]/files/docs/notes.txt
      affects 371a5713:[DIR]/files/docs/old/letter.txt
      affects 371a5713:[DIR]/files/large-0
      affects 371a5713:[DIR]/files/large-1
      affects 371a5713:[DIR]/files/large-2
      affects 371a5713:[DIR]/files/large-3
      affects e59f3edb:[DIR]/files/docs/notes.txt
      affects e59f3edb:[DIR]/files/docs/old/letter.txt
      affects e59f3edb:[DIR]/files/large-0
      affects e59f3edb:[DIR]/files/large-1
      affects e59f3edb:[DIR]/files/large-2
      affects e59f3edb:[DIR]/files/large-3
    error: the repository at `memory` is damaged: 1 object; each is named above

    hint: to put back damaged packs, or have the next backup store anew what is in them, run `esker scrub --repair`; to make snapshots of what is whole, run `esker repair snapshots`
    [exit 4]
    ");
    // What the source still has is stored anew, and all is whole again.
    machine.esker(["backup", "files"]).success();
    machine.restore().success();
    machine.esker(["check", "--read-data"]).success();
}

#[test]
fn a_lost_tree_pack() {
    let machine = machine();
    machine.lose(&machine.packs().1);
    prints!(machine.restore(), @"
    snapshot e59f3edb restored to [DIR]/out in [TIME]
      written      5.7 MiB in 5 files
      directories  2
    error: [DIR]/files/docs: some of what was in it is not restored: cannot read the directory node `[ID]`: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: snapshot `e59f3edb` was not restored in full: 1 file or attribute could not be restored; see above
      Caused by: 1 directory could not be read in full: more may be missing than is named

    hint: to see every affected file, run `esker check --read-data e59f3edb`
    [exit 5]
    ");
    prints!(machine.esker(["ls", &machine.latest()]), @"
    [DIR]/files
    [DIR]/files/docs
    [DIR]/files/large-0
    [DIR]/files/large-1
    [DIR]/files/large-2
    [DIR]/files/large-3
    [DIR]/files/more.txt
    error: `[DIR]/files/docs` is not listed in full: cannot read all of the directory `[DIR]/files/docs`: cannot read the directory node `[ID]`: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: the list is not complete: 1 directory cannot be read

    hint: to see what is damaged, run `esker check`
    [exit 1]
    ");
    prints!(machine.esker(["restore", "latest~1", "--target", "older"]), @"
    snapshot 371a5713 restored to [DIR]/older in [TIME]
      written  0 B in 0 files
    error: /: some of what was in it is not restored: cannot read the directory node `[ID]`: cannot read pack `packs/[PACK]`: object not found: `packs/[PACK]`
    error: snapshot `371a5713` was not restored in full: 1 file or attribute could not be restored; see above
      Caused by: 1 directory could not be read in full: more may be missing than is named

    hint: to see every affected file, run `esker check --read-data 371a5713`
    [exit 5]
    ");
    prints!(machine.esker(["dump", "latest~1", "files/more.txt"]), @"
    error: cannot look up `/[TOP]` in the snapshot
      Caused by: cannot read the directory node `[ID]`
      Caused by: cannot read pack `packs/[PACK]`
      Caused by: object not found: `packs/[PACK]`

    hint: to see what is damaged, run `esker check`
    [exit 1]
    ");
    prints!(machine.esker(["check"]), @"
    checked 2 snapshots in [TIME]: 1 object damaged
      packs  3
      read   structure only; add --read-data to read every stored byte
    damaged: packs/[PACK]: it is missing
      affects 371a5713:/
      affects e59f3edb:[DIR]/files/docs
    error: the repository at `memory` is damaged: 1 object; each is named above

    hint: to put back damaged packs, or have the next backup store anew what is in them, run `esker scrub --repair`; to make snapshots of what is whole, run `esker repair snapshots`
    [exit 4]
    ");
}

#[test]
fn a_damaged_commit() {
    let machine = machine();
    let snapshots = machine.esker(["snapshots", "--json"]).success().json();
    let newest = snapshots[0][1]["id"].as_str().unwrap();
    machine.damage(&format!("snapshots/{newest}"), |bytes| bytes[200] ^= 1);
    // The cache remembers what the snapshot said, and its data is whole.
    prints!(machine.restore(), @"
    snapshot e59f3edb restored to [DIR]/out in [TIME]
      written      5.7 MiB in 7 files
      directories  3
    warning: snapshot `e59f3edb` is damaged, and used as it was when it was read last: cannot read commit `snapshots/e59f3edb1515838eea6982899b1090ac`: malformed commit: its digest is not that of its bytes: it is damaged or torn
    [exit 0]
    ");
    assert_eq!(machine.esker(["snapshots", "--json"]).success().json()[0].as_array().unwrap().len(), 2);
    // By its id as well.
    let by_id = machine.esker(["restore", newest, "--target", "again"]).success();
    assert!(by_id.err().contains("is damaged, and used as it was when it was read last"), "{by_id}");
    prints!(machine.esker(["check"]), @"
    checked 1 snapshot in [TIME]: 1 object damaged
      packs  2
      read   structure only; add --read-data to read every stored byte
      notes  1; add -v to see them
    damaged: snapshots/e59f3edb1515838eea6982899b1090ac: malformed commit: its digest is not that of its bytes: it is damaged or torn
      affects e59f3edb:/
    error: the repository at `memory` is damaged: 1 object; each is named above

    hint: to put back the index of packs that are there, run `esker repair index`
    [exit 4]
    ");
}

#[test]
fn a_damaged_config() {
    let machine = machine();
    machine.damage("config", |bytes| bytes[30] ^= 1);
    machine.restore().success();
    prints!(machine.esker(["check"]), @"
    checked 2 snapshots in [TIME]: 1 object damaged
      packs  3
      read   structure only; add --read-data to read every stored byte
    damaged: config: malformed config: its digest is not that of its bytes: it is damaged or torn
    error: the repository at `memory` is damaged: 1 object; each is named above

    hint: to put back the configuration, slots and statements, run `esker repair config`
    [exit 4]
    ");
    machine.damage("copies/config", |bytes| bytes[30] ^= 1);
    prints!(machine.restore(), @"
    error: cannot read `config`
      Caused by: malformed config: its digest is not that of its bytes: it is damaged or torn

    hint: to put it back from a recovery kit, run `esker repair config --from KIT`
    [exit 1]
    ");
    prints!(machine.esker(["check"]), @"
    error: cannot read `config`
      Caused by: malformed config: its digest is not that of its bytes: it is damaged or torn

    hint: to put it back from a recovery kit, run `esker repair config --from KIT`
    [exit 4]
    ");
}

#[test]
fn a_pack_swapped_with_another() {
    let machine = machine();
    let (data, tree) = machine.packs();
    let other = machine.memory.snapshot()[&tree].to_vec();
    machine.damage(&data, |bytes| {
        // As long as it was: only what is in it tells.
        let length = bytes.len();
        *bytes = other.iter().copied().cycle().take(length).collect();
    });
    prints!(machine.restore(), @"
    snapshot e59f3edb restored to [DIR]/out in [TIME]
      written      5 B in 1 file
      directories  3
    error: [DIR]/files/docs/notes.txt: not restored: cannot open frame 0 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: [DIR]/files/docs/old/letter.txt: not restored: cannot open frame 0 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: [DIR]/files/large-0: not restored: cannot open frame 0 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: [DIR]/files/large-1: not restored: cannot open frame 1 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: [DIR]/files/large-2: not restored: cannot open frame 2 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: [DIR]/files/large-3: not restored: cannot open frame 4 of pack `[ID]`: frame is not authentic: it was changed, or sealed with another key
    error: snapshot `e59f3edb` was not restored in full: 6 files and attributes could not be restored; see above
      Caused by: the data of 6 files is missing or damaged

    hint: to see every affected file, run `esker check --read-data e59f3edb`
    [exit 5]
    ");
    prints!(machine.esker(["check", "--read-data"]), @"
    checked 2 snapshots in [TIME]: 1 object damaged
      packs  3
      read   [SIZE] in 3 packs
    damaged: packs/[PACK]: its bytes do not have the hash that is its name: its directory cannot be read: malformed pack trailer: reserved bytes are not zero
      affects 371a5713:[DIR]/files/docs/notes.txt
      affects 371a5713:[DIR]/files/docs/old/letter.txt
      affects 371a5713:[DIR]/files/large-0
      affects 371a5713:[DIR]/files/large-1
      affects 371a5713:[DIR]/files/large-2
      affects 371a5713:[DIR]/files/large-3
      affects e59f3edb:[DIR]/files/docs/notes.txt
      affects e59f3edb:[DIR]/files/docs/old/letter.txt
      affects e59f3edb:[DIR]/files/large-0
      affects e59f3edb:[DIR]/files/large-1
      affects e59f3edb:[DIR]/files/large-2
      affects e59f3edb:[DIR]/files/large-3
    error: the repository at `memory` is damaged: 1 object; each is named above

    hint: to put back damaged packs, or have the next backup store anew what is in them, run `esker scrub --repair`; to make snapshots of what is whole, run `esker repair snapshots`
    [exit 4]
    ");
}
