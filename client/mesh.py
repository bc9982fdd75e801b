"""The mesh, from Python: launch kernels, get futures.

from depin_node.client import In, Mesh, Out, RawKernel

saxpy = RawKernel(source, "saxpy")
with Mesh() as mesh:
    future = mesh.launch(saxpy, (4,), (256,), (n, a, x, y, Out("float32", (n,), tile=(256,))), shards=4)
    z = future.result()
"""

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depin_node.client.api import Control
from depin_node.client.blob_files import get_file, put_file
from depin_node.client.futures import Future
from depin_node.client.outputs import Array
from depin_node.client.settings import check_settings
from depin_node.client.work import DEFAULT_POLICY, Work, prepare_file, prepare_launch, prepare_program
from depin_node.compute.jobs.job import InputRef, Job, JobView, Limits, Policy, Tolerance
from depin_node.compute.programs.arguments import borrowed, taken
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.jobfile import DEVICE_CLASS
from depin_node.compute.programs.kernel import Along, Reference
from depin_node.compute.programs.program import DTYPE_BYTES
from depin_node.core.errors import ConfigError, NotFoundError
from depin_node.core.views import CopyView, CreditView, DeviceView, PeerView, ReceiptView, StatusView
from depin_node.crypto.identity import key_of

if TYPE_CHECKING:
    from depin_node.compute.programs.arrays import Traced
    from depin_node.compute.programs.generated import Kernel

PREFIX_LENGTH_MIN = 4
_ID_LENGTH = 64
_NOTES_MAX = 256
_log = logging.getLogger("depin_node.client")


class Mesh:
    """A connection to the running node of a data directory, and through it to the mesh.

    What the compiler finds about a kernel's bits (a race, a read of what nobody has written) goes to Python's log
    ``depin_node.client`` as a warning.

    Args:
        data_dir: of the node; by default ``DEPIN_DATA_DIR``, else the platform's place for user data.

    Raises:
        NotRunningError: no node runs there; says how to start one.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None) -> None:
        self._control = Control(data_dir)
        self._told: set[str] = set()

    def __enter__(self) -> "Mesh":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Jobs go on."""
        self._control.close()

    def launch(
        self,
        kernel: "Kernel",
        grid: int | Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        args: Sequence[Any] = (),
        *,
        shared_mem: int = 0,
        size: int | None = None,
        axis: int | Sequence[int] | None = None,
        keepdims: bool = False,
        shards: int = 1,
        along: Along | None = None,
        constants: Mapping[str, Any] | None = None,
        verify: Policy = DEFAULT_POLICY,
        limits: Limits | None = None,
        name: str | None = None,
        device_class: str | Sequence[str] = DEVICE_CLASS,
        tolerance: Tolerance | None = None,
        results: str = "come",
        deadline_s: int = 0,
        budget_s: int = 0,
        key: str | None = None,
    ) -> Future:
        """Launch a kernel on the mesh, as CuPy would on a GPU: ``kernel(grid, block, args)``, or ``kernel(*args)``.

        The kernel is compiled and all is checked before anything is sent.

        Args:
            kernel: a ``RawKernel``, ``ElementwiseKernel`` or ``ReductionKernel``, ours or CuPy's.
            grid: of a raw kernel: blocks along x, y, z. The other kinds choose grid and block themselves.
            block: of a raw kernel: threads of a block along x, y, z.
            args: in the order of the kernel's parameters: NumPy arrays for ``const T*``, ``Out`` or ``InOut`` for
                ``T*``, Python or NumPy scalars for the rest, converted to the declared type if that is exact.
                Elementwise and reduction kernels make their outputs themselves; they may be left out.
            shared_mem: of a raw kernel: dynamic shared memory of a block, in bytes.
            size: of an elementwise kernel's loop, if all its arrays are raw.
            axis: of a reduction: along which axes; by default all.
            keepdims: of a reduction: leave the reduced axes in the result, with length 1.
            shards: tasks to cut it into, each a range of blocks; by default one.
            along: of a raw kernel: cut its arrays along an axis instead, so that each task holds its slice only; grid
                and scalars may be expressions of it, such as ``"ceil(shard.rows / 16)"``.
            constants: of a raw kernel: by name, arrays for its ``__constant__`` data.
            verify: when to believe a result: ``quorum(k, n)``, ``lead(d)``, ``confidence(p, f)`` or ``algebraic()``; by
                default ``quorum(2, 3)``. See docs/verification.md.
            limits: what one task may use, as ``Limits(seconds=60, memory_mib=512)``; by default 60 s and what its
                arrays need.
            name: what to call the job; by default the kernel's name.
            device_class: of the peers that are asked; ``depin-node peers`` shows them. Answers of one class agree bit
                for bit, if the program's bits are defined; those of several classes are compared as numbers.
            tolerance: how far numbers may be apart that are as good, where they are compared; by default what the
                outputs' dtypes can hold.
            results: ``"come"``: they are brought to the node as they are accepted. ``"stay"``: large ones stay with
                those who computed them, for an hour, until somebody asks for them.
            deadline_s: the job fails if it has not ended so long after its submission; 0: never.
            budget_s: no more attempts once all answers together cost so many reference-seconds; 0: without end.
            key: makes the submission idempotent: the same key is the same job; by default a new one.

        Raises:
            ConfigError: kernel, arguments or cut are wrong; says where.
            TransportError: the node went away.
        """
        work = prepare_launch(
            kernel,
            grid,
            block,
            args,
            shared_mem=shared_mem,
            size=size,
            axis=axis,
            keepdims=keepdims,
            shards=shards,
            along=along,
            constants=constants,
            verify=verify,
            limits=limits,
            name=name,
            device_class=device_class,
            tolerance=tolerance,
            results=results,
        )
        self._tell(work.notes)
        return self.submit(replace(work, deadline_s=deadline_s, budget_s=budget_s), key=key)

    def run(
        self,
        program: "ProgramBuilder | Traced",
        *arrays: Any,
        verify: Policy = DEFAULT_POLICY,
        limits: Limits | None = None,
        name: str | None = None,
        device_class: str | Sequence[str] = DEVICE_CLASS,
        tolerance: Tolerance | None = None,
        results: str = "come",
        deadline_s: int = 0,
        budget_s: int = 0,
        key: str | None = None,
    ) -> Future:
        """Run a program of several steps on the mesh, or a traced function.

        The results are the ``out``, ``inout`` and ``partial`` arrays of the program, or what the function returns.

        Args:
            program: a ``ProgramBuilder``, or what ``trace`` gave. Its kernels are compiled and all is checked before
                anything is sent.
            arrays: of a traced function, its arguments; none: those that it was traced with.
            verify: as for ``launch``. Results of operations of the providers' libraries (matmul, factorisations, FFT)
                are compared as numbers; ``algebraic()`` checks a program of one such operation without a second run.
            limits: as for ``launch``.
            name: what to call the job; by default the function's name, or ``program``.
            device_class: as for ``launch``.
            tolerance: as for ``launch``.
            results: as for ``launch``.
            deadline_s: as for ``launch``.
            budget_s: as for ``launch``.
            key: as for ``launch``.

        Raises:
            ConfigError: a kernel, an array or the cut is wrong; says where.
            TransportError: the node went away.
        """
        work = prepare_program(
            program,
            arrays,
            verify=verify,
            limits=limits,
            name=name,
            device_class=device_class,
            tolerance=tolerance,
            results=results,
        )
        self._tell(work.notes)
        return self.submit(replace(work, deadline_s=deadline_s, budget_s=budget_s), key=key)

    def _tell(self, notes: Sequence[str]) -> None:
        """Log what the compiler and the trial found, each note once: launches in a loop have the same."""
        for note in notes:
            if note not in self._told and len(self._told) < _NOTES_MAX:
                self._told.add(note)
                _log.warning("%s", note)

    def submit_file(self, path: str | os.PathLike[str], *, key: str | None = None) -> Future:
        """Submit a job file (TOML). Raises as ``launch``."""
        return self.submit(prepare_file(path, references=self.reference), key=key)

    def reference(self, job_id: str, output: str | None = None) -> Reference:
        """Wait for a job, and return what stands for an output of it; see ``Future.ref``.

        Raises:
            NotFoundError: the node has no such job, or several.
            JobFailed: it ended without a result.
            ConfigError: it has no such output.
        """
        return self.future(job_id).ref(output)

    def submit(self, work: Work, *, key: str | None = None) -> Future:
        """Submit prepared work: its bytes go to the node, where the job then lives, whatever becomes of us.

        Raises:
            ConfigError: ``key``, deadline or budget is not what it can be; or the node refuses the work.
            TransportError: the node went away.
        """
        key = key or secrets.token_hex(16)
        check_settings(key=key, deadline_s=work.deadline_s, budget_s=work.budget_s)
        try:
            view = self._control.submit(self._uploaded(work, key))
        except NotFoundError:  # the node made room since we last looked
            self._control.forget_uploads()
            view = self._control.submit(self._uploaded(work, key))
        return Future(self._control, view, work.bound.program)

    def _uploaded(self, work: Work, key: str) -> Job:
        """Bring what the node lacks, and return the job."""
        program_bytes, bound = work.program_bytes, work.bound
        program = self._control.put_blob(program_bytes)
        inputs = [InputRef(index, self._brought(array), array.nbytes) for index, array in sorted(bound.inputs.items())]
        return Job(
            key=key,
            name=work.name,
            program=program,
            program_bytes=len(program_bytes),
            inputs=tuple(inputs),
            tasks=bound.program.tasks,
            device_classes=work.device_classes,
            policy=work.policy,
            limits=work.limits,
            results=work.results,
            deadline_s=work.deadline_s,
            budget_s=work.budget_s,
            tolerances=work.tolerances,
            created_s=int(time.time()),
        )

    def _brought(self, array: Array | Reference) -> bytes:
        return array.blob if isinstance(array, Reference) else self._control.put_blob(array.data)

    def put(self, array: Array) -> Reference:
        """Bring an array to the node and return what stands for it: an argument for any number of jobs.

        The node keeps it for an hour, and for as long as a job uses it; then, or when the node was started again, it
        goes when room is needed.

        Raises:
            ConfigError: it is no array that a program can have.
            TransportError, ResourceError: the node went away, or has no room.
        """
        if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPE_BYTES or not array.size:
            raise ConfigError(f"put takes a NumPy array of {', '.join(DTYPE_BYTES)}, with elements in it")
        data = taken(borrowed(array))
        return Reference(self._control.put_blob(data.data, for_an_hour=True), array.dtype.name, array.shape)

    def get(self, reference: Reference) -> Array:
        """Return the array of a reference.

        Raises:
            ConfigError: it is no reference.
            NotFoundError: the node has it no longer.
            TransportError: the node went away.
        """
        if not isinstance(reference, Reference):
            raise ConfigError(f"get takes what put or Future.ref gave, not {type(reference).__name__}")
        data = self._control.blob(reference.blob, reference.nbytes)
        return np.frombuffer(data, np.dtype(reference.dtype).newbyteorder("<")).reshape(reference.shape)

    def put_file(self, path: str | os.PathLike[str], *, seal_for: Sequence[str] = ()) -> str:
        """Put a file of any size into the node and return the id of the blob.

        With ``seal_for`` it is encrypted here: only the peers with these ids can read it.

        Raises:
            ConfigError: the file cannot be read, or a peer id is wrong.
            TransportError, ResourceError: the node went away, or has no room.
        """
        return put_file(self._control, Path(path), [key_of(peer) for peer in seal_for]).hex()

    def get_file(self, blob_id: str, path: str | os.PathLike[str], *, as_it_is: bool = False) -> int:
        """Write a blob of the node to a file, opened if it is sealed for this node; return the file's size in bytes.

        Raises:
            NotFoundError: the node does not have it.
            ConfigError: no blob id; or it is sealed for other peers, or damaged; or the file cannot be written.
            TransportError: the node went away.
        """
        return get_file(self._control, blob_id, Path(path), as_it_is=as_it_is)

    def future(self, job_id: str) -> Future:
        """Return the future of a job, by its id or the beginning of its id.

        Raises:
            NotFoundError: the node has no such job, or several.
        """
        if len(job_id) == _ID_LENGTH:
            return Future(self._control, self._control.job(job_id))
        if len(job_id) < PREFIX_LENGTH_MIN:
            raise ConfigError(f"{job_id!r} is too short for a job id: give at least {PREFIX_LENGTH_MIN} of its digits")
        found = [view for view in self._control.jobs() if view.id.startswith(job_id.lower())]
        if len(found) != 1:
            many = f"{len(found)} jobs begin" if found else "no job begins"
            raise NotFoundError(f"{many} with {job_id!r}; `depin-node job list` shows them")
        return Future(self._control, found[0])

    def copies(self) -> list[CopyView]:
        """Return the jobs that other nodes of the same owner work on, and that this node could go on with."""
        return self._control.copies()

    def attach(self, job_id: str) -> Future:
        """Go on with a job of another node of the same owner here, and return its future: what is settled stays.

        The other node ends it as soon as it is reached (``taken_over``), at the latest when it comes back.

        Args:
            job_id: its id, or the beginning of it; ``copies`` has them.

        Raises:
            NotFoundError: this node has no copy of it. ConfigError: it cannot run here.
        """
        if len(job_id) < PREFIX_LENGTH_MIN:
            raise ConfigError(f"{job_id!r} is too short for a job id: give at least {PREFIX_LENGTH_MIN} of its digits")
        if len(job_id) < _ID_LENGTH:
            found = [view.id for view in self._control.copies() if view.id.startswith(job_id.lower())]
            if len(found) != 1:
                many = f"{len(found)} copies begin" if found else "no copy begins"
                raise NotFoundError(f"{many} with {job_id!r}; `depin-node job attach` shows them")
            job_id = found[0]
        return Future(self._control, self._control.attach(job_id))

    def export(self, job_id: str, path: str | os.PathLike[str]) -> int:
        """Write a job's state into a file, for a node of the same owner to go on with; return its bytes.

        What is provisional is not in it. The job goes on here until the other node has attached and is heard of.

        Args:
            job_id: its id, or the beginning of it.
            path: of the file, which must not be there yet.

        Raises:
            NotFoundError: no such job. ConfigError: this node has no owner's certificate, or the file is there, or
                cannot be written.
        """
        found = self.future(job_id).job_id
        try:
            with open(path, "xb") as file, ExitStack() as undo:
                undo.callback(os.unlink, path)  # half a state is of no use, nor after Ctrl-C
                size_bytes = sum(file.write(part) for part in self._control.state(found))
                file.flush()  # a disk may be full only now
                undo.pop_all()
            return size_bytes
        except FileExistsError:
            raise ConfigError(f"{path} is there already: name another file") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error

    def attach_file(self, path: str | os.PathLike[str]) -> Future:
        """Go on with the job of a file that ``export`` of a node of the same owner has written.

        Raises:
            ConfigError: it is no such file, or not by such a node; or the job cannot run here.
        """
        try:
            with open(path, "rb") as file:
                return Future(self._control, self._control.attach_file(iter(lambda: file.read(1 << 20), b"")))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error

    def jobs(self) -> list[JobView]:
        """Return the newest jobs of the node."""
        return self._control.jobs()

    def status(self) -> StatusView:
        """Return how the node is."""
        return self._control.status()

    def peers(self) -> list[PeerView]:
        """Return the peers that the node knows."""
        return self._control.peers()

    def devices(self) -> list[DeviceView]:
        """Return what the node can run tasks on."""
        return self._control.devices()

    def credit(self) -> CreditView:
        """Return what lies between the node and its partners."""
        return self._control.credit()

    def receipts(self) -> list[ReceiptView]:
        """Return the newest receipts."""
        return self._control.receipts()
