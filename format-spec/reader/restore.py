"""Restores a snapshot's tree below a directory that is new or empty."""

import os
import stat

from content import (
    BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, FILE, SYMLINK, piece_bytes,
)  # fmt: skip
from conventions import Refused


class Restore:
    """`report(path, problem)` is told of each entry or attribute that did not come back.

    A file that is refused anywhere is not left behind: what is there is right.
    """

    def __init__(self, tree, report):
        self.tree, self.report, self.groups = tree, report, {}
        self.root = os.geteuid() == 0

    def run(self, root, target):
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise FileExistsError(f"{os.fsdecode(target)} is not empty")
        # The directories that are open: what is left of each, its path, its entry.
        stack = [(self.tree.entries(root), target, None)]
        while stack:
            entries, path, directory = stack[-1]
            try:
                entry = next(entries, None)
            except Refused as refusal:
                self.report(path, refusal)
                entry = None
            if entry is None:
                stack.pop()
                if directory:
                    self._try(path, self._attributes, directory)
                continue
            # Names have no slash and are not `..` (§6.5), and no two of a directory are the same:
            # nothing of the snapshot can be in the way of, or lead out of, where this goes.
            below = os.path.join(path, entry[1])
            if entry[2] != DIRECTORY:
                self._try(below, self._make, entry)
            elif self._try(below, lambda path, _: os.mkdir(path, 0o700), entry):
                stack.append((self.tree.entries(entry), below, entry))

    def _try(self, path, action, entry):
        try:
            action(path, entry)
            return True
        except (Refused, OSError, OverflowError) as problem:
            self.report(path, problem)
            return False

    def _make(self, path, entry):
        if self._link(path, entry):
            return
        kind = entry[2]
        if kind == FILE:
            self._file(path, entry)
        elif kind == SYMLINK:
            os.symlink(entry[21], path)
        elif kind == FIFO:
            os.mkfifo(path, 0o600)
        else:
            of = {CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}[kind]
            os.mknod(path, of | 0o600, os.makedev(entry.get(22, 0), entry.get(23, 0)))
        self._attributes(path, entry)
        if 11 in entry:
            self.groups.setdefault(entry[11], (path, essence(entry)))

    def _link(self, path, entry):
        """Links to the first of a group (§6.5), if that is the same file."""
        first, same = self.groups.get(entry.get(11), (None, None))
        if first is None or same != essence(entry):
            return False
        os.link(first, path, follow_symlinks=False)
        return True

    def _file(self, path, entry):
        size, holes = entry.get(12, 0), entry.get(16, [])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(path, "wb", opener=lambda path, _: os.open(path, flags, 0o600)) as file:
            try:
                offset = 0
                for piece in self.tree.pieces(entry):
                    if type(piece) is list:
                        data = self.tree.data(piece)
                        for begin, end in outside(holes, offset, offset + len(data)):
                            file.seek(begin)
                            file.write(data[begin - offset : end - offset])
                    offset += piece_bytes(piece)
                # Zeros are not written: they are holes where there were none, too.
                file.truncate(size)
            except BaseException:
                os.unlink(path)
                raise

    def _attributes(self, path, entry):
        problems = []

        def attempt(action, *arguments, **named):
            try:
                action(*arguments, **named)
            except (OSError, OverflowError) as problem:
                problems.append(problem)

        if self.root:
            attempt(os.chown, path, entry.get(4, 0), entry.get(5, 0), follow_symlinks=False)
        for name, value in entry.get(10, []):
            attempt(os.setxattr, path, name, value, follow_symlinks=False)
        if entry[2] != SYMLINK:
            attempt(os.chmod, path, entry[3])
        time = entry[8] * 1_000_000_000 + entry.get(9, 0)
        attempt(os.utime, path, ns=(time, time), follow_symlinks=False)
        for problem in problems:
            self.report(path, problem)


def essence(entry):
    """What two names of one file have in common: kind, content, target, device."""
    return [entry.get(field) for field in (2, 12, 13, 14, 15, 21, 22, 23)]


def outside(holes, begin, end):
    """The parts of begin..end that are in no hole."""
    for offset, length in holes:
        if offset + length <= begin:
            continue
        if offset >= end:
            break
        if offset > begin:
            yield begin, offset
        begin = offset + length
    if begin < end:
        yield begin, end
