"""Writes what SPEC.md describes: honest packs and commits, and records that should not count.

For the test only: what this makes, by the text alone, esker must read, or refuse, like the reader does.
Nonces and salts are random, and nothing of the order of writes (§9.5) is kept.
"""

import os
import struct

import keys
import records
import zstandard
from content import DATA, DIRECTORY, DIRECTORY_NODE, FILE
from Crypto.Cipher import ChaCha20_Poly1305
from Crypto.Protocol import HPKE
from Crypto.PublicKey import Hybrid
from Crypto.Signature import eddsa


# Fields of entries: who runs this, so that esker can restore them.
OWNER = {field: value for field, value in ((4, os.geteuid()), (5, os.getegid())) if value}


def encode(value):
    """Deterministic CBOR; maps as they are given, which is in order."""
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(encode(key) + encode(item) for key, item in value.items())
    return head(0, value) if value >= 0 else head(1, -1 - value)


def in_order(fields):
    return dict(sorted(fields.items()))


def head(major, number):
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes([major << 5 | number])
        if number < 1 << 8 * size:
            return bytes([major << 5 | info]) + number.to_bytes(size, "big")


def seal(key, plain, associated):
    nonce = os.urandom(24)
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(associated)
    text, tag = cipher.encrypt_and_digest(plain)
    return nonce + text + tag


class Forger:
    """One who holds a credential's seed, and opened the repository as an owner to know the rest."""

    def __init__(self, repository, seed):
        self.repository, self.seed = repository, seed
        self.credential = keys.credential(seed).id
        self.epoch, self.secrets = list(repository.secrets.items())[-1]

    def put(self, name, data):
        path = os.path.join(self.repository.storage.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def record(self, kind, name, body):
        """Signs, seals and puts a record (§4.1); one named by its hash is given its folder."""
        bound = "" if kind in records.NAMED_BY_HASH else name
        text = self.credential + b"\1" + self.sign(kind, bound, self.epoch, body) + body
        salt = os.urandom(32)
        key, commitment = keys.derive(f"record {kind}", self.secrets.k_index, salt)
        associated = b"esker v1 record\0" + self.repository.id + bytes([kind]) + self.epoch + bound.encode()
        sealed = seal(key, text, associated)
        data = b"ESKREC\0\1" + bytes([kind, 1, 0, 0]) + struct.pack("<I", len(sealed))
        data += self.epoch + salt + commitment + sealed
        if kind in records.NAMED_BY_HASH:
            name = f"{name}/{keys.hash_of(data).hex()}"
        else:
            data += keys.hash_of(data)
        self.put(name, data)
        return name, data

    def sign(self, kind, name, epoch, body):
        signing = eddsa.import_private_key(keys.derive("credential signing", self.seed)[0])
        return eddsa.new(signing, "rfc8032").sign(
            records.signed_message(self.repository.id, kind, name, epoch, body)
        )

    def statement(self, kind, seen, fields):
        """Signs and puts a statement (§4.5); its hash."""
        body = encode(in_order({1: kind, 2: self.credential, 3: sorted(seen), 4: 1, **fields}))
        data = b"ESKSIG\0\1" + bytes([2, 1, 0, 0]) + struct.pack("<I", len(body)) + body
        data += self.sign(records.STATEMENT, "", bytes(16), body)
        self.put(f"access/{keys.hash_of(data).hex()}", data)
        return keys.hash_of(data)

    def begin_session(self):
        """§9.1, and the secret of the session (§5.5)."""
        self.session, self.secret, self.frames = os.urandom(16), os.urandom(32), []
        public = Hybrid.generate(
            param_set=Hybrid.MLKEM768_X25519, randfunc=lambda size: self.secrets.private
        ).public_key()
        info = b"esker v1 session\0" + self.repository.id + self.session + self.epoch + self.credential
        psk = self.epoch, self.secrets.psk
        context = HPKE.new(receiver_key=public, aead_id=HPKE.AEAD.CHACHA20_POLY1305, psk=psk, info=info)
        sealed = context.seal(self.secret)
        self.envelope = b"\1" + context.enc + sealed
        body = encode({1: self.session, 2: 1_700_000_000, 3: self.envelope})
        self.record(records.SESSION, "sessions/" + self.session.hex(), body)

    def chunk(self, kind, data):
        """A chunk, which is a frame of its own; its id."""
        chunk = keys.keyed_hash(self.repository.identities.chunk[kind], data)
        self.frames.append((kind, [(chunk, len(data))], data))
        return chunk

    def file(self, name, data, fields={}):
        """A file of one chunk, or of none."""
        entry = {1: name, 2: FILE, 3: 0o644, **OWNER, 8: 1_600_000_000, 9: 7}
        if data:
            entry |= {12: len(data), 13: [[self.chunk(DATA, data), len(data)]]}
        return in_order({**entry, **fields})

    def directory(self, entries, fields={}):
        """A directory of entries that have names; totals are of what is given."""
        node = encode({2: entries} if entries else {})
        files = [entry for entry in entries if entry[2] != DIRECTORY]
        below = [entry for entry in entries if entry[2] == DIRECTORY]
        totals = {
            17: len(files) + sum(entry.get(17, 0) for entry in below),
            18: len(below) + sum(entry.get(18, 0) for entry in below),
            19: sum(entry.get(12, 0) for entry in files) + sum(entry.get(19, 0) for entry in below),
        }
        entry = {2: DIRECTORY, 3: 0o755, **OWNER, 8: 1_700_000_000, 14: self.chunk(DIRECTORY_NODE, node)}
        return in_order({**entry, **{key: value for key, value in totals.items() if value}, **fields})

    def pack(self):
        """§7: all frames so far as one pack; its segment (§8)."""
        salt = os.urandom(32)
        frame_key, frame_commitment = keys.derive("pack frames", self.secret, salt)
        directory_key, directory_commitment = keys.derive("pack directory", self.secrets.k_index, salt)
        stored, rows, chunks = b"", b"", b""
        for ordinal, (kind, inside, plain) in enumerate(self.frames):
            text, compression = zstandard.ZstdCompressor(write_content_size=False).compress(plain), 1
            if len(text) >= len(plain) or text[:5] != bytes.fromhex("28b52ffd00"):
                text, compression = plain, 0
            associated = b"esker v1 frame" + self.repository.id
            associated += struct.pack("<IBBI", ordinal, kind, compression, len(plain))
            sealed = seal(frame_key, text, associated)
            rows += struct.pack("<BBHIII", kind, compression, 0, len(sealed), len(plain), len(inside))
            chunks += b"".join(chunk + struct.pack("<I", size) for chunk, size in inside)
            stored += sealed
        table = struct.pack("<I", len(self.frames)) + rows + chunks
        plain = self.credential + struct.pack("<H", len(self.envelope)) + self.envelope + table + bytes(100)
        trailer = salt + frame_commitment + directory_commitment + self.epoch + self.session
        trailer += struct.pack("<IB3x", len(plain) + 40, 1) + b"ESKPAK\0\1"
        stored += (
            seal(directory_key, plain, b"esker v1 pack directory" + self.repository.id + trailer) + trailer
        )
        pack = keys.hash_of(stored)
        self.put(f"packs/{pack.hex()[:2]}/{pack.hex()}", stored)
        origin = (
            self.session
            + self.epoch
            + self.credential
            + struct.pack("<I", len(self.envelope))
            + self.envelope
        )
        packs = pack + struct.pack("<II", 0, len(stored)) + salt + frame_commitment + table
        self.frames = []
        return struct.pack("<I", 1) + origin + struct.pack("<I", 1) + packs

    def commit(self, root, kind=1, instead_of=(), previous=(), outside=False):
        """A pack of what there is, and the commit (§9.2) of a snapshot (§9.3) of this root."""
        snapshot = encode({
            1: 1_700_000_000, 3: "forged", 4: "nobody", 7: [b"/"], 10: root, 11: [0] * 12, 12: "SPEC.md",
        })  # fmt: skip
        salt = os.urandom(32)
        key, commitment = keys.derive("snapshot", self.secret, salt)
        associated = b"esker v1 snapshot\0" + self.repository.id + self.session
        box = salt + commitment + seal(key, snapshot, associated)
        segment, apart = self.pack(), {}
        if outside:
            name, _ = self.record(records.SEGMENT, "index", segment)
            segment, apart = b"", {7: [bytes.fromhex(name[6:])]}
        fields = {
            1: self.session, 2: kind, 3: 1_700_000_000, 4: 1, 5: sorted(previous), 6: self.envelope, **apart,
            8: segment, 9: sorted(instead_of), 10: box,
        }  # fmt: skip
        body = encode({key: value for key, value in fields.items() if value != []})
        self.record(records.COMMIT, "snapshots/" + self.session.hex(), body)
        return self.session
