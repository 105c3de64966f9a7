"""§10: the records of collections, notes and logs. A reader needs sweeps, notes and logs."""

from conventions import Optional, Record, array, blob, integer, itself, known, require, text, tuple_of, uint
from records import HASH, ID, hashes

FLAG = Record({1: ID, 2: ID, 3: integer})
CONDEMNED = Record({1: ID, 2: integer, 3: Optional(hashes())})


def _swept_rule(swept):
    require(not set(swept.get(4, [])) & set(swept.get(5, [])), "a session is void and counts")


SWEPT = Record(
    {
        1: ID, 2: integer, 3: Optional(hashes()), 4: Optional(array(ID, ascending=itself)),
        5: Optional(array(ID, ascending=itself)),
    },
    rule=_swept_rule,
)  # fmt: skip
DONE = Record({1: ID, 2: integer, 3: Optional(hashes()), 4: Optional(hashes())})

FORGOTTEN, VERIFIED, DAMAGED, QUARANTINED, AUDIT = range(1, 6)

NOTE = Record(
    {
        1: known(1, 2, 3, 4, 5), 2: integer, 3: Optional(hashes()), 4: Optional(ID), 5: Optional(HASH),
        6: Optional(integer), 7: Optional(hashes()), 8: Optional(hashes()), 9: Optional(HASH),
        10: Optional(text), 11: Optional(text), 12: Optional(hashes()),
    },
    kinds=(1, {
        FORGOTTEN: {4: True, 5: True, 6: True}, VERIFIED: {7: False, 12: False}, DAMAGED: {8: True, 9: True},
        QUARANTINED: {4: True}, AUDIT: {10: True, 11: True},
    }),
)  # fmt: skip

LOG = Record(
    {
        1: integer, 2: Optional(uint(1)),
        3: Optional(array(tuple_of(text, blob()), ascending=lambda item: item[0])),
    },
)  # fmt: skip
