"""§9.7: reading. What counts is worked out once; content is read when it is asked for."""

from collections import OrderedDict, namedtuple

import access
import collection
import limits
import packs
import records
import sessions
from content import Tree
from conventions import Absent, NotAuthentic, Refused, Truncated, WrongIdentity, require
from index import decode_segment
from keys import Identities, credential, hash_of, open_envelope, sealing_private
from storage import Storage, named_by_hash

Commit = namedtuple("Commit", "session epoch signer hash fields")
Location = namedtuple("Location", "pack frame chunk")
Snapshot = namedtuple("Snapshot", "session commit record state")


class Repository:
    """An opened repository.

    `warn` is told of each record that counts as absent because it was refused (§1.4).
    """

    def __init__(self, root, unlock, warn):
        self.storage, self.warn = Storage(root), warn
        self.config = self.storage.usable("config", records.open_config)
        self.id = self.config.repository
        self.access = access.Access(self._statements(), self.config)
        seed = unlock(self)
        self.credential = credential(seed).id
        if self.credential not in self.access.credentials:
            raise NotAuthentic("the key is not in the access list")
        if self.credential in self.access.removals:
            raise NotAuthentic("the key was removed")
        self.secrets, refused = self.access.secrets(self.credential, sealing_private(seed))
        for what in refused:
            warn(what)
        if not any(secrets.private for secrets in self.secrets.values()):
            raise Absent("a key that opens content: only owners have it")
        self.identities = Identities(next(iter(self.secrets.values())).k_id)
        self.session_secrets, self.reread = {}, False
        self._read()

    def _read(self):
        """Works out what counts, in the order of §9.7."""
        self.frame_keys, self.frames = {}, OrderedDict()
        self._read_logs()
        self._read_commits()
        self._read_sweeps()
        self._read_segments()

    # Unlocking, §4.4 and §4.5.

    def _statements(self):
        found = []
        names = {*self.storage.list("access", 32), *self.storage.list("copies/access", 32)}
        for digest in sorted(names):
            try:
                read = lambda data: access.Statement(data, digest)
                found.append(self.storage.usable("access/" + digest.hex(), read))
            except Refused as refusal:
                self.warn(f"access/{digest.hex()}: {refusal}")
        return found

    def seed_of_password(self, password):
        """Tries the password on every slot that the access list names."""
        wrong = None
        for slot in self.access.slots:
            if slot.credential not in self.access.credentials or slot.credential in self.access.removals:
                continue
            name = "keys/" + slot.id.hex()
            try:
                data = self.storage.usable(name, lambda data: named_by_hash(slot.hash, data))
                seed = records.open_slot(data, password, self.id, slot.id, self.config.root)
                if credential(seed).id != slot.credential:
                    raise WrongIdentity("the slot opens another credential")
                return seed
            except NotAuthentic as refusal:
                wrong = refusal
            except Refused as refusal:
                self.warn(f"{name}: {refusal}")
        raise wrong or Absent("no slot that a password could open")

    def seed_of_key(self, key):
        if key.repository != self.id or key.root != self.config.root:
            raise WrongIdentity("the key is for another repository")
        return key.seed

    # Records, §4.1 and §4.2.

    def index_key(self, epoch):
        if epoch not in self.secrets:
            raise Absent(f"the secrets of epoch {epoch.hex()}")
        return self.secrets[epoch].k_index

    def _get(self, name):
        """What a log has under a name, or else the object (§10.4)."""
        return self.logged[name] if name in self.logged else self.storage.get(name)

    def _record(self, name, kind, data, owners_only, removed_too=False):
        record = records.open_record(data, kind, name, self.id, self.index_key)
        known = self.access.credentials.get(record.signer)
        if known is None:
            raise Absent("its writer, in the access list")
        records.verify_record(record, known.verifying, kind, name, self.id)
        if owners_only and known.role != access.OWNER:
            raise Absent("the right to write this, for a writer")
        removal = self.access.removals.get(record.signer)
        if owners_only and removal and not removed_too and hash_of(data) not in removal.accepted:
            raise Absent("the right to write this, for a credential that was removed")
        return record

    def _records(self, names, kind, shape, owners_only):
        """The records under these names, and the hashes of their bytes; those refused are told of."""
        for name in names:
            try:
                data = self._get(name)
                record = self._record(name, kind, data, owners_only)
                fields = shape.decode(record.body)
                yield name, record, fields, hash_of(data)
            except Refused as refusal:
                self.warn(f"{name}: {refusal}")

    def _named(self, folder, size, rest=""):
        """Names of objects in a folder, those first that are objects of their own (§10.4)."""
        listed = [f"{folder}/{one.hex()}{rest}" for one in self.storage.list(folder, size)]
        held = [name for name in self.logged if name.startswith(folder + "/") and name.endswith(rest)]
        return listed + [name for name in held if name not in listed]

    def _read_logs(self):
        self.logged = {}
        logs = []
        for name in self._named("log", 32):
            try:
                data = self.storage.get(name)
                record = self._record(name, records.LOG, data, owners_only=True, removed_too=True)
                fields = collection.LOG.decode(record.body)
                logs.append((fields.get(2, 0), hash_of(data), fields))
            except Refused as refusal:
                self.warn(f"{name}: {refusal}")
        for _, _, fields in sorted(logs, key=lambda log: log[:2]):
            self.logged.update(fields.get(3, []))

    # What counts, §9.7: commits, then sweeps, then segments.

    def _read_commits(self):
        found = {}
        for name, record, fields, digest in self._records(
            self._named("snapshots", 16), records.COMMIT, sessions.COMMIT, owners_only=False,
        ):  # fmt: skip
            if name == "snapshots/" + fields[1].hex():
                found[digest] = Commit(fields[1], record.epoch, record.signer, digest, fields)
            else:
                self.warn(f"{name}: malformed: the commit of another session")
        reached = self._reached(found)
        self.commits = {}
        for commit in found.values():
            if commit.signer not in self.access.removals or commit.hash in reached[commit.signer]:
                self.commits[commit.session] = commit
            else:
                self.warn(f"snapshots/{commit.session.hex()}: absent: its writer was removed before")

    def _reached(self, commits):
        """Of each removed credential the commits that its removal accepted, or that those reach."""
        reached = {}
        for gone, removal in self.access.removals.items():
            todo = [digest for digest in removal.accepted if digest in commits]
            reached[gone] = set()
            while todo:
                digest = todo.pop()
                if digest not in reached[gone]:
                    reached[gone].add(digest)
                    todo += [other for other in commits[digest].fields.get(5, []) if other in commits]
        return reached

    def _read_sweeps(self):
        self.dead, said = set(), {}
        names = self._swept_names()
        for name, _, fields, _ in self._records(names, records.SWEPT, collection.SWEPT, owners_only=True):
            if name != f"gc/{fields[1].hex()}/swept":
                self.warn(f"{name}: malformed: the sweep of another collection")
                continue
            self.dead |= set(fields.get(3, []))
            for field in (4, 5):
                said |= {
                    session: max(said.get(session, (b"", 0)), (fields[1], field)) for session in fields.get(field, [])
                }
        self.commits = {
            session: commit for session, commit in self.commits.items() if said.get(session, (b"", 0))[1] != 4
        }

    def _swept_names(self):
        for name in self._named("gc", 16, "/swept"):
            try:
                if name not in self.logged:
                    self.storage.range(name, 0, 0)
                yield name
            except Absent:
                pass

    def _read_segments(self):
        """Where chunks are, of packs of sessions that count."""
        self.packs, self.locations = [], {}
        owners = [c for c in self.commits.values() if self.access.credentials[c.signer].role == access.OWNER]
        replaced = {digest for commit in owners for digest in commit.fields.get(11, [])}
        for commit in self.commits.values():
            if commit.fields[8]:
                self._add_segment(f"snapshots/{commit.session.hex()}", commit.fields[8], commit)
            for digest in commit.fields.get(7, []):
                if digest in replaced:
                    continue
                name = "index/" + digest.hex()
                try:
                    data = self._get(name)
                    record = self._record(name, records.SEGMENT, data, owners_only=False)
                    require(record.signer == commit.signer, "a segment of another credential")
                    self._add_segment(name, record.body, commit)
                except Refused as refusal:
                    self.warn(f"{name}: {refusal}")

    def _add_segment(self, name, data, commit):
        try:
            origins, listed = decode_segment(data)
            if self.access.credentials[commit.signer].role != access.OWNER:
                for origin in origins:
                    own = (origin.session, origin.credential) == (commit.session, commit.signer)
                    require(own, "a writer's segment with another's origin")
        except Refused as refusal:
            self.warn(f"{name}: {refusal}")
            return
        for pack in listed:
            if pack.id in self.dead or pack.origin.session not in self.commits:
                continue
            self.packs.append(pack)
            for frame in pack.frames:
                for chunk in frame.chunks:
                    self.locations.setdefault((frame.kind, chunk.id), []).append(Location(pack, frame, chunk))

    # Snapshots.

    def snapshots(self):
        """All snapshots and checkpoints that can be read, oldest first."""
        superseded = {
            (old, commit.signer) for commit in self.commits.values() for old in commit.fields.get(9, [])
        }
        forgotten = set()
        notes = self._named("notes", 32)
        for _, note, fields, _ in self._records(notes, records.NOTE, collection.NOTE, owners_only=False):
            owner = self.access.credentials[note.signer].role == access.OWNER
            if fields[1] == collection.FORGOTTEN and owner and note.signer not in self.access.removals:
                forgotten.add((fields[4], fields[5]))
        found = []
        for commit in self.commits.values():
            if not commit.fields[10]:
                continue
            state = "checkpoint" if commit.fields[2] == sessions.CHECKPOINT else ""
            if (commit.session, commit.signer) in superseded:
                state = "superseded"
            if (commit.session, commit.hash) in forgotten:
                state = "forgotten"
            try:
                secret = self._secret(commit.session, commit.epoch, commit.signer, commit.fields[6])
                record = sessions.open_snapshot(commit.fields[10], secret, self.id, commit.session)
                found.append(Snapshot(commit.session, commit, record, state))
            except Refused as refusal:
                self.warn(f"snapshots/{commit.session.hex()}: {refusal}")
        return sorted(found, key=lambda one: (one.record[1], one.record.get(2, 0), one.session))

    def _secret(self, session, epoch, signer, envelope):
        key = (session, epoch, signer, envelope)
        if key not in self.session_secrets:
            secrets = self.secrets.get(epoch)
            if secrets is None or secrets.private is None:
                raise Absent(f"the private key of epoch {epoch.hex()}")
            info = b"esker v1 session\0" + self.id + session + epoch + signer
            psk = epoch, secrets.psk
            self.session_secrets[key] = open_envelope(secrets.private, envelope, info, psk)
        return self.session_secrets[key]

    # Content.

    def tree(self):
        return Tree(self.read_chunk)

    def read_chunk(self, kind, chunk):
        """A chunk, from the first place where it is right."""
        try:
            return self._read_chunk(kind, chunk)
        except Absent:
            # A collection may have moved it.
            if self.reread:
                raise
            self.reread = True
            self._read()
            return self._read_chunk(kind, chunk)

    def _read_chunk(self, kind, chunk):
        refused = Absent(f"chunk {chunk.hex()} is in no pack")
        for location in self.locations.get((kind, chunk), []):
            try:
                plain = self.frame(location.pack, location.frame)
                return packs.take_chunk(plain, location.chunk, self.identities.chunk[kind])
            except Refused as refusal:
                refused = refusal
        raise refused

    def frame(self, pack, frame):
        """A frame's plain bytes. The last few stay, since neighbours are asked for together."""
        key = (id(pack), frame.ordinal)
        if key not in self.frames:
            require(frame.sealed_bytes <= frame.plain_bytes + 40, "a frame longer than what it holds")
            sealed = self.storage.range(pack_name(pack.id), frame.offset, frame.sealed_bytes)
            if len(sealed) < frame.sealed_bytes:
                raise Truncated(f"pack {pack.id.hex()} ends in a frame")
            self.frames[key] = packs.open_frame(
                self._frame_key(pack), sealed, frame.ordinal, frame.kind, frame.compression,
                frame.plain_bytes, self.id,
            )  # fmt: skip
            if len(self.frames) > 8:
                self.frames.popitem(last=False)
        self.frames.move_to_end(key)
        return self.frames[key]

    def _frame_key(self, pack):
        if id(pack) not in self.frame_keys:
            origin = pack.origin
            secret = self._secret(origin.session, origin.epoch, origin.credential, origin.envelope)
            self.frame_keys[id(pack)] = packs.frame_key(secret, pack.salt, pack.frame_commitment)
        return self.frame_keys[id(pack)]

    def check_pack(self, pack):
        """Reads a whole pack and compares it with what the index says."""
        data = self.storage.get(pack_name(pack.id), limit=limits.PACK + limits.RECORD)

        def secret_of(trailer, directory):
            return self._secret(trailer.session, trailer.epoch, directory.credential, directory.envelope)

        trailer, directory = packs.read_pack(
            data, pack.id, self.index_key, secret_of, self.identities.chunk, self.id, lambda plain: None
        )
        require(len(data) == pack.stored_bytes, "another length than in the index")
        require(trailer.session == pack.origin.session, "another session than in the index")
        said = (pack.salt, pack.frame_commitment, pack.frames)
        found = (trailer.salt, trailer.frame_commitment, directory.frames)
        require(said == found, "another directory than in the index")


def pack_name(pack):
    return f"packs/{pack.hex()[:2]}/{pack.hex()}"
