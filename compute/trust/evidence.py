"""Evidence: what convinces a third party that a node has lied, with nothing but the bytes at hand.

Only four things do. All else is opinion, and stays with who holds it.

    two results     one key signed two answers to one attempt
    bad opening     one key committed to an answer, and opened another: the commitment names work and task itself
    wrong result    one key answered for a WebAssembly class, by its own bid, and running the named module again
                    gives something else
    fork            one key signed two logs (``heads.py``)

A *case* is one of these in canonical bytes, named by their hash. ``verify_case`` believes nothing but signatures and
hashes: not who brings it, and not what they say that it is about. The third kind needs the work to be run again:
``execute`` is given the work and returns the root, or None where it cannot be run here; then the case is not believed.

A requester cannot frame a provider: what the answer is to (the work's id, the task) is signed by who answers, in
``commits``, and the work's id is a hash of agreement, program, inputs and limits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeVar

import msgspec
from blake3 import blake3

from depin_node.compute.market.messages import (
    Award,
    Bid,
    Commit,
    Commits,
    Reveal,
    Reveals,
    WorkBody,
    agreement_id,
    attempt_bytes,
    work_id,
)
from depin_node.compute.trust.heads import Run, conflict
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Digest, Message, Uint, decode, encode
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import Answer, verify_opening
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, Signed, Verified, verify_signature

CASE_BYTES_MAX = 256 * 1024
BLOBS_BYTES_MAX = 128 * 1024
"""Program and inputs that a case may carry. Larger ones must be had otherwise, or the case convinces only who has
them."""
WASM_CLASSES = frozenset({"wasm-1"})
"""Classes whose results are defined to the last bit, so that another one is a lie."""
_CASE_LABEL = b"depin/evidence/v1\0"
_Commits = Annotated[bytes, msgspec.Meta(max_length=Commits.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES)]
_Reveals = Annotated[bytes, msgspec.Meta(max_length=Reveals.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES)]
_Run = Annotated[bytes, msgspec.Meta(max_length=Run.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES)]
_Small = Annotated[bytes, msgspec.Meta(max_length=2048)]


class TwoResults(Message, frozen=True, tag="two_results"):
    """Two ``commits``, or two ``reveals``, that differ about one attempt; may be one message."""

    first: _Reveals
    second: _Reveals


class BadOpening(Message, frozen=True, tag="bad_opening"):
    """``reveals`` does not open what ``commits`` says about ``attempt``."""

    commits: _Commits
    reveals: _Reveals
    attempt: Uint


class WrongResult(Message, frozen=True, tag="wrong_result"):
    """The answer that ``commits`` and ``reveals`` give to ``attempt`` is not what the program computes.

    ``blobs`` are the program and inputs that ``body`` names, as far as they are small; they are checked by hash.
    """

    bid: _Small
    award: _Small
    work: Uint
    body: WorkBody
    commits: _Commits
    reveals: _Reveals
    attempt: Uint
    blobs: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=65)]


class Fork(Message, frozen=True, tag="fork"):
    """Two runs of one log that contradict each other."""

    first: _Run
    second: _Run


Proof = TwoResults | BadOpening | WrongResult | Fork


class Case(Message, frozen=True):
    """What is passed on. ``accused`` is the key whose signatures the proof holds."""

    VERSION: ClassVar[int] = 1

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    network: Annotated[str, msgspec.Meta(max_length=64)]
    accused: Digest
    proof: Proof


S = TypeVar("S", bound=Signed)
Execute = Callable[[WorkBody, int, tuple[bytes, ...]], bytes | None]
"""Runs a task again: (the work, the task, blobs that may help) to the root of its outputs, or None if it cannot."""


@dataclass(frozen=True)
class Proven:
    """A case that holds."""

    accused: bytes
    kind: str
    reason: str
    digest: bytes


class NotHereError(PeerViolation):
    """The case may hold, if running ``task`` again gives something else; whether it does cannot be told here. Nobody's
    fault, and not believed."""

    code = "not_checkable"

    def __init__(self, message: str, task: int) -> None:
        super().__init__(message)
        self.task = task


class RightResultError(PeerViolation):
    """The result in question is what the program computes: the accused is honest."""

    code = "right_result"


def two_results(first: bytes, second: bytes) -> Proof:
    """Return the proof that two signed messages give different answers to one attempt."""
    return TwoResults(first, second)


def bad_opening(commits: bytes, reveals: bytes, attempt: int) -> Proof:
    """Return the proof that an answer was opened that had not been committed to."""
    return BadOpening(commits, reveals, attempt)


def fork(first: bytes, second: bytes) -> Proof:
    """Return the proof that somebody keeps two logs."""
    return Fork(first, second)


def encode_case(network: str, accused: bytes, proof: Proof) -> bytes:
    """Return a case in the bytes that are stored and passed on.

    Raises:
        ValueError: it is too large to be passed on.
    """
    data = encode(Case(Case.VERSION, network, accused, proof))
    if len(data) > CASE_BYTES_MAX:
        raise ValueError(f"evidence of {len(data)} bytes, at most {CASE_BYTES_MAX} are passed on")
    return data


def case_digest(data: bytes) -> bytes:
    """Return the name of a case."""
    return blake3(_CASE_LABEL + data).digest()


def verify_case(data: bytes, network: str | None = None, execute: Execute | None = None) -> Proven:
    """Check a case from its bytes.

    Args:
        data: as they arrived.
        network: of this node; None takes the one that the case names.
        execute: runs work again, for wrong results.

    Raises:
        PeerViolation: it proves nothing.
        NotHereError: it needs ``execute``, and that cannot tell.
    """
    case = decode(data, Case, size_bytes_max=CASE_BYTES_MAX)
    if network is not None and case.network != network:
        raise PeerViolation("evidence: of another network")
    if isinstance(case.proof, TwoResults):
        reason = _two_results(case, case.proof)
    elif isinstance(case.proof, BadOpening):
        reason = _bad_opening(case, case.proof)
    elif isinstance(case.proof, Fork):
        reason = _fork(case, case.proof)
    else:
        reason = _wrong_result(case, case.proof, execute)
    return Proven(case.accused, str(type(case.proof).__struct_config__.tag), reason, case_digest(data))


def _signed(case: Case, data: bytes, kind: type[S]) -> Verified[S]:
    verified = verify_signature(data, kind, case.network)
    if verified.sender != case.accused:
        raise PeerViolation("evidence: signed by another than the accused")
    return verified


def _two_results(case: Case, proof: TwoResults) -> str:
    answers: dict[tuple[bytes, int], bytes] = {}
    for agreement, attempt, answer in _committed_in(case, proof) or _revealed_in(case, proof):
        if answers.setdefault((agreement, attempt), answer) != answer:
            return f"it signed two answers to attempt {attempt} of one agreement"
    raise PeerViolation("evidence: these do not give two answers to one attempt")


def _committed_in(case: Case, proof: TwoResults) -> list[tuple[bytes, int, bytes]]:
    """Return (agreement, attempt, answer) of both messages; nothing if they are no ``commits``."""
    try:
        both = [_signed(case, data, Commits).payload for data in (proof.first, proof.second)]
    except PeerViolation:
        return []
    return [(message.agreement, item.attempt, item.commitment) for message in both for item in message.commits]


def _revealed_in(case: Case, proof: TwoResults) -> list[tuple[bytes, int, bytes]]:
    both = [_signed(case, data, Reveals).payload for data in (proof.first, proof.second)]
    return [(message.agreement, item.attempt, item.root) for message in both for item in message.reveals]


def _answer(case: Case, commits: bytes, reveals: bytes, attempt: int) -> tuple[Commits, Commit, Reveal]:
    """Return what the accused signed about an attempt."""
    committed = _signed(case, commits, Commits).payload
    revealed = _signed(case, reveals, Reveals).payload
    if committed.agreement != revealed.agreement:
        raise PeerViolation("evidence: of two agreements")
    commit = next((item for item in committed.commits if item.attempt == attempt), None)
    reveal = next((item for item in revealed.reveals if item.attempt == attempt), None)
    if commit is None or reveal is None:
        raise PeerViolation("evidence: not about that attempt")
    return committed, commit, reveal


def _check_opening(case: Case, committed: Commits, commit: Commit, reveal: Reveal) -> None:
    answer = Answer(case.network, committed.work, commit.task, attempt_bytes(commit.attempt), case.accused)
    verify_opening(commit.commitment, answer, reveal.root, reveal.salt)


def _bad_opening(case: Case, proof: BadOpening) -> str:
    committed, commit, reveal = _answer(case, proof.commits, proof.reveals, proof.attempt)
    try:
        _check_opening(case, committed, commit, reveal)
    except PeerViolation:
        return f"it committed to an answer to task {commit.task}, and showed another"
    raise PeerViolation("evidence: the commitment was opened as it should be")


def _fork(case: Case, proof: Fork) -> str:
    first, second = (_signed(case, data, Run) for data in (proof.first, proof.second))
    reason = conflict(first, second)
    if not reason:
        raise PeerViolation("evidence: these runs do not contradict each other")
    return reason


def _wrong_result(case: Case, proof: WrongResult, execute: Execute | None) -> str:
    committed, commit, reveal = _answer(case, proof.commits, proof.reveals, proof.attempt)
    _check_opening(case, committed, commit, reveal)
    bid = _signed(case, proof.bid, Bid).payload
    verify_signature(proof.award, Award, case.network)
    if agreement_id(proof.bid, proof.award) != committed.agreement:
        raise PeerViolation("evidence: the bid and award are of another agreement")
    if bid.device_class not in WASM_CLASSES:
        raise PeerViolation("evidence: the class leaves open what the result is")
    if work_id(committed.agreement, proof.work, proof.body) != committed.work:
        raise PeerViolation("evidence: the answer is to another work")
    named = {proof.body.program, *(item.blob for item in proof.body.inputs)}
    if sum(map(len, proof.blobs)) > BLOBS_BYTES_MAX or not named.issuperset(map(blob_id, proof.blobs)):
        raise PeerViolation("evidence: carries bytes that the work does not name, or too many")
    root = execute(proof.body, commit.task, proof.blobs) if execute is not None else None
    if root is None:
        missing = len(named.difference(map(blob_id, proof.blobs)))
        text = "evidence: the work cannot be run again here, so it cannot be told whether this is a lie"
        if missing:
            text += (
                f"; it takes the program and all inputs, and {missing} of them are not in the case, which holds"
                f" {BLOBS_BYTES_MAX >> 10} KiB at most"
            )
        raise NotHereError(text, commit.task)
    if root == reveal.root:
        raise RightResultError("evidence: the result is right")
    return f"its result of task {commit.task} is not what the program computes"
