"""§7: packs, their trailer, their directory, and the frames in them."""

from collections import namedtuple

import limits
import zstandard
from conventions import Cursor, Malformed, Truncated, Unsupported, WrongIdentity, require
from keys import committed, hash_of, keyed_hash, open_sealed

SNAPSHOT_FRAME = 4
TRAILER_BYTES = 144
LARGEST_WINDOW = bytes([limits.FRAME.bit_length() - 1 - 10 << 3])

Trailer = namedtuple("Trailer", "salt frame_commitment directory_commitment epoch session directory_bytes")
Frame = namedtuple("Frame", "ordinal kind compression offset sealed_bytes plain_bytes chunks")
Chunk = namedtuple("Chunk", "id offset bytes")
Directory = namedtuple("Directory", "credential envelope frames")


def decode_trailer(data):
    cursor = Cursor(data)
    trailer = Trailer(
        cursor.take(32), cursor.take(32), cursor.take(32), cursor.take(16), cursor.take(16), cursor.u32()
    )
    suite, reserved, magic = cursor.u8(), cursor.take(3), cursor.take(8)
    cursor.end()
    require(magic == b"ESKPAK\0\1", "no magic of this version")
    if suite != 1:
        raise Unsupported(f"suite {suite}")
    require(reserved == bytes(3), "reserved bytes are not zero")
    require(trailer.directory_bytes <= limits.DIRECTORY, f"a directory of {trailer.directory_bytes} bytes")
    return trailer


def decode_table(cursor):
    """§7.3: the frames, with their chunks."""
    count = cursor.u32()
    rows = Cursor(cursor.take(16 * count))
    frames, offset = [], 0
    for ordinal in range(count):
        kind, compression, reserved = rows.u8(), rows.u8(), rows.u16()
        sealed_bytes, plain_bytes, chunks = rows.u32(), rows.u32(), rows.u32()
        if not 1 <= kind <= SNAPSHOT_FRAME:
            raise Unsupported(f"a frame of kind {kind}")
        require(reserved == 0, "reserved bytes are not zero")
        require(1 <= plain_bytes <= limits.FRAME, f"a frame of {plain_bytes} plain bytes")
        require(40 < sealed_bytes <= plain_bytes + 40, f"{plain_bytes} plain bytes sealed into {sealed_bytes}")
        require((chunks == 0) == (kind == SNAPSHOT_FRAME), f"{chunks} chunks in a frame of kind {kind}")
        frames.append(Frame(ordinal, kind, compression, offset, sealed_bytes, plain_bytes, chunks))
        offset += sealed_bytes
        require(offset <= limits.PACK, "frames of more than 1 GiB")
    return [frame._replace(chunks=_chunk_rows(cursor, frame)) for frame in frames]


def _chunk_rows(cursor, frame):
    rows = Cursor(cursor.take(36 * frame.chunks))
    chunks, offset = [], 0
    for _ in range(frame.chunks):
        chunk, size = rows.take(32), rows.u32()
        require(size, "a chunk of no bytes")
        require(frame.kind != 1 or size <= limits.CHUNK, f"a chunk of {size} bytes")
        chunks.append(Chunk(chunk, offset, size))
        offset += size
    require(not chunks or offset == frame.plain_bytes, "chunks that do not add up to their frame")
    return tuple(chunks)


def frames_bytes(frames):
    return frames[-1].offset + frames[-1].sealed_bytes if frames else 0


def decode_directory(data):
    cursor = Cursor(data)
    credential = cursor.take(32)
    envelope = cursor.take(cursor.u16())
    frames = decode_table(cursor)
    require(not cursor.rest().strip(b"\0"), "padding that is not zero")
    return Directory(credential, envelope, frames)


def open_directory(data, trailer, index_key, repository):
    """The directory of a whole pack."""
    end = len(data) - TRAILER_BYTES
    require(trailer.directory_bytes <= end, "a directory longer than its pack")
    key = committed("pack directory", index_key, trailer.salt, trailer.directory_commitment)
    associated = b"esker v1 pack directory" + repository + data[end:]
    sealed = data[end - trailer.directory_bytes : end]
    directory = decode_directory(open_sealed(key, sealed, associated))
    used = frames_bytes(directory.frames) + trailer.directory_bytes
    require(used == end, f"frames and directory of {used} bytes in {end}")
    return directory


def frame_key(secret, salt, commitment):
    return committed("pack frames", secret, salt, commitment)


def open_frame(key, sealed, ordinal, kind, compression, plain_bytes, repository):
    """§7.2: the plain bytes, of which nothing is made unless the tag is right."""
    if not 1 <= kind <= SNAPSHOT_FRAME:
        raise Unsupported(f"a frame of kind {kind}")
    if compression not in (0, 1):
        raise Unsupported(f"compression {compression}")
    require(1 <= plain_bytes <= limits.FRAME, f"a frame of {plain_bytes} plain bytes")
    associated = b"esker v1 frame" + repository + ordinal.to_bytes(4, "little")
    associated += bytes([kind, compression]) + plain_bytes.to_bytes(4, "little")
    text = open_sealed(key, sealed, associated)
    if compression:
        text = _decompress(text, plain_bytes)
    require(len(text) == plain_bytes, f"{len(text)} plain bytes, not {plain_bytes}")
    return text


def _decompress(text, plain_bytes):
    require(len(text) < plain_bytes, "a compressed frame that is not shorter")
    require(text[:5] == bytes.fromhex("28b52ffd00"), "no zstd frame of the one form")
    # Of its window no more is used than there are plain bytes; more is not made room for.
    if text[5:6] > LARGEST_WINDOW:
        text = text[:5] + LARGEST_WINDOW + text[6:]
    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=limits.FRAME)
        return decompressor.decompress(text, max_output_size=plain_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"no zstd frame: {error}") from None


def take_chunk(plain, chunk, id_key):
    """§5.3: a chunk of an opened frame, if it is what its id says."""
    data = plain[chunk.offset : chunk.offset + chunk.bytes]
    if keyed_hash(id_key, data) != chunk.id:
        raise WrongIdentity(f"the chunk is not {chunk.id.hex()}")
    return data


def read_pack(data, pack_id, index_key, secret_of, id_keys, repository, released):
    """Checks a whole pack. `released(plain)` gets each frame when all in it is right.

    `index_key` gives the key of an epoch, `secret_of(trailer, directory)` the session's secret.
    """
    if hash_of(data) != pack_id:
        raise WrongIdentity(f"the pack is not {pack_id.hex()}")
    if len(data) < TRAILER_BYTES:
        raise Truncated("shorter than a trailer")
    trailer = decode_trailer(data[-TRAILER_BYTES:])
    directory = open_directory(data, trailer, index_key(trailer.epoch), repository)
    key = frame_key(secret_of(trailer, directory), trailer.salt, trailer.frame_commitment)
    for frame in directory.frames:
        sealed = data[frame.offset : frame.offset + frame.sealed_bytes]
        plain = open_frame(
            key, sealed, frame.ordinal, frame.kind, frame.compression, frame.plain_bytes, repository
        )
        for chunk in frame.chunks:
            take_chunk(plain, chunk, id_keys[frame.kind])
        released(plain)
    return trailer, directory
