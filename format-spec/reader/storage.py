"""§3: objects under names, in a directory; and their second copies."""

import os
import re

import limits
from conventions import Absent, Malformed, Refused, WrongIdentity
from keys import hash_of

NAME = re.compile(r"[a-z0-9._-]+(/[a-z0-9._-]+)*")


def is_id(name, size):
    return len(name) == 2 * size and re.fullmatch("[0-9a-f]*", name) is not None


class Storage:
    """A repository's objects in a local directory. What fails to answer is an OSError."""

    def __init__(self, root):
        self.root = root

    def _path(self, name):
        assert NAME.fullmatch(name) and not {".", ".."} & set(name.split("/")), name
        return os.path.join(self.root, name)

    def get(self, name, limit=limits.RECORD + 512):
        """All bytes of an object, none of which is read if there are more than `limit`."""
        try:
            with open(self._path(name), "rb") as file:
                if os.fstat(file.fileno()).st_size > limit:
                    raise Malformed(f"{name} has more than {limit} bytes")
                return file.read(limit)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(f"{name} is not there") from None

    def range(self, name, offset, size):
        try:
            with open(self._path(name), "rb") as file:
                file.seek(offset)
                return file.read(size)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(f"{name} is not there") from None

    def list(self, folder, size):
        """The ids of `size` bytes that are names in a folder, ascending."""
        try:
            names = os.listdir(self._path(folder))
        except FileNotFoundError:
            return []
        return sorted(bytes.fromhex(name) for name in names if is_id(name, size))

    def usable(self, name, use):
        """What `use` makes of the object or, where that refuses it, of its second copy."""
        try:
            return use(self.get(name))
        except Refused as first:
            # `copies/config` alone is an `init` that did not finish.
            if name == "config" and isinstance(first, Absent):
                raise
            try:
                return use(self.get("copies/" + name))
            except Refused:
                raise first from None


def named_by_hash(expected, data):
    if hash_of(data) != expected:
        raise WrongIdentity(f"the object is not {expected.hex()}")
    return data
