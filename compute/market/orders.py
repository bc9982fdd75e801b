"""What a provider's machine (``provider.py``) asks of its shell."""

from dataclasses import dataclass

from depin_node.compute.market.happenings import StoreAgreement
from depin_node.compute.market.messages import Terms, WorkBody
from depin_node.compute.trust.chain import Entry


@dataclass(frozen=True)
class Open:
    """The agreement stands: get so many workers of each device ready."""

    agreement: bytes
    terms: Terms
    shares: dict[int, int]


@dataclass(frozen=True)
class Prepare:
    """Fetch the program and the inputs of a work; tasks of it may follow before that is done."""

    work: int
    body: WorkBody
    grant: bytes


@dataclass(frozen=True)
class Run:
    """Run these: (attempt, task)."""

    work: int
    items: list[tuple[int, int]]


@dataclass(frozen=True)
class Keep:
    """Put the outputs of these attempts away for ``STAY_S``, then call ``kept``."""

    attempts: list[int]


@dataclass(frozen=True)
class Free:
    """Stop these attempts if they still run, and let their outputs go."""

    attempts: list[int]


@dataclass(frozen=True)
class Forget:
    """The work is closed: let its program and inputs go."""

    work: int


@dataclass(frozen=True)
class StoreReceipt:
    """Store both, the countersignature as the next entry of the log, then call ``send_countersign``."""

    receipt: bytes
    envelope: bytes
    countersign: bytes
    job: bytes
    entry: Entry
    busy_us: int


@dataclass(frozen=True)
class Over:
    """The agreement, or the conversation before there was one, has ended."""

    code: str


Order = StoreAgreement | Open | Prepare | Run | Keep | Free | Forget | StoreReceipt | Over
