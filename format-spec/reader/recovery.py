"""§4.6, §5.7: recovery sheets, which do as an owner's key file."""

import hashlib
import re

from conventions import Malformed, NotAuthentic, Truncated, require
from keys import credential, derive_bytes
from mnemonic import Mnemonic
from records import KeyFile

LINES = ("repository:", "root:", "check:", "words:")
WORDS = {word[:4]: number for number, word in enumerate(Mnemonic("english").wordlist)}


def seed_of_words(words):
    bits = 0
    for word in words:
        require(word[:4] in WORDS, f"`{word}` is no word of the list")
        bits = bits << 11 | WORDS[word[:4]]
    seed = (bits >> 8).to_bytes(32, "big")
    require(bits & 0xFF == hashlib.sha256(seed).digest()[0], "words that do not fit together")
    return seed


def is_sheet(data):
    return any(line.strip().lower().startswith(b"esker recovery sheet") for line in data.splitlines())


def read_sheet(data):
    try:
        lines = data.decode("utf-8").lower().splitlines()
    except UnicodeDecodeError:
        raise Malformed("a sheet that is not text") from None
    fields, words = {}, None
    for line in map(str.strip, lines):
        begins = next((name for name in LINES if line.startswith(name)), None)
        if begins:
            line = line[len(begins) :]
            words = fields.setdefault(begins, []) if begins == "words:" else None
            if words is None:
                fields[begins] = re.sub("[^0-9a-f]", "", line.translate(str.maketrans("oil", "011")))
        if words is not None:
            words += re.findall("[a-z]+", line)[: 24 - len(words)]
    for name, digits in (("repository:", 32), ("root:", 64), ("check:", 8)):
        require(len(fields.get(name, "")) == digits, f"no line `{name}` of {digits} digits")
    if len(fields.get("words:", [])) != 24:
        raise Truncated("fewer than 24 words")
    repository, root, check = (bytes.fromhex(fields[name]) for name in LINES[:3])
    seed = seed_of_words(fields["words:"])
    if derive_bytes("recovery sheet", repository + root + credential(seed).id, 4) != check:
        raise NotAuthentic("the check of the sheet differs")
    return KeyFile("owner", repository, root, seed)
