"""``submit --dry-run``: what would be sent, what a task takes of a lender, and what believing the results costs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from depin_node.core.text import counted

if TYPE_CHECKING:
    from depin_node.client.work import Work


def plan_of(work: "Work") -> dict[str, Any]:
    """Return the plan as ``--json`` prints it: sizes are in bytes, ``memory``, ``results``, ``work`` and ``limits`` are
    one task's, at most. ``lender_limits`` is what a lender takes of a task, unless it sets something else."""
    from depin_node.bootstrap.config import NodeConfig
    from depin_node.compute.jobs.job import describe
    from depin_node.compute.market.lender import Lending
    from depin_node.compute.programs.memory import memory_bytes
    from depin_node.compute.programs.program import Operation, flattened, program_id
    from depin_node.compute.programs.shards import result_bytes_max
    from depin_node.compute.programs.work import work as work_of

    program, inputs = work.bound.program, work.bound.inputs
    done, lender = work_of(program)._asdict(), NodeConfig()
    if not any(isinstance(step, Operation) for step in flattened(program.steps)):
        del done["flops"]  # those of array operations; of what threads do nobody knows
    return {
        "name": work.name,
        "program": program_id(program).hex(),
        "kernels": [kernel.name for kernel in program.kernels],
        "tasks": program.tasks,
        "inputs": {program.buffers[i].name: array.nbytes for i, array in inputs.items()},
        "outputs": {program.buffers[i].name: program.buffers[i].size_bytes for i in program.outputs},
        "sends": len(work.program_bytes) + sum(array.nbytes for array in inputs.values()),
        "memory": memory_bytes(program),
        "results": result_bytes_max(program),
        "work": done,
        "limits": {"seconds": work.limits.seconds, "memory_mib": work.limits.memory_mib},
        "lender_limits": {
            "seconds": lender.task_seconds,
            "memory_mib": lender.memory_mib,
            "results": Lending.output_bytes_max,
            "work": lender.work_max,
        },
        "exact": program.exact,
        "verify": describe(work.policy),
        **{f"with {providers}": _cost(work, providers) for providers in (4, 16)},
    }


def _cost(work: "Work", providers: int) -> str:
    """Say what a job's policy costs with so many providers, if all are honest, and what it is worth if not."""
    from depin_node.compute.jobs.job import Algebraic
    from depin_node.compute.verification.checkable import check_share
    from depin_node.compute.verification.forecast import forecast
    from depin_node.compute.verification.rules import audit_parts, peers_run, runs_here

    program = work.bound.program
    here = runs_here(work.device_classes, is_exact=program.exact, has_tolerances=bool(work.tolerances))
    share = check_share(program) if isinstance(work.policy, Algebraic) else 0.0
    parts = audit_parts(work.policy, work.results, program)
    peers = peers_run(work.device_classes, is_exact=program.exact, has_tolerances=bool(work.tolerances))
    found = forecast(
        work.policy, program.tasks, providers, runs_here=here, peers_run=peers, check_share=share, parts=parts
    )
    checks = f" and checks of {found.checks:.1%} of a task's work" if found.checks else ""
    return (
        f"{found.attempts:.2f} attempts a task on providers, {found.audits:.3f} audits a task here{checks};"
        f" {found.confidence:.4%} right where {found.hostile_share:.0%} of the groups are hostile and act together"
    )


def plan_text(plan: dict[str, Any]) -> str:
    """Return a plan for people."""
    return "\n".join(f"{name:<15} {text}" for name, text in _lines(plan))


def _lines(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    asked, taken, done = plan["limits"], plan["lender_limits"], plan["work"]
    yield "name", plan["name"]
    yield "program", plan["program"]
    yield "kernels", ", ".join(plan["kernels"]) or "none"
    yield "tasks", f"{plan['tasks']:,}"
    for name in ("inputs", "outputs"):
        yield name, ", ".join(f"{array} {size:,} bytes" for array, size in plan[name].items()) or "none"
    yield "sends", f"{plan['sends']:,} bytes: the program and the inputs, to the node; from there to each provider once"
    yield "a task holds", f"{plan['memory']:,} bytes of memory at most, and gives {plan['results']:,} bytes of results"
    steps, flops = counted(done["steps"], "step"), done.get("flops")
    operations = f", {flops:,} floating-point operations in array operations" if flops is not None else ""
    yield "a task does", f"{steps}, {done['threads']:,} threads{operations} at most"
    yield "a task may", f"take {asked['seconds']:,} s and {asked['memory_mib']:,} MiB ([limits])"
    yield (
        "lenders take",
        f"{taken['seconds']:,} s, {taken['memory_mib']:,} MiB, {taken['results'] >> 20:,} MiB of results and"
        f" {taken['work']:.0e} threads and operations a task at most, unless they set something else",
    )
    for text in _beyond(plan):
        yield "", f"too much for them: {text}"
    yield "exact", "yes" if plan["exact"] else "no"
    yield "verify", plan["verify"]
    for name in (name for name in plan if name.startswith("with ")):
        yield f"{name} lenders", plan[name]


def _beyond(plan: dict[str, Any]) -> Iterator[str]:
    """Yield what lenders would decline, if they are set as nodes are by default."""
    asked, taken, done = plan["limits"], plan["lender_limits"], plan["work"]
    if asked["seconds"] > taken["seconds"]:
        yield f"{asked['seconds']:,} s; lower [limits] seconds"
    if asked["memory_mib"] > taken["memory_mib"]:
        yield f"{asked['memory_mib']:,} MiB; lower [limits] memory_mib, or use more shards"
    if plan["results"] > taken["results"]:
        yield f"{plan['results']:,} bytes of results; use more shards"
    if (size := done["threads"] + done.get("flops", 0)) > taken["work"]:
        yield f"{size:,} threads and operations; use more shards"
