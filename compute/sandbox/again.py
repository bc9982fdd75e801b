"""Running one task again, in a worker of its own, to see whether somebody's result is what the program computes."""

from typing import Final

import numpy as np

from depin_node.compute.market.messages import WorkBody
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox.pool import InputSource, PoolConfig, WorkerConfig, open_pool
from depin_node.core.errors import ResourceError, TaskError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import result_root

SECONDS_MAX: Final = 30
MEMORY_MIB_MAX: Final = 1024
"""What is run again for the sake of evidence may take no more: a larger task is nobody's to judge by the way."""


async def root_of(body: WorkBody, task: int, blobs: tuple[bytes, ...]) -> bytes | None:
    """Run a task and return the root of its outputs, or None if it cannot be told here.

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
        if not decode_program(by_id[body.program]).exact:
            return None
        async with open_pool(PoolConfig(WorkerConfig(), workers_max=1, spare=False)) as pool:
            lease = await pool.acquire("again")
            try:
                data: dict[int, InputSource] = {
                    item.buffer: np.frombuffer(by_id[item.blob], np.uint8).data for item in body.inputs
                }
                await lease.load(
                    by_id[body.program],
                    data,
                    seconds=min(limits.seconds, SECONDS_MAX),
                    memory_limit_bytes=limits.memory_mib << 20,
                )
                await lease.submit([(bytes(16), task)])
                result = await anext(lease.results())
                return result_root(output.blob_id for output in result.outputs) if result.error is None else None
            finally:
                await lease.aclose()
    except (TaskError, ResourceError):
        return None
