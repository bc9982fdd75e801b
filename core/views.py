"""What a node tells its operator: the answers of the control API, shared by the node, the client and the command line.

Peers are written as peer ids, hashes in hex, times as wall seconds. Jobs have a view of their
own, ``compute.jobs.job.JobView``.
"""

import msgspec


class View(msgspec.Struct, frozen=True):
    """Base of all answers: a JSON object; readers ignore what they do not know."""


NO_TASK = 0xFFFFFFFF
"""In place of a task's number in a stream of results: a sign of life."""
PROVISIONAL = 1 << 31
"""Added to a task's number in a stream of results: not settled yet."""


class BlobView(View, frozen=True):
    """Bytes that the node keeps, by their id."""

    id: str


class DeviceView(View, frozen=True):
    """What a node can run tasks on. ``slots`` is how many at once, ``slots_free`` how many more right now.

    ``model`` is what the device calls itself; the speeds are of one slot, as its node measured them, 0 if it did not:
    millions of float32 and float64 operations a second, and MB/s of memory. Of our own devices also what the operating
    system confines their workers by: ``layers``, and ``layers_missing`` with the reasons; each is ``name: how or why
    not``; and ``name``, how the configuration calls it: ``cpu``, or a GPU's UUID. A device that is there and cannot be
    lent, or not any more, says why in ``unusable``.
    """

    device_class: str
    memory_mib: int
    slots: int
    slots_free: int
    layers: tuple[str, ...] = ()
    layers_missing: tuple[str, ...] = ()
    model: str = ""
    mflops_f32: int = 0
    mflops_f64: int = 0
    mbytes_s: int = 0
    unusable: str = ""
    name: str = ""


class PeerView(View, frozen=True):
    """What this node knows of a peer. ``address`` is where it can be dialled; ``banned`` is why, or empty; ``owner`` is
    the id of its owner's key, or empty. ``verified``: answers of it that were found right with somebody established
    behind the finding; ``availability``: how likely it is to answer, 0 to 1, None where nothing is known; both of
    its best device. ``relayed``: connected by way of a relay only, which is slow for large data.
    """

    peer: str
    address: str
    connected: bool
    lending: bool
    devices: tuple[DeviceView, ...]
    price_millicredits: int
    version: str
    group: str
    banned: str = ""
    owner: str = ""
    protocol_min: int = 1
    protocol_max: int = 1
    verified: int = 0
    availability: float | None = None
    relayed: bool = False


class ReachView(View, frozen=True):
    """Whether others can call the node. ``verdict``: local, unknown, public or private; ``nat``: unknown, none,
    endpoint-independent or address-dependent; ``reached`` and ``missed``: how many groups of peers could call it, and
    could not; ``relays``: who passes on calls to it. ``serves``: it passes on those to others, ``places`` of which may
    be called through ``circuits`` that are open now. ``skew_s``: how far peers' clocks are ahead of ours, by the middle
    one of those that told.
    """

    verdict: str
    nat: str
    reached: int = 0
    missed: int = 0
    relays: tuple[str, ...] = ()
    serves: bool = False
    places: int = 0
    circuits: int = 0
    skew_s: int | None = None


class LanView(View, frozen=True):
    """The local networks on which nodes are found: which, how often one was heard of, and what went wrong."""

    networks: tuple[str, ...]
    sightings: int
    error: str = ""


class StatusView(View, frozen=True):
    """How the node is. ``counters`` counts what went wrong and was survived since the start; ``first_peers`` are the
    addresses that it was told to join by, from wherever."""

    peer: str
    version: str
    network_id: str
    pid: int
    data_dir: str
    started_s: float
    addresses: tuple[str, ...]
    lending: bool
    slots: int
    peers_connected: int
    peers_known: int
    jobs: dict[str, int]
    tasks_lent: int
    blobs_bytes: int
    counters: dict[str, int]
    reach: ReachView | None = None
    lan: LanView | None = None
    first_peers: tuple[str, ...] = ()


class ReceiptView(View, frozen=True):
    """A receipt as kept in the journal. ``role`` is ours: ``requester`` or ``provider``; ``device_class`` is the
    provider's.

    ``cost_s`` is what the answers that count as work cost, in reference-seconds, at ``rate_millicredits`` for each. By
    the provider's word, once it has signed: ``ran_s`` that they took, ``fuel`` (wasm instructions) and ``energy_j``.
    """

    id: str
    role: str
    peer: str
    job: str
    tasks_accepted: int
    tasks_refused: int
    verified_by: str
    issued_s: float
    signed_by: tuple[str, ...]
    device_class: str = ""
    cost_s: float = 0.0
    rate_millicredits: int = 0
    ran_s: float = 0.0
    fuel: int = 0
    energy_j: float = 0.0


class AccountView(View, frozen=True):
    """What lies between a peer and this node, in reference-seconds, as receipts that both signed say.

    Its debt is ``gave_s - got_s``; up to ``limit_s`` it is on credit. ``unsigned_s`` is work that was shown to it and
    that it did not sign for. ``refused`` is why its offers are declined now: ``credit``, ``unsigned``, or empty.
    """

    peer: str
    gave_s: float
    got_s: float
    limit_s: float
    unsigned_s: float
    refused: str


class CreditView(View, frozen=True):
    """The accounts with all partners, and ``strangers_s``: the slot time that is left for all beyond their credit."""

    accounts: tuple[AccountView, ...]
    strangers_s: float


class CopyView(View, frozen=True):
    """A job that ``worker``, a node of the same owner, works on, as far as this node has a copy: it could go on with
    it. ``heard_s`` is when the worker last said how far it is."""

    id: str
    name: str
    worker: str
    tasks_total: int
    tasks_settled: int
    epoch: int
    heard_s: float


class CaseView(View, frozen=True):
    """Proof that ``accused`` has lied. ``told_by`` is the peer that handed it out, empty if this node found it."""

    id: str
    accused: str
    kind: str
    reason: str
    told_by: str
    at_s: float


class ErrorView(View, frozen=True):
    """Why a request failed: the ``code`` of a ``DepinError``, and a sentence for the user."""

    code: str
    message: str


class TaskLog(View, frozen=True):
    """What a task printed, its control characters spelled out; ``cut`` if it filled all that is kept of one task."""

    task: int
    text: str
    cut: bool


class LogsView(View, frozen=True):
    """What the accepted tasks of a job printed, in task order. ``full``: so many that no further ones are kept."""

    tasks: tuple[TaskLog, ...]
    full: bool
