"""The fission shape as C++: one function for a block, made of loops over strips, made of loops over lanes.

A region that changes a uniform variable which others share computes that in each strip anew, from the value at its
start. Each region is printed twice, for full strips and for others; the second is not meant to be fast. One that
streams through memory is printed for wide strips too, if the rows are made of these: a narrow strip would take one line
of a cache from each of many pages. fission_strip.py prints what a strip does.
"""

from collections.abc import Iterator, Sequence

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission import LANE_BYTES_MAX, Plan
from depin_node.compute.translate.fission_calls import Fallback, Wait
from depin_node.compute.translate.fission_pieces import Region, streams
from depin_node.compute.translate.fission_strip import FissionPrinter, Strip, in_order_of_names, parts_of
from depin_node.compute.translate.print_cpp import cpp
from depin_node.compute.translate.types import size_of
from depin_node.compute.translate.uniformity import changed_in

WIDTH, WIDE, WARP_WIDTH = 16, 64, 32


class BlockPrinter:
    """Prints the function that runs one block; ``full``: of blocks that are made of full strips of ``width`` only."""

    def __init__(self, plan: Plan, entry: t.Function, *, full: bool = False, width: int = WIDTH) -> None:
        self.plan, self.entry, self.full, self.width = plan, entry, full, width
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
        lines = ["{\n"]
        lines += [f"{cpp(v.type)} const in_{v.cpp} = {v.cpp};\n{cpp(v.type)} out_{v.cpp} = {v.cpp};\n" for v in changed]
        if region.vote:
            lines.append("u32 votes = 0;\n")
        narrow = self._strips(region, changed)
        if not region.whole_warps and not self.plan.returns and streams(self.plan.pieces(region, full=True)):
            wide = self._full_strips(region, changed, WIDE)
            lines.append(f"if (k.blockDim.x % {WIDE} == 0) {{\n{wide}}} else {{\n{narrow}}}\n")
        else:
            lines.append(narrow)
        lines += [f"{v.cpp} = out_{v.cpp};\n" for v in changed]
        if not self.full and region.returns:
            lines.append("if (cuda::count_ended(threads) == threads) return;\n")
        if not self.full and region.vote is not None:
            lines.append(self._vote(region.vote))
        return "".join([*lines, "}\n"])

    def _full_strips(self, region: Region, changed: Sequence[t.Variable], width: int) -> str:
        """Return the loop over strips of a block whose strips are all full."""
        lines = ["CUDA_EACH_WARP {\n" if region.whole_warps else f"CUDA_EACH_STRIP({width}) {{\n"]
        lines += [f"{cpp(v.type)} {v.cpp} = in_{v.cpp};\n" for v in changed]
        lines.append(Strip(self, region, width, full=True, done="").text())
        return "".join([*lines, *(f"out_{v.cpp} = {v.cpp};\n" for v in changed), "}\n"])

    def _strips(self, region: Region, changed: Sequence[t.Variable]) -> str:
        """Return the loop over the strips of any block."""
        width, number = WARP_WIDTH if region.whole_warps else self.width, self.number()
        if self.full:
            return self._full_strips(region, changed, width)
        lines = ["CUDA_EACH_WARP {\n" if region.whole_warps else f"CUDA_EACH_STRIP({width}) {{\n"]
        lines += [f"{cpp(v.type)} {v.cpp} = in_{v.cpp};\n" for v in changed]
        there = f" && !cuda::any_ended<{width}>(base)" if self.plan.returns else ""
        count = "k.blockDim.x - x0"
        full = f"x0 + {width} <= k.blockDim.x"
        if region.whole_warps:
            count, full = "threads - base", "cuda::enter_warp(k, base, threads, x0)"
        once = region.whole_warps and region.returns  # lanes end in the middle: no strip stays full
        if not once:
            lines += [f"if ({full}{there}) {{\n", Strip(self, region, width, full=True, done="").text(), "} else {\n"]
        lines.append(f"u32 active = cuda::first_lanes({count});\n")
        if self.plan.returns:
            lines.append(f"active &= cuda::lanes_there<{width}>(base);\nif (!active) continue;\n")
        lines.append(Strip(self, region, width, full=False, done=f"done_{number}").text())
        lines += ["" if once else "}\n", *(f"out_{v.cpp} = {v.cpp};\n" for v in changed)]
        lines.append(f"done_{number}:;\n}}\n" if once else "}\n")
        return "".join(lines)

    def _vote(self, vote: Wait) -> str:
        assert vote.target is not None
        alive = "threads - cuda::count_ended(threads)" if self.plan.returns else "threads"
        values = {"__syncthreads_count": "votes", "__syncthreads_or": "votes != 0"}
        return f"{vote.target.cpp} = (i32)({values.get(vote.function, f'votes == {alive}')});\n"
