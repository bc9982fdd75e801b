"""One file with a node's log of receipts, that anybody can check with no node and no network.

    depin-receipts/1 NETWORK\\n     a line, so that people and ``file`` see what it is
    length u32 LE ‖ [receipt, countersign]      once for each entry of the log, in its order
    0 u32 LE ‖ seal                 signed by the node: how many entries, the last link, the BLAKE3 of all before it

What a check can find: whether each receipt is signed by both sides, whether the owner's entries hang together in one
chain, whether a partner used one place of its log twice, and whether a byte was changed since the seal. What it cannot
find is a receipt that was never signed, and a log that its owner wrote with identities of its own: who the partners
are is for the reader to judge.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, BinaryIO, ClassVar

import msgspec
from blake3 import blake3

from depin_node.compute.market.messages import Countersign, Receipt, Verdict, digest
from depin_node.compute.trust.chain import Place, link, origin
from depin_node.compute.trust.receipts import busy_us, verify_receipt
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.wire import Digest, Message, Uint, decode, encode
from depin_node.crypto.envelope import NOBODY, Signed, sign, verify_signature
from depin_node.crypto.identity import Identity, peer_id

MAGIC = b"depin-receipts/1 "
HEADER_BYTES_MAX = 64
RECORD_BYTES_MAX = Receipt.SIZE_BYTES_MAX + Countersign.SIZE_BYTES_MAX + 1024
PROBLEMS_MAX = 100
"""Problems that are told one by one; further ones are counted."""
_Envelope = Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)]


class Record(Message, frozen=True):
    """One entry of the log: the receipt, and its countersignature, empty if there is none."""

    receipt: _Envelope
    countersign: _Envelope


class Seal(Signed, frozen=True):
    """Says that the file is the signer's log up to ``head``, or a part of it; ``at_s`` is wall time."""

    TYPE: ClassVar[str] = "receipts_seal"
    SIZE_BYTES_MAX: ClassVar[int] = 1024

    entries: Uint
    head: Digest
    is_whole: bool
    body: Digest
    at_s: Uint


@dataclass
class Tally:
    """What receipts say of one partner, from the owner's side; times are the provider's word."""

    receipts: int = 0
    accepted: int = 0
    refused: int = 0
    open: int = 0
    gave_us: int = 0
    got_us: int = 0
    energy_mj: int = 0


@dataclass
class Findings:
    """What a check found. ``unconfirmed`` receipts lack the provider's signature: nothing is wrong with them, and they
    bind nobody but the requester."""

    network: str = ""
    owner: str = ""
    sealed_s: int = 0
    is_whole: bool = False
    receipts: int = 0
    confirmed: int = 0
    unconfirmed: int = 0
    epochs: int = 0
    branches: int = 0
    partners: dict[str, Tally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    problems_more: int = 0

    @property
    def holds(self) -> bool:
        """Whether everything that was checked is as it should be."""
        return not self.problems

    def wrong(self, text: str) -> None:
        """Note a problem."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)
        else:
            self.problems_more += 1


def write_export(
    file: BinaryIO,
    identity: Identity,
    network: str,
    records: Iterable[Record],
    *,
    head: bytes,
    is_whole: bool,
    at_s: int,
) -> int:
    """Write a log, or a part of it, sealed by its owner; return the number of entries.

    Args:
        file: where to.
        identity: the owner of the log.
        network: that the receipts were signed for.
        records: in the order of the log.
        head: the link behind the last entry of the log.
        is_whole: whether none is left out.
        at_s: wall time.
    """
    hasher = blake3()

    def put(data: bytes) -> None:
        hasher.update(data)
        file.write(data)

    entries = 0
    put(MAGIC + network.encode() + b"\n")
    for record in records:
        data = encode(record)
        put(len(data).to_bytes(4, "little") + data)
        entries += 1
    put(bytes(4))
    seal = Seal(NOBODY, at_s, entries, entries, head, is_whole, hasher.digest(), at_s)
    file.write(sign(identity, network, seal))
    return entries


def verify_export(file: BinaryIO) -> Findings:
    """Check a file, entry by entry, in memory that does not grow with the receipts' sizes.

    Raises:
        ConfigError: it is no export at all.
    """
    findings, hasher = Findings(), blake3()
    header = file.readline(HEADER_BYTES_MAX)
    if not header.startswith(MAGIC) or not header.endswith(b"\n"):
        raise ConfigError("this is no export of receipts: it does not begin with depin-receipts/1 and a network id")
    hasher.update(header)
    findings.network = header[len(MAGIC) : -1].decode("utf-8", "replace")
    checked = _Checked(findings)
    ended = False
    for data in _records(file, hasher, findings):
        if data is None:
            ended = True
            break
        checked.add(data)
    if ended:
        checked.finish(file.read(Seal.SIZE_BYTES_MAX + 256), hasher.digest())
        if file.read(1):
            findings.wrong("there is more behind the seal")
    return findings


def _records(file: BinaryIO, hasher: blake3, findings: Findings) -> Iterator[bytes | None]:
    """Yield each record's bytes, then None; ends early where the file does."""
    while True:
        length = file.read(4)
        size_bytes = int.from_bytes(length, "little")
        if len(length) < 4 or size_bytes > RECORD_BYTES_MAX:
            findings.wrong(f"entry {findings.receipts}: the file is cut off or damaged here; what follows was not read")
            return
        hasher.update(length)
        if not size_bytes:
            yield None
            return
        data = file.read(size_bytes)
        if len(data) < size_bytes:
            findings.wrong(f"entry {findings.receipts}: the file ends in the middle of it")
            return
        hasher.update(data)
        yield data


class _Checked:
    """The check of entries as they come. What depends on the owner waits for the seal, in 100 bytes an entry."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._places: list[tuple[int, bytes, Place, bytes]] = []  # number, signer, place, digest
        self._sums: Counter[tuple[bytes, bytes, str]] = Counter()  # requester, provider, what

    def add(self, data: bytes) -> None:
        """Check the signatures of one entry."""
        findings, number = self._findings, self._findings.receipts
        findings.receipts += 1
        try:
            record = decode(data, Record, size_bytes_max=RECORD_BYTES_MAX)
            receipt = verify_receipt(record.receipt, record.countersign or None, findings.network)
        except PeerViolation as error:
            findings.wrong(f"entry {number}: {error}")
            return
        requester, provider = receipt.sender, receipt.payload.to
        self._places.append((number, requester, receipt.payload.place, digest(record.receipt)))
        sums = self._sums
        sums[requester, provider, "receipts"] += 1
        if not record.countersign:
            findings.unconfirmed += 1
            return
        findings.confirmed += 1
        countersign = verify_signature(record.countersign, Countersign, findings.network).payload
        self._places.append((number, provider, countersign.place, digest(record.countersign)))
        for settled in receipt.payload.settled:
            if settled.verdict in (Verdict.ACCEPTED, Verdict.UNUSED):
                sums[requester, provider, "accepted"] += 1
            elif settled.verdict is Verdict.PROVISIONAL:
                sums[requester, provider, "open"] += 1
            else:
                sums[requester, provider, "refused"] += 1
        sums[requester, provider, "busy_us"] += busy_us(receipt.payload)
        sums[requester, provider, "energy_mj"] += countersign.meters.energy_mj

    def finish(self, seal: bytes, body: bytes) -> None:
        """Check the seal, and the chain of who set it."""
        findings = self._findings
        try:
            verified = verify_signature(seal, Seal, findings.network)
        except PeerViolation as error:
            findings.wrong(f"the seal: {error}; whose log this is cannot be told")
            return
        owner, claim = verified.sender, verified.payload
        findings.owner, findings.sealed_s, findings.is_whole = peer_id(owner), claim.at_s, claim.is_whole
        if claim.body != body:
            findings.wrong("the file was changed after it was sealed")
        if claim.entries != findings.receipts:
            findings.wrong(f"the seal counts {claim.entries} entries, there are {findings.receipts}")
        self._tell_partners(owner)
        self._chain(owner, claim)

    def _tell_partners(self, owner: bytes) -> None:
        for (requester, provider, what), amount in self._sums.items():
            if owner not in (requester, provider):
                self._findings.wrong("a receipt between two others does not belong into this log")
                continue
            partner = provider if requester == owner else requester
            tally = self._findings.partners.setdefault(peer_id(partner), Tally())
            if what == "busy_us":
                what = "got_us" if requester == owner else "gave_us"
            setattr(tally, what, getattr(tally, what) + amount)

    def _chain(self, owner: bytes, claim: Seal) -> None:
        """Check that nobody used a place twice, and that the owner's entries hang together."""
        findings = self._findings
        used: dict[tuple[bytes, int, int], bytes] = {}
        own: dict[bytes, tuple[int, Place]] = {}
        for number, signer, place, name in self._places:
            key = (signer, place.epoch, place.index)
            if key in used:
                twice = "this is there twice" if used[key] == name else "two entries for one place of its log: a fork"
                findings.wrong(f"entry {number}: by {peer_id(signer)}: {twice}")
            used[key] = name
            if signer == owner:
                own[link(place, name)] = (number, place)
        findings.epochs = len({place.epoch for _, place in own.values()})
        if claim.is_whole:
            self._follow(owner, claim, own)

    def _follow(self, owner: bytes, claim: Seal, own: dict[bytes, tuple[int, Place]]) -> None:
        """Go from the head that the seal names back to the beginning.

        What is aside of that way are branches: entries that the owner had lost, and got back from partners, perhaps not
        all of them.
        """
        findings, at, after = self._findings, claim.head, len(self._places)
        while at != origin(owner):
            found = own.pop(at, None)
            if found is None:
                findings.wrong(f"an entry of the log is missing, before entry {after}")
                return
            number, place = found
            before = own.get(place.previous)
            if number >= after or (before is not None and before[1].index + 1 != place.index):
                findings.wrong(f"entry {number} is not in its place")
            at, after = place.previous, number
        findings.branches = sum(place.previous not in own for _, place in own.values())
