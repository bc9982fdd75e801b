"""Running one task again, in a worker of its own, to see whether somebody's result is what the program computes.

It is run twice, the second time with NaNs made canonical by the engine. A module of the translator gives the same; one
that was written by hand may show the bits of a NaN, which an x86 processor and an Arm one choose differently. Its other
result proves nobody a liar, so nothing is told of it.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import trio

from depin_node.compute.market.messages import WorkBody
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox.pool import InputSource, PoolConfig, WorkerConfig, open_pool
from depin_node.core.errors import ResourceError, TaskError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import result_root

SECONDS_MAX: Final = 30
MEMORY_MIB_MAX: Final = 1024
"""What is run again for the sake of evidence may take no more: a larger task is nobody's to judge by the way."""
DEVICES: Final = tuple(f"depin_node.compute.devices.wasm:{name}" for name in ("WasmDevice", "CanonicalNanDevice"))


async def root_of(body: WorkBody, task: int, blobs: tuple[bytes, ...]) -> bytes | None:
    """Run a task and return the root of its outputs, or None: it cannot be told here, or depends on the processor.

    Args:
        body: the work: which program over which inputs.
        task: its index.
        blobs: the program and the inputs, in any order; if one is missing it cannot be told.
    """
    by_id = {blob_id(blob): blob for blob in blobs}
    limits = body.terms.limits
    needed = {body.program, *(item.blob for item in body.inputs)}
    if not needed <= by_id.keys() or limits.memory_mib > MEMORY_MIB_MAX:
        return None
    try:
        program = await trio.to_thread.run_sync(
            decode_program, by_id[body.program]
        )  # of a stranger: it can take seconds
        if not program.exact or task >= program.tasks:
            return None
        roots = {await _run(device, body, task, by_id) for device in DEVICES}
    except (TaskError, ResourceError):
        return None
    return roots.pop() if len(roots) == 1 else None


async def _run(device: str, body: WorkBody, task: int, blobs: Mapping[bytes, bytes]) -> bytes | None:
    limits = body.terms.limits
    async with open_pool(PoolConfig(WorkerConfig(device), workers_max=1, spare=False)) as pool:
        lease = await pool.acquire("again")
        try:
            data: dict[int, InputSource] = {
                item.buffer: np.frombuffer(blobs[item.blob], np.uint8).data for item in body.inputs
            }
            await lease.load(
                blobs[body.program],
                data,
                seconds=min(limits.seconds, SECONDS_MAX),
                memory_limit_bytes=limits.memory_mib << 20,
            )
            await lease.submit([(bytes(16), task)])
            result = await anext(lease.results())
            return result_root(output.blob_id for output in result.outputs) if result.error is None else None
        finally:
            await lease.aclose()
