"""Where the arrays of a task lie in memory, and how much that takes: known before anything runs."""

from typing import Final

from depin_node.compute.programs.module import PAGE_BYTES, scan_module
from depin_node.compute.programs.operations import Spec, plan
from depin_node.compute.programs.program import Operation, Program, flattened
from depin_node.compute.programs.slices import held_bytes_max, held_shape, variants

LINEAR_BYTES_MAX = 65535 * PAGE_BYTES
"""Of one task: what wasm32 can address, less the page that would make the size overflow 32 bits."""
ALIGNMENT_BYTES: Final = 4096
"""Buffers start on pages, so that a device can map an input instead of copying it."""
GUARD_BYTES: Final = 256
"""At least so many bytes between buffers, which no correct kernel touches."""


def own_bytes(program: Program) -> int:
    """Return what the largest unit's own data, stack and arena take, at the bottom of memory."""
    return max((scan_module(unit.module).memory_pages for unit in program.units), default=0) * PAGE_BYTES


def placements(program: Program) -> tuple[tuple[int, ...], int]:
    """Place the buffers in the linear memory of a task: the same for every task of a program.

    Returns:
        The address of each buffer, a multiple of ``ALIGNMENT_BYTES`` with at least ``GUARD_BYTES`` before and after
        it, and the size of the whole memory in bytes, a multiple of ``PAGE_BYTES``.
    """
    top = own_bytes(program)
    addresses = []
    for buffer in program.buffers:
        address = -(-(top + GUARD_BYTES) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        addresses.append(address)
        top = address + held_bytes_max(program, buffer)
    return tuple(addresses), -(-(top + GUARD_BYTES) // PAGE_BYTES) * PAGE_BYTES


def memory_bytes(program: Program) -> int:
    """Return what a task takes: the modules' own data and stack, arrays, guards, and what operations need beside."""
    return placements(program)[1] + scratch_bytes(program)


def scratch_bytes(program: Program) -> int:
    """Return what the largest array operation needs beside its arrays."""
    operations = [step for step in flattened(program.steps) if isinstance(step, Operation)]
    if not operations:
        return 0
    return max(
        plan(step.name, specs(program, step.inputs, task), attributes(step)).scratch_bytes
        for task in variants(program)
        for step in operations
    )


def specs(program: Program, buffers: tuple[int, ...], task: int) -> tuple[Spec, ...]:
    """Return what a task holds of buffers, as array operations take it."""
    return tuple(
        Spec(program.buffers[index].dtype, held_shape(program, program.buffers[index], task)) for index in buffers
    )


def attributes(step: Operation) -> dict[str, int | float | tuple[int, ...]]:
    """Return an operation's attributes by name."""
    return {attribute.name: attribute.value for attribute in step.attributes}
