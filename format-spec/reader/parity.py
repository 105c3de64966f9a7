"""§7.4: parity objects, and the code that parity shards are computed by."""

from collections import namedtuple

import limits
from conventions import Cursor, Unsupported, WrongIdentity, require
from keys import hash_of
from records import without_digest

POLYNOMIAL = 1 << 16 | 1 << 5 | 1 << 3 | 1 << 2 | 1
BASIS = [int(word, 16) for word in (
    "0001 acca 3c0e 163e c582 ed2e 914c 4012 6c98 10d8 6a72 b900 fdb8 fb34 ff38 991e"
).split()]  # fmt: skip

Parity = namedtuple("Parity", "pack pack_bytes shard_bytes hashes shards")


def decode(data):
    # The fields before the digest: what is cut off is truncated, whatever its last bytes are.
    cursor = Cursor(data)
    require(cursor.take(8) == b"ESKPAR\0\1", "no magic of this version")
    code = cursor.u8()
    if code != 1:
        raise Unsupported(f"code {code}")
    require(cursor.take(3) == bytes(3), "reserved bytes are not zero")
    shard_bytes, count, pack_bytes = cursor.u32(), cursor.u32(), cursor.u32()
    pack = cursor.take(32)
    require(shard_bytes and shard_bytes % 64 == 0, f"a shard of {shard_bytes} bytes")
    data_count = -(-pack_bytes // shard_bytes)
    require(0 < data_count <= limits.PARITY_SHARDS, f"{data_count} data shards")
    require(0 < count <= limits.PARITY_SHARDS, f"{count} parity shards")
    require(88 + 32 * (data_count + count) + count * shard_bytes <= limits.PARITY, "more than a parity object has")
    hashes = [cursor.take(32) for _ in range(data_count + count)]
    shards = [cursor.take(shard_bytes) for _ in range(count)]
    cursor.take(32)
    cursor.end()
    without_digest(data)
    return Parity(pack, pack_bytes, shard_bytes, hashes, shards)


def compute(content, shard_bytes, count):
    """The parity shards of a pack, by interpolation: slow, and as the text says it."""
    shards = [content[at : at + shard_bytes].ljust(shard_bytes, b"\0") for at in range(0, len(content), shard_bytes)]
    m = 1
    while m < count:
        m *= 2
    weights = []
    for i in range(count):
        at = element(i)
        row = []
        for number in range(len(shards)):
            c, j = divmod(number, m)
            points = [element(m * (c + 1) + other) for other in range(m)]
            above, below = 1, 1
            for other, point in enumerate(points):
                if other != j:
                    above, below = times(above, at ^ point), times(below, points[j] ^ point)
            row.append(times(above, inverse(below)))
        weights.append(row)
    symbols = [[element(symbol) for symbol in symbols_of(shard)] for shard in shards]
    found = []
    for row in weights:
        total = [0] * (shard_bytes // 2)
        for weight, shard in zip(row, symbols):
            for at, value in enumerate(shard):
                total[at] ^= times(weight, value)
        found.append(shard_of([SYMBOLS[value] for value in total]))
    return found


def symbols_of(shard):
    for at in range(0, len(shard), 64):
        for i in range(32):
            yield shard[at + i] | shard[at + 32 + i] << 8


def shard_of(symbols):
    out = bytearray()
    for at in range(0, len(symbols), 32):
        block = symbols[at : at + 32]
        out += bytes(symbol & 255 for symbol in block) + bytes(symbol >> 8 for symbol in block)
    return bytes(out)


def element(symbol):
    found = 0
    for bit, part in enumerate(BASIS):
        if symbol >> bit & 1:
            found ^= part
    return found


SYMBOLS = {element(symbol): symbol for symbol in range(1 << 16)}


def times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> 16:
            a ^= POLYNOMIAL
        b >>= 1
    return product


def inverse(a):
    # a^(2^16 - 2).
    result, power = 1, a
    for _ in range(15):
        power = times(power, power)
        result = times(result, power)
    return result


def check(data, pack, content):
    """Compares a parity object with the pack of this id and these bytes."""
    found = decode(data)
    if found.pack != pack:
        raise WrongIdentity("it is another pack's")
    require(found.pack_bytes == len(content), "its pack has another length")
    step = found.shard_bytes
    shards = [content[at : at + step].ljust(step, b"\0") for at in range(0, len(content), step)]
    require([hash_of(shard) for shard in shards + found.shards] == found.hashes, "hashes that are not the shards'")
    return found
