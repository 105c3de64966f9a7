//! Vectors of records and tree nodes before they are sealed.

use esker::crypto::credential::Credential;
use esker::format::access::{Claim, EpochSecrets, Grant, Role, Statement};
use esker::format::cbor::{self, Extra, Record};
use esker::format::config::{ChunkerSettings, Config};
use esker::format::gc::{Condemned, Done, Log, LogItem, Note, NoteClaim, Swept};
use esker::format::session::{Announcement, Commit, CommitKind, Flag, Original, Snapshot, Summary};
use esker::format::tree::{
    Attributes, Content, Detail, DirectoryLink, DirectoryNode, Entry, Hole, ListLink, ListNode, Piece, Totals, Xattr,
};
use esker::id::{ChunkId, DescriptionId, LinkGroup, ObjectId, PackId, RepoId, SessionId};
use esker::path::Name;
use esker::world::Time;
use minicbor::Decoder;

use super::make::*;
use super::read::diagnostic;

pub(super) fn id(n: u8) -> ChunkId {
    ChunkId::from_bytes([n; 32])
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(super) fn entry(text: &str, detail: Detail) -> Entry {
    let attributes = Attributes { mode: 0o644, mtime: Time::from_secs(SECS), ..Attributes::default() };
    Entry { name: Some(name(text)), attributes, detail, extra: Extra::default() }
}

pub(super) fn file(size: u64, content: Content, holes: Vec<Hole>) -> Detail {
    Detail::File { size, content, holes }
}

pub(super) fn root() -> Entry {
    let totals = Totals { files: 2, directories: 1, bytes: 300 };
    Entry { name: None, ..entry("x", Detail::Directory { id: id(7), level: 0, totals, incomplete: false }) }
}

pub(super) fn trees() -> Vec<Vector> {
    let chunk = Piece::Chunk { id: id(1), bytes: 300 };
    let inline = entry("a.txt", file(300, Content::Inline(vec![chunk]), vec![]));
    let mut rich = inline.clone();
    rich.attributes = Attributes {
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        user: Some("user".into()),
        group: Some("users".into()),
        mtime: Time { secs: -1, nanos: 999_999_999 },
        xattrs: vec![
            Xattr { name: b"user.a".to_vec(), value: vec![] },
            Xattr { name: b"user.b".to_vec(), value: b"value".to_vec() },
        ],
        link_group: Some(LinkGroup::from_bytes([2; 16])),
    };
    let pieces = vec![chunk, Piece::Zeros { bytes: 1 << 20 }, chunk];
    let holes = vec![Hole { offset: 4096, bytes: 4096 }, Hole { offset: 65536, bytes: 65536 }];
    let totals = Totals { files: 3, directories: 2, bytes: 1 << 40 };
    let directory = Detail::Directory { id: id(3), level: 1, totals, incomplete: true };
    let (empty, link) = (file(0, Content::Inline(vec![]), vec![]), Detail::Symlink { target: b"../a.txt".to_vec() });
    let node = DirectoryNode::Entries(vec![inline.clone(), entry("b", Detail::Fifo)]);
    let links = vec![
        DirectoryLink { first: name("a"), id: id(4) },
        DirectoryLink { first: Name::new(&b"n\xff"[..]).unwrap(), id: id(5) },
    ];
    let list_links = vec![ListLink { id: id(4), bytes: 1 << 33 }, ListLink { id: id(5), bytes: 300 }];
    let list = ListNode::Pieces(pieces.clone());
    vec![
        record("tree_entry_file_empty", "a file of no bytes has no pieces", &entry("e", empty)),
        record(
            "tree_entry_attributes",
            "every attribute: setuid, names, a time before 1970, xattrs, a link group",
            &rich,
        ),
        record(
            "tree_entry_zeros_and_holes",
            "a run of zeros is not stored; two holes",
            &entry("sparse", file(600 + (1 << 20), Content::Inline(pieces), holes)),
        ),
        record(
            "tree_entry_file_list",
            "a large file whose pieces are in a list of level 2",
            &entry("large", file(1 << 40, Content::List { id: id(6), level: 2 }, vec![])),
        ),
        record("tree_entry_directory", "a directory of level 1 that could not be read whole", &entry("d", directory)),
        record("tree_entry_root", "the root entry of a snapshot has no name", &root()),
        record("tree_entry_symlink", "a symbolic link", &entry("l", link)),
        record("tree_entry_fifo", "a named pipe", &entry("p", Detail::Fifo)),
        record("tree_entry_char_device", "/dev/null", &entry("null", Detail::CharDevice { major: 1, minor: 3 })),
        record(
            "tree_entry_block_device",
            "minor 0 is left out",
            &entry("sda", Detail::BlockDevice { major: 8, minor: 0 }),
        ),
        {
            let mut bytes = cbor::encode(&inline);
            set(64, [0x81, 1])(&mut bytes);
            let value = diagnostic(&mut Decoder::new(&bytes));
            let comment = "field 64 may be ignored, and is written back as it was";
            good("tree_entry_ignorable_field", Entry::WHAT, comment, bytes).with("value", value)
        },
        record("tree_entry_file", "a regular file of one chunk", &inline),
        record("directory_node_empty", "a directory without entries", &DirectoryNode::Entries(vec![])),
        record(
            "directory_node_level_1",
            "two nodes of level 0; a name that is not UTF-8",
            &DirectoryNode::Links { level: 1, links },
        ),
        record("directory_node_level_0", "two entries", &node),
        record("list_node_level_1", "two nodes of level 0", &ListNode::Links { level: 1, links: list_links }),
        record("list_node_level_0", "chunks and zeros", &list),
    ]
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        time: Time { secs: SECS, nanos: 5 },
        hostname: "host".into(),
        username: "user".into(),
        uid: 1000,
        gid: 100,
        paths: vec![b"/etc".to_vec(), b"/home".to_vec()],
        tags: vec!["daily".into()],
        parent: Some(SESSION),
        root: root(),
        summary: Summary { files_new: 1, dirs_changed: 2, data_added: 300, duration_ms: 70, ..Summary::default() },
        program: "esker 0.1.0".into(),
        original: Some(Original { session: SessionId::from_bytes([9; 16]), repo: Some(RepoId::from_bytes([8; 16])) }),
        extra: Extra::default(),
    }
}

pub(super) fn commit(kind: CommitKind) -> Commit {
    Commit {
        session: SESSION,
        kind,
        time_secs: SECS,
        sequence: 3,
        previous: vec![object(1), object(2)],
        envelope: vec![0x21; 8],
        segments: vec![object(3)],
        inline_segment: vec![],
        supersedes: vec![SessionId::from_bytes([9; 16])],
        snapshot: vec![0x22; 8],
        replaces: vec![],
        extra: Extra::default(),
    }
}

pub(super) fn object(n: u8) -> ObjectId {
    ObjectId::from_bytes([n; 32])
}

pub(super) fn sessions() -> Vec<Vector> {
    let announcement =
        Announcement { session: SESSION, time_secs: SECS, envelope: vec![0x21; 8], extra: Extra::default() };
    let flag = Flag { session: SESSION, collection: COLLECTION, time_secs: SECS, extra: Extra::default() };
    let plain = Snapshot {
        parent: None,
        original: None,
        tags: vec![],
        uid: 0,
        gid: 0,
        time: Time::from_secs(SECS),
        ..snapshot()
    };
    let maintenance = Commit {
        previous: vec![],
        segments: vec![],
        inline_segment: vec![0x23; 4],
        supersedes: vec![],
        snapshot: vec![],
        ..commit(CommitKind::Maintenance)
    };
    let rebuilt = Commit { replaces: vec![object(1), object(2)], ..maintenance.clone() };
    vec![
        record("snapshot_full", "every field", &snapshot()),
        record("snapshot_plain", "what is zero or absent is left out", &plain),
        record("commit_snapshot", "the envelope and the snapshot are stand-ins", &commit(CommitKind::Snapshot)),
        record("commit_checkpoint", "what an unfinished backup has", &commit(CommitKind::Checkpoint)),
        record("commit_maintenance", "no snapshot; the index segment inline, a stand-in", &maintenance),
        record("commit_rebuilt", "the index segment stands in the place of two that are lost", &rebuilt),
        record("session_announcement", "the envelope is a stand-in", &announcement),
        record("flag_asked", "a collection asks a session", &flag),
    ]
}

pub(super) fn note(claim: NoteClaim) -> Note {
    Note { time_secs: SECS, seen: vec![object(1)], claim, extra: Extra::default() }
}

pub(super) fn collections() -> Vec<Vector> {
    let packs = vec![PackId::from_bytes([3; 32]), PackId::from_bytes([4; 32])];
    let extra = Extra::default;
    let condemned = Condemned { collection: COLLECTION, time_secs: SECS, packs: packs.clone(), extra: extra() };
    let reversed = Condemned { packs: packs.iter().rev().copied().collect(), ..condemned.clone() };
    let swept = Swept {
        collection: COLLECTION,
        time_secs: SECS,
        dead: packs.clone(),
        void: vec![SESSION],
        counted: vec![SessionId::from_bytes([2; 16])],
        extra: extra(),
    };
    let done = Done {
        collection: COLLECTION,
        time_secs: SECS,
        sweeps: vec![object(1)],
        seen_notes: vec![object(2)],
        extra: extra(),
    };
    let log = Log {
        time_secs: SECS,
        generation: 3,
        items: vec![
            LogItem { name: "notes/00".into(), stored: vec![1, 2] },
            LogItem { name: "snapshots/00".into(), stored: vec![3] },
        ],
        extra: extra(),
    };
    let descriptions = packs.iter().map(|pack| DescriptionId::from_bytes(*pack.as_bytes())).collect();
    let forgotten = NoteClaim::Forgotten { session: SESSION, commit: object(2), until_secs: SECS + 86_400 };
    let quarantined =
        record("note_quarantined", "a snapshot that is not whole", &note(NoteClaim::Quarantined { session: SESSION }));
    let good_condemned = record("condemned_packs", "two packs", &condemned);
    vec![
        good_condemned.refused("condemned_unsorted", "malformed", "packs in descending order", |bytes| {
            *bytes = cbor::encode(&reversed);
        }),
        good_condemned,
        record("swept_packs", "dead packs, a void session, and one that counts", &swept),
        record("done_collection", "a sweep and a note", &done),
        record("note_forgotten", "a snapshot is forgotten", &note(forgotten)),
        record(
            "note_verified",
            "packs were read, and a note of damage no longer holds",
            &note(NoteClaim::Verified { descriptions, mended: vec![object(2)] }),
        ),
        record(
            "note_damaged",
            "two chunks in a pack",
            &note(NoteClaim::Damaged { chunks: vec![id(1), id(2)], pack: packs[0] }),
        ),
        quarantined.refused("note_unknown_kind", "unsupported", "kind 6", |bytes| bytes[2] = 6),
        quarantined,
        record(
            "note_audit",
            "an action in words",
            &note(NoteClaim::Audit { action: "restore".into(), detail: "all".into() }),
        ),
        record("log_items", "two objects, stand-ins, under their names", &log),
    ]
}

pub(super) fn config() -> Config {
    Config {
        version: 1,
        repo: REPO,
        created_secs: SECS,
        chunker: ChunkerSettings { algorithm: 1, min_bytes: 262_144, avg_bytes: 1 << 20, max_bytes: 4 << 20 },
        features: vec![],
        root_verifying: Credential::from_seed(SEED.clone()).public().verifying,
        parity_percent: 0,
        extra: Extra::default(),
    }
}

pub(super) fn secrets(private: Option<[u8; 32]>) -> EpochSecrets {
    EpochSecrets {
        id_key: *ID_KEY.expose(),
        chunker_key: [0x1c; 32],
        index_key: *INDEX_KEY.expose(),
        psk: *PSK.expose(),
        private,
    }
}

pub(super) fn access() -> Vec<Vector> {
    let statement = |claim| {
        let seen = vec![object(1), object(2)];
        Statement { signer: SIGNER, seen, time_secs: SECS, claim, extra: Extra::default() }
    };
    let grants = vec![Grant { epoch: EPOCH, credential: SIGNER, sealed: vec![0x24; 8] }];
    let added = |role| Claim::CredentialAdded {
        role,
        verifying: [0x25; 32],
        sealing: vec![0x26; 8],
        label: vec![0x27; 4],
        grants: grants.clone(),
    };
    let root = Statement { seen: vec![], ..statement(added(Role::Owner)) };
    let removed = Claim::CredentialRemoved { credential: SIGNER, accepted: vec![object(3)] };
    let opened = Claim::EpochOpened { epoch: EPOCH, public: vec![0x28; 8], grants: grants.clone() };
    let slot_removed = record("statement_slot_removed", "a slot", &statement(Claim::SlotRemoved { slot: SLOT }));
    let good_config = record("config_plain", "no features", &config());
    vec![
        record("config_parity", "writers add 5% of parity", &Config { parity_percent: 5, ..config() }),
        good_config.refused("config_parity_101", "malformed", "101% of parity", |bytes| {
            *bytes = cbor::encode(&Config { parity_percent: 101, ..config() });
        }),
        good_config.refused("config_version_2", "unsupported", "format version 2", |bytes| bytes[2] = 2),
        good_config.refused("config_feature", "unsupported", "a feature no reader knows", |bytes| {
            *bytes = cbor::encode(&Config { features: vec!["unheard-of".into()], ..config() });
        }),
        good_config.refused("config_long_integer", "malformed", "the version as an integer of two bytes", |bytes| {
            bytes.insert(2, 0x18);
        }),
        good_config,
        record(
            "statement_credential_added",
            "a writer; keys, label and grant are stand-ins",
            &statement(added(Role::Writer)),
        ),
        record("statement_root", "the first statement has seen none; an owner", &root),
        record("statement_credential_removed", "with one accepted head", &statement(removed)),
        record(
            "statement_slot_added",
            "a slot",
            &statement(Claim::SlotAdded { slot: SLOT, hash: object(4), credential: SIGNER }),
        ),
        slot_removed.refused("statement_unknown_kind", "unsupported", "kind 6", |bytes| bytes[2] = 6),
        slot_removed,
        record("statement_epoch_opened", "the public key and the grant are stand-ins", &statement(opened)),
        record("epoch_secrets_owner", "with the private key", &secrets(Some(*PRIVATE.expose()))),
        record("epoch_secrets_writer", "without it", &secrets(None)),
    ]
}
