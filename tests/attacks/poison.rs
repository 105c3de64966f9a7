//! A writer that stores wrong bytes, or none, where others look for theirs.

use esker::crypto::ident::ChunkKind;
use esker::format::cbor;
use esker::format::gc::{Note, NoteClaim};
use esker::format::record::RecordKind;
use esker::format::segment::Segment;
use esker::repo::content::Reader;
use esker::repo::reader::ReadRepo;
use esker::repo::session::Session;

use super::forge::{Forger, put_record};
use super::scene::Scene;

const VICTIMS: &[u8] = b"what somebody else will have in a file, and a writer can guess";

/// Every writer knows what id content has. It lists the id, with other bytes or with none at all, in a
/// pack that is whole in itself; nobody else's backup may take that for the content.
#[test]
fn nobody_rests_on_a_chunk_that_only_an_untrusted_writer_has_listed() {
    let scene = Scene::new();
    let (writer, other) = (scene.writer(), scene.another_writer());
    let id = writer.keys.ids.chunk(ChunkKind::Data, VICTIMS);
    let mut forger = Forger::new(&writer);
    forger.chunk_as(ChunkKind::Data, id, b"poison");
    forger.put_pack();
    forger.put_commit(&forger.commit(None));
    for victim in [&other, &scene.owner()] {
        let session = Session::begin(victim).unwrap();
        assert!(session.counts(&forger.session), "the forged session counts, for what it is");
        assert!(!session.may_reuse(&id));
    }
    assert!(Session::begin(&writer).unwrap().may_reuse(&id), "only its own machine believes it");
}

/// An owner reads what the index says of a pack, finds every byte right and vouches for the pack. The
/// index also says that the pack has a chunk that is not in it.
#[test]
fn a_pack_is_not_vouched_for_when_the_index_says_more_than_is_in_it() {
    let scene = Scene::new();
    let (writer, other) = (scene.writer(), scene.another_writer());
    let mut forger = Forger::new(&writer);
    let honest = forger.chunk(ChunkKind::Data, b"honest bytes");
    forger.put_pack();
    // The same place, twice: once with its own chunk, once with one that is nowhere.
    let planted = writer.keys.ids.chunk(ChunkKind::Data, VICTIMS);
    let mut lie = forger.packs[0].clone();
    lie.frames[0].chunks[0].id = planted;
    let mut commit = forger.commit(None);
    let segment = Segment { origins: vec![forger.origin()], packs: vec![lie] };
    let name = super::forge::put_body(&writer, RecordKind::Segment, "index/", &segment.encode());
    commit.segments = vec![name.rsplit('/').next().unwrap().parse().unwrap()];
    forger.put_commit(&commit);

    let report = scene.check();
    let pack = format!("packs/{}", &forger.packs[0].id.to_string()[..2]);
    assert!(report.faults.iter().any(|fault| fault.object.starts_with(&pack)), "{report:?}");
    scene.owner().attest(&report.whole).unwrap();
    let session = Session::begin(&other).unwrap();
    assert!(!session.may_reuse(&planted), "an owner has vouched for what is not there");
    assert!(session.may_reuse(&honest), "what the pack does have was read and may be relied on");
}

/// An owner has vouched for a pack, whoever stored it. Another writer then describes that very pack, in
/// a session of its own, as having a chunk that is not in it.
#[test]
fn what_an_owner_has_vouched_for_is_not_lent_to_what_a_writer_says_of_it() {
    let scene = Scene::new();
    let (writer, other) = (scene.writer(), scene.another_writer());
    let mut honest = Forger::new(&other);
    let kept = honest.chunk(ChunkKind::Data, b"honest bytes");
    honest.put_pack();
    honest.put_commit(&honest.commit(None));
    let report = scene.check();
    assert!(report.faults.is_empty() && report.whole.len() == 1, "{report:?}");
    scene.owner().attest(&report.whole).unwrap();
    assert!(Session::begin(&writer).unwrap().may_reuse(&kept), "vouched for");

    let planted = writer.keys.ids.chunk(ChunkKind::Data, VICTIMS);
    let mut forger = Forger::new(&writer);
    let mut lie = honest.packs[0].clone();
    lie.frames[0].chunks[0].id = planted;
    forger.packs.push(lie);
    forger.put_commit(&forger.commit(None));
    for victim in [&other, &scene.owner()] {
        let session = Session::begin(victim).unwrap();
        assert!(session.counts(&forger.session));
        assert!(!session.may_reuse(&planted), "the owner has vouched for the pack, not for this");
    }
    // Nor does a note by the writer help.
    let claim =
        NoteClaim::Verified { descriptions: vec![forger.packs[0].description(&forger.origin())], mended: vec![] };
    let note = Note { time_secs: 1, seen: vec![], claim, extra: cbor::Extra::default() };
    put_record(&writer, RecordKind::Note, "notes/", &note);
    assert!(!Session::begin(&other).unwrap().may_reuse(&planted));
}

/// A stolen owner key compacts the index, and says of the root owner's packs what is not so. Once it is removed, a
/// machine that had believed it does so no more, whatever it keeps in its cache.
#[test]
fn what_a_removed_owner_said_of_packs_is_not_kept_in_a_cache() {
    let scene = Scene::new();
    let (owner, evil) = (scene.owner(), scene.another_owner());
    let mut genuine = Forger::new(&owner);
    let kept = genuine.chunk(ChunkKind::Data, b"honest bytes");
    genuine.put_pack();
    genuine.put_commit(&genuine.commit(None));
    let planted = owner.keys.ids.chunk(ChunkKind::Data, VICTIMS);
    let mut lie = genuine.packs[0].clone();
    lie.frames[0].chunks[0].id = planted;
    let compaction = Forger::new(&evil);
    let mut commit = compaction.commit(None);
    commit.inline_segment = Segment { origins: vec![genuine.origin()], packs: vec![lie] }.encode();
    compaction.put_commit(&commit);
    let cache = tempfile::tempdir().unwrap();
    let reuses = |id| Session::begin(&scene.owner_with_cache(cache.path())).unwrap().may_reuse(&id);
    assert!(reuses(planted), "an owner has said so");
    scene.owner().remove_member(&evil.keys.credential.id(), vec![]).unwrap();
    assert!(!reuses(planted) && reuses(kept));
    assert!(!reuses(planted) && reuses(kept), "and again, with what is in the cache now");
}

/// A chunk of an owner's snapshot stands under its id in a writer's packs too, a hundred times and
/// wrong each time. It is read right, and at once.
#[test]
fn a_reader_is_neither_misled_nor_kept_by_wrong_copies() {
    let scene = Scene::new();
    let (owner, writer) = (scene.owner(), scene.writer());
    let id = owner.keys.ids.chunk(ChunkKind::Data, VICTIMS);
    let poison = |_| {
        let mut forger = Forger::new(&writer);
        forger.chunk_as(ChunkKind::Data, id, &vec![b'x'; VICTIMS.len()]);
        forger.put_pack();
        forger.put_commit(&forger.commit(None));
    };
    (0..50).for_each(poison);
    let mut genuine = Forger::new(&owner);
    let file = genuine.file("file", VICTIMS);
    let snapshot = genuine.snapshot(vec![file]);
    (0..50).for_each(poison);

    let recording = esker::storage::record::Recording::new(std::sync::Arc::new(scene.memory.clone()));
    let owner = scene.owner_over(std::sync::Arc::new(recording.clone()));
    let reader = Reader::new(&owner).unwrap();
    recording.clear();
    assert_eq!(reader.chunk(&id).unwrap(), VICTIMS);
    let reads = recording.names(esker::storage::record::Operation::GetRange).len();
    assert!(reads <= 1, "{reads} reads for one chunk");
    assert_eq!(scene.restore(snapshot).report.problems, 0);
    assert_eq!(std::fs::read(scene.target().join("file")).unwrap(), VICTIMS);
    // Every wrong copy is found, and none of the snapshot is said to be affected.
    let faults = scene.check().faults;
    assert_eq!(faults.iter().filter(|fault| fault.object.starts_with("packs/")).count(), 100);
    assert!(faults.iter().all(|fault| fault.affected_total == 0), "{faults:?}");
}
