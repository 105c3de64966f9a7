//! Which structure has vectors of which class of failure, and why the others have none.

use super::make;

const CLASSES: [&str; 5] = ["malformed", "unsupported", "not authentic", "wrong identity", "truncated"];

const SEALED: &str = "what seals or signs it is checked before it is read: sealed_record_*, signed_record_*";
const NAMED: &str = "its name is checked with what it is stored in: sealed_record_*, signed_record_*";
const CHUNK: &str = "nodes are chunks: chunk_*, and packs seal them: frame_*";
const INSIDE: &str = "what it stands in is sealed: key_slot_*, grant_*, pack_*";
const BOUND: &str = "what it is for is bound as associated data, so another's is not authentic";
const FRAMES: &str = "frames of all kinds are opened and decompressed alike: frame_data, frame_zstd_*, frame_raw_*";

type Gaps = &'static [(&'static str, &'static str)];
const RECORD: Gaps = &[("not authentic", SEALED), ("wrong identity", NAMED)];
const NODE: Gaps = &[("not authentic", CHUNK), ("wrong identity", CHUNK)];
const NAMED_BY_IDS: Gaps =
    &[("wrong identity", "it has no hash in its name; its name is bound, so another's is not authentic")];
const NO_NAME: Gaps = &[("wrong identity", BOUND)];

/// A structure, the beginning of its vectors' names, and the classes it has no vectors of.
const STRUCTURES: &[(&str, &str, Gaps)] = &[
    ("configuration", "config_", RECORD),
    ("key slot", "key_slot_", &[("wrong identity", "the access list has its hash; its id is bound")]),
    ("key file", "key_file_", &[("not authentic", "nothing in it is sealed: its check finds damage only")]),
    ("statement: credential added", "statement_credential_added", RECORD),
    ("statement: the first", "statement_root", RECORD),
    ("statement: credential removed", "statement_credential_removed", RECORD),
    ("statement: slot added", "statement_slot_added", RECORD),
    ("statement: slot removed", "statement_slot_removed", RECORD),
    ("statement: epoch opened", "statement_epoch_opened", RECORD),
    ("epoch secrets of an owner", "epoch_secrets_owner", &[("not authentic", INSIDE), ("wrong identity", INSIDE)]),
    ("epoch secrets of a writer", "epoch_secrets_writer", &[("not authentic", INSIDE), ("wrong identity", INSIDE)]),
    ("grant", "grant_", NO_NAME),
    ("session envelope", "session_envelope_", NO_NAME),
    (
        "sealed box",
        "sealed_box_",
        &[
            ("malformed", "any salt, commitment and text are a box"),
            ("unsupported", "its suite is that of what it stands in"),
            ("wrong identity", BOUND),
        ],
    ),
    (
        "signature",
        "signature_",
        &[
            ("malformed", "any 64 bytes may be tried"),
            ("unsupported", "its algorithm stands beside it: sealed_record_signature_algorithm"),
            ("wrong identity", "what it is over names what it belongs to"),
        ],
    ),
    (
        "chunk",
        "chunk_",
        &[
            ("malformed", "any bytes are a chunk; frames say how long it is"),
            ("unsupported", "its kind is that of its frame: frame_unknown_kind"),
            ("not authentic", "its frame is sealed"),
            ("truncated", "a shorter chunk is another chunk"),
        ],
    ),
    ("parity object", "parity_", &[("not authentic", "nothing in it is sealed: its digest finds damage only")]),
    ("signed record: configuration", "signed_record_config", NAMED_BY_IDS),
    ("signed record: statement", "signed_record_access_statement", &[]),
    ("sealed record: announcement", "sealed_record_session", NAMED_BY_IDS),
    ("sealed record: commit", "sealed_record_commit", NAMED_BY_IDS),
    ("sealed record: segment", "sealed_record_index_segment", &[]),
    ("sealed record: flag", "sealed_record_flag", NAMED_BY_IDS),
    ("sealed record: condemned", "sealed_record_condemned_list", NAMED_BY_IDS),
    ("sealed record: swept", "sealed_record_sweep", NAMED_BY_IDS),
    ("sealed record: done", "sealed_record_collection_end", NAMED_BY_IDS),
    ("sealed record: note", "sealed_record_note", &[]),
    ("sealed record: log", "sealed_record_log", &[]),
    ("announcement", "session_announcement", RECORD),
    ("commit: snapshot", "commit_snapshot", RECORD),
    ("commit: checkpoint", "commit_checkpoint", RECORD),
    ("commit: maintenance", "commit_maintenance", RECORD),
    ("snapshot", "snapshot_", RECORD),
    ("flag", "flag_", RECORD),
    ("condemned", "condemned_", RECORD),
    ("swept", "swept_", RECORD),
    ("done", "done_", RECORD),
    ("note: forgotten", "note_forgotten", RECORD),
    ("note: verified", "note_verified", RECORD),
    ("note: damaged", "note_damaged", RECORD),
    ("note: quarantined", "note_quarantined", RECORD),
    ("note: audit", "note_audit", RECORD),
    ("log", "log_", RECORD),
    ("entry: file", "tree_entry_file", NODE),
    ("entry: directory", "tree_entry_directory", NODE),
    ("entry: symbolic link", "tree_entry_symlink", NODE),
    ("entry: pipe", "tree_entry_fifo", NODE),
    ("entry: character device", "tree_entry_char_device", NODE),
    ("entry: block device", "tree_entry_block_device", NODE),
    ("directory node: entries", "directory_node_level_0", NODE),
    ("directory node: links", "directory_node_level_1", NODE),
    ("list node: pieces", "list_node_level_0", NODE),
    ("list node: links", "list_node_level_1", NODE),
    ("index segment", "index_segment_", RECORD),
    ("pack", "pack_", &[]),
    (
        "pack trailer",
        "pack_trailer_",
        &[
            ("not authentic", "it is in clear; the directory is bound to it: pack_changed_trailer"),
            ("wrong identity", "it is named with its pack: pack_renamed"),
        ],
    ),
    ("pack directory", "pack_directory_", &[("not authentic", INSIDE), ("wrong identity", INSIDE)]),
    ("frame table", "frame_table_", &[("not authentic", INSIDE), ("wrong identity", INSIDE)]),
    (
        "frame of data",
        "frame_",
        &[("wrong identity", "a frame has no name; its chunks have: chunk_*, pack_other_chunk")],
    ),
    (
        "frame of directory nodes",
        "frame_directory",
        &[("malformed", FRAMES), ("unsupported", FRAMES), ("wrong identity", FRAMES)],
    ),
    (
        "frame of list nodes",
        "frame_list",
        &[("malformed", FRAMES), ("unsupported", FRAMES), ("wrong identity", FRAMES)],
    ),
    (
        "frame of a snapshot",
        "frame_snapshot",
        &[("malformed", FRAMES), ("unsupported", FRAMES), ("wrong identity", FRAMES)],
    ),
];

/// Objects that are refused in no way of their own: what they say is computed.
const NEVER_REFUSED: &[&str] =
    &["derived key", "link group", "boundary level", "credential", "password key", "padded lengths"];

#[test]
fn every_structure_has_a_vector_of_each_class_that_can_apply() {
    let vectors = make::vectors();
    let mut faults = Vec::new();
    for (structure, prefix, gaps) in STRUCTURES {
        // `pack_trailer_*` is a structure of its own, though it begins like a pack.
        let own = |name: &str| {
            name.starts_with(prefix)
                && !STRUCTURES.iter().any(|(_, longer, _)| longer.len() > prefix.len() && name.starts_with(longer))
        };
        let of: Vec<_> = vectors.iter().filter(|vector| own(&vector.name)).collect();
        for class in std::iter::once("success").chain(CLASSES) {
            let gap = gaps.iter().find(|(gap, _)| *gap == class);
            match (of.iter().find(|vector| vector.expect == class), gap) {
                (None, None) => faults.push(format!("{structure}: no vector is `{class}`, and nothing says why")),
                (Some(vector), Some((_, reason))) => {
                    faults
                        .push(format!("{structure}: `{}` is `{class}`, which there is none of: {reason}", vector.name));
                }
                _ => {}
            }
        }
    }
    for vector in &vectors {
        let listed = STRUCTURES.iter().any(|(_, prefix, _)| vector.name.starts_with(prefix));
        let general =
            ["sealed_record_", "statement_", "note_", "tree_entry_", "commit_", "directory_node_", "list_node_"];
        if !listed && !NEVER_REFUSED.contains(&vector.object) && !general.iter().any(|of| vector.name.starts_with(of)) {
            faults.push(format!("{}: belongs to no structure", vector.name));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
