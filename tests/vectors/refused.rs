//! Vectors of records and nodes that are refused, each made from one that is accepted by changing
//! one thing. [`super::rules`] says which rule of the specification each is for.

use esker::format::cbor;
use minicbor::Decoder;

use super::make::*;

const M: &str = "malformed";
const U: &str = "unsupported";
const T: &str = "truncated";

/// Objects that are one map of CBOR: their vectors have its `value`.
fn is_record(vector: &Vector) -> bool {
    vector.expect == "success" && vector.file().windows(8).any(|text| text == b"\nvalue: ")
}

pub(super) fn vectors(accepted: &[Vector]) -> Vec<Vector> {
    let mut all: Vec<Vector> = accepted.iter().filter(|vector| is_record(vector)).flat_map(every_record).collect();
    for (of, cases) in [
        ("config_plain", &configs as &dyn Fn() -> Vec<Case>),
        ("tree_entry_file", &entries_of_files),
        ("tree_entry_attributes", &attributes),
        ("tree_entry_zeros_and_holes", &holes),
        ("tree_entry_file_list", &|| vec![case("17_levels", M, "a list of level 17", set(15, [17]))]),
        ("tree_entry_directory", &directories),
        ("tree_entry_symlink", &symlinks),
        ("tree_entry_fifo", &|| vec![case("with_size", U, "a pipe with a size", set(12, [1]))]),
        ("tree_entry_char_device", &|| {
            vec![
                case("with_target", U, "a device with a target", set(21, b"\x41a")),
                case("large_major", M, "a major number of 2^32", set(22, b"\x1b\0\0\0\x01\0\0\0\0")),
            ]
        }),
        ("tree_entry_block_device", &|| {
            vec![
                case("with_target", U, "a device with a target", set(21, b"\x41a")),
                case("large_minor", M, "a minor number of 2^32", set(23, b"\x1b\0\0\0\x01\0\0\0\0")),
            ]
        }),
        ("directory_node_level_0", &directory_nodes),
        ("directory_node_level_1", &directory_links),
        ("list_node_level_0", &pieces),
        ("list_node_level_1", &list_links),
        ("commit_snapshot", &commits),
        ("commit_maintenance", &|| vec![case("with_snapshot", M, "a snapshot in maintenance", set(10, [0x41, 1]))]),
        ("commit_checkpoint", &|| vec![case("kind_0", U, "kind 0", set(2, [0]))]),
        ("snapshot_full", &snapshots),
        ("session_announcement", &|| {
            vec![case("short_session", M, "a session of 15 bytes", set(1, [&[0x4f][..], &[0x11; 15]].concat()))]
        }),
        ("flag_asked", &|| vec![case("no_collection", M, "field 2 is missing", without(2))]),
        ("condemned_packs", &|| {
            vec![
                case("repeated", M, "a pack twice", repeated(3)),
                case("no_packs", M, "no packs are a field left out, not an empty list", set(3, [0x80])),
            ]
        }),
        ("swept_packs", &|| {
            vec![
                case("unsorted", M, "packs in descending order", reversed(3)),
                case("repeated_session", M, "a session twice", repeated(4)),
                case("repeated_counted", M, "a session that counts, twice", repeated(5)),
                case("both", M, "a session is void and counts", set(5, [&[0x81, 0x50][..], &[0x11; 16]].concat())),
            ]
        }),
        ("done_collection", &|| {
            vec![
                case("repeated", M, "a sweep twice", repeated(3)),
                case("repeated_note", M, "a note twice", repeated(4)),
            ]
        }),
        ("note_forgotten", &|| {
            vec![
                case("repeated", M, "a note that was seen, twice", repeated(3)),
                case("no_commit", M, "field 5 is missing", without(5)),
            ]
        }),
        ("note_verified", &|| {
            vec![
                case("unsorted", M, "packs in descending order", reversed(7)),
                case("mended_repeated", M, "a note that no longer holds, twice", repeated(12)),
            ]
        }),
        ("note_damaged", &|| {
            vec![
                case("no_pack", M, "field 9 is missing", without(9)),
                case("no_chunk", M, "field 8 is missing", without(8)),
                case("unsorted", M, "chunks in descending order", reversed(8)),
            ]
        }),
        ("note_quarantined", &|| vec![case("with_commit", U, "a field of another kind", set(5, hash()))]),
        ("note_audit", &|| vec![case("not_utf8", M, "an action that is not UTF-8", set(10, [0x61, 0xff]))]),
        ("log_items", &|| {
            vec![
                case("unsorted", M, "names in descending order", reversed(3)),
                case("repeated", M, "a name twice", repeated(3)),
                case("short_item", M, "an item that is a name only", set(3, b"\x81\x81\x61a")),
            ]
        }),
        ("statement_credential_added", &|| {
            vec![
                case("role", U, "role 3", set(5, [3])),
                case("unsorted", M, "statements that were seen, in descending order", reversed(3)),
                case("repeated", M, "a statement that was seen, twice", repeated(3)),
                case("no_key", M, "field 7 is missing", without(7)),
                case("short_grant", M, "a grant without its secret", set(9, grant_of_two())),
            ]
        }),
        ("statement_root", &|| {
            vec![case("with_slot", U, "a field of another kind", set(12, [&[0x50][..], &[0; 16]].concat()))]
        }),
        ("statement_credential_removed", &|| {
            vec![
                case("repeated", M, "what still counts, twice", repeated(11)),
                case("no_credential", M, "field 10 is missing", without(10)),
            ]
        }),
        ("statement_slot_added", &|| vec![case("no_hash", M, "field 13 is missing", without(13))]),
        ("statement_slot_removed", &|| vec![case("short_slot", M, "a slot of one byte", set(12, [0x41, 1]))]),
        ("statement_epoch_opened", &|| vec![case("no_public", M, "field 15 is missing", without(15))]),
        ("epoch_secrets_owner", &|| vec![case("short", M, "a private key of one byte", set(5, [0x41, 1]))]),
        ("epoch_secrets_writer", &|| vec![case("no_psk", M, "field 4 is missing", without(4))]),
    ] {
        let base = accepted.iter().find(|vector| vector.name == of).unwrap_or_else(|| panic!("no vector `{of}`"));
        all.extend(cases().into_iter().map(|(suffix, expect, comment, change)| {
            base.refused(&format!("{of}_{suffix}"), expect, comment, |bytes| change(bytes))
        }));
    }
    all
}

/// How a vector differs: the end of its name, the class, in words, in bytes.
type Case = (&'static str, &'static str, &'static str, Box<dyn Fn(&mut Vec<u8>)>);

fn case(
    suffix: &'static str,
    expect: &'static str,
    comment: &'static str,
    change: impl Fn(&mut Vec<u8>) + 'static,
) -> Case {
    (suffix, expect, comment, Box::new(change))
}

/// What every record is refused for. Field 63 is known to none; a byte behind it belongs to none.
fn every_record(record: &Vector) -> Vec<Vector> {
    let case = |suffix: &str, expect, comment, change: &dyn Fn(&mut Vec<u8>)| {
        record.refused(&format!("{}_{suffix}", record.name), expect, comment, |bytes| change(bytes))
    };
    let mut all = vec![case("trailing_byte", M, "a byte behind the map", &|bytes| bytes.push(0))];
    if record.bytes != [0xa0] {
        all.push(case("cut", T, "the last byte is missing", &|bytes| {
            bytes.pop();
        }));
    }
    all.push(case("unknown_field", U, "field 63, which a reader must know", &set(63, [0])));
    all
}

fn hash() -> Vec<u8> {
    [&[0x58, 0x20][..], &[1; 32]].concat()
}

fn grant_of_two() -> Vec<u8> {
    [&[0x81, 0x82, 0x50][..], &[0x12; 16], &hash()].concat()
}

/// The rules of §1.3 on one record, and those of its own.
fn configs() -> Vec<Case> {
    let insert = |at: usize, byte: u8| move |bytes: &mut Vec<u8>| bytes.insert(at, byte);
    vec![
        case("long_length", M, "the length of field 2 in two bytes", |bytes| {
            let at = bytes.iter().position(|byte| *byte == 0x50).unwrap();
            bytes.splice(at..=at, [0x58, 0x10]);
        }),
        case("long_key", M, "key 1 in two bytes", insert(1, 0x18)),
        case("indefinite", M, "a map of indefinite length", |bytes| {
            bytes[0] = 0xbf;
            bytes.push(0xff);
        }),
        case("key_twice", M, "key 1 twice", |bytes| {
            bytes[0] += 1;
            bytes.splice(1..1, [1, 1]);
        }),
        case("descending", M, "field 9 before the others", |bytes| {
            let mut fields: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut decoder = Decoder::new(bytes);
            for _ in 0..decoder.map().unwrap().unwrap() {
                let (key, start) = (decoder.u64().unwrap(), decoder.position());
                decoder.skip().unwrap();
                fields.push((key, bytes[start..decoder.position()].to_vec()));
            }
            fields.rotate_right(1);
            *bytes = map_of(&fields);
        }),
        case("empty_list", M, "no features are a field left out, not an empty list", set(8, [0x80])),
        case("missing", M, "field 3 is missing", without(3)),
        case("text_for_number", M, "field 3 is a text", set(3, b"\x61x")),
        case("array", M, "an array, not a map", |bytes| *bytes = vec![0x80]),
        case("empty", T, "no bytes", |bytes| bytes.clear()),
        case("short_key", M, "a verifying key of 31 bytes", set(9, [&[0x58, 31][..], &[1; 31]].concat())),
        case("chunker_2", U, "chunker 2", set(4, [2])),
        case("average_odd", M, "an average of 2^20 + 2", set(6, b"\x1a\0\x10\0\x02")),
        case("average_small", M, "an average of 256", |bytes| {
            set(5, [0x18, 64])(bytes);
            set(6, b"\x19\x01\0")(bytes);
        }),
        case("average_large", M, "an average of 2^21", set(6, b"\x1a\0\x20\0\0")),
        case("smallest_odd", M, "a smallest chunk of 262143", set(5, b"\x1a\0\x03\xff\xff")),
        case("smallest_small", M, "a smallest chunk of 62", set(5, [0x18, 62])),
        case("smallest_large", M, "a smallest chunk as long as the average", set(5, b"\x1a\0\x10\0\0")),
        case("largest_odd", M, "a largest chunk of 2^22 + 1", set(7, b"\x1a\0\x40\0\x01")),
        case("largest_small", M, "a largest chunk as long as the average", set(7, b"\x1a\0\x10\0\0")),
        case("largest_large", M, "a largest chunk of 2^24 + 2", set(7, b"\x1a\x01\0\0\x02")),
    ]
}

fn entries_of_files() -> Vec<Case> {
    let name = |name: &[u8]| {
        let mut value = Vec::new();
        cbor::push_bytes(&mut value, name);
        set(1, value)
    };
    let chunk = |length: &[u8]| set(13, [&[0x81, 0x82][..], &hash(), length].concat());
    let size = |length: &'static [u8]| set(12, length);
    let sized = |length: &'static [u8]| {
        let (pieces, size) = (chunk(length), size(length));
        move |bytes: &mut Vec<u8>| {
            pieces(bytes);
            size(bytes);
        }
    };
    vec![
        case("empty_name", M, "a name of no bytes", name(b"")),
        case("name_dot", M, "the name `.`", name(b".")),
        case("name_dots", M, "the name `..`", name(b"..")),
        case("name_slash", M, "a name with a slash", name(b"a/b")),
        case("name_zero", M, "a name with a zero byte", name(b"a\0b")),
        case("name_long", M, "a name of 1025 bytes", name(&[b'x'; 1025])),
        case("unknown_kind", U, "kind 6", set(2, [6])),
        case("mode_too_large", M, "mode 10000 octal", set(3, b"\x19\x10\0")),
        case("zero_owner", M, "owner 0 is a field left out", set(4, [0])),
        case("large_owner", M, "an owner of 2^32", set(4, b"\x1b\0\0\0\x01\0\0\0\0")),
        case("large_group", M, "a group of 2^32", set(5, b"\x1b\0\0\0\x01\0\0\0\0")),
        case("nanoseconds", M, "10^9 nanoseconds", set(9, b"\x1a\x3b\x9a\xca\0")),
        case("user_not_utf8", M, "a user's name that is not UTF-8", set(6, [0x61, 0xff])),
        case("short_link_group", M, "a link group of one byte", set(11, [0x41, 1])),
        case("pieces_and_list", M, "pieces beside a list", set(14, hash())),
        case("level_of_nothing", M, "a level without a list", set(15, [1])),
        case("pieces_too_long", M, "pieces of 300 bytes, a size of 299", set(12, b"\x19\x01\x2b")),
        case("pieces_too_short", M, "pieces of 300 bytes, a size of 301", set(12, b"\x19\x01\x2d")),
        case("pieces_overflow", M, "zeros of 2^64 - 1 bytes, twice", |bytes| {
            set(13, b"\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x1b\xff\xff\xff\xff\xff\xff\xff\xff")(bytes);
            set(12, b"\x1b\xff\xff\xff\xff\xff\xff\xff\xfe")(bytes);
        }),
        case("empty_chunk", M, "a chunk of no bytes beside one of 300", |bytes| {
            let piece = |length: &[u8]| [&[0x82][..], &hash(), length].concat();
            set(13, [&[0x82][..], &piece(&[0]), &piece(b"\x19\x01\x2c")].concat())(bytes);
        }),
        case("large_chunk", M, "a chunk of 16 MiB and a byte", sized(b"\x1a\x01\0\0\x01")),
        case("many_pieces", M, "33 pieces, each a byte of zeros", |bytes| {
            set(13, [&[0x98, 33][..], &[1; 33]].concat())(bytes);
            set(12, [0x18, 33])(bytes);
        }),
        case("with_target", U, "a file with a target", set(21, b"\x41a")),
        case("giant_list", T, "2^64 - 1 pieces are claimed", |bytes| {
            set(13, [0x80])(bytes);
            let at = bytes.iter().rposition(|byte| *byte == 0x80).unwrap();
            bytes.splice(at..=at, [&[0x9b][..], &[0xff; 8]].concat());
        }),
    ]
}

fn attributes() -> Vec<Case> {
    let xattrs = |value: &'static [u8]| set(10, value);
    vec![
        case("xattrs_unsorted", M, "attributes in descending order", reversed(10)),
        case("xattrs_repeated", M, "an attribute twice", repeated(10)),
        case("xattr_no_name", M, "an attribute with an empty name", xattrs(b"\x81\x82\x40\x40")),
        case("xattr_zero", M, "an attribute whose name has a zero byte", xattrs(b"\x81\x82\x41\0\x40")),
        case("xattr_no_value", M, "an attribute that is a name only", xattrs(b"\x81\x81\x41a")),
    ]
}

fn holes() -> Vec<Case> {
    // The file has 1,049,176 bytes.
    vec![
        case("empty_hole", M, "a hole of no bytes", set(16, b"\x81\x82\x05\0")),
        case("holes_overlap", M, "a hole at 5 of 5 bytes, one at 9", set(16, b"\x82\x82\x05\x05\x82\x09\x05")),
        case("holes_touch", M, "a hole at 5 of 5 bytes, one at 10", set(16, b"\x82\x82\x05\x05\x82\x0a\x05")),
        case("holes_unsorted", M, "holes in descending order", set(16, b"\x82\x82\x14\x05\x82\x05\x05")),
        case("hole_past_end", M, "a hole that ends a byte behind the file", set(16, b"\x81\x82\x1a\0\x10\x02\x57\x02")),
        case(
            "hole_overflow",
            M,
            "a hole that ends behind 2^64",
            set(16, b"\x81\x82\x05\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ),
        case("hole_of_one", M, "a hole without a length", set(16, b"\x81\x81\x05")),
    ]
}

fn directories() -> Vec<Case> {
    vec![
        case("no_node", M, "field 14 is missing", without(14)),
        case("17_levels", M, "a node of level 17", set(15, [17])),
        case("incomplete_2", M, "field 20 is 2", set(20, [2])),
        case("with_pieces", U, "a directory with pieces", set(13, [0x81, 5])),
    ]
}

fn symlinks() -> Vec<Case> {
    vec![
        case("no_target", M, "field 21 is missing", without(21)),
        case("empty_target", M, "a target of no bytes", set(21, [0x40])),
        case("target_zero", M, "a target with a zero byte", set(21, b"\x43a\0b")),
        case("with_size", U, "a symbolic link with a size", set(12, [1])),
    ]
}

fn directory_nodes() -> Vec<Case> {
    vec![
        case("reversed", M, "the names are b and a.txt", reversed(2)),
        case("repeated", M, "a name twice", repeated(2)),
        case("no_name", M, "an entry without a name", set(2, b"\x81\xa3\x02\x03\x03\0\x08\0")),
        case("no_items", M, "no entries are a field left out, not an empty list", set(2, [0x80])),
        case("links", U, "links in a node of level 0", set(3, [0x80])),
        case("level_0", M, "level 0 is a field left out", set(1, [0])),
        case("bad_entry", M, "an entry of mode 10000 octal", set(2, b"\x81\xa4\x01\x41a\x02\x03\x03\x19\x10\0\x08\0")),
    ]
}

fn directory_links() -> Vec<Case> {
    let link = |first: &[u8]| [&[0x81, 0x82][..], first, &hash()].concat();
    vec![
        case("reversed", M, "links in descending order", reversed(3)),
        case("repeated", M, "a link twice", repeated(3)),
        case("no_links", M, "field 3 is missing", without(3)),
        case("17_levels", M, "level 17", set(1, [17])),
        case("entries", U, "entries in a node of level 1", set(2, [0x80])),
        case("bad_name", M, "a link that begins with `..`", set(3, link(b"\x42.."))),
        case("short_id", M, "a link to a node of one byte", set(3, b"\x81\x82\x41a\x41\x01")),
    ]
}

fn pieces() -> Vec<Case> {
    let piece = |length: &[u8]| [&[0x81, 0x82][..], &hash(), length].concat();
    vec![
        case("no_pieces", M, "field 2 is missing", without(2)),
        case("no_zeros", M, "a piece of no zeros", set(2, [0x81, 0])),
        case("empty_chunk", M, "a chunk of no bytes", set(2, piece(&[0]))),
        case("large_chunk", M, "a chunk of 16 MiB and a byte", set(2, piece(b"\x1a\x01\0\0\x01"))),
        case(
            "many_pieces",
            M,
            "4097 pieces, each a byte of zeros",
            set(2, [&b"\x99\x10\x01"[..], &[1; 4097]].concat()),
        ),
        case("links", U, "links in a node of level 0", set(3, [0x80])),
        case("three_parts", M, "a piece of three parts", set(2, [&[0x81, 0x83][..], &hash(), &[1, 1]].concat())),
        case("giant_list", T, "2^64 - 1 pieces are claimed", |bytes| {
            *bytes = [&[0xa1, 2, 0x9b][..], &[0xff; 8]].concat();
        }),
    ]
}

fn list_links() -> Vec<Case> {
    vec![
        case("no_links", M, "field 3 is missing", without(3)),
        case("17_levels", M, "level 17", set(1, [17])),
        case("pieces", U, "pieces in a node of level 1", set(2, [0x80])),
        case("no_length", M, "a link without a length", set(3, [&[0x81, 0x81][..], &hash()].concat())),
    ]
}

fn commits() -> Vec<Case> {
    vec![
        case("unsorted", M, "previous commits in descending order", reversed(5)),
        case("repeated", M, "a previous commit twice", repeated(5)),
        case("repeated_segment", M, "a segment twice", repeated(7)),
        case("repeated_session", M, "a session twice", repeated(9)),
        case("no_envelope", M, "field 6 is missing", without(6)),
        case("kind_4", U, "kind 4", set(2, [4])),
    ]
}

fn snapshots() -> Vec<Case> {
    let root = |value: &'static [u8]| set(10, value);
    let numbers = |count: usize| set(11, [&[0x80 + u8::try_from(count).unwrap()][..], &vec![0; count]].concat());
    vec![
        case("nanoseconds", M, "10^9 nanoseconds", set(2, b"\x1a\x3b\x9a\xca\0")),
        case("large_user", M, "a user of 2^32", set(5, b"\x1b\0\0\0\x01\0\0\0\0")),
        case("large_group", M, "a group of 2^32", set(6, b"\x1b\0\0\0\x01\0\0\0\0")),
        case("host_not_utf8", M, "a host that is not UTF-8", set(3, [0x61, 0xff])),
        case("roots_unsorted", M, "roots in descending order", reversed(7)),
        case("roots_repeated", M, "a root twice", repeated(7)),
        case("root_relative", M, "a root that does not begin with a slash", set(7, b"\x81\x43etc")),
        case("root_upwards", M, "a root with `..` in it", set(7, b"\x81\x45/a/..")),
        case("root_slash", M, "a root with a slash at its end", set(7, b"\x81\x43/a/")),
        case("tags_unsorted", M, "tags in descending order", set(8, b"\x82\x61b\x61a")),
        case("tags_repeated", M, "a tag twice", repeated(8)),
        case("no_tags", M, "no tags are a field left out, not an empty list", set(8, [0x80])),
        case("short_parent", M, "a parent of one byte", set(9, [0x41, 1])),
        case("root_file", M, "a root that is a file", root(b"\xa3\x02\0\x03\0\x08\0")),
        case("eleven_numbers", M, "field 11 of eleven numbers", numbers(11)),
        case("thirteen_numbers", M, "field 11 of thirteen numbers", numbers(13)),
        case("no_original", M, "the repository of an original, and no original", without(13)),
        case("root_named", M, "the root entry has a name", |bytes| {
            let mut id = [0x58, 0x20].to_vec();
            id.extend([7; 32]);
            set(10, [&b"\xa5\x01\x41a\x02\x01\x03\0\x08\0\x0e"[..], &id].concat())(bytes);
        }),
    ]
}
