"""§5: keys, sealing, credentials. The primitives are libraries'; how they are put together is here."""

import hashlib
import hmac
from collections import namedtuple

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from Crypto.Cipher import ChaCha20_Poly1305
from Crypto.Hash import SHAKE256
from Crypto.Protocol import HPKE
from Crypto.PublicKey import ECC, MLKEM, Hybrid
from Crypto.Signature import eddsa

from conventions import Cursor, Malformed, NotAuthentic, Truncated, Unsupported

PREFIX = "esker v1 "


def hash_of(data):
    return blake3(data).digest()


def keyed_hash(key, data):
    return blake3(data, key=key).digest()


def derive_bytes(context, material, size):
    return blake3(material, derive_key_context=PREFIX + context).digest(length=size)


def derive(purpose, parent, salt=b""):
    """§5.1: a key and the commitment to it."""
    both = derive_bytes(purpose, parent + salt, 64)
    return both[:32], both[32:]


def committed(purpose, parent, salt, commitment):
    """The key, if it is the one that was committed to."""
    key, expected = derive(purpose, parent, salt)
    if not hmac.compare_digest(expected, commitment):
        raise NotAuthentic("the commitment is another key's")
    return key


def open_sealed(key, sealed, associated):
    """§5.2: nonce, ciphertext, tag."""
    if len(sealed) < 40:
        raise Truncated("fewer bytes than a nonce and a tag")
    cipher = ChaCha20_Poly1305.new(key=key, nonce=sealed[:24])
    cipher.update(associated)
    try:
        return cipher.decrypt_and_verify(sealed[24:-16], sealed[-16:])
    except ValueError:
        raise NotAuthentic("the tag is wrong") from None


def open_box(purpose, parent, box, associated):
    cursor = Cursor(box)
    salt, commitment = cursor.take(32), cursor.take(32)
    sealed = cursor.rest()
    if len(sealed) < 40:
        raise Truncated("fewer bytes than a nonce and a tag")
    return open_sealed(committed(purpose, parent, salt, commitment), sealed, associated)


KIND_NAMES = {1: "data", 2: "directory", 3: "list"}


class Identities:
    """§5.1, §5.3: what follows from `K_id`."""

    def __init__(self, k_id):
        self.chunk = {kind: derive(f"id {name}", k_id)[0] for kind, name in KIND_NAMES.items()}
        self.link_group = derive("id link group", k_id)[0]
        self.boundary = derive("directory boundary", k_id)[0]


# §5.4, §5.5. A private X-Wing key is 32 bytes, a public one is ML-KEM-768's and X25519's.

Credential = namedtuple("Credential", "id verifying sealing")


def sealing_public(private):
    expanded = SHAKE256.new(private).read(96)
    kem = MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=expanded[:64])
    ecdh = ECC.construct(curve="Curve25519", seed=expanded[64:])
    return kem.ek + ecdh.public_key().export_key(format="raw")


def credential_id(verifying, sealing):
    return derive_bytes("credential id", verifying + sealing, 32)


def sealing_private(seed):
    return derive("credential sealing", seed)[0]


def credential(seed):
    signing = eddsa.import_private_key(derive("credential signing", seed)[0])
    verifying = signing.public_key().export_key(format="raw")
    sealing = sealing_public(sealing_private(seed))
    return Credential(credential_id(verifying, sealing), verifying, sealing)


def open_secret(private, sealed, info, psk=None):
    """§5.5: HPKE, single shot; `psk` is the epoch's id and its pre-shared key."""
    cursor = Cursor(sealed)
    if cursor.u8() != 1:
        raise Unsupported("another way to seal to a key")
    encapsulated, ciphertext = cursor.take(1120), cursor.rest()
    if len(ciphertext) < 16:
        raise Truncated("fewer bytes than a tag")
    key = Hybrid.generate(param_set=Hybrid.MLKEM768_X25519, randfunc=lambda size: private)
    try:
        context = HPKE.new(
            receiver_key=key, aead_id=HPKE.AEAD.CHACHA20_POLY1305, enc=encapsulated, psk=psk, info=info
        )
        return context.unseal(ciphertext)
    except ValueError:
        raise NotAuthentic("the sealed secret does not open") from None


def open_envelope(private, envelope, info, psk):
    secret = open_secret(private, envelope, info, psk)
    if len(secret) != 32:
        raise Malformed(f"a session secret of {len(secret)} bytes")
    return secret


# §4.2 asks for strict verification, which libraries leave out or hide; the equation is short.

ORDER = 2**252 + 27742317777372353535851937790883648493


def _point(encoded):
    try:
        point = eddsa.import_public_key(encoded).pointQ
    except ValueError:
        raise NotAuthentic("no point of the curve") from None
    if (point * 8).is_point_at_infinity():
        raise NotAuthentic("a point of small order")
    return point


GENERATOR = _point(bytes.fromhex("58" + "66" * 31))


def verify(verifying, message, signature):
    """Ed25519, RFC 8032 §5.1.7, without the cofactor: [S]B = R + [k]A."""
    if len(signature) != 64:
        raise Truncated("a signature of fewer than 64 bytes")
    key, commitment = _point(verifying), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if scalar >= ORDER:
        raise NotAuthentic("S is not reduced")
    digest = hashlib.sha512(signature[:32] + verifying + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    if GENERATOR * scalar != commitment + key * challenge:
        raise NotAuthentic("the signature is wrong")


def password_key(password, salt, memory_kib, passes, lanes):
    """§5.6."""
    return hash_secret_raw(password, salt, passes, memory_kib, lanes, 32, Type.ID, version=0x13)
