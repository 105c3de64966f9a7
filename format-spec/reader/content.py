"""§6: how files and directories become chunks and nodes; §6.1 and §6.2 are writers' matters."""

import limits
from conventions import (
    Optional, Record, array, blob, integer, itself, known, require, text, tuple_of, uint,
)  # fmt: skip
from keys import keyed_hash
from limits import U32

DATA, DIRECTORY_NODE, LIST_NODE = 1, 2, 3
FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER_DEVICE, BLOCK_DEVICE = range(6)

CHUNK_ID = blob(32)


# §6.5


def name(value):
    blob()(value)
    require(1 <= len(value) <= limits.NAME, f"a name of {len(value)} bytes")
    require(b"/" not in value and b"\0" not in value, "a name with a slash or a zero byte")
    require(value not in (b".", b".."), "a name that is `.` or `..`")


def path(value):
    blob()(value)
    if value != b"/":
        require(value.startswith(b"/"), "a path that does not begin with a slash")
        for component in value[1:].split(b"/"):
            name(component)


def link_group(identities, first_path):
    return keyed_hash(identities.link_group, first_path)[:16]


# §6.3, §6.4. A piece is [id, length], or a number of zeros.


def piece(value):
    if type(value) is list:
        tuple_of(CHUNK_ID, uint(1, limits.CHUNK))(value)
    else:
        uint(1)(value)


def piece_bytes(value):
    return value[1] if type(value) is list else value


def target(value):
    blob()(value)
    require(value and b"\0" not in value, "a target that is empty or has a zero byte")


def attribute_name(value):
    blob()(value)
    require(value and b"\0" not in value, "an attribute's name that is empty or has a zero byte")


def _entry_rule(entry):
    attributes = sum(len(name) + len(value) for name, value in entry.get(10, []))
    require(attributes <= limits.ATTRIBUTES, f"{attributes} bytes of extended attributes")
    size = entry.get(12, 0)
    if entry[2] == FILE:
        require(not (13 in entry and 14 in entry), "pieces beside a list")
        require(len(entry.get(13, [])) <= limits.INLINE_PIECES, "too many pieces in an entry")
        require(len(entry.get(16, [])) <= limits.HOLES, "too many holes")
        if 14 not in entry:
            total = sum(map(piece_bytes, entry.get(13, [])))
            require(total == size, f"pieces of {total} bytes in a file of {size}")
        end = None
        for offset, length in entry.get(16, []):
            require(length, "a hole of no bytes")
            require(end is None or offset > end, "holes that overlap, touch or are out of order")
            end = offset + length
            require(end <= size, "a hole that ends behind the file")
    require(15 not in entry or 14 in entry, "a level of nothing")


LEVEL = Optional(uint(1, limits.LEVEL))
DEVICE = {22: False, 23: False}

ENTRY = Record(
    {
        1: Optional(name), 2: known(*range(6)), 3: uint(0, 0o7777), 4: Optional(uint(0, U32)),
        5: Optional(uint(0, U32)), 6: Optional(text), 7: Optional(text), 8: integer,
        9: Optional(uint(1, 999999999)),
        10: Optional(array(tuple_of(attribute_name, blob()), ascending=lambda pair: pair[0])),
        11: Optional(blob(16)), 12: Optional(uint()), 13: Optional(array(piece)),
        14: Optional(CHUNK_ID), 15: LEVEL, 16: Optional(array(tuple_of(uint(), uint()))),
        17: Optional(uint()), 18: Optional(uint()), 19: Optional(uint()), 20: Optional(uint(1, 1)),
        21: Optional(target), 22: Optional(uint(0, U32)), 23: Optional(uint(0, U32)),
    },
    kinds=(2, {
        FILE: {12: False, 13: False, 14: False, 15: False, 16: False},
        DIRECTORY: {14: True, 15: False, 17: False, 18: False, 19: False, 20: False},
        SYMLINK: {21: True}, FIFO: {}, CHARACTER_DEVICE: DEVICE, BLOCK_DEVICE: DEVICE,
    }),
    rule=_entry_rule,
)  # fmt: skip


def root_entry(value):
    ENTRY(value)
    require(1 not in value, "a root with a name")
    require(value[2] == DIRECTORY, "a root that is no directory")


def named_entry(value):
    ENTRY(value)
    require(1 in value, "an entry without a name")


class Node:
    """A map of level and items, or of level and links."""

    def __init__(self, items, links, may_be_empty):
        self.items, self.links = Record({2: items}, ext=False), Record({1: LEVEL, 3: links}, ext=False)
        self.either = Record({1: LEVEL, 2: Optional(itself), 3: Optional(itself)}, ext=False)
        self.may_be_empty = may_be_empty

    def decode(self, data):
        """The level and the items, of which an empty directory has none."""
        value = self.either.decode(data)
        if not value and self.may_be_empty:
            return value
        (self.links if 1 in value else self.items)(value)
        items = value[3] if 1 in value else value[2]
        require(len(items) <= limits.ITEMS, f"{len(items)} items in a node")
        return value


DIRECTORY_NODES = Node(
    array(named_entry, ascending=lambda entry: entry[1]),
    array(tuple_of(name, CHUNK_ID), ascending=lambda link: link[0]),
    may_be_empty=True,
)
LIST_NODES = Node(array(piece), array(tuple_of(CHUNK_ID, uint())), may_be_empty=False)


class Tree:
    """Reads nodes through `read_chunk(kind, id)` and checks that they fit together."""

    def __init__(self, read_chunk):
        self.read_chunk = read_chunk

    def entries(self, directory):
        """The entries of a directory, in order. What was given is right even if an error follows."""
        return self._directory(directory[14], directory.get(15, 0), None, [None])

    def _directory(self, chunk, level, first, last):
        node = DIRECTORY_NODES.decode(self.read_chunk(DIRECTORY_NODE, chunk))
        require(node.get(1, 0) == level, f"a node of level {node.get(1, 0)}, not {level}")
        if not node:
            require(first is None, "an empty node below another")
            return
        if level:
            require(first is None or node[3][0][0] == first, "a node that does not begin with its name")
            for below, child in node[3]:
                require(last[0] is None or last[0] < below, "names out of order from node to node")
                yield from self._directory(child, level - 1, below, last)
        else:
            require(first is None or node[2][0][1] == first, "a node that does not begin with its name")
            for entry in node[2]:
                require(last[0] is None or last[0] < entry[1], "names out of order from node to node")
                last[0] = entry[1]
                yield entry

    def pieces(self, file):
        """The pieces of a file, which add up to its size."""
        if 14 in file:
            return self._list(file[14], file.get(15, 0), file.get(12, 0))
        return iter(file.get(13, []))

    def _list(self, chunk, level, covers):
        node = LIST_NODES.decode(self.read_chunk(LIST_NODE, chunk))
        require(node.get(1, 0) == level, f"a node of level {node.get(1, 0)}, not {level}")
        lengths = [length for _, length in node[3]] if level else map(piece_bytes, node[2])
        total = sum(lengths)
        require(total == covers, f"a node that covers {total} bytes, not {covers}")
        if level:
            for child, length in node[3]:
                yield from self._list(child, level - 1, length)
        else:
            yield from node[2]

    def data(self, piece):
        """The bytes of a piece that is a chunk."""
        data = self.read_chunk(DATA, piece[0])
        require(len(data) == piece[1], f"a chunk of {len(data)} bytes, not {piece[1]}")
        return data
