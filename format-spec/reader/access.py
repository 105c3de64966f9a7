"""§4.5: who may do what, as statements of owners say it."""

import heapq
from collections import namedtuple

import keys
from conventions import Optional, Record, Refused, array, blob, integer, known, tuple_of
from records import HASH, ID, STATEMENT, hashes, split_signed, verify_signed

OWNER, WRITER = 1, 2
CREDENTIAL_ADDED, CREDENTIAL_REMOVED, SLOT_ADDED, SLOT_REMOVED, EPOCH_OPENED = range(1, 6)

GRANTS = array(tuple_of(ID, HASH, blob()))

STATEMENT_RECORD = Record(
    {
        1: known(1, 2, 3, 4, 5), 2: HASH, 3: Optional(hashes()), 4: integer,
        5: Optional(known(OWNER, WRITER)), 6: Optional(HASH), 7: Optional(blob()), 8: Optional(blob()),
        9: Optional(GRANTS), 10: Optional(HASH), 11: Optional(hashes()), 12: Optional(ID),
        13: Optional(HASH), 14: Optional(ID), 15: Optional(blob()),
    },
    kinds=(1, {
        CREDENTIAL_ADDED: {5: True, 6: True, 7: True, 8: True, 9: False},
        CREDENTIAL_REMOVED: {10: True, 11: False},
        SLOT_ADDED: {10: True, 12: True, 13: True},
        SLOT_REMOVED: {12: True},
        EPOCH_OPENED: {9: False, 14: True, 15: True},
    }),
)  # fmt: skip

EPOCH_SECRETS = Record({1: HASH, 2: HASH, 3: HASH, 4: HASH, 5: Optional(HASH)}, ext=False)

Secrets = namedtuple("Secrets", "k_id k_cdc k_index psk private")
Known = namedtuple("Known", "role verifying seniority label")
Removal = namedtuple("Removal", "seniority signer statement credential accepted")
Slot = namedtuple("Slot", "id credential hash")
Epoch = namedtuple("Epoch", "public grants")


def open_grant(sealing_private, sealed, repository, epoch, credential):
    info = b"esker v1 grant\0" + repository + epoch + credential
    fields = EPOCH_SECRETS.decode(keys.open_secret(sealing_private, sealed, info))
    return Secrets(fields[1], fields[2], fields[3], fields[4], fields.get(5))


class Statement:
    def __init__(self, data, digest):
        self.hash = digest
        self.body, self.signature = split_signed(data, STATEMENT, "access/" + digest.hex())
        self.fields = STATEMENT_RECORD.decode(self.body)
        self.seen = self.fields.get(3, [])
        self.verified = {}

    def signed_by(self, verifying, repository):
        if verifying not in self.verified:
            try:
                verify_signed(self.body, self.signature, verifying, STATEMENT, "", repository)
                self.verified[verifying] = True
            except Refused:
                self.verified[verifying] = False
        return self.verified[verifying]


def in_order(statements):
    """Each after all it has seen, the smallest hash next; without those that lack something seen."""
    waits = {digest: len(one.seen) for digest, one in statements.items()}
    seen_by = {}
    for digest, one in statements.items():
        for seen in one.seen:
            seen_by.setdefault(seen, []).append(digest)
    ready = [digest for digest, count in waits.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        digest = heapq.heappop(ready)
        order.append(statements[digest])
        for later in seen_by.get(digest, []):
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(ready, later)
    return order


class Access:
    """What statements come to: `credentials`, `removals`, `slots` and `epochs`, those in order."""

    def __init__(self, statements, config):
        self.config = config
        self.statements = {one.hash: one for one in statements}
        self.order = in_order(self.statements)
        self.removals = {}
        while removal := self._evaluate():
            self.removals[removal.credential] = removal

    def _evaluate(self):
        self.credentials, self.slots, self.epochs = {}, [], {}
        self.asked, self.removed_slots, self.root = [], set(), None
        for statement in self.order:
            if self._counts(statement):
                self._apply(statement)
        self.slots = [slot for slot in self.slots if slot.id not in self.removed_slots]
        return min((ask for ask in self.asked if ask.credential not in self.removals), default=None)

    def _counts(self, statement):
        fields, signer = statement.fields, statement.fields[2]
        if self.credentials:
            known_signer = self.credentials.get(signer)
            if not known_signer or known_signer.role != OWNER:
                return False
            verifying = known_signer.verifying
        else:
            verifying = self.config.root
            if fields[1] == CREDENTIAL_ADDED:
                if fields[6] != verifying or keys.credential_id(fields[6], fields[7]) != signer:
                    return False
        if signer in self.removals and statement.hash not in self.removals[signer].accepted:
            return False
        return statement.signed_by(verifying, self.config.repository)

    def _apply(self, statement):
        fields, signer = statement.fields, statement.fields[2]
        kind = fields[1]
        if kind == CREDENTIAL_ADDED:
            added = keys.credential_id(fields[6], fields[7])
            if added not in self.credentials:
                self.root = self.root or added
                seniority = self.credentials[signer].seniority + 1 if self.credentials else 0
                self.credentials[added] = Known(fields[5], fields[6], seniority, fields[8])
            self._grant(fields, {added})
        elif kind == CREDENTIAL_REMOVED:
            gone = fields[10]
            if gone in self.credentials and gone != self.root:
                seniority = self.credentials[signer].seniority
                accepted = self._with_seen(fields.get(11, []))
                self.asked.append(Removal(seniority, signer, statement.hash, gone, accepted))
        elif kind == SLOT_ADDED:
            self.slots.append(Slot(fields[12], fields[10], fields[13]))
        elif kind == SLOT_REMOVED:
            self.removed_slots.add(fields[12])
        elif fields[14] not in self.epochs and len(fields[15]) == 1216:
            self.epochs[fields[14]] = Epoch(fields[15], {})
            self._grant(fields, None)

    def _grant(self, fields, whom):
        for epoch, credential, sealed in fields.get(9, []):
            if epoch in self.epochs and (whom is None or credential in whom):
                self.epochs[epoch].grants.setdefault(credential, []).append(sealed)

    def _with_seen(self, hashes):
        """The hashes, and all that those that are statements have seen, directly or not."""
        accepted, todo = set(), list(hashes)
        while todo:
            digest = todo.pop()
            if digest not in accepted:
                accepted.add(digest)
                todo += self.statements[digest].seen if digest in self.statements else []
        return accepted

    def secrets(self, credential, sealing_private):
        """The secrets of the epochs that were granted to a credential, and what was refused."""
        found, refused = {}, []
        for epoch, opened in self.epochs.items():
            for sealed in opened.grants.get(credential, []):
                try:
                    secrets = open_grant(sealing_private, sealed, self.config.repository, epoch, credential)
                    if secrets.private and keys.sealing_public(secrets.private) != opened.public:
                        raise keys.NotAuthentic("a private key that is not the epoch's")
                    found.setdefault(epoch, secrets)
                except Refused as refusal:
                    refused.append(f"grant of epoch {epoch.hex()}: {refusal}")
        return found, refused
