//! The rules of the specification by which a reader refuses, and the vectors that hold each.
//!
//! A rule is quoted as it stands in its section. So a rule that is reworded is looked at here, and
//! a vector that is for no rule is for nothing.

use super::make;

/// A section, words that stand in it, and vectors it refuses: `*` stands for any beginning or end.
const RULES: &[(&str, &str, &[&str])] = &[
    ("1.3", "It MUST be left out then", &["tree_entry_file_zero_owner", "directory_node_level_0_level_0"]),
    ("1.3", "A key below 64 that is unknown refuses the record as *unsupported*", &["*_unknown_field"]),
    (
        "1.3",
        "A map without `ext` refuses all unknown keys",
        &["epoch_secrets_*_unknown_field", "list_node_*_unknown_field"],
    ),
    ("1.3", "trailing bytes", &["*_trailing_byte"]),
    ("1.3", "long integers", &["config_long_integer", "config_plain_long_length", "config_plain_long_key"]),
    ("1.3", "indefinite lengths", &["config_plain_indefinite"]),
    ("1.3", "keys repeated or out of order", &["config_plain_key_twice", "config_plain_descending"]),
    (
        "1.3",
        "optional fields with their default",
        &["config_plain_empty_list", "*_no_tags", "*_no_packs", "*_no_items"],
    ),
    ("1.3", "text that is not UTF-8", &["*_not_utf8"]),
    ("1.3", "a claimed number of items that the bytes at hand cannot hold", &["*_giant_list", "*_giant"]),
    ("1.4", "the bytes end too early", &["*_cut", "*_short", "*_empty", "sealed_record_short_text"]),
    (
        "1.4",
        "a rule of this document is broken",
        &["config_plain_missing", "config_plain_text_for_number", "config_plain_array"],
    ),
    ("1.4", "intact, but not what its name or id says", &["*_renamed"]),
    (
        "3",
        "A reader MUST reject such an object as *wrong identity* when it is not",
        &["sealed_record_*_renamed", "signed_record_access_statement_renamed", "pack_renamed"],
    ),
    (
        "4.1",
        "*malformed* when the digest, `magic`, `reserved` or the length differ",
        &["sealed_record_*_digest", "sealed_record_*_magic", "sealed_record_*_reserved", "sealed_record_*_long"],
    ),
    ("4.1", "`kind` is not the one its name asks for", &["sealed_record_*_other_kind"]),
    (
        "4.1",
        "as *unsupported* for another `suite`, `algorithm` or an unknown `kind`",
        &["sealed_record_*_algorithm", "sealed_record_*_unknown_kind"],
    ),
    (
        "4.1",
        "as *not authentic* when the commitment, the tag or the signature does not verify",
        &[
            "sealed_record_*_changed",
            "sealed_record_other_key",
            "sealed_record_signature",
            "sealed_record_body",
            "sealed_record_other_signer",
        ],
    ),
    ("4.1", "where `name` is the object's full name", &["sealed_record_*_renamed"]),
    ("4.2", "a verifying key of small order", &["signature_small_key"]),
    ("4.2", "an `R` of small order", &["signature_small_r"]),
    ("4.2", "an `S` that is not reduced", &["signature_unreduced"]),
    ("4.2", "BLAKE3(body)", &["signature_changed", "signature_other_message", "signed_record_*_body_changed"]),
    ("4.3", "Errors are as in §4.1", &["signed_record_*"]),
    (
        "4.3",
        "as *unsupported* another version, chunker or any feature it does not know",
        &["config_version_2", "config_feature", "config_plain_chunker_2"],
    ),
    (
        "4.3",
        "as *malformed* parameters that break §6.1",
        &["config_plain_average_*", "config_plain_smallest_*", "config_plain_largest_*"],
    ),
    ("4.3", "and field 64 outside its range", &["config_parity_101"]),
    ("4.3", "9 => bytes .size 32", &["config_plain_short_key"]),
    ("4.4", "a wrong digest, magic or reserved bytes", &["key_slot_digest", "key_slot_magic", "key_slot_reserved"]),
    (
        "4.4",
        "a cost outside §12",
        &[
            "key_slot_little_memory",
            "key_slot_much_memory",
            "key_slot_few_passes",
            "key_slot_many_passes",
            "key_slot_no_lanes",
            "key_slot_many_lanes",
        ],
    ),
    ("4.4", "another length, and bytes behind the seed that are not zero", &["key_slot_long", "key_slot_spare_byte"]),
    ("4.4", "as *unsupported* another `kdf` or `suite`", &["key_slot_derivation", "key_slot_suite"]),
    ("4.4", "as *not authentic* a wrong commitment", &["key_slot_commitment", "key_slot_password", "key_slot_tag"]),
    ("4.4", "root owner's verifying key || the first 88 bytes", &["key_slot_other_root", "key_slot_moved"]),
    ("4.4", "as *unsupported* another first word", &["key_file_first_word"]),
    (
        "4.4",
        "as *malformed* another check",
        &[
            "key_file_check",
            "key_file_cut",
            "key_file_role",
            "key_file_repository",
            "key_file_root",
            "key_file_seed",
            "key_file_more_words",
            "key_file_two_spaces",
        ],
    ),
    ("4.4", "as *wrong identity* a seed whose credential", &["key_file_other_credential"]),
    ("4.4", "as *truncated* a text of comments only", &["key_file_comments", "key_file_empty"]),
    (
        "4.5",
        "A field that does not belong to the kind refuses the statement as *unsupported*",
        &["statement_root_with_slot", "statement_unknown_kind"],
    ),
    (
        "4.5",
        "Fields 3 and 11 out of order or repeated are *malformed*",
        &[
            "statement_credential_added_unsorted",
            "statement_credential_added_repeated",
            "statement_credential_removed_repeated",
        ],
    ),
    ("4.5", "1 credential added: 5, 6, 7, 8, ? 9", &["statement_credential_added_no_key"]),
    ("4.5", "2 credential removed: 10, ? 11", &["statement_credential_removed_no_credential"]),
    ("4.5", "3 slot added: 10, 12, 13", &["statement_slot_added_no_hash"]),
    ("4.5", "? 12 => bytes .size 16", &["statement_slot_removed_short_slot"]),
    ("4.5", "5 epoch opened: ? 9, 14, 15", &["statement_epoch_opened_no_public"]),
    ("4.5", "role: owner, writer", &["statement_credential_added_role"]),
    ("4.5", "grant = [ bytes .size 16", &["statement_credential_added_short_grant"]),
    (
        "4.5",
        "epoch-secrets = {",
        &["epoch_secrets_owner_short", "epoch_secrets_writer_no_psk", "grant_no_secrets", "grant_unknown_secret"],
    ),
    (
        "5.1",
        "reject another one as *not authentic*",
        &["sealed_box_commitment", "sealed_box_key", "sealed_box_purpose", "frame_commitment"],
    ),
    ("5.2", "Nothing is released unless the tag is right", &["sealed_box_tag", "sealed_box_data", "frame_tag"]),
    (
        "5.3",
        "compute a chunk's id again and reject another one as *wrong identity*",
        &["chunk_changed", "pack_other_chunk"],
    ),
    ("5.3", "*Why a key for each kind:*", &["chunk_other_kind"]),
    ("5.5", "reject a secret of another length as *malformed*", &["session_envelope_short_secret"]),
    ("5.5", "another `algorithm` as *unsupported*", &["session_envelope_algorithm", "grant_algorithm"]),
    (
        "5.5",
        "`psk` is the epoch's pre-shared key",
        &["session_envelope_psk_differs", "session_envelope_moved", "session_envelope_tag", "grant_tag"],
    ),
    (
        "6.3",
        "when it has no items (but for the empty directory)",
        &["list_node_level_0_no_pieces", "directory_node_level_1_no_links", "list_node_level_1_no_links"],
    ),
    (
        "6.3",
        "when names are missing, repeated or out of order in it",
        &[
            "directory_node_level_0_no_name",
            "directory_node_level_0_repeated",
            "directory_node_level_0_reversed",
            "directory_node_level_1_reversed",
            "directory_node_level_1_repeated",
        ],
    ),
    ("6.3", "1 => 1..16", &["directory_node_level_1_17_levels", "list_node_level_1_17_levels"]),
    (
        "6.3",
        "directory-node = { ? 2 => [+ entry] }",
        &["directory_node_level_0_links", "directory_node_level_0_bad_entry"],
    ),
    (
        "6.3",
        "3 => [+ [first, id]]",
        &["directory_node_level_1_entries", "directory_node_level_1_bad_name", "directory_node_level_1_short_id"],
    ),
    (
        "6.3",
        "list-node = { 2 => [+ piece] }",
        &["list_node_level_0_links", "list_node_level_1_pieces", "list_node_level_1_no_length"],
    ),
    ("6.3", "piece = [id, 1..16777216]", &["*_empty_chunk", "*_large_chunk", "list_node_level_0_three_parts"]),
    ("6.2", "pieces of zeros of any length but none", &["list_node_level_0_no_zeros"]),
    ("6.4", "a name that §6.5 refuses", &["tree_entry_file_name_*", "tree_entry_file_empty_name"]),
    ("12", "| `inline_pieces` | 32 |", &["tree_entry_file_many_pieces"]),
    ("12", "| `items` | 4096 |", &["list_node_level_0_many_pieces"]),
    ("12", "| `directory` | 134217728 |", &["pack_trailer_large_directory"]),
    ("6.4", "pieces beside a list", &["tree_entry_file_pieces_and_list", "tree_entry_file_level_of_nothing"]),
    (
        "6.4",
        "inline pieces that do not add up to the size",
        &["tree_entry_file_pieces_too_*", "tree_entry_file_pieces_overflow"],
    ),
    ("6.4", "holes that are empty, overlap, touch or pass the size", &["tree_entry_zeros_and_holes_*"]),
    (
        "6.4",
        "attribute names that are empty, contain a zero byte, repeat or are out of order",
        &["tree_entry_attributes_xattr*"],
    ),
    (
        "6.4",
        "a target that is missing, empty or contains a zero byte",
        &["tree_entry_symlink_no_target", "tree_entry_symlink_empty_target", "tree_entry_symlink_target_zero"],
    ),
    (
        "6.4",
        "numbers outside the ranges above",
        &[
            "tree_entry_file_mode_too_large",
            "tree_entry_file_large_owner",
            "tree_entry_file_large_group",
            "tree_entry_file_nanoseconds",
            "tree_entry_file_short_link_group",
            "tree_entry_*_17_levels",
            "tree_entry_directory_incomplete_2",
            "tree_entry_directory_no_node",
            "tree_entry_char_device_large_major",
            "tree_entry_block_device_large_minor",
        ],
    ),
    (
        "6.4",
        "*unsupported* an unknown kind, and a field that does not belong to the kind",
        &[
            "tree_entry_file_unknown_kind",
            "tree_entry_file_with_target",
            "tree_entry_directory_with_pieces",
            "tree_entry_symlink_with_size",
            "tree_entry_fifo_with_size",
            "tree_entry_*_device_with_target",
        ],
    ),
    ("7.1", "*truncated* when it is shorter than a trailer", &["pack_short", "pack_trailer_cut"]),
    ("7.1", "`magic` or `reserved` differs", &["pack_trailer_magic", "pack_trailer_reserved", "pack_beginning"]),
    ("7.1", "`directory_bytes` exceeds the bytes before the trailer", &["pack_long_directory"]),
    ("7.1", "as *unsupported* for another `suite`", &["pack_trailer_suite", "pack_suite"]),
    (
        "7.2",
        "ordinal u32 || kind u8 || compression u8 || plain_bytes u32",
        &["frame_moved", "frame_length", "frame_*_as_data"],
    ),
    ("7.2", "from first to last byte", &["frame_zstd_twice", "frame_zstd_cut", "pack_zstd_twice"]),
    ("7.2", "shorter than the plain bytes", &["frame_zstd_not_smaller"]),
    (
        "7.2",
        "no content size, no checksum, no dictionary, not a single segment",
        &["frame_zstd_checksum", "frame_zstd_magic"],
    ),
    ("7.2", "It MUST give exactly `plain_bytes`", &["frame_zstd_longer", "frame_zstd_shorter", "frame_raw_longer"]),
    ("7.2", "Other compressions are *unsupported*", &["frame_compression", "pack_frame_compression"]),
    (
        "7.3",
        "a frame of no plain bytes or of more than §12 allows",
        &["frame_table_empty_frame", "frame_table_large_frame"],
    ),
    (
        "7.3",
        "a frame of kind 4 with chunks, another without",
        &["frame_table_snapshot_chunks", "frame_table_no_chunks"],
    ),
    (
        "7.3",
        "a chunk of no bytes, one of data of more than §12 allows",
        &["frame_table_empty_chunk", "frame_table_large_chunk"],
    ),
    ("7.3", "chunks that do not add up to `plain_bytes`", &["frame_table_not_covered"]),
    (
        "7.3",
        "a frame of more sealed bytes than its plain bytes and 40, or of 40 and fewer",
        &["frame_table_long_frame", "frame_table_no_text"],
    ),
    (
        "7.3",
        "reserved bytes that are not zero and frames of more than 1 GiB in all",
        &["frame_table_reserved", "frame_table_large_pack"],
    ),
    (
        "7.3",
        "as *unsupported* an unknown kind",
        &["frame_table_kind", "frame_unknown_kind", "pack_directory_kind", "index_segment_kind"],
    ),
    ("7.3", "A reader MUST reject padding that is not zero", &["pack_directory_padding"]),
    (
        "7.3",
        "a pack whose frames, directory and trailer do not add up to its length",
        &["pack_stray_byte", "pack_missing_frame"],
    ),
    (
        "7.3",
        "|| repository || trailer`, all 144 bytes",
        &["pack_changed_trailer", "pack_other_session", "pack_frame_tag"],
    ),
    ("7.4", "a wrong digest, magic or reserved bytes", &["parity_digest", "parity_magic", "parity_reserved"]),
    ("7.4", "another length than these fields make", &["parity_long", "parity_cut"]),
    ("7.4", "a `shard_bytes` that is zero or no multiple of 64", &["parity_shard_of_*"]),
    (
        "7.4",
        "counts of shards that are zero or more than §12 allows",
        &["parity_none", "parity_many", "parity_of_nothing", "parity_of_many"],
    ),
    ("7.4", "as *unsupported* another `code`", &["parity_code"]),
    ("7.4", "as *wrong identity* another `pack` than its name says", &["parity_other_pack"]),
    (
        "8",
        "an origin that is not in the table, frames longer than their pack",
        &["index_segment_stray_origin", "index_segment_small_pack"],
    ),
    ("8", "and bytes behind the last pack", &["index_segment_trailing_byte"]),
    ("9.1", "session = bytes .size 16", &["session_announcement_short_session"]),
    ("9.2", "2 => 1..3", &["commit_checkpoint_kind_0", "commit_snapshot_kind_4"]),
    ("9.2", "6 => bytes, ; envelope", &["commit_snapshot_no_envelope"]),
    (
        "9.2",
        "A reader MUST reject as *malformed* arrays that do not ascend or repeat something, and maintenance with a snapshot",
        &["commit_snapshot_unsorted", "commit_snapshot_repeated*", "commit_maintenance_with_snapshot"],
    ),
    (
        "9.3",
        "roots that do not ascend or are no paths, tags that do not ascend",
        &["snapshot_full_roots_*", "snapshot_full_root_*", "snapshot_full_tags_*"],
    ),
    (
        "9.3",
        "a root entry that has a name or is no directory",
        &["snapshot_full_root_named", "snapshot_full_root_file"],
    ),
    ("9.3", "and field 14 without field 13", &["snapshot_full_no_original"]),
    ("9.3", "11 => [12*12 uint]", &["snapshot_full_eleven_numbers", "snapshot_full_thirteen_numbers"]),
    ("9.3", "? 2 => 1..999999999", &["snapshot_full_nanoseconds"]),
    ("9.3", "? 5 => uint32, ? 6 => uint32", &["snapshot_full_large_user", "snapshot_full_large_group"]),
    ("9.3", "? 9 => session", &["snapshot_full_short_parent"]),
    ("10.1", "flag = { 1 => session, 2 => collection, 3 => int, ext }", &["flag_asked_no_collection"]),
    (
        "10.2",
        "Arrays are ascending and without repetition, or *malformed*",
        &[
            "condemned_unsorted",
            "condemned_packs_repeated",
            "swept_packs_unsorted",
            "swept_packs_repeated_session",
            "swept_packs_repeated_counted",
            "done_collection_repeated*",
        ],
    ),
    ("10.2", "A session in fields 4 and 5 both makes it *malformed*", &["swept_packs_both"]),
    ("10.3", "newest notes the signer had seen, ascending", &["note_forgotten_repeated"]),
    ("10.3", "1 => 1..5", &["note_unknown_kind"]),
    ("10.3", "1 forgotten: 4 session, 5 hash of its commit", &["note_forgotten_no_commit"]),
    ("10.3", "? 7 descriptions (§8) of packs, ascending", &["note_verified_unsorted", "note_verified_mended_repeated"]),
    (
        "10.3",
        "3 damaged: 8 chunks, ascending, 9 pack",
        &["note_damaged_no_pack", "note_damaged_no_chunk", "note_damaged_unsorted"],
    ),
    ("10.3", "4 quarantined: 4 session", &["note_quarantined_with_commit"]),
    ("10.4", "names ascending", &["log_items_unsorted", "log_items_repeated"]),
    ("10.4", "? 3 => [+ [tstr, bytes]]", &["log_items_short_item"]),
];

/// The text of the section of that number, on one line. A section goes to the next heading.
fn section(spec: &str, number: &str) -> String {
    let headings = [format!("## {number}. "), format!("### {number} ")];
    let begins = |line: &&str| headings.iter().any(|heading| line.starts_with(heading.as_str()));
    let lines: Vec<_> = spec
        .lines()
        .skip_while(|line| !begins(line))
        .enumerate()
        .take_while(|(n, line)| *n == 0 || !(line.starts_with("## ") || line.starts_with("### ")))
        .map(|(_, line)| line)
        .collect();
    squeeze(&lines.join(" "))
}

fn squeeze(text: &str) -> String {
    // In CDDL a comment's mark may stand between words.
    text.replace(" ; ", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, end)) => name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end),
    }
}

#[test]
fn every_rule_stands_in_the_specification_and_has_vectors_that_it_refuses() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/SPEC.md");
    let spec = std::fs::read_to_string(path).unwrap();
    let vectors = make::vectors();
    let refused: Vec<_> = vectors.iter().filter(|vector| vector.expect != "success").collect();
    let mut faults = Vec::new();
    for (number, words, patterns) in RULES {
        if !section(&spec, number).contains(&squeeze(words)) {
            faults.push(format!("§{number} does not say: {words}"));
        }
        for pattern in *patterns {
            if !refused.iter().any(|vector| fits(pattern, &vector.name)) {
                faults.push(format!("§{number}: no vector `{pattern}` is refused"));
            }
        }
    }
    for vector in refused {
        if !RULES.iter().any(|(_, _, patterns)| patterns.iter().any(|pattern| fits(pattern, &vector.name))) {
            faults.push(format!("{}: is refused by no rule", vector.name));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_vector_is_found_by_its_beginning_its_end_or_both() {
    assert!(fits("pack_*_short", "pack_x_short") && fits("*_cut", "a_cut") && fits("a_*", "a_b") && fits("a", "a"));
    assert!(!fits("pack_*_short", "pack_short") && !fits("*_cut", "cut") && !fits("a", "ab"));
}
