"""§4.1 to §4.4: sealed and signed records, the configuration, password slots, key files."""

import re
from collections import namedtuple

import limits
from conventions import (
    Cursor, Malformed, Optional, Record, Truncated, Unsupported, WrongIdentity,
    array, blob, integer, itself, known, require, text, uint,
)  # fmt: skip
from keys import committed, credential, hash_of, open_sealed, password_key, verify
from storage import named_by_hash

CONFIG, STATEMENT, SESSION, COMMIT, SEGMENT, FLAG, CONDEMNED, SWEPT, DONE, NOTE, LOG = range(1, 12)
NAMED_BY_HASH = {STATEMENT, SEGMENT, NOTE, LOG}

ID = blob(16)
HASH = blob(32)


def hashes():
    return array(HASH, ascending=itself)


def without_digest(data):
    """What precedes the digest that ends objects not named by their hash (§3)."""
    if len(data) < 32:
        raise Truncated("fewer bytes than a digest")
    require(hash_of(data[:-32]) == data[-32:], "the digest differs")
    return data[:-32]


def body_of_object(data, kind, name):
    """Checks an object against its name, as far as the name says what it holds."""
    if len(data) > limits.RECORD:
        raise Malformed(f"a record of {len(data)} bytes")
    if kind in NAMED_BY_HASH:
        return named_by_hash(bytes.fromhex(name.rpartition("/")[2]), data)
    return without_digest(data)


def header(cursor, magic, kind, suites):
    require(cursor.take(8) == magic, "no magic of this version")
    found, suite, reserved = cursor.u8(), cursor.u8(), cursor.take(2)
    if not CONFIG <= found <= LOG:
        raise Unsupported(f"kind {found}")
    require(found == kind, f"kind {found} under the name of kind {kind}")
    if suite not in suites:
        raise Unsupported(f"suite or algorithm {suite}")
    require(reserved == b"\0\0", "reserved bytes are not zero")
    return cursor.u32()


def signed_message(repository, kind, name, epoch, body):
    name = b"" if kind in NAMED_BY_HASH else name.encode()
    length = len(name).to_bytes(2, "little")
    return b"esker v1 signature\0" + repository + bytes([kind]) + length + name + epoch + hash_of(body)


# §4.1. `signer` is what the record claims; `signature_of` proves it.

Sealed = namedtuple("Sealed", "epoch signer signature body")


def sealed_epoch(data):
    cursor = Cursor(data)
    cursor.take(16)
    return cursor.take(16)


def open_record(data, kind, name, repository, index_key):
    """Opens a sealed record. `index_key` gives the key of an epoch."""
    cursor = Cursor(body_of_object(data, kind, name))
    size = header(cursor, b"ESKREC\0\1", kind, {1})
    epoch, salt, commitment = cursor.take(16), cursor.take(32), cursor.take(32)
    sealed = cursor.take(size)
    cursor.end()
    bound = b"" if kind in NAMED_BY_HASH else name.encode()
    key = committed(f"record {kind}", index_key(epoch), salt, commitment)
    associated = b"esker v1 record\0" + repository + bytes([kind]) + epoch + bound
    inner = Cursor(open_sealed(key, sealed, associated))
    signer, algorithm, signature = inner.take(32), inner.u8(), inner.take(64)
    if algorithm != 1:
        raise Unsupported(f"signature algorithm {algorithm}")
    return Sealed(epoch, signer, signature, inner.rest())


def verify_record(record, verifying, kind, name, repository):
    message = signed_message(repository, kind, name, record.epoch, record.body)
    verify(verifying, message, record.signature)


# §4.3


def split_signed(data, kind, name):
    """Body and signature of a signed record, which is not verified yet."""
    cursor = Cursor(body_of_object(data, kind, name))
    body = cursor.take(header(cursor, b"ESKSIG\0\1", kind, {1}))
    signature = cursor.take(64)
    cursor.end()
    return body, signature


def verify_signed(body, signature, verifying, kind, name, repository):
    verify(verifying, signed_message(repository, kind, name, bytes(16), body), signature)


def _config_rule(config):
    least, average, most = config[5], config[6], config[7]
    low, high = limits.CHUNK_AVERAGE
    require(low <= average <= high and average & (average - 1) == 0, f"an average chunk of {average}")
    require(limits.CHUNK_MIN <= least < average and least % 2 == 0, f"a smallest chunk of {least}")
    require(average < most <= limits.CHUNK and most % 2 == 0, f"a largest chunk of {most}")
    for feature in config.get(8, []):
        raise Unsupported(f"feature {feature}")


CONFIG_RECORD = Record(
    {
        1: known(1), 2: ID, 3: integer, 4: known(1), 5: uint(), 6: uint(), 7: uint(),
        8: Optional(array(text)), 9: HASH, 64: Optional(uint(0, 100)),
    },
    rule=_config_rule,
)  # fmt: skip

Config = namedtuple("Config", "repository root fields")


def open_config(data):
    body, signature = split_signed(data, CONFIG, "config")
    fields = CONFIG_RECORD.decode(body)
    verify_signed(body, signature, fields[9], CONFIG, "config", fields[2])
    return Config(fields[2], fields[9], fields)


# §4.4


def open_slot(data, password, repository, slot, root):
    """The seed of a credential."""
    cursor = Cursor(without_digest(data))
    require(cursor.take(8) == b"ESKKEY\0\1", "no magic of this version")
    kdf, suite, reserved = cursor.u8(), cursor.u8(), cursor.take(2)
    if kdf != 1 or suite != 1:
        raise Unsupported(f"key derivation {kdf}, suite {suite}")
    require(reserved == b"\0\0", "reserved bytes are not zero")
    memory, passes, lanes = cursor.u32(), cursor.u32(), cursor.u32()
    for cost, (low, high) in (
        (memory, limits.ARGON2_MEMORY_KIB), (passes, limits.ARGON2_PASSES), (lanes, limits.ARGON2_LANES),
    ):  # fmt: skip
        require(low <= cost <= high, f"a cost of {cost}, outside {low}..{high}")
    salt, commitment, sealed = cursor.take(32), cursor.take(32), cursor.take(104)
    cursor.end()
    parent = password_key(password, salt, memory, passes, lanes)
    key = committed("slot", parent, salt, commitment)
    plain = open_sealed(key, sealed, b"esker v1 slot\0" + repository + slot + root + data[:88])
    require(plain[32:] == bytes(32), "bytes behind the seed")
    return plain[:32]


KeyFile = namedtuple("KeyFile", "role repository root seed")
KEY_LINE = re.compile(
    "esker-key-2 (owner|writer) ([0-9a-f]{32}) ([0-9a-f]{64}) ([0-9a-f]{64}) ([0-9a-f]{64}) ([0-9a-f]{8})"
)


def read_key_file(data):
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Malformed("a key file that is not text") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise Truncated("comments only")
    if lines[0].split(" ")[0] != "esker-key-2":
        raise Unsupported("no key file of this version")
    match = KEY_LINE.fullmatch(lines[0])
    require(match, "a key file of other words")
    role, repository, root, named, seed, check = match.groups()
    before = lines[0].rpartition(" ")[0].encode()
    require(hash_of(before)[:4].hex() == check, "the check of the key file differs")
    if credential(bytes.fromhex(seed)).id.hex() != named:
        raise WrongIdentity("the seed is another credential's")
    return KeyFile(role, bytes.fromhex(repository), bytes.fromhex(root), bytes.fromhex(seed))
