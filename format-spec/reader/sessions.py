"""§9: what sessions put: announcements, commits, snapshot records."""

from conventions import Optional, Record, array, blob, integer, itself, known, require, text, tuple_of, uint
from content import path, root_entry
from keys import open_box
from limits import U32
from records import ID, hashes

SNAPSHOT, CHECKPOINT, MAINTENANCE = 1, 2, 3

ANNOUNCEMENT = Record({1: ID, 2: integer, 3: blob()})


def _commit_rule(commit):
    require(commit[2] != MAINTENANCE or not commit[10], "maintenance with a snapshot")


COMMIT = Record(
    {
        1: ID, 2: known(SNAPSHOT, CHECKPOINT, MAINTENANCE), 3: integer, 4: uint(), 5: Optional(hashes()),
        6: blob(), 7: Optional(hashes()), 8: blob(), 9: Optional(array(ID, ascending=itself)), 10: blob(),
        11: Optional(hashes()),
    },
    rule=_commit_rule,
)  # fmt: skip

def _snapshot_rule(snapshot):
    require(14 not in snapshot or 13 in snapshot, "the repository of an original, and no original")


SNAPSHOT_RECORD = Record(
    {
        1: integer, 2: Optional(uint(1, 999999999)), 3: text, 4: text, 5: Optional(uint(0, U32)),
        6: Optional(uint(0, U32)), 7: Optional(array(path, ascending=itself)),
        8: Optional(array(text, ascending=itself)), 9: Optional(ID), 10: root_entry,
        11: tuple_of(*[uint()] * 12), 12: text, 13: Optional(ID), 14: Optional(ID),
    },
    rule=_snapshot_rule,
)  # fmt: skip


def open_snapshot(box, secret, repository, session):
    plain = open_box("snapshot", secret, box, b"esker v1 snapshot\0" + repository + session)
    return SNAPSHOT_RECORD.decode(plain)
