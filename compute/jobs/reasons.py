"""Why a job failed, said to its user: what was wrong, why, and what to do."""

from collections.abc import Collection, Mapping

from depin_node.compute.jobs.job import Job, JobError
from depin_node.compute.jobs.progress import Progress, shown
from depin_node.compute.market.messages import DeclineCode, FailCode
from depin_node.compute.verification.quorum import Ballot, Phase
from depin_node.core.text import counted

NOT_LENDING = "not lending"
"""What the directory says of a peer without ``--lend`` (``Directory.why_nobody``)."""
_UNREACHABLE = "unreachable"
"""What both the directory and a conversation that never began say of a peer."""
_MEANINGS = {
    FailCode.REJECTED.value: "was refused as malformed or beyond a limit: run it with --local to see why",
    FailCode.FAILED.value: "failed: run it with --local to see why",
    FailCode.TIMED_OUT.value: "did not end within its limit: raise [limits] seconds, or cut it into more shards",
    FailCode.OUT_OF_MEMORY.value: "needed more memory than its limit: raise [limits] memory_mib, or use more shards",
    FailCode.TRAPPED.value: "trapped: the kernel writes outside its arrays or the tiles of its blocks, reads outside"
    " all memory, or divides by zero: run it with --local, which says what and where",
    FailCode.NO_RESULT.value: "has no result: a matrix is singular or not positive definite, or nothing converges",
    FailCode.FUEL.value: "used up its fuel: it may loop for ever; raise [limits] seconds if it does not",
}
_WAYS_OUT = {
    DeclineCode.TIME.value: ", whose tasks may not take as long: lower [limits] seconds",
    DeclineCode.MEMORY.value: ", who lend less memory: lower [limits] memory_mib, or use more shards",
    DeclineCode.TOO_LARGE.value: ", who take no results as large: use more shards",
    DeclineCode.PRICE.value: ", who want more: raise price_max_millicredits in the node's config.toml",
}


def nobody(
    progress: Progress, waited_s: float, groups_agreed: int, unsuitable: Mapping[str, int], voteless: int
) -> JobError:
    """Nobody worked on the job for ``waited_s``; ``unsuitable`` counts known peers by what they lack, ``voteless`` are
    of this node's owner."""
    rule, limits = progress.rule, progress.job.limits
    classes = " or ".join(progress.job.device_classes)
    is_audited = progress.settlement is not None and progress.settlement.by_peers
    others = ", and others that run some of it again," if is_audited else ""
    declined = {code: len(who) for code, who in progress.declines.items()}
    others_lack = dict(unsuitable)
    if unseen := max(declined.get(_UNREACHABLE, 0), others_lack.pop(_UNREACHABLE, 0)):
        declined[_UNREACHABLE] = unseen  # who was asked in vain, and who was not asked since that is known
    seen = [_declined(count, code) for code, count in sorted(declined.items())]
    seen += [f"{counted(count, 'known node')}: {why}" for why, count in sorted(others_lack.items())]
    seen += [_own(voteless)] if voteless else []
    if without := progress.failures[FailCode.NO_BLOB.value]:
        seen.append(
            f"{counted(without, 'attempt')} could not fetch the inputs (of which no more than 8 MiB go by way of"
            " a relay: depin-node peers shows who is relayed)"
        )
    return JobError(
        "nobody_suitable",
        f"for {waited_s:g} s nobody suitable took the work: it needs {counted(rule.agree, 'provider')}"
        f" (up to {rule.most}) of different groups, of class {classes}{others} with {limits.memory_mib} MiB and"
        f" {limits.seconds} s a task; {groups_agreed} agreed{''.join('; ' + text for text in seen)}."
        " See: depin-node peers; a node lends if started with --lend",
    )


def _declined(count: int, code: str) -> str:
    if code == _UNREACHABLE:
        return f"{count} could not be reached (depin-node doctor, here and there, says why)"
    if code == "lost":
        return f"{count} {'was' if count == 1 else 'were'} lost (depin-node job show --story says when)"
    return f"{count} declined ({code}){_WAYS_OUT.get(code, '')}"


def _own(voteless: int) -> str:
    """Say what of this node's owner's own nodes a quorum cannot use, and the two ways out."""
    return (
        f"{counted(voteless, 'known node')}: of this node's own owner, whose word is no second one (list them in"
        " trusted_peers, or ask for one answer: quorum 1 of 1)"
    )


def shortage(
    progress: Progress,
    groups: Collection[str],
    fitting: int,
    known: int,
    unsuitable: Mapping[str, int],
    voteless: int,
    waits_s: float,
) -> str:
    """Say that a job needs more ``groups`` than those of the ``fitting`` peers among all ``known``, and waits
    ``waits_s`` for them; nothing if it does not. ``unsuitable`` counts others by what they lack, ``voteless`` are this
    node's owner's."""
    needed = progress.rule.agree
    if len(groups) >= needed:
        return ""
    who = "a lender" if needed == 1 else f"{needed} lenders of different groups"
    others = ", ".join(f"{count} {why}" for why, count in sorted(unsuitable.items()))
    if not known:
        there = "no lender is known, nor any other peer (depin-node doctor says why)"
    elif unsuitable.get(NOT_LENDING) == known:
        there = f"no lender is known, only {counted(known, 'peer')} without --lend"
    else:
        there = f"{fitting} of {counted(known, 'known peer')} fit, in {counted(len(groups), 'group')}"
        there += f" ({others})" if others else ""
    own = f"; {_own(voteless)}" if voteless else ""
    return f"it needs {who}, and waits {waits_s:g} s for {'it' if needed == 1 else 'them'}: {there}{own}"


def deadline(job_id: bytes, job: Job, done: int, lacks: str = "") -> JobError:
    """The job has not ended in time; ``lacks`` is the shortage that more time alone does not mend."""
    why = lacks or "raise [limits] deadline_s"
    see = "see what the others lack" if lacks else "or see where the time went"
    return JobError(
        "deadline",
        f"{done} of {job.tasks} tasks were done after {job.deadline_s} s: {why}, {see}:"
        f" depin-node job explain {job_id.hex()[:12]}",
    )


def budget(job: Job, done: int) -> JobError:
    """The answers have cost what they may."""
    return JobError(
        "budget",
        f"{done} of {job.tasks} tasks were done when all answers together had cost {job.budget_s}"
        " reference-seconds: raise [limits] budget_s",
    )


def who_said_what(ballot: Ballot) -> str:
    """Name the answers that were shown, each with the beginning of its root."""
    return ", ".join(
        f"{shown(peer)}: {run.root.hex()[:12]}" for (peer, _), run in ballot.runs.items() if run.phase is Phase.REVEALED
    )


def undecided(ballot: Ballot) -> JobError:
    """All n answers are in, and no k agree."""
    return JobError(
        "verification",
        f"task {ballot.task}: {len(ballot.runs)} answers, and no {ballot.rule.agree} of them agree"
        f" ({who_said_what(ballot)}); raise n, or look at the kernel: results must not depend on timing",
    )


def fault(ballot: Ballot, code: str, groups: int) -> JobError:
    """So many groups report the same fault of the task itself."""
    meaning = _MEANINGS.get(code, "failed")
    return JobError(code, f"task {ballot.task} {meaning}; {groups} independent providers say so")


def worn_out(ballot: Ballot, code: str) -> JobError:
    """A task was tried too often."""
    return JobError(
        "attempts",
        f"task {ballot.task}: {ballot.attempts_ended} attempts ended without an answer, the last one with {code!r};"
        " see: depin-node job show",
    )
