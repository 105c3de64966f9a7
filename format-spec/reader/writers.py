"""What only writers do, and readers need not know: where they cut (§6.1 to §6.3), how they pad (§7.3).

Vectors and `check` hold writers to it.
"""

import struct

import limits
from content import FILE, SYMLINK
from keys import derive_bytes, keyed_hash
from limits import U64


def gear_table(k_cdc):
    return struct.unpack("<256Q", derive_bytes("gear table", k_cdc, 2048))


MASKS = (
    0x0000000018035100, 0x0000001800035300, 0x0000019000353000, 0x0000590003530000,
    0x0000D90003530000, 0x0000D90103530000, 0x0000D90303530000, 0x0000D90313530000,
    0x0000D90F03530000, 0x0000D90303537000, 0x0000D90703537000, 0x0000D90707537000,
    0x0000D91707537000, 0x0000D91747537000, 0x0000D91767537000, 0x0000D93767537000,
)  # fmt: skip


def cut(data, gear, least, average, most):
    """§6.1: the length of the first chunk."""
    bits = average.bit_length() - 1
    strict, loose = MASKS[bits + 2 - 7], MASKS[bits - 2 - 7]
    end, state = min(len(data), most), 0
    for at in range(least, end & ~1):
        state = ((state << 1) + gear[data[at]]) & U64
        if not state & (strict if at < average else loose):
            return at
    return end


def cuts(data, gear, least, average, most):
    """§6.2: the lengths of all pieces, those of zeros negative."""
    lengths, begin = [], 0

    def stretch(end):
        at = begin
        while at < end:
            lengths.append(cut(memoryview(data)[at : min(end, at + most)], gear, least, average, most))
            at += lengths[-1]

    run = data.find(bytes(limits.ZEROS))
    while run >= 0:
        stretch(run)
        zeros = len(data) - run - len(data[run:].lstrip(b"\0"))
        lengths.append(-zeros)
        begin = run + zeros
        run = data.find(bytes(limits.ZEROS), begin)
    stretch(len(data))
    return lengths


def trailing_zeros(data, most=64):
    number = int.from_bytes(data[:8], "little")
    return (number & -number).bit_length() - 1 if number else most


def boundary_level(identities, entry_name):
    """§6.3."""
    return trailing_zeros(keyed_hash(identities.boundary, entry_name)) // 6


def weight(item):
    if type(item) is not dict:
        return 40
    weighs = 80 + len(item[1]) + sum(len(key) + len(value) + 6 for key, value in item.get(10, []))
    weighs += 20 * len(item.get(16, []))
    if 13 in item or item[2] == FILE and 14 not in item:
        return weighs + 40 * len(item.get(13, []))
    return weighs + (len(item[21]) if item[2] == SYMLINK else 60)


def node_sizes(items, level, begins_node):
    """How many items a writer puts into each node of a level."""
    sizes, count, weighs = [], 0, 0
    for item in items:
        if count and (count >= 4096 or level == 0 and weighs >= 1 << 20 or begins_node(item)):
            sizes.append(count)
            count = weighs = 0
        count, weighs = count + 1, weighs + weight(item)
    return sizes + [count]


def padme(length):
    """§7.3: the length a session's last packs are padded to."""
    if length < 2:
        return length
    high = length.bit_length() - 1
    step = 1 << max(0, high - high.bit_length())
    return (length + step - 1) // step * step
