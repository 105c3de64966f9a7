"""§12: what a reader refuses before it allocates anything for it."""

RECORD = 64 << 20
PACK = 1 << 30
FRAME = 32 << 20
CHUNK = 16 << 20
CHUNK_AVERAGE = (512, 1 << 20)
CHUNK_MIN = 64
ZEROS = 65536
INLINE_PIECES = 32
LEVEL = 16
NAME = 1024
ARGON2_MEMORY_KIB = (19456, 1 << 20)
ARGON2_PASSES = (2, 16)
ARGON2_LANES = (1, 16)

U32 = 2**32 - 1
U64 = 2**64 - 1
