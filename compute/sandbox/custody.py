"""The life of one GPU, or MIG instance, while its node lends: who has it, and whether it may be lent again.

::

             Wanted               Returned, crash, time-out, lost context
    FREE ───────────────► LEASED ───────────────────────────────► DRAINING
      ▲                     ▲  a worker of its own,                  │  killed; reaped; the driver names
      │                     │  one attempt at a time                 │  no context of ours any more
      │  no agreement       │  the agreement goes on, fresh worker   │
      ├─────────────────────┴───────────────────────────────────────┤
      │  known answers right                                         │  in doubt
      └──────────────────────────────── SUSPECT ◄────────────────────┘
                                            │ wrong, or no answer
    any ── gone, uncorrectable memory ──► WITHDRAWN ◄── the process or its context does not go

A launch that runs cannot be called back and a kernel reaches every address of its context, so a context serves one
agreement and the end of an agreement, a deadline or a fault is the end of a process. The device is lent again only
when the driver confirms that nothing of that process is left: a context that stays holds memory, and its kernel may
still be running. Then the device is *withdrawn*, as it is when it falls off the bus or its memory is damaged. When
workers die one after the other, or the driver reports trouble, it is *suspect*: a fresh worker has to reproduce the
known answers first.

This is a machine: ``handle`` takes what happened and returns what is to be done. The worker tells the outcome of an
attempt by itself as long as it lives; of every other attempt the machine says how it ended, once (``Fail``). It counts
on its shell for this much: a spawned worker that cannot be started counts as ``Exited``.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from depin_node.compute.sandbox import custody_events as e
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import TaskCrashed, TaskTimedOut


class State(Enum):
    """See the module."""

    FREE = "free"
    LEASED = "leased"
    DRAINING = "draining"
    SUSPECT = "suspect"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class _Attempt:
    number: int
    seconds: float
    until_ns: int


_HOT: Final = "the device is too hot to be lent now"


class Custody:
    """One device; see the module. ``state`` and ``reason`` (why it is suspect or withdrawn) are for the operator."""

    def __init__(self, limits: e.CustodyLimits | None = None) -> None:
        self.state, self.reason = State.FREE, ""
        self.lease = ""
        self._limits = limits or e.CustodyLimits()
        self._lives = False  # there is a process that is not reaped
        self._ready = False
        self._hot = False
        self._attempt: _Attempt | None = None
        self._crashes = 0
        self._until_ns = 0  # of the step that is waited for
        self._effects: list[e.Effect] = []

    def handle(self, event: e.Event, now: Now) -> list[e.Effect]:
        """Take what happened; return what is to be done, in this order."""
        self._effects = []
        match event:
            case e.Wanted():
                self._wanted(event.lease, now)
            case e.Returned():
                self._returned(event.lease, now)
            case e.Ready():
                self._ready = self._lives
            case e.Began():
                self._began(event, now)
            case e.Ended():
                self._ended(event, now)
            case e.Exited():
                self._exited(event.detail, now)
            case e.Contexts():
                self._contexts(event.held, now)
            case e.Tested():
                self._tested(event, now)
            case e.Doubted():
                self._doubted(event.detail, now)
            case e.Broken():
                self._withdraw(event.detail)
            case e.Heat():
                self._heat(event.hot)
            case e.Tick():
                self._tick(now)
        return self._effects

    # Agreements

    def _wanted(self, lease: str, now: Now) -> None:
        if self.state is not State.FREE or self._hot:
            because = {State.FREE: _HOT, State.LEASED: "another agreement has the device"}
            reason = because.get(self.state, f"the device is {self.state.value}: {self.reason or 'its last user ends'}")
            self._effects.append(e.Refuse(lease, reason))
            return
        self.lease = lease
        self._effects.append(e.Grant(lease))
        self._next(now)

    def _returned(self, lease: str, now: Now) -> None:
        if not lease or lease != self.lease:
            return
        self.lease, self._attempt = "", None
        if self.state is State.LEASED:
            self._drain(now)

    # The worker

    def _began(self, event: e.Began, now: Now) -> None:
        if self.state is not State.LEASED or not self._lives:
            return
        until_ns = now.boottime_ns + int((event.seconds + self._limits.grace_s) * SECOND_NS)
        self._ready = True
        self._attempt = _Attempt(event.attempt, event.seconds, until_ns)
        self._effects.append(e.WakeAt(until_ns))

    def _ended(self, event: e.Ended, now: Now) -> None:
        if self._attempt is None or self._attempt.number != event.attempt:
            return  # its deadline was first
        self._attempt = None
        if event.context_lost:
            self._crashed(now)
        else:
            self._crashes = 0

    def _exited(self, detail: str, now: Now) -> None:
        if not self._lives:
            return
        self._lives = False
        self._fail(TaskCrashed.code, f"the worker died: {detail}")
        if self.state is State.LEASED:
            self._crashed(now)
        elif self.state is State.SUSPECT:
            self._withdraw(f"{self.reason}; the test of the device died: {detail}")
        elif self.state is State.DRAINING:
            self._drain(now)

    def _crashed(self, now: Now) -> None:
        self._crashes += 1
        if self._crashes >= self._limits.crashes_max:
            self.reason = f"{self._crashes} workers in a row died"
        self._drain(now)

    def _fail(self, code: str, reason: str) -> None:
        if self._attempt is not None:
            self._effects.append(e.Fail(self._attempt.number, code, reason))
            self._attempt = None

    # Getting the device back

    def _drain(self, now: Now) -> None:
        """Wait until the process is gone, then until its context is."""
        self.state = State.DRAINING
        if self._lives:
            self._effects.append(e.Kill())
            self._wait(self._limits.kill_s, now)
        else:
            self._wait(self._limits.context_s, now)
            self._effects.append(e.Look())

    def _contexts(self, held: bool, now: Now) -> None:
        if self.state is not State.DRAINING or self._lives:
            return
        if not held:
            self._next(now)
        elif now.boottime_ns >= self._until_ns:
            self._context_stays()
        else:
            self._effects.append(e.WakeAt(now.boottime_ns + int(self._limits.look_s * SECOND_NS)))

    def _next(self, now: Now) -> None:
        """Nothing of ours is left on the device."""
        if self.reason:
            self.state = State.SUSPECT
            self._spawn(self._limits.test_s, now)
        elif self.lease:
            self.state = State.LEASED
            self._spawn(self._limits.start_s, now)
        else:
            self.state = State.FREE
            if not self._hot:
                self._effects.append(e.Available())

    def _spawn(self, within_s: float, now: Now) -> None:
        self._lives, self._ready = True, False
        self._effects.append(e.Spawn(test=self.state is State.SUSPECT))
        self._wait(within_s, now)

    def _tested(self, event: e.Tested, now: Now) -> None:
        if self.state is not State.SUSPECT:
            return
        if event.passed:
            self.reason, self._crashes = "", 0
            self._drain(now)
        else:
            self._withdraw(f"{self.reason}; then {event.detail}")

    # The driver's word

    def _doubted(self, detail: str, now: Now) -> None:
        if self.state is State.WITHDRAWN:
            return
        self.reason = self.reason or detail
        self._fail(TaskCrashed.code, f"the device is in doubt: {detail}")
        if self.state is State.FREE:
            self._next(now)
        elif self.state is State.LEASED:
            self._drain(now)
        elif self.state is State.SUSPECT:
            self._withdraw(f"{self.reason}; while it was tested: {detail}")

    def _heat(self, hot: bool) -> None:
        cooled = self._hot and not hot
        self._hot = hot
        if cooled and self.state is State.FREE:
            self._effects.append(e.Available())

    def _withdraw(self, reason: str) -> None:
        if self.state is State.WITHDRAWN:
            return
        self.state, self.reason = State.WITHDRAWN, reason
        self._fail(TaskCrashed.code, f"the device was withdrawn: {reason}")
        if self._lives:
            self._effects.append(e.Kill())
        if self.lease:
            self._effects.append(e.Revoke(self.lease, reason))
            self.lease = ""
        self._effects.append(e.Withdraw(reason))

    def _context_stays(self) -> None:
        self._withdraw(f"a context stayed {self._limits.context_s:g} s after its process")

    # Time

    def _wait(self, seconds: float, now: Now) -> None:
        self._until_ns = now.boottime_ns + int(seconds * SECOND_NS)
        self._effects.append(e.WakeAt(self._until_ns))

    def _tick(self, now: Now) -> None:
        late = now.boottime_ns >= self._until_ns
        if self.state is State.LEASED:
            if self._attempt is not None and now.boottime_ns >= self._attempt.until_ns:
                self._fail(TaskTimedOut.code, f"the task did not end within {self._attempt.seconds:g} s")
                self._drain(now)
            elif late and self._lives and not self._ready:
                self._crashed(now)  # it hangs in its start
        elif self.state is State.SUSPECT and late:
            self._withdraw(f"{self.reason}; the test of the device took over {self._limits.test_s:g} s")
        elif self.state is State.DRAINING and self._lives and late:
            self._withdraw(f"a worker's process did not end within {self._limits.kill_s:g} s of its kill")
        elif self.state is State.DRAINING and not self._lives:
            if late:
                self._context_stays()  # also if the driver does not answer at all
            else:
                self._effects.append(e.Look())
