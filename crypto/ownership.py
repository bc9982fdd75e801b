"""Owners: one key that says which nodes are one party's, and takes it back.

The flow: an owner makes a key (``depin-node owner create``), keeps it off its nodes, and signs one certificate for each
node's key (``certify``). The node shows it in its adverts. Who reads them counts all nodes of one owner as one group,
and a node of the same owner knows its fellows. A certificate ends by its expiry, or when the owner signs a list that
revokes it (``revoke``); of one owner the list with the highest ``seq`` counts, and is handed on from node to node.

A certificate is a claim against the node's own interest (its fleet counts once), so nobody needs to trust owners:
they are free, like identities. What follows from *our own* owner's signature is another matter: that is a fellow.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.core.wire import Key, Message, Uint
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, NOBODY, Signed, Verified, sign, verify, verify_signature
from depin_node.crypto.identity import Identity

DAYS_MAX = 400
REVOCATIONS_MAX = 256
OWNERS_MAX = 256
_DAY_S = 86_400


class OwnerCertificate(Signed, frozen=True):
    """The signer's word that the node ``to`` is its own. ``seq`` grows with each certificate of one owner."""

    TYPE: ClassVar[str] = "owner-certificate"
    SIZE_BYTES_MAX: ClassVar[int] = 64
    LIFETIME_S_MAX: ClassVar[int] = DAYS_MAX * _DAY_S


CERTIFICATE_BYTES_MAX = OwnerCertificate.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES


class Revocation(Message, frozen=True):
    """No certificate of ``node`` with a ``seq`` up to this one holds; a later one does."""

    node: Key
    seq: Uint


class OwnerRevocations(Signed, frozen=True):
    """All that its signer has revoked and that would not have expired yet."""

    TYPE: ClassVar[str] = "owner-revocations"
    SIZE_BYTES_MAX: ClassVar[int] = 64 + REVOCATIONS_MAX * 48
    LIFETIME_S_MAX: ClassVar[int] = DAYS_MAX * _DAY_S

    revoked: Annotated[tuple[Revocation, ...], msgspec.Meta(max_length=REVOCATIONS_MAX)]


REVOCATIONS_BYTES_MAX = OwnerRevocations.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES


def certify(owner: Identity, network_id: str, node: bytes, *, now: Now, days: int) -> bytes:
    """Return a certificate of ``owner`` for the key ``node``, good for so many days.

    Raises:
        ConfigError: ``days`` is not between 1 and ``DAYS_MAX``.
    """
    if not 1 <= days <= DAYS_MAX:
        raise ConfigError(f"a certificate can hold for 1 to {DAYS_MAX} days, not {days}; certify the node again later")
    expires_s = now.wall_ns // SECOND_NS + days * _DAY_S
    return sign(owner, network_id, OwnerCertificate(node, expires_s, now.wall_ns // 1000))


def read_certificate(data: bytes, network_id: str, node: bytes) -> Verified[OwnerCertificate]:
    """Check that ``data`` was signed for ``node`` on this network; whether it holds at some time is ``holds``'s.

    Raises:
        PeerViolation: forged, damaged, of another network, or of another node.
    """
    verified = verify_signature(data, OwnerCertificate, network_id)
    if verified.payload.to != node:
        raise PeerViolation("owner-certificate: it names another node")
    if verified.sender == node:
        raise PeerViolation("owner-certificate: a node cannot be its own owner")
    return verified


def revoke(owner: Identity, network_id: str, nodes: Iterable[bytes], before: bytes | None, *, now: Now) -> bytes:
    """Return the list that follows ``before``, with ``nodes`` added: their certificates signed until now are void.

    Raises:
        ConfigError: ``before`` is not this owner's list, or there would be more than ``REVOCATIONS_MAX``.
    """
    wall_us = now.wall_ns // 1000
    seqs: dict[bytes, int] = {}
    seq = wall_us
    if before is not None:
        try:
            old = verify_signature(before, OwnerRevocations, network_id)
        except PeerViolation as error:
            raise ConfigError(f"the list of revocations before this one is damaged: {error}") from error
        if old.sender != owner.key:
            raise ConfigError("the list of revocations before this one is another owner's")
        oldest_us = wall_us - DAYS_MAX * _DAY_S * 1_000_000  # what was signed before has expired by itself
        seqs = {line.node: line.seq for line in old.payload.revoked if line.seq > oldest_us}
        seq = max(seq, old.payload.seq + 1)
    seqs |= dict.fromkeys(nodes, wall_us)
    if len(seqs) > REVOCATIONS_MAX:
        raise ConfigError(
            f"{len(seqs)} revoked nodes are more than the {REVOCATIONS_MAX} that a list holds: make a new owner key and"
            " certify the nodes you keep"
        )
    lines = tuple(Revocation(node, seqs[node]) for node in sorted(seqs))
    expires_s = now.wall_ns // SECOND_NS + DAYS_MAX * _DAY_S
    return sign(owner, network_id, OwnerRevocations(NOBODY, expires_s, seq, lines))


@dataclass(frozen=True)
class _Known:
    """The newest list of one owner."""

    seq: int
    data: bytes
    revoked: dict[bytes, int]


class Owners:
    """What one node knows of owners: its own certificate, and the newest list of revocations of each owner it met.

    Args:
        network_id: certificates of other networks are void.
        node: our own key.
        certificate: ours, as the owner signed it; empty if we have none.

    Raises:
        ConfigError: ``certificate`` is not one for this node on this network.
    """

    def __init__(self, network_id: str, node: bytes, certificate: bytes = b"") -> None:
        self.network_id = network_id
        self.certificate = certificate
        self._own: Verified[OwnerCertificate] | None = None
        self._lists: OrderedDict[bytes, _Known] = OrderedDict()
        if certificate:
            try:
                self._own = read_certificate(certificate, network_id, node)
            except PeerViolation as error:
                raise ConfigError(
                    f"owner.cert is damaged, or for another node or another network id than {network_id!r} ({error});"
                    " make one with: depin-node owner certify"
                ) from error

    @property
    def own(self) -> bytes | None:
        """The key of our own owner, whether or not our certificate still holds."""
        return self._own.sender if self._own else None

    @property
    def expires_s(self) -> int:
        """When our own certificate ends by itself, wall seconds; 0 if there is none."""
        return self._own.payload.expires_s if self._own else 0

    def shown(self, now: Now) -> bytes:
        """Return our certificate as long as it holds; empty otherwise."""
        return self.certificate if self._own and self.holds(self._own, now) else b""

    def holds(self, certificate: Verified[OwnerCertificate], now: Now) -> bool:
        """Tell whether a certificate that ``read_certificate`` passed is neither expired nor revoked."""
        body = certificate.payload
        known = self._lists.get(certificate.sender)
        wall_s = now.wall_ns // SECOND_NS
        if not wall_s < body.expires_s <= wall_s + OwnerCertificate.LIFETIME_S_MAX + _DAY_S:
            return False
        return known is None or body.seq > known.revoked.get(body.to, -1)

    def is_fellow(self, certificate: Verified[OwnerCertificate] | None, now: Now) -> bool:
        """Tell whether a peer's certificate and ours are of the same owner, and both hold."""
        return (
            certificate is not None
            and self._own is not None
            and certificate.sender == self._own.sender
            and self.holds(self._own, now)
            and self.holds(certificate, now)
        )

    def take(self, data: bytes, now: Now) -> bytes | None:
        """Remember a list of revocations; return whose it is if it is news, else None.

        Raises:
            PeerViolation: not a valid list.
        """
        verified = verify(data, OwnerRevocations, self.network_id, to=NOBODY, now=now)
        body, owner = verified.payload, verified.sender
        known = self._lists.get(owner)
        if known is not None and body.seq <= known.seq:
            return None
        self._lists[owner] = _Known(body.seq, verified.data, {line.node: line.seq for line in body.revoked})
        self._lists.move_to_end(owner)
        if len(self._lists) > OWNERS_MAX:
            self._lists.pop(next(name for name in self._lists if name != self.own))
        return owner

    def list_of(self, owner: bytes) -> bytes | None:
        """Return the newest list of ``owner`` as it was signed."""
        known = self._lists.get(owner)
        return known.data if known else None

    def seq_of(self, owner: bytes) -> int:
        """Return the ``seq`` of the newest list of ``owner``; 0 if there is none."""
        known = self._lists.get(owner)
        return known.seq if known else 0
