"""§1: classes of errors, byte tables, and the one encoding that CBOR has here."""

import struct

from limits import U64


class Refused(Exception):
    """Bytes that break a rule. `kind` is one of the classes of §1.4."""

    kind = None

    def __str__(self):
        return f"{self.kind}: {self.args[0]}" if self.args else self.kind


class Truncated(Refused):
    kind = "truncated"


class Malformed(Refused):
    kind = "malformed"


class Unsupported(Refused):
    kind = "unsupported"


class NotAuthentic(Refused):
    kind = "not authentic"


class WrongIdentity(Refused):
    kind = "wrong identity"


class Absent(Refused):
    """What should be there and is not, or does not count; no class of bytes."""

    kind = "absent"


class Cursor:
    """Takes fields off the front of bytes (the byte tables)."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise Truncated(f"{len(self.data) - self.at} bytes where {size} are needed")
        self.at += size
        return self.data[self.at - size : self.at]

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return struct.unpack("<H", self.take(2))[0]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def u64(self):
        return struct.unpack("<Q", self.take(8))[0]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at} bytes behind the end")


def require(fact, what):
    if not fact:
        raise Malformed(what)


# CBOR, §1.3. Decoded are: int, bytes, str, list, dict; what only fields that are ignored can
# hold (tags, floats, simple values) stays the bytes it was.

DEPTH = 64  # deeper than what this document has, with a value that is ignored in it
IGNORED_DEPTH = 32


class Opaque(bytes):
    depth = 0


def _opaque(data, inner, own):
    opaque = Opaque(data)
    opaque.depth = _depth(inner) + own
    return opaque


def _depth(value):
    """How many arrays, maps and tags are nested in a value."""
    if isinstance(value, Opaque):
        return value.depth
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max((_depth(part) for pair in value.items() for part in pair), default=0)
    return 0


def cbor(data):
    """Decodes one value that is all of `data`, in its only encoding."""
    cursor = Cursor(data)
    value = _item(cursor, DEPTH)
    cursor.end()
    return value


def _head(cursor):
    first = cursor.u8()
    major, info = first >> 5, first & 31
    if info < 24:
        return major, info, info
    require(info < 28, "a length that is indefinite or reserved")
    size = 1 << (info - 24)
    number = int.from_bytes(cursor.take(size), "big")
    if major != 7:
        least = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size]
        require(number >= least, f"{number} in {size} bytes")
    return major, info, number


def _item(cursor, depth):
    begin = cursor.at
    major, info, number = _head(cursor)
    require(depth or major not in (4, 5, 6), f"more than {DEPTH} arrays, maps and tags in each other")
    left = len(cursor.data) - cursor.at
    if major == 0:
        return number
    if major == 1:
        return -1 - number
    if major == 2:
        return cursor.take(number)
    if major == 3:
        try:
            return cursor.take(number).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a text that is not UTF-8") from None
    if major == 4:
        if number > left:
            raise Truncated(f"an array of {number} items in {left} bytes")
        return [_item(cursor, depth - 1) for _ in range(number)]
    if major == 5:
        if number * 2 > left:
            raise Truncated(f"a map of {number} items in {left} bytes")
        result, before = {}, b""
        for _ in range(number):
            key_at = cursor.at
            key = _item(cursor, depth - 1)
            encoded = cursor.data[key_at : cursor.at]
            require(before < encoded, "keys that are repeated or out of order")
            before = encoded
            # Lists and maps are no keys of a dict. Only ignored fields can hold such.
            key = key if isinstance(key, (int, str, bytes)) else _opaque(encoded, key, 0)
            result[key] = _item(cursor, depth - 1)
        return result
    if major == 6:
        inner = _item(cursor, depth - 1)
        return _opaque(cursor.data[begin : cursor.at], inner, 1)
    _simple(info, number)
    return Opaque(cursor.data[begin : cursor.at])


def _simple(info, number):
    """A simple value, or a float in the fewest bytes that hold it."""
    if info == 24:
        require(number >= 32, f"simple value {number} in two bytes")
    elif info > 24:
        form = {25: "e", 26: "f", 27: "d"}
        value = struct.unpack(">" + form[info], number.to_bytes(1 << (info - 24), "big"))[0]
        if value != value:
            require(info == 25 and number == 0x7E00, "a long NaN")
        elif info > 25:
            try:
                shorter = struct.unpack(">" + form[info - 1], struct.pack(">" + form[info - 1], value))[0]
            except OverflowError:
                return
            require(shorter != value, "a long float")


def diagnostic(value):
    """The value in CBOR's diagnostic notation, as vectors write it."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(diagnostic, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{diagnostic(k)}: {diagnostic(v)}" for k, v in value.items()) + "}"
    return str(value)


# What CDDL says of a value, as functions that raise unless it is so.


def uint(low=0, high=U64):
    def check(value):
        require(type(value) is int and low <= value <= high, f"{value!r:.80} is not in {low}..{high}")

    check.left_out = 0
    return check


def integer(value):
    require(type(value) is int and -(2**63) <= value < 2**63, f"{value!r:.80} is no integer of 64 bits")


def known(*values):
    """A number of which only some values are known."""

    def check(value):
        uint()(value)
        if value not in values:
            raise Unsupported(f"{value} is none of {values}")

    return check


def blob(size=None):
    def check(value):
        require(type(value) is bytes, "no bytes")
        require(size is None or len(value) == size, f"{len(value)} bytes, not {size}")

    return check


def text(value):
    require(type(value) is str, "no text")


def array(of, ascending=None):
    """One or more items; if `ascending`, by that key and without repetition."""

    def check(value):
        require(type(value) is list and value, "no array, or an empty one")
        for item in value:
            of(item)
        if ascending:
            keys = [ascending(item) for item in value]
            require(all(a < b for a, b in zip(keys, keys[1:])), "items that are repeated or out of order")

    return check


def itself(value):
    return value


def tuple_of(*types):
    def check(value):
        require(type(value) is list and len(value) == len(types), f"no array of {len(types)}")
        for kind, item in zip(types, value):
            kind(item)

    return check


class Optional:
    """A field that may be left out, and must be where it is zero."""

    def __init__(self, of):
        self.of = of

    def __call__(self, value):
        self.of(value)
        require(value != getattr(self.of, "left_out", None), "zero, which is left out")


class Record:
    """A map with unsigned keys, as CDDL describes it.

    `kinds` is a field, and for each of its values which fields belong to it: True if they must be
    there, False if they may. `rule` is what CDDL cannot say.
    """

    def __init__(self, fields, ext=True, kinds=None, rule=None):
        self.fields, self.ext, self.kinds, self.rule = fields, ext, kinds, rule

    def decode(self, data):
        value = cbor(data)
        self(value)
        return value

    def __call__(self, value):
        require(type(value) is dict, "no map")
        for key in value:
            require(type(key) is int and key >= 0, "a key that is no unsigned integer")
            if key not in self.fields and (key < 64 or not self.ext):
                raise Unsupported(f"field {key}")
            if key not in self.fields:
                require(_depth(value[key]) <= IGNORED_DEPTH, f"more than {IGNORED_DEPTH} nested in field {key}")
        must = {key for key, of in self.fields.items() if not isinstance(of, Optional)}
        if self.kinds:
            field, belonging = self.kinds
            require(field in value, f"field {field} is missing")
            self.fields[field](value[field])
            mine = belonging[value[field]]
            must |= {key for key, needed in mine.items() if needed}
            for other in belonging.values():
                for key in other:
                    if key in value and key not in mine:
                        raise Unsupported(f"field {key} in a record of kind {value[field]}")
        for key in must:
            require(key in value, f"field {key} is missing")
        for key, of in self.fields.items():
            if key in value:
                of(value[key])
        if self.rule:
            self.rule(value)
