"""§8: index segments, which say what is in which pack."""

from collections import namedtuple

from conventions import Cursor, Truncated, require
from keys import derive_bytes
from packs import decode_table, frames_bytes

Origin = namedtuple("Origin", "session epoch credential envelope")
Pack = namedtuple("Pack", "id origin stored_bytes salt frame_commitment frames")


def decode_segment(data):
    cursor = Cursor(data)
    origins = []
    for _ in range(_count(cursor, 68)):
        session, epoch, credential = cursor.take(16), cursor.take(16), cursor.take(32)
        origins.append(Origin(session, epoch, credential, cursor.take(cursor.u32())))
    packs = []
    for _ in range(_count(cursor, 108)):
        pack, origin, stored = cursor.take(32), cursor.u32(), cursor.u32()
        require(origin < len(origins), f"origin {origin} of {len(origins)}")
        salt, commitment = cursor.take(32), cursor.take(32)
        frames = decode_table(cursor)
        require(frames_bytes(frames) <= stored, "frames longer than their pack")
        packs.append(Pack(pack, origins[origin], stored, salt, commitment, frames))
    cursor.end()
    return origins, packs


def descriptions(data):
    """By what all that a segment says of each pack goes, in the order of the packs."""
    cursor = Cursor(data)
    origins, found = [], []
    for _ in range(_count(cursor, 68)):
        begin = cursor.at
        cursor.take(64)
        cursor.take(cursor.u32())
        origins.append(data[begin : cursor.at])
    for _ in range(_count(cursor, 108)):
        pack, origin, begin = cursor.take(32), cursor.u32(), cursor.at
        cursor.take(68)
        decode_table(cursor)
        key_material = origins[origin] + pack + data[begin : cursor.at]
        found.append(derive_bytes("pack description", key_material, 32))
    return found


def _count(cursor, least):
    """A number of rows, which the bytes at hand can hold."""
    count, left = cursor.u32(), len(cursor.data) - cursor.at
    if count * least > left:
        raise Truncated(f"{count} rows in {left} bytes")
    return count
