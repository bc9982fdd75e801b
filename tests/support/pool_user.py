"""A process that takes and gives back workers without end: to be killed, by the tests of what it leaves behind."""

import trio
import wat_programs as wat

from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.pool import PoolConfig, open_pool

TASKS = 64


async def use(pool):
    candidate = wat.program(tasks=TASKS, n=TASKS * wat.BLOCK)
    inputs = {0: wat.numbers(TASKS * wat.BLOCK).tobytes()}
    while True:
        lease = await pool.acquire("use")
        await lease.load(encode_program(candidate), inputs, seconds=10, memory_limit_bytes=64 << 20)
        await lease.submit((task.to_bytes(16, "little"), task) for task in range(TASKS))
        for _ in range(TASKS):
            lease.release((await anext(lease)).attempt)
        await lease.aclose()


async def main():
    async with open_pool(PoolConfig(workers_max=2)) as pool, trio.open_nursery() as nursery:
        print("up", flush=True)
        nursery.start_soon(use, pool)
        nursery.start_soon(use, pool)


trio.run(main)
