"""Reads everything, and holds what a writer did to what the specification says of it.

Besides what readers must refuse: totals and link groups (§6.4, §6.5), where directories and lists
were cut into nodes (§6.3).
"""

from content import DIRECTORY, DIRECTORY_NODE, DIRECTORY_NODES, FILE, LIST_NODE, LIST_NODES, link_group
from conventions import Refused
from limits import U64
from packs import SNAPSHOT_FRAME
from sessions import SNAPSHOT_RECORD
from writers import boundary_level, node_sizes, trailing_zeros


def run(repository):
    faults = []
    for pack in repository.packs:
        try:
            repository.check_pack(pack)
        except Refused as refusal:
            faults.append(f"pack {pack.id.hex()}: {refusal}")
    snapshots = repository.snapshots()
    for pack in repository.packs:
        faults += snapshot_frames(repository, pack, snapshots)
    for snapshot in snapshots:
        walk = Walk(repository, snapshot.session.hex(), faults)
        walk.directory(snapshot.record[10], b"")
    return faults


def snapshot_frames(repository, pack, snapshots):
    """Compares the copy of a snapshot record that a pack ends with (§7.2)."""
    for frame in pack.frames:
        if frame.kind == SNAPSHOT_FRAME:
            try:
                copy = SNAPSHOT_RECORD.decode(repository.frame(pack, frame))
                records = [one.record for one in snapshots if one.session == pack.origin.session]
                if frame is not pack.frames[-1] or copy not in records:
                    yield f"pack {pack.id.hex()}: a snapshot frame that is not the last, or no copy"
            except Refused as refusal:
                yield f"pack {pack.id.hex()}: {refusal}"


class Walk:
    def __init__(self, repository, snapshot, faults):
        self.repository, self.tree = repository, repository.tree()
        self.snapshot, self.faults, self.groups = snapshot, faults, set()

    def fault(self, path, what):
        self.faults.append(f"{self.snapshot}:{path.decode('utf-8', 'backslashreplace') or '/'}: {what}")

    def directory(self, entry, path):
        """Walks a directory, and compares its totals with what is there."""
        totals, before = [0, 0, 0], len(self.faults)
        try:
            for child in self.tree.entries(entry):
                for at, more in enumerate(self._entry(child, path + b"/" + child[1])):
                    totals[at] += more
            self._cuts(entry, directory=True)
        except Refused as refusal:
            self.fault(path, refusal)
            return totals
        said = [entry.get(field, 0) for field in (17, 18, 19)]
        if len(self.faults) == before and said != [min(total, U64) for total in totals]:
            self.fault(path, f"totals {said}, where {totals} are there")
        return totals

    def _entry(self, entry, path):
        if 11 in entry and entry[11] not in self.groups:
            self.groups.add(entry[11])
            if entry[11] != link_group(self.repository.identities, path):
                self.fault(path, "a link group that is not that of its first path")
        if entry[2] == DIRECTORY:
            files, directories, size = self.directory(entry, path)
            return files, directories + 1, size
        if entry[2] == FILE:
            try:
                for piece in self.tree.pieces(entry):
                    if type(piece) is list:
                        self.tree.data(piece)
                if 14 in entry:
                    self._cuts(entry, directory=False)
            except Refused as refusal:
                self.fault(path, refusal)
        return 1, 0, entry.get(12, 0)

    def _cuts(self, entry, directory):
        """Compares the nodes of each level with those a writer makes of the same items."""
        kind, nodes = (DIRECTORY_NODE, DIRECTORY_NODES) if directory else (LIST_NODE, LIST_NODES)
        chunks, level = [entry[14]], entry.get(15, 0)
        while True:
            found = [nodes.decode(self.repository.read_chunk(kind, chunk)) for chunk in chunks]
            items = [node.get(3 if level else 2, []) for node in found]
            together = [item for some in items for item in some]

            def begins_node(item):
                if directory:
                    name = item[0] if level else item[1]
                    return boundary_level(self.repository.identities, name) > level
                chunk = item[0] if type(item) is list else None
                return chunk is not None and trailing_zeros(chunk) >= 6

            if [len(some) for some in items] != node_sizes(together, level, begins_node):
                raise CutElsewhere(f"level {level} is cut elsewhere")
            if not level:
                return
            chunks, level = [item[1 if directory else 0] for item in together], level - 1


class CutElsewhere(Refused):
    kind = "cut elsewhere"
