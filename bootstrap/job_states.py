"""What nodes of one owner tell each other of a job (``compute/jobs/handover.py``): one signs it, another keeps it.

The flow: ``part`` signs what the asker lacks of a job: what is settled, with its bytes or its blobs, and nothing that
is provisional, which it would run again. Who gets it checks by ``job_of`` whose word it is and of which job; gets the
blobs that it names (``outputs``); and keeps it (``keep``) as a copy, from which the job could go on.
"""

import trio

from depin_node.bootstrap.job_records import blobs_of
from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import copies, statements
from depin_node.compute.jobs.copies import StoredCopy
from depin_node.compute.jobs.handover import (
    BLOBS_MAX,
    CAUGHT_MAX,
    HAVE_BYTES_MAX,
    RESULT_BYTES_MAX,
    RESULTS_MAX,
    CopiedOutput,
    CopiedResult,
    JobState,
    More,
    has_bit,
)
from depin_node.compute.jobs.job import Job, SignedJob, job_id
from depin_node.compute.jobs.schema import StoredOutput
from depin_node.compute.programs.shards import result_bytes
from depin_node.compute.programs.validation import decode_program
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import NotFoundError, PeerViolation
from depin_node.crypto.envelope import Verified, sign, verify, verify_signature
from depin_node.p2p.blobs import issue_grant

GRANT_S = 600


class JobStates:
    """See the module."""

    def __init__(self, context: MarketContext) -> None:
        self._context = context

    def part(self, peer: bytes, more: More) -> bytes:
        """Return what ``peer`` lacks of a job, as far as it fits, signed: without results only if there are none, or
        if the job's own blobs have to come first (``more.have`` is empty). Raises ``NotFoundError``."""
        context = self._context
        reader, now = context.journal.reader, context.clock()
        stored = reader.job(more.job)
        if stored is None:
            raise NotFoundError("there is no such job here")
        try:
            job = verify_signature(stored.envelope, SignedJob, context.network.network_id).payload.job
        except PeerViolation as error:  # written by an older version (``read_kept``)
            raise NotFoundError("this job is from before an upgrade, and its id no fellow could check") from error
        blobs, size_bytes, results, is_all = blobs_of(job), 0, list[CopiedResult](), True
        for task in copies.settled_tasks(reader, more.job, more.first, 8 * HAVE_BYTES_MAX):
            if has_bit(more.have, task - more.first):
                continue
            root, outputs = copies.result_of(reader, more.job, task)
            copied = [self._copied(output) for output in outputs]
            if None in copied:
                continue  # it is with those who computed it: they would be asked to compute it again
            result = CopiedResult(task, root, tuple(output for output in copied if output is not None))
            named = [output.blob for output in result.outputs if output.blob is not None]
            if not results and more.have and len(blobs) + len(named) > BLOBS_MAX:
                blobs = []  # who has a part of the job has its inputs: the grant is for these alone
            if len(results) >= RESULTS_MAX or size_bytes >= RESULT_BYTES_MAX or len(blobs) + len(named) > BLOBS_MAX:
                is_all = False
                break
            results.append(result)
            blobs += named
            size_bytes += sum(len(output.inline) for output in result.outputs)
        grant = issue_grant(
            context.identity,
            context.network.network_id,
            peer,
            list(dict.fromkeys(blobs))[:BLOBS_MAX],
            seq=context.pen.next_seq(),
            now=now,
            lifetime_s=GRANT_S,
        )
        state = JobState(
            peer,
            now.wall_ns // SECOND_NS + JobState.LIFETIME_S_MAX,
            context.pen.next_seq(),
            more.job,
            stored.envelope,
            copies.epoch_of(reader, more.job)[0],
            copies.spent_us(reader, more.job),
            tuple(sorted(reader.caught(more.job))[:CAUGHT_MAX]),
            tuple(results),
            not is_all,
            grant,
        )
        return sign(context.identity, context.network.network_id, state)

    def _copied(self, output: StoredOutput) -> CopiedOutput | None:
        store = self._context.blobs.store
        if output.blob is None:
            return CopiedOutput(output.inline, None, len(output.inline))
        return CopiedOutput(b"", output.blob, store.size_bytes(output.blob)) if store.has(output.blob) else None

    def told(self, peer: bytes, job: bytes, envelope: bytes) -> tuple[JobState, Job]:
        """Return what a fellow was asked for of a job, and the job. Raises ``PeerViolation``: it is something else."""
        context = self._context
        network, now = context.network.network_id, context.clock()
        told = verify(envelope, JobState, network, to=context.identity.key, now=now)
        asked = self.job_of(told, peer)
        if told.payload.job != job:
            raise PeerViolation("jobs: the state of another job than was asked for")
        return told.payload, asked

    def job_of(self, told: Verified[JobState], worker: bytes) -> Job:
        """Return the job that a state is about, as its requester signed it.

        Raises:
            PeerViolation: it is not the word of ``worker``, or about another job than it says.
        """
        signed = verify_signature(told.payload.envelope, SignedJob, self._context.network.network_id)
        if told.sender != worker or job_id(signed.sender, signed.payload.job) != told.payload.job:
            raise PeerViolation("jobs: the state of another job, or signed by somebody else")
        return signed.payload.job

    async def outputs(self, job: Job, state: JobState) -> dict[bytes, int]:
        """Return the blobs of results, and what they may have. Raises ``PeerViolation``: the job has none such."""
        sizes: dict[bytes, int] = {}
        if any(output.blob for result in state.results for output in result.outputs):
            data = await self._context.blobs.store.read(job.program)
            program = await trio.to_thread.run_sync(decode_program, data)
            for result in state.results:
                if result.task >= job.tasks or len(result.outputs) != len(program.outputs):
                    raise PeerViolation("jobs: a result that the job cannot have")
                for position, output in enumerate(result.outputs):
                    if output.blob is not None:
                        sizes[output.blob] = result_bytes(program, result.task, position)
        return sizes

    async def keep(self, worker: bytes, certificate: bytes, job: Job, state: JobState) -> None:
        """Keep a part of a job's state, whose blobs are here and pinned; ``certificate`` is that of who works on it.

        Raises:
            PeerViolation: it has results of tasks that the job does not have. ResourceError: nothing was written.
        """
        context, name = self._context, state.job
        at_s = context.clock().wall_ns // SECOND_NS
        copy = StoredCopy(name, worker, certificate, state.envelope, state.epoch, state.spent_us, at_s)
        writes = [copies.put_copy(copy), statements.hold(name, blobs_of(job))]
        for result in state.results:
            if result.task >= job.tasks:
                raise PeerViolation("jobs: a result of a task that the job does not have")
            outputs = [StoredOutput(output.inline, output.blob) for output in result.outputs]
            writes.append(statements.put_result(name, result.task, result.root, outputs))
            writes.append(statements.hold(name, [output.blob for output in outputs if output.blob is not None]))
        writes += [statements.put_catch(caught, name) for caught in state.caught]
        await context.journal.write(writes)
