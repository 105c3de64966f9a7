"""Compares what this reader makes of `format-spec/vectors` with what they say (§1.5)."""

import hashlib
import os

import access
import check
import collection
import content
import index
import keys
import packs
import parity
import records
import sessions
import writers
from blake3 import blake3
from conventions import Cursor, Refused, diagnostic
from repository import Repository

KINDS = {name: number for number, name in enumerate(
    "config,access statement,session,commit,index segment,flag,condemned list,sweep,collection end,note,log"
    .split(","), 1)}  # fmt: skip
CHUNKS = {name: number for number, name in keys.KIND_NAMES.items()}


class Vector(dict):
    """The fields, as text; `vector[name]` of those that are bytes by `bytes`."""

    def __init__(self, path):
        with open(path, "rb") as file:
            head, _, self.body = file.read().partition(b"\n\n")
        super().__init__(line.split(": ", 1) for line in head.decode().split("\n"))

    def bytes(self, name):
        return bytes.fromhex(self[name])

    def number(self, name):
        return int(self[name])


def same(found, expected):
    assert found == expected, f"{found!r:.200} where {expected!r:.200} was expected"


HANDLERS = {}


def handles(name):
    return lambda handler: HANDLERS.setdefault(name, handler)


def record(name, decode):
    """A record in CBOR, of which the vector has the value."""
    HANDLERS[name] = lambda vector, released: same(diagnostic(decode(vector.body)), vector.get("value"))


for name, decode in {
    "config": records.CONFIG_RECORD.decode, "access statement": access.STATEMENT_RECORD.decode,
    "epoch secrets": access.EPOCH_SECRETS.decode, "session": sessions.ANNOUNCEMENT.decode,
    "commit": sessions.COMMIT.decode, "snapshot": sessions.SNAPSHOT_RECORD.decode,
    "tree entry": content.ENTRY.decode, "directory node": content.DIRECTORY_NODES.decode,
    "list node": content.LIST_NODES.decode, "flag": collection.FLAG.decode,
    "condemned list": collection.CONDEMNED.decode, "sweep": collection.SWEPT.decode,
    "collection end": collection.DONE.decode, "note": collection.NOTE.decode, "log": collection.LOG.decode,
}.items():  # fmt: skip
    record(name, decode)


@handles("boundary level")
def boundary_level(vector, released):
    assert vector["bits_per_level"] == "6"
    identities = keys.Identities(vector.bytes("id_key"))
    same(writers.boundary_level(identities, vector.body), vector.number("level"))


@handles("link group")
def link_group(vector, released):
    identities = keys.Identities(vector.bytes("id_key"))
    same(content.link_group(identities, vector.body), vector.bytes("link_group"))


@handles("chunk")
def chunk(vector, released):
    identities = keys.Identities(vector.bytes("id_key"))
    whole = packs.Chunk(vector.bytes("id"), 0, len(vector.body))
    packs.take_chunk(vector.body, whole, identities.chunk[CHUNKS[vector["kind"]]])


@handles("credential")
def credential(vector, released):
    found = keys.credential(vector.bytes("seed"))
    same(found.verifying + found.sealing, vector.body)
    same(found.id, vector.bytes("credential"))


@handles("cuts")
def cuts(vector, released):
    data = b""
    for part in filter(None, vector["content"].split(", ")):
        how, what, number = part.split(" ")
        size = int(number)
        if how == "noise":
            data += blake3(what.encode()).digest(length=size)
        else:
            data += (bytes.fromhex(what) * size)[:size]
    same(blake3(data).hexdigest(), vector["content_blake3"])
    gear = writers.gear_table(vector.bytes("key"))
    same(blake3(b"".join(entry.to_bytes(8, "little") for entry in gear)).hexdigest(), vector["gear_blake3"])
    sizes = [vector.number(name) for name in ("min_bytes", "avg_bytes", "max_bytes")]
    found = [f"z{-size}" if size < 0 else str(size) for size in writers.cuts(data, gear, *sizes)]
    same(" ".join(found), vector["cuts"])


@handles("derived key")
def derived_key(vector, released):
    same(b"".join(keys.derive(vector["purpose"], vector.bytes("key"), vector.bytes("salt"))), vector.body)


@handles("password key")
def password_key(vector, released):
    cost = [vector.number(name) for name in ("memory_kib", "passes", "lanes")]
    same(keys.password_key(vector["password"].encode(), vector.bytes("salt"), *cost), vector.body)


@handles("padded lengths")
def padded_lengths(vector, released):
    for line in vector.body.decode().splitlines():
        length, padded = map(int, line.split())
        same(writers.padme(length), padded)


@handles("signature")
def signature(vector, released):
    keys.verify(vector.bytes("verifying"), vector.bytes("message"), vector.body)


@handles("sealed box")
def sealed_box(vector, released):
    plain = keys.open_box(vector["purpose"], vector.bytes("key"), vector.body, vector.bytes("aad"))
    same(plain, vector.bytes("plain"))


@handles("grant")
def grant(vector, released):
    private = keys.sealing_private(vector.bytes("seed"))
    same(private, vector.bytes("private"))
    same(b"esker v1 grant\0" + vector.bytes("repo") + vector.bytes("epoch"), vector.bytes("info")[:-32])
    plain = keys.open_secret(private, vector.body, vector.bytes("info"))
    access.EPOCH_SECRETS.decode(plain)
    same(plain, vector.bytes("plain"))


@handles("session envelope")
def session_envelope(vector, released):
    psk = vector.bytes("psk_id"), vector.bytes("psk")
    secret = keys.open_envelope(vector.bytes("private"), vector.body, vector.bytes("info"), psk)
    same(secret, vector.bytes("plain"))


@handles("signed record")
def signed_record(vector, released):
    kind = KINDS[vector["kind"]]
    body, signature = records.split_signed(vector.body, kind, vector["name"])
    keys_of = vector.bytes("verifying"), kind, vector["name"], vector.bytes("repo")
    records.verify_signed(body, signature, *keys_of)
    same(body, vector.bytes("body"))


@handles("sealed record")
def sealed_record(vector, released):
    kind, repository = KINDS[vector["kind"]], vector.bytes("repo")
    index_key = lambda epoch: vector.bytes("index_key")
    found = records.open_record(vector.body, kind, vector["name"], repository, index_key)
    same(found.signer, vector.bytes("credential"))
    records.verify_record(found, vector.bytes("verifying"), kind, vector["name"], repository)
    same(found.body, vector.bytes("body"))


@handles("key slot")
def key_slot(vector, released):
    where = vector.bytes("repo"), vector.bytes("slot"), vector.bytes("root_verifying")
    same(records.open_slot(vector.body, vector["password"].encode(), *where), vector.bytes("seed"))


@handles("key file")
def key_file(vector, released):
    found = records.read_key_file(vector.body)
    names = ("repo", "root_verifying", "seed")
    same(tuple(found), (vector["role"], *map(vector.bytes, names)))


@handles("frame table")
def frame_table(vector, released):
    cursor = Cursor(vector.body)
    packs.decode_table(cursor)
    cursor.end()


@handles("index segment")
def index_segment(vector, released):
    index.decode_segment(vector.body)


@handles("pack description")
def pack_description(vector, released):
    same(index.descriptions(vector.body)[0].hex(), vector["description"])


@handles("pack trailer")
def pack_trailer(vector, released):
    packs.decode_trailer(vector.body)


@handles("pack directory")
def pack_directory(vector, released):
    packs.decode_directory(vector.body)


@handles("parity object")
def parity_object(vector, released):
    content = vector.bytes("content")
    found = parity.check(vector.body, keys.hash_of(content), content)
    same(found.shards, parity.compute(content, found.shard_bytes, len(found.shards)))


@handles("frame")
def frame(vector, released):
    key = packs.frame_key(vector.bytes("session_secret"), vector.bytes("salt"), vector.bytes("commitment"))
    numbers = [vector.number(name) for name in ("ordinal", "kind", "compression", "plain_bytes")]
    same(packs.open_frame(key, vector.body, *numbers, vector.bytes("repo")), vector.bytes("plain"))


@handles("pack")
def pack(vector, released):
    packs.read_pack(
        vector.body, vector.bytes("id"), lambda epoch: vector.bytes("index_key"),
        lambda trailer, directory: vector.bytes("session_secret"),
        keys.Identities(vector.bytes("id_key")).chunk, vector.bytes("repo"), released.extend,
    )  # fmt: skip
    same(bytes(released), vector.bytes("plain"))


def run_one(vector):
    """What is wrong, or nothing."""
    if vector["object"] not in HANDLERS:
        return f"no reader of a {vector['object']}"
    released, found = bytearray(), "success"
    try:
        HANDLERS[vector["object"]](vector, released)
    except Refused as refusal:
        found = refusal.kind
        if hashlib.sha256(released).hexdigest() != vector.get("released"):
            return f"{refusal}, after {len(released)} bytes that are not those to be released"
    except AssertionError as difference:
        return str(difference)
    return None if found == vector["expect"] else f"{found} where {vector['expect']} was expected"


def run(directory):
    names = sorted(name for name in os.listdir(directory) if name.endswith(".txt"))
    wrong = 0
    for name in names:
        problem = run_one(Vector(os.path.join(directory, name)))
        if problem:
            wrong += 1
            print(f"{name}: {problem}")
    with open(os.path.join(directory, "repository.key"), "rb") as file:
        key = records.read_key_file(file.read())
    where = os.path.join(directory, "repository")
    faults = []
    repository = Repository(where, lambda repository: repository.seed_of_key(key), faults.append)
    faults += check.run(repository)
    for fault in faults:
        print(fault)
    snapshots = len(repository.snapshots())
    print(f"{len(names)} vectors, {wrong} wrong; a repository of {snapshots} snapshots, {len(faults)} faults")
    return 1 if wrong or faults or not snapshots else 0
