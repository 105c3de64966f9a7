"""Risk: SPEC.md is not what esker does, and nobody can read a repository once esker is gone.
Method: esker makes repositories; this reader, which knows only SPEC.md, restores each snapshot, and
that is compared with what was backed up. What is damaged or forged must be refused, with the class
that SPEC.md names, and nothing that is wrong may be left behind. `test` runs it.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time

import check
import cli
import content
import keys
import records
import vectors
import writers
from blake3 import blake3
from Crypto.Signature import eddsa
from conventions import Refused
from forge import OWNER, Forger, encode
from repository import Repository
from restore import Restore

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, os.pardir, "vectors")
ROOT = os.geteuid() == 0
MIB = 1 << 20


def noise(name, size):
    return blake3(name.encode()).digest(length=size)


def write(path, data, mode=0o644):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def same(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: {found!r:.500}, where {expected!r:.500} was expected")


class World:
    """A temporary directory, and esker and the reader in it."""

    def __init__(self):
        self.at = os.path.realpath(tempfile.mkdtemp(prefix="esker-reader-"))
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": self.at, "ESKER_CACHE_DIR": self / "cache",
            "ESKER_STATE_DIR": self / "state", "ESKER_CONFIG": "/dev/null",
        }  # fmt: skip
        write(self / "password", "a pässword".encode() + b"\n")
        self.targets = 0

    def __truediv__(self, name):
        return os.path.join(self.at, name)

    def esker(self, *arguments, code=0):
        command = [os.environ["ESKER"], *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, stdin=subprocess.DEVNULL)
        if code is not None and done.returncode != code:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode()

    def reader(self, *arguments, code=0):
        """Runs the reader's command line; gives what it wrote to stdout and stderr, and its code."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = cli.run(arguments)
        if code is not None and found != code:
            raise AssertionError(f"reader {arguments}: {found}\n{out.getvalue()}{err.getvalue()}")
        return out.getvalue(), err.getvalue(), found

    def new_target(self):
        self.targets += 1
        return self / f"target-{self.targets}"


# What a tree is, as a dictionary of paths.


def manifest(root):
    found, groups = {}, {}
    root = os.fsencode(root)
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            short = path[len(root) :]
            status = os.lstat(path)
            entry = {
                "mode": status.st_mode, "mtime": status.st_mtime_ns, "owner": (status.st_uid, status.st_gid),
                "attributes": {
                    one: os.getxattr(path, one, follow_symlinks=False)
                    for one in os.listxattr(path, follow_symlinks=False)
                },
            }  # fmt: skip
            if stat.S_ISREG(status.st_mode):
                entry["size"] = status.st_size
                entry["content"], entry["holes"] = bytes_and_holes(path, status.st_size)
            elif stat.S_ISLNK(status.st_mode):
                entry["target"] = os.readlink(path)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                entry["device"] = status.st_rdev
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                groups.setdefault(status.st_ino, []).append(short)
            found[short] = entry
    for paths in groups.values():
        for path in paths:
            found[path]["links"] = sorted(paths)
    return found


def bytes_and_holes(path, size):
    """The hash of a file's bytes, and where its holes are."""
    holes, at = [], 0
    with open(path, "rb") as file:
        digest = blake3(file.read()).digest()
        while at < size:
            at = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            if at < size:
                try:
                    end = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    end = size
                holes.append((at, end))
                at = end
    return digest, holes


def covered(hole, holes):
    return any(begin <= hole[0] and hole[1] <= end for begin, end in holes)


def same_tree(found, expected, what):
    same(sorted(found.keys() ^ expected.keys()), [], f"{what}: entries on one side only")
    for path, entry in expected.items():
        other = dict(found[path])
        # Zeros come back as holes, so there may be more of those, but none less.
        holes = other.pop("holes", None)
        entry = dict(entry)
        for hole in entry.pop("holes", []):
            if not covered(hole, holes):
                raise AssertionError(f"{what}: {path!r} has no hole at {hole}, only {holes}")
        same(other, entry, f"{what}: {path!r}")


# Trees to back up.


def odd_tree(at):
    """Every kind of entry and attribute, and names that are hardly any."""
    os.makedirs(at)
    names = [b"\xff\xfe", b"new\nline", b" ", b"\x01", b"-rf", b"x" * 255, "é".encode(), "e\u0301".encode()]
    for name in names + [b"\\", b"*", b"...", b"a" * 100 + b"\x80"]:
        write(os.path.join(os.fsencode(at), name), name * 3)
    inside = lambda name: os.path.join(at, name)
    write(inside("empty"), b"")
    write(inside("one"), b"1")
    write(inside("setuid"), b"#!", 0o6755)
    write(inside("unreadable"), b"secret", 0 if ROOT else 0o400)
    os.makedirs(inside("shut/in"), 0o700)
    os.chmod(inside("shut"), 0o1711)
    os.mkdir(inside("empty directory"))
    os.symlink("nowhere/../" + "x" * 300, inside("broken link"))
    os.symlink(b"\xff", os.fsencode(inside("link to bytes")))
    os.mkfifo(inside("fifo"), 0o640)
    write(inside("first name"), b"linked")
    for name in ("a second name", "shut/in/a third"):
        os.link(inside("first name"), inside(name))
    os.link(inside("fifo"), inside("fifo again"))
    os.link(inside("broken link"), inside("shut/broken link"), follow_symlinks=False)
    if ROOT:
        os.chown(inside("one"), 12345, 54321)
        os.chown(inside("link to bytes"), 1, 2, follow_symlinks=False)
        with contextlib.suppress(PermissionError):
            os.mknod(inside("null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
            os.mknod(inside("loop"), 0o600 | stat.S_IFBLK, os.makedev(7, 300))
    acl = struct.pack(
        "<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 4, 77, 4, 4, 2**32 - 1, 16, 4, 2**32 - 1, 32, 0, 2**32 - 1
    )
    attributes = [
        ("one", "user.empty", b""),
        ("one", "user.bytes", bytes(range(256))),
        ("shut", "user.d", b"d"),
    ]
    attributes.append(("one", "user.large", noise("attribute", 2000)))
    attributes.append(("empty", "system.posix_acl_access", acl))
    if ROOT:
        attributes.append(("broken link", "trusted.of a link", b"1"))
    for name, key, value in attributes:
        try:
            os.setxattr(inside(name), key, value, follow_symlinks=False)
        except OSError as error:
            print(f"    left out: {key}: {error.strerror}")
    for name, time_ns in (
        ("one", -1),
        ("empty", 1),
        ("fifo", 2**33 * 10**9 + 999999999),
        ("broken link", 10**18),
    ):
        os.utime(inside(name), ns=(0, time_ns), follow_symlinks=False)
    os.utime(inside("shut"), ns=(0, -(10**18) + 1))


def sparse_file(path, parts, size):
    """Parts are offset and bytes; between them are holes."""
    with open(path, "wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def large_tree(at, mib, wide):
    """A file of 60 times `mib` MiB with all that it can be made of; directories both wide and deep."""
    os.makedirs(at)
    mib = int(mib * MIB)
    parts = [(0, noise("large", 20 * mib)), (20 * mib, b"line of text\n" * (800_000 * mib // MIB))]
    parts += [(40 * mib, bytes(3 * mib)), (48 * mib, noise("again", 100_000) * (60 * mib // MIB))]
    parts += [(57 * mib + 12_288, b"an island"), (59 * mib, b"end")]
    sparse_file(os.path.join(at, "large"), parts, 60 * mib)
    sparse_file(os.path.join(at, "all hole"), [], 9 * MIB + 1)
    sparse_file(
        os.path.join(at, "small holes"), [(0, b"a" * 4096), (16384, b"b" * 4096), (65536, b"c")], 90_000
    )
    # Runs of zeros just below, at and above the least that is a piece (§6.2).
    for zeros in (65535, 65536, 65537):
        write(os.path.join(at, f"zeros {zeros}"), b"x" * 10_000 + bytes(zeros) + b"y" * 10_000)
        write(os.path.join(at, f"zeros {zeros} at both ends"), bytes(zeros) + b"x" + bytes(zeros))
    os.mkdir(os.path.join(at, "wide"))
    for number in range(wide):
        write(os.path.join(at, "wide", f"{number * 7919 % wide} file"), b"%d" % (number // 3))
    deep = at
    for number in range(150):
        deep = os.path.join(deep, f"level {number}")
        os.mkdir(deep)
        write(os.path.join(deep, "file"), b"%d" % number)


# Scenarios.


def vectors_agree(world):
    out, _, _ = world.reader("vectors", VECTORS)
    print("   ", out.strip())


def mutated_vectors_are_refused_or_read(world):
    """Nothing but a class of §1.4 comes of bytes that were changed."""
    chance, count, refused = random.Random(1), 0, 0
    for name in sorted(os.listdir(VECTORS)):
        if not name.endswith(".txt") or name.startswith(("cut_", "zeros_", "key_slot", "padme", "password")):
            continue
        vector = vectors.Vector(os.path.join(VECTORS, name))
        whole = vector.body
        for _ in range(12):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data) + 1)
                how = chance.randrange(4)
                if how == 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                elif how == 1:
                    del data[at : at + chance.randrange(1, 9)]
                elif how == 2:
                    data[at:at] = chance.choice(
                        [b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\x81" * 5000, b"\xd8\x40", b"\xfb\0\0"]
                    )
                elif data:
                    data[at % len(data)] ^= 1 << chance.randrange(8)
            vector.body = bytes(data)
            count += 1
            try:
                vectors.HANDLERS[vector["object"]](vector, bytearray())
            except Refused:
                refused += 1
            except AssertionError:
                pass
    print(f"    {count} mutations, {refused} refused")


def every_snapshot_comes_back(world):
    """A password; attributes of every kind; three backups of a tree that changes; a writer's; options."""
    source, repository, key = world / "source", world / "odd", ("--password-file", world / "password")
    odd_tree(source)
    world.esker("-r", repository, *key, "init", "--no-recovery", "--chunk-average", "512")
    write(os.path.join(source, "many pieces"), noise("pieces", 6 * MIB))
    made = {}

    def backup(*arguments, key=key):
        world.esker("-r", repository, *key, "backup", source, *arguments)
        before = set(made)
        out, _, _ = world.reader("snapshots", repository, *OWN)
        listed = [line.split("\t")[0] for line in out.splitlines()]
        new = [one for one in listed if one not in before]
        same(len(new), 1, "snapshots that are new")
        made[new[0]] = manifest(source)

    OWN = key
    backup("--compression", "off", "--tag", "one")
    # An incremental one: changed, grown, gone, moved, of another kind, only touched.
    write(os.path.join(source, "one"), b"changed")
    with open(os.path.join(source, "many pieces"), "r+b") as file:
        file.seek(3 * MIB)
        file.write(b"in the middle")
        file.seek(0, 2)
        file.write(b"at the end")
    os.unlink(os.path.join(source, "a second name"))
    os.rename(os.path.join(source, "shut/in"), os.path.join(source, "moved"))
    os.rmdir(os.path.join(source, "empty directory"))
    write(os.path.join(source, "empty directory"), b"a file now")
    os.utime(os.path.join(source, "unreadable"), (1, 2))
    backup("--compression", "19", "--frame-size", "8M", "--tag", "two,three")
    shutil.rmtree(os.path.join(source, "moved"))
    large_tree(os.path.join(source, "large"), 1 / 8, 500)
    backup("--pack-size", "4M", "--frame-size", "64K", "--compression", "fast")
    write(os.path.join(source, "by the writer"), noise("writer", 100_000))
    world.esker("-r", repository, *key, "key", "writer", "--out", world / "writer", "--name", "writer")
    backup(key=("--key-file", world / "writer"))
    # Under new keys; then collected, and single records folded into logs.
    world.esker("-r", repository, *key, "key", "rotate")
    write(os.path.join(source, "after the rotation"), noise("rotated", 100_000))
    backup("--tag", "rotated")
    world.esker("-r", repository, *key, "prune", "--fold-from", "1", "--max-unused", "0B")
    same(os.listdir(os.path.join(repository, "snapshots")), [], "commits that are objects of their own")
    restored = restore_all(world, repository, key, made)
    shutil.rmtree(source)
    # Other keys of the same repository: a key file, a second password, a recovery kit.
    write(world / "second password", b"another")
    world.esker("-r", repository, *key, "key", "add", "--out", world / "owner")
    world.esker("-r", repository, *key, "key", "export", "--out", world / "kit")
    world.esker("-r", repository, *key, "key", "add", "--new-password-file", world / "second password")
    for other in (
        ("--key-file", world / "owner"),
        ("--key-file", world / "kit"),
        ("--password-file", world / "second password"),
    ):
        out, err, _ = world.reader("snapshots", repository, *other)
        same(
            (sorted(line.split("\t")[0] for line in out.splitlines()), err),
            (sorted(made), ""),
            f"listed with {other}",
        )
    _, err, _ = world.reader("snapshots", repository, "--key-file", world / "writer", code=1)
    assert "only owners" in err, err
    # The second copy of a slot serves; and without both it is as if there were no password.
    for slot in os.listdir(os.path.join(repository, "keys")):
        copies = [os.path.join(repository, folder, slot) for folder in ("keys", "copies/keys")]
        with damaged(copies[:1], "middle"):
            same(world.reader("snapshots", repository, *key)[1], "", "what was said of a damaged slot")
        with damaged(copies, "middle"):
            passwords = [world / "password", world / "second password"]
            codes = [
                world.reader("snapshots", repository, "--password-file", one, code=None)[2]
                for one in passwords
            ]
            same(sorted(codes), [0, 1], "codes with one of two slots damaged")
    write(world / "wrong", b"wrong")
    _, err, _ = world.reader("snapshots", repository, "--password-file", world / "wrong", code=1)
    assert "not authentic" in err, err
    world.reader("check", repository, *key)
    print(f"    {len(made)} snapshots, {restored} entries")


def restore_all(world, repository, key, made):
    entries = 0
    for snapshot, expected in made.items():
        target = world.new_target()
        _, err, _ = world.reader("restore", repository, *key, snapshot, target)
        same(err, "", f"what was said of {snapshot}")
        same_tree(manifest(target + world / "source"), expected, snapshot)
        entries += len(expected)
        shutil.rmtree(target)
    return entries


def key_file_repository(world):
    """A repository that only a key file opens, with what is usual in everything else."""
    source, repository, key = world / "source", world / "keyed", ("--key-file", world / "key")
    large_tree(source, 1, 4000)
    world.esker("-r", repository, *key, "init", "--no-recovery")
    world.esker("-r", repository, *key, "backup", source)
    out, _, _ = world.reader("snapshots", repository, *key)
    restore_all(world, repository, key, {out.split("\t")[0]: manifest(source)})
    world.reader("check", repository, *key)
    shutil.rmtree(source)


class Small:
    """A repository of two snapshots, by an owner and by a writer."""

    def __init__(self, world):
        self.world, self.source, self.at = world, world.new_target(), world.new_target()
        self.key, self.writer = ("--key-file", self.at + ".key"), ("--key-file", self.at + ".writer")
        os.makedirs(os.path.join(self.source, "below"))
        for name in ("a", "b", "below/c"):
            write(os.path.join(self.source, name), noise(name, 100_000) + bytes(100_000))
        os.symlink("a", os.path.join(self.source, "link"))
        self.made = {}
        self.esker("init", "--no-recovery")
        self.backup()
        self.esker("key", "writer", "--out", self.writer[1], "--name", "w")
        write(os.path.join(self.source, "d"), noise("d", 200_000))
        self.backup(self.writer)

    def esker(self, *arguments, key=None, code=0):
        return self.world.esker("-r", self.at, *(key or self.key), *arguments, code=code)

    def backup(self, key=None):
        self.esker("backup", self.source, key=key)
        (session,) = {one.session for one in self.open().snapshots()} - self.made.keys()
        self.made[session] = manifest(self.source)

    def open(self):
        return open_with(self.at, self.key[1])


def open_with(repository, key_file, warn=lambda what: None):
    with open(key_file, "rb") as file:
        key = records.read_key_file(file.read())
    return Repository(repository, lambda repository: repository.seed_of_key(key), warn)


def objects(repository):
    for directory, _, names in os.walk(repository):
        for name in sorted(names):
            yield os.path.join(directory, name)[len(repository) + 1 :]


@contextlib.contextmanager
def damaged(paths, how):
    """Objects with a bit flipped, cut in half, or gone, for a while."""
    before = {}
    for path in paths:
        with open(path, "rb") as file:
            before[path] = file.read()
        data = bytearray(before[path])
        if how == "gone":
            os.unlink(path)
            continue
        if how == "cut":
            del data[len(data) // 2 :]
        else:
            data[{"first": 0, "middle": len(data) // 3, "last": -1}[how]] ^= 0x10
        write(path, data)
    yield
    for path, data in before.items():
        write(path, data)


FLIPS = ("first", "middle", "last")
# By folder and damage: what opening, checking and restoring say, and whether a snapshot is missing.
# "Absent" are the chunks that the other snapshot relies on.
NOTHING = (set(), set(), set(), False)
DAMAGE = {
    ("access", "sessions", "copies"): {(*FLIPS, "cut", "gone"): NOTHING},
    ("config",): {(*FLIPS, "cut"): NOTHING, ("gone",): ({"absent"}, set(), set(), False)},
    ("packs",): {
        ("first", "middle"): (set(), {"wrong identity", "not authentic"}, {"not authentic"}, False),
        ("last",): (set(), {"wrong identity"}, set(), False),
        ("cut",): (set(), {"wrong identity", "truncated"}, {"truncated"}, False),
        ("gone",): (set(), {"absent"}, {"absent"}, False),
    },
    ("snapshots",): {
        (*FLIPS, "cut"): ({"malformed"}, {"absent"}, {"absent"}, True),
        ("gone",): (set(), {"absent"}, {"absent"}, True),
    },
}  # fmt: skip
# Where the second copy is damaged alike.
TWICE = {
    "config": {(*FLIPS, "cut"): {"malformed"}},
    # Without the owner's statements the key is not in the list, without the writer's its commit is not.
    "access": {
        (*FLIPS, "cut"): {"wrong identity", "not authentic", "absent"},
        ("gone",): {"not authentic", "absent"},
    },
}


def damage_is_refused_with_its_class(world):
    """One object at a time: what still comes back is right, and the rest is named, with its class."""
    small, seen, twice = Small(world), {}, {}
    for name in sorted(objects(small.at)):
        folder = name.split("/")[0]
        for how in (*FLIPS, "cut", "gone"):
            with damaged([os.path.join(small.at, name)], how):
                said = restore_what_is_there(small)
                before = seen.get((folder, how), NOTHING)
                seen[folder, how] = tuple(a | b for a, b in zip(before, said))
            if folder in TWICE:
                with damaged([os.path.join(small.at, name), os.path.join(small.at, "copies", name)], how):
                    twice.setdefault((folder, how), set()).update(restore_what_is_there(small)[0])
    expected = {
        (folder, how): said
        for folders, ways in DAMAGE.items() for folder in folders
        for hows, said in ways.items() for how in hows
    }  # fmt: skip
    for what in expected.keys() | seen.keys():
        same(seen.get(what), expected.get(what), f"damage {what}")
    for folder, ways in TWICE.items():
        for hows, said in ways.items():
            for how in hows:
                same(twice[folder, how], said, f"damage of both copies {folder, how}")
    print(f"    {len(seen) + len(twice)} kinds of damage")


def restore_what_is_there(small):
    """Checks and restores everything, having compared it; gives the classes of what was refused."""
    opening, restoring = [], []
    try:
        opened = open_with(small.at, small.key[1], opening.append)
    except Refused as refusal:
        opening.append(f"{refusal}")
        return classes(opening), set(), set(), False
    checking = check.run(opened)
    snapshots = opened.snapshots()
    for snapshot in snapshots:
        expected = small.made[snapshot.session]
        target = small.world.new_target()
        report = lambda path, problem: restoring.append(str(problem))
        Restore(opened.tree(), report).run(snapshot.record[10], os.fsencode(target))
        found = manifest(target + small.source)
        shutil.rmtree(target)
        for path, entry in found.items():
            if stat.S_ISREG(entry["mode"]):
                same_tree({path: entry}, {path: expected[path]}, "a damaged repository")
        if not restoring:
            same_tree(found, expected, "a snapshot that is whole")
    return classes(opening), classes(checking), classes(restoring), len(snapshots) < len(small.made)


def classes(problems):
    kinds = (
        "truncated",
        "malformed",
        "unsupported",
        "not authentic",
        "wrong identity",
        "absent",
        "cut elsewhere",
    )
    found = set()
    for problem in problems:
        mine = [kind for kind in kinds if problem.startswith(f"{kind}:") or f" {kind}:" in problem]
        same(len(mine), 1, f"classes in {problem}")
        found.update(mine)
    return found


def forger(small, key=None):
    with open((key or small.key)[1], "rb") as file:
        return Forger(small.open(), records.read_key_file(file.read()).seed)


def listed_by_both(small):
    """The sessions of the snapshots, on which esker and the reader must agree."""
    found = {one["id"] for one in json.loads(small.esker("snapshots", "--json").splitlines()[0])}
    ours = {one.session.hex() for one in small.open().snapshots()}
    same(ours, found, "snapshots that the reader lists")
    return {bytes.fromhex(one) for one in found}


def esker_reads_what_the_text_says_to_write(world):
    """A snapshot made by SPEC.md alone: esker finds nothing wrong, and both restore the same."""
    small = Small(world)
    for key, outside in ((small.key, False), (small.writer, True)):
        forged = forger(small, key)
        forged.begin_session()
        group = content.link_group(forged.repository.identities, b"/dir/linked")
        holes = b"data" * 1024 + bytes(8192) + b"end"
        inside = [
            forged.file(b"empty", b"", {3: 0o4711}),
            forged.file(b"holes", holes, {16: [[4096, 8192]], 10: [[b"user.a", b""], [b"user.b", b"b"]]}),
            forged.file(b"linked", b"hello", {11: group}),
            {1: b"pipe", 2: 3, 3: 0o600, **OWNER, 8: -5},
            {1: b"to", 2: 2, 3: 0o777, **OWNER, 8: 1, 9: 2, 21: b"nowhere", 64: [1, {"a": b"b"}]},
            forged.file(b"x" * 255, b"hello", {11: group}),
        ]
        below = forged.directory(
            [{1: b"dir", **forged.directory(inside)}, forged.file(b"\xff", b"text" * 30_000)]
        )
        session = forged.commit(below, outside=outside).hex()
        small.esker("check", "--read-data")
        # One directory in a dozen repositories has a name that a writer would begin a node with; this one has
        # all names in one node, which is read like any other.
        out, err, _ = world.reader("check", small.at, *small.key, code=None)
        faults = [line for line in (out + err).splitlines() if line]
        assert all(line.endswith("is cut elsewhere") or ": " not in line for line in faults), faults
        found = []
        for restore in (small.esker, lambda *them: world.reader(them[0], small.at, *small.key, *them[1:4:2])):
            found.append(world.new_target())
            restore("restore", session, "--target", found[-1])
        same_tree(manifest(found[1]), manifest(found[0]), "a snapshot that was written by the text")
        same(len(manifest(found[0])), len(inside) + 2, "entries")


def what_does_not_count_counts_for_neither(world):
    """Records by those who may not make them, in the eyes of both."""
    small = Small(world)
    by_owner, by_writer = small.made
    both = {by_owner, by_writer}
    same(listed_by_both(small), both, "snapshots")
    owner, writer = forger(small), forger(small, small.writer)
    collection_id = bytes(16)
    swept = encode({1: collection_id, 2: 1, 4: [by_owner]})
    # A writer sweeps, and forgets.
    name, _ = writer.record(records.SWEPT, f"gc/{collection_id.hex()}/swept", swept)
    commits = {commit.session: commit.hash for commit in small.open().commits.values()}
    forgotten = encode({1: 1, 2: 1, 4: by_owner, 5: commits[by_owner], 6: 1})
    writer.record(records.NOTE, "notes", forgotten)
    # A writer takes the place of an owner's snapshot.
    writer.begin_session()
    both.add(writer.commit(writer.directory([writer.file(b"a", b"a")]), instead_of=[by_owner]))
    same(listed_by_both(small), both, "snapshots, whatever a writer says of them")
    same({one.state for one in small.open().snapshots()}, {""}, "states")
    # A writer speaks of another session's packs: the segment is refused, and so is what it alone names.
    writer.begin_session()
    segment, session = writer.pack, writer.session
    writer.pack = lambda: segment().replace(session, by_owner, 1)
    both.add(writer.commit(writer.directory([])))
    warnings = []
    opened = open_with(small.at, small.key[1], warnings.append)
    same({one.session for one in opened.snapshots()}, both, "snapshots, one with a refused segment")
    refused = f"snapshots/{session.hex()}: malformed: a writer's segment with another's origin"
    assert refused in warnings, warnings
    with_refused = json.loads(small.esker("snapshots", "--json", code=1).splitlines()[0])
    same({one["id"] for one in with_refused}, {one.hex() for one in both}, "the same, by esker")
    os.unlink(os.path.join(small.at, "snapshots", session.hex()))
    both.remove(session)
    # Removed: what the removal accepted stays, what comes later does not count.
    small.esker("key", "remove", writer.credential.hex()[:8])
    late = forger(small, small.writer)
    late.begin_session()
    late.commit(late.directory([late.file(b"late", b"late")]), previous=commits.values())
    same(listed_by_both(small), both, "snapshots after a removal")
    # An owner that is removed: whom it added before stays.
    second = ("--key-file", small.at + ".second")
    small.esker("key", "add", "--out", second[1])
    added = ("--key-file", small.at + ".added")
    small.esker("key", "writer", "--out", added[1], "--name", "by the second", key=second)
    small.esker("key", "remove", forger(small, second).credential.hex()[:8])
    small.esker("backup", small.source, key=added)
    both |= (now := listed_by_both(small)) - both
    same((len(now), now), (len(small.made) + 2, both), "snapshots, one by whom a removed owner added")
    # An owner's sweep: void for both, and so is what lies in packs of that session.
    owner.record(records.SWEPT, name, swept)
    same(listed_by_both(small), both - {by_owner}, "snapshots after a sweep")
    # A higher collection says that it counts.
    higher = bytes([1]) + bytes(15)
    above, _ = owner.record(
        records.SWEPT, f"gc/{higher.hex()}/swept", encode({1: higher, 2: 1, 5: [by_owner]})
    )
    same(listed_by_both(small), both, "snapshots after a higher sweep")
    os.unlink(os.path.join(small.at, above))
    # An owner's note and a log are read by the reader alone (§13).
    os.unlink(os.path.join(small.at, name))
    owner.record(records.NOTE, "notes", forgotten)
    states = {one.session: one.state for one in small.open().snapshots()}
    same(states, {**dict.fromkeys(both, ""), by_owner: "forgotten"}, "states after a note")
    _, data = owner.record(records.SWEPT, name, swept)
    os.unlink(os.path.join(small.at, name))
    owner.record(records.LOG, "log", encode({1: 1, 3: [[name, data]]}))
    same({one.session for one in small.open().snapshots()}, both - {by_owner}, "snapshots after a log")


class MixedOrder(Forger):
    """One whose verifying key has a part of small order: only the cofactor would hide it (§4.2)."""

    SMALL = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")

    def __init__(self, repository, seed, hidden):
        super().__init__(repository, seed)
        self.hidden, self.scalar = hidden, int.from_bytes(seed, "little") % keys.ORDER
        small = eddsa.import_public_key(self.SMALL).pointQ
        self.verifying, self.sealing = (
            encoded(keys.GENERATOR * self.scalar + small),
            keys.credential(seed).sealing,
        )
        self.credential = keys.credential_id(self.verifying, self.sealing)

    def sign(self, kind, name, epoch, body):
        message = records.signed_message(self.repository.id, kind, name, epoch, body)
        for secret in range(1, 1000):
            commitment = encoded(keys.GENERATOR * secret)
            digest = hashlib.sha512(commitment + self.verifying + message).digest()
            challenge = int.from_bytes(digest, "little") % keys.ORDER
            # The part of order 8 vanishes by itself when the challenge is a multiple of that.
            if (challenge % 8 == 0) == self.hidden:
                response = (secret + challenge * self.scalar) % keys.ORDER
                return commitment + response.to_bytes(32, "little")


def encoded(point):
    x, y = map(int, point.xy)
    return (y | (x & 1) << 255).to_bytes(32, "little")


def signatures_are_verified_without_the_cofactor(world):
    small = Small(world)
    mixed = MixedOrder(small.open(), noise("mixed", 32), hidden=True)
    newest = [statement.hash for statement in small.open().access.order][-1:]
    forger(small).statement(1, newest, {5: 1, 6: mixed.verifying, 7: mixed.sealing, 8: b""})
    mixed.begin_session()
    same(mixed.commit(mixed.directory([])) in listed_by_both(small), True, "a signature right by chance")
    mixed.hidden = False
    mixed.begin_session()
    refused = mixed.commit(mixed.directory([]))
    found = json.loads(small.esker("snapshots", "--json", code=1).splitlines()[0])
    same(len(found), 3, "snapshots that esker lists, without the commit that only the cofactor makes right")
    warnings = []
    same(len(open_with(small.at, small.key[1], warnings.append).snapshots()), 3, "those of the reader")
    assert f"snapshots/{refused.hex()}: not authentic: the signature is wrong" in warnings, warnings


def access_is_worked_out_alike(world):
    """Owners and writers who add and remove one another, at once, with what they saw and accept drawn."""
    small, chance = Small(world), random.Random(1)
    access_at, base = os.path.join(small.at, "access"), {}
    for name in os.listdir(access_at):
        with open(os.path.join(access_at, name), "rb") as file:
            base[name] = file.read()
    root = forger(small)
    commits = [commit.hash for commit in small.open().commits.values()]
    forgers = [root, forger(small, small.writer)]
    forgers += [Forger(root.repository, noise(f"credential {number}", 32)) for number in range(6)]
    histories, removed, counts = 100, 0, set()
    for _ in range(histories):
        shutil.rmtree(access_at)
        for name, data in base.items():
            root.put(f"access/{name}", data)
        known = sorted(bytes.fromhex(name) for name in base)
        slots = [bytes([number]) * 16 for number in range(3)]

        def some(hashes, most):
            return sorted(chance.sample(hashes, chance.randrange(min(most, len(hashes)) + 1)))

        added, war = [root], chance.randrange(2)
        for number in range(chance.randrange(6, 20)):
            # Most know the newest; some say that they have seen anything, or nothing.
            seen = chance.choice([known[-1:], known[-1:], some(known, 3)])
            signer = chance.choice(added if chance.randrange(8) else forgers)
            kind = 1 if number < 4 else chance.choice([1, 2, 2, 2, 3, 3, 4])
            whom = chance.choice(forgers if kind == 1 else added)
            if war and number < 4:
                # Each adds the next, and then they fall upon one another, all at once.
                seen, signer, whom = known[-1:], added[-1], forgers[chance.randrange(2, len(forgers))]
            elif war:
                seen = known[len(base) + 3 : len(base) + 4]
            public = keys.credential(whom.seed)
            accepted = some(known + commits, 4)
            fields = {
                1: {
                    5: 1 if war else chance.choice([1, 1, 1, 2]),
                    6: public.verifying,
                    7: public.sealing,
                    8: b"",
                },
                2: {10: public.id, **({11: accepted} if accepted else {})},
                3: {10: public.id, 12: chance.choice(slots), 13: noise(str(chance.random()), 32)},
                4: {12: chance.choice(slots)},
            }[kind]
            added += [whom] * (kind == 1)
            known.append(signer.statement(kind, seen, fields))
        if chance.randrange(8) == 0:
            os.unlink(os.path.join(access_at, chance.choice(known[len(base) :]).hex()))
        theirs = world.esker(
            "--state-dir", world.new_target(), "-r", small.at, *small.key, "key", "list", "--json", code=None
        )
        listed = json.loads(theirs.splitlines()[0]) if theirs.startswith("[") else None
        try:
            found = small.open().access
        except Refused:
            same(listed, None, "a list of keys, which the reader cannot make")
            continue
        ours = {
            one.hex(): (
                {1: "owner", 2: "writer"}[credential.role], one in found.removals,
                sum(slot.credential == one not in found.removals for slot in found.slots),
            )
            for one, credential in found.credentials.items()
        }  # fmt: skip
        same(
            ours,
            {one["id"]: (one["role"], one["removed"], one["passwords"]) for one in listed},
            "the list of keys",
        )
        removed += len(found.removals)
        counts.add(len(ours))
    assert removed > histories / 4 and len(counts) > 3, (removed, counts)
    print(f"    {histories} histories, {removed} removals, up to {max(counts)} keys")


def hostile_content_is_refused_or_harmless(world):
    """An owner who lies, in nodes and entries that decode."""
    small = Small(world)
    forged = forger(small)
    forged.begin_session()

    def node(kind, value):
        return forged.chunk(kind, encode(value))

    entry = {2: 0, 3: 0o644, 8: 1}
    long = {**entry, 12: 10}
    leaf = node(2, {2: [{1: b"m", **entry}]})
    data = forged.chunk(1, b"0123456789")
    list_leaf = node(3, {2: [[data, 10]]})
    directories = {
        "a node of another level": {14: leaf, 15: 1},
        "a link that is not the node's first name": {14: node(2, {1: 1, 3: [[b"l", leaf]]}), 15: 1},
        "a node twice": {14: node(2, {1: 1, 3: [[b"m", leaf], [b"n", leaf]]}), 15: 1},
        "names out of order between nodes": {
            14: node(2, {1: 2, 3: [[b"m", node(2, {1: 1, 3: [[b"m", leaf], [b"z", leaf]]})]]}), 15: 2,
        },
        "an empty node below another": {14: node(2, {1: 1, 3: [[b"m", node(2, {})]]}), 15: 1},
    }  # fmt: skip
    files = {
        "a list that covers less": {**long, 12: 11, 14: list_leaf},
        "a list that covers more": {**long, 12: 9, 14: list_leaf},
        "a link that covers more": {**long, 12: 11, 14: node(3, {1: 1, 3: [[list_leaf, 11]]}), 15: 1},
        "a list of another level": {**long, 14: list_leaf, 15: 1},
        "a chunk of another length": {**long, 12: 9, 13: [[data, 9]]},
        "a directory node for a list": {**long, 14: leaf},
        "data for a list": {**long, 14: data},
    }
    names = [what.encode() for what in sorted(directories.keys() | files.keys())]
    entries = []
    for name in names:
        what = name.decode()
        fields = files[what] if what in files else {2: 1, 3: 0o700, 8: 1, **directories[what]}
        entries.append(dict(sorted({1: name, **fields}.items())))
    group = b"g" * 16
    entries.append(forged.file(b"~1", b"one", {11: group}))
    entries.append(forged.file(b"~2", b"two", {11: group}))
    entries.append({1: b"~3", 2: 2, 3: 0o777, 8: 1, 11: group, 21: b"../../../../etc"})
    snapshot = forged.commit(forged.directory(entries)).hex()
    target = world.new_target()
    _, err, _ = world.reader("restore", small.at, *small.key, snapshot, target, code=5)
    for name in names:
        said = [line for line in err.splitlines() if line.startswith(os.path.join(target, name.decode()))]
        same(len(said), 1, f"lines about {name}")
        kind = "absent" if name in (b"a directory node for a list", b"data for a list") else "malformed"
        assert f": {kind}:" in said[0], said
    found = manifest(target)
    # Links that are not of one file are files of their own (§6.5).
    same([found[f"/~{number}".encode()].get("links") for number in (1, 2, 3)], [None] * 3, "links")
    assert found[b"/~1"]["content"] != found[b"/~2"]["content"]
    files_left = [path for path, one in found.items() if stat.S_ISREG(one["mode"])]
    same([path for path in files_left if path[1:] in names], [], "files of refused content")


def nodes_are_cut_by_weight_too(world):
    """Directories whose names never begin a node: weights (§6.3) and the limit of 4096 decide."""
    source, repository, key = world.new_target(), world.new_target(), ("--key-file", world / "weights")
    world.esker("-r", repository, *key, "init", "--no-recovery", "--chunk-average", "512")
    os.mkdir(source)
    world.esker("-r", repository, *key, "backup", source)
    identities = open_with(repository, key[1]).identities

    def names(count):
        number = 0
        while count:
            name = b"%d" % number
            if writers.boundary_level(identities, name) == 0:
                count -= 1
                yield name
            number += 1

    for what in ("many", "heavy"):
        directory = os.fsencode(os.path.join(source, what))
        os.mkdir(directory)
        for number, name in enumerate(names(4200 if what == "many" else 700)):
            path = os.path.join(directory, name)
            if what == "many":
                write(path, b"")
            elif number % 4 == 0:
                os.symlink(b"t" * 3000, path)
            else:
                if number % 4 == 1:
                    os.mkdir(path)
                else:
                    write(path, noise(f"weight {number}", 14_000) if number % 4 == 2 else b"")
                with contextlib.suppress(OSError):
                    os.setxattr(path, "user.heavy", bytes(3500))
    world.esker("-r", repository, *key, "backup", source)
    world.reader("check", repository, *key)
    opened = open_with(repository, key[1])
    levels = []
    for snapshot in opened.snapshots()[-1:]:
        entry = snapshot.record[10]
        for component in source.split("/")[1:]:
            (entry,) = [one for one in opened.tree().entries(entry) if one[1] == component.encode()]
        levels = [one.get(15, 0) for one in opened.tree().entries(entry)]
    same(levels, [1, 1], "levels of the nodes, which were cut")


SCENARIOS = (
    vectors_agree, mutated_vectors_are_refused_or_read, every_snapshot_comes_back, key_file_repository,
    damage_is_refused_with_its_class, esker_reads_what_the_text_says_to_write,
    what_does_not_count_counts_for_neither, signatures_are_verified_without_the_cofactor,
    access_is_worked_out_alike, hostile_content_is_refused_or_harmless, nodes_are_cut_by_weight_too,
)  # fmt: skip


def main(names):
    scenarios = {scenario.__name__: scenario for scenario in SCENARIOS}
    if unknown := set(names) - scenarios.keys():
        sys.exit(f"error: no scenario {' '.join(unknown)}; there are {' '.join(scenarios)}")
    world, began = World(), time.monotonic()
    try:
        for scenario in [scenarios[name] for name in names] or SCENARIOS:
            at = time.monotonic()
            print(f"{scenario.__name__}", flush=True)
            scenario(world)
            print(f"    {time.monotonic() - at:.1f} s", flush=True)
    finally:
        shutil.rmtree(world.at, ignore_errors=True)
    print(f"the reader agrees with esker, {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
