"""The fission shape as C++: one function for a block, made of loops over strips, made of loops over lanes.

A region that changes a uniform variable which others share computes that in each strip anew, from the value at its
start. Each region is printed twice, for full strips and for others; the second is not meant to be fast.
fission_strip.py prints what a strip does.
"""

from collections.abc import Iterator, Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission import LANE_BYTES_MAX, Plan
from depin_node.compute.translate.fission_calls import Fallback, Wait
from depin_node.compute.translate.fission_pieces import Region
from depin_node.compute.translate.fission_strip import FissionPrinter, Strip, in_order_of_names, parts_of
from depin_node.compute.translate.print_cpp import cpp
from depin_node.compute.translate.types import size_of
from depin_node.compute.translate.uniformity import changed_in

WIDTH, WARP_WIDTH = 16, 32


class BlockPrinter:
    """Prints the function that runs one block; ``full``: that of blocks that are made of full strips only."""

    width = WIDTH

    def __init__(self, plan: Plan, entry: t.Function, *, full: bool = False) -> None:
        self.plan, self.entry, self.full = plan, entry, full
        self.printer = FissionPrinter(plan.facts, waits=False)
        self.printer.carried, self.printer._function = plan.hoisted, entry
        self.in_memory: set[t.Variable] = set(plan.carried)
        self._numbers = 0

    def number(self) -> int:
        """Return a number for a name."""
        self._numbers += 1
        return self._numbers

    def text(self, attributes: str) -> str:
        """Return what the function needs, and the function ``<kernel>_block``."""
        items, lines = "".join(self._items(self.plan.items)), []
        if sum(size_of(variable.type) for variable in self.in_memory) > LANE_BYTES_MAX:
            raise Fallback("threads carry too much over barriers and loops")
        for variable in in_order_of_names(self.in_memory):
            for name, type_, _ in parts_of(variable, self.plan.values.memory):
                lines.append(f"alignas(16) static {cpp(type_)} s_{name}[cuda::THREADS_MAX + cuda::STATE_PAD];\n")
        parameters = "".join(f", {cpp(p.type)} {p.cpp}" for p in self.entry.parameters)
        lines.append(f"static {attributes}void {self.entry.cpp}_block(cuda::Thread& k{parameters}) {{\n")
        lines.append("const u32 threads = cuda::count_threads(k);\n")
        if self.plan.returns:
            lines.append("cuda::none_ended(threads);\n")
        lines += [f"{cpp(v.type)} {v.cpp} = {{}};\n" for v in in_order_of_names(self.plan.hoisted)]
        return "".join([*lines, items, "}\n"])

    def _items(self, items: Sequence[t.Statement]) -> Iterator[str]:
        for node in items:
            self.printer.carried, self.printer.leave = self.plan.hoisted, "return;\n"
            if isinstance(node, Region):
                yield self._region(node)
            elif isinstance(node, t.If):
                yield f"if ({self.printer.expression(node.condition)}) {{\n"
                yield from self._items(node.yes.body)
                yield "} else {\n"
                yield from self._items(node.no.body if node.no else [])
                yield "}\n"
            elif isinstance(node, t.Loop):
                condition = "" if node.condition is None else self.printer.expression(node.condition)
                step = "" if node.step is None else self.printer.expression(node.step)
                yield "do {\n" if node.do else f"for (; {condition}; {step}) {{\n"
                yield from self._items(node.body.body)
                yield f"}} while ({condition});\n" if node.do else "}\n"
            else:
                yield self.printer.statement(node)

    def _region(self, region: Region) -> str:
        changed = in_order_of_names(changed_in(region.body) & self.plan.hoisted)
        width, number = WARP_WIDTH if region.whole_warps else WIDTH, self.number()
        lines = ["{\n"]
        lines += [f"{cpp(v.type)} const in_{v.cpp} = {v.cpp};\n{cpp(v.type)} out_{v.cpp} = {v.cpp};\n" for v in changed]
        if region.vote:
            lines.append("u32 votes = 0;\n")
        lines.append("CUDA_EACH_WARP {\n" if region.whole_warps else f"CUDA_EACH_STRIP({width}) {{\n")
        lines += [f"{cpp(v.type)} {v.cpp} = in_{v.cpp};\n" for v in changed]
        there = f" && !cuda::any_ended<{width}>(base)" if self.plan.returns else ""
        count = "k.blockDim.x - x0"
        full = f"x0 + {width} <= k.blockDim.x"
        if region.whole_warps:
            count, full = "threads - base", "cuda::enter_warp(k, base, threads, x0)"
        if self.full:
            lines += [Strip(self, region, width, full=True, done="").text()]
            lines += [*(f"out_{v.cpp} = {v.cpp};\n" for v in changed), "}\n"]
            return "".join([*lines, *(f"{v.cpp} = out_{v.cpp};\n" for v in changed), "}\n"])
        once = region.whole_warps and region.returns  # lanes end in the middle: no strip stays full
        if not once:
            lines += [f"if ({full}{there}) {{\n", Strip(self, region, width, full=True, done="").text(), "} else {\n"]
        lines.append(f"u32 active = cuda::first_lanes({count});\n")
        if self.plan.returns:
            lines.append(f"active &= cuda::lanes_there<{width}>(base);\nif (!active) continue;\n")
        lines.append(Strip(self, region, width, full=False, done=f"done_{number}").text())
        lines += ["" if once else "}\n", *(f"out_{v.cpp} = {v.cpp};\n" for v in changed)]
        lines.append(f"done_{number}:;\n}}\n" if once else "}\n")
        lines += [f"{v.cpp} = out_{v.cpp};\n" for v in changed]
        if region.returns:
            lines.append("if (cuda::count_ended(threads) == threads) return;\n")
        if region.vote is not None:
            lines.append(self._vote(region.vote))
        return "".join([*lines, "}\n"])

    def _vote(self, vote: Wait) -> str:
        assert vote.target is not None
        alive = "threads - cuda::count_ended(threads)" if self.plan.returns else "threads"
        values = {"__syncthreads_count": "votes", "__syncthreads_or": "votes != 0"}
        return f"{vote.target.cpp} = (i32)({values.get(vote.function, f'votes == {alive}')});\n"
