"""One strip in one region of the fission shape as C++: loops over its lanes, and where variables live.

Which follows from who uses them. The same in all threads: one variable, of the strip, or of the block if regions share
it. Of one thread each: a local of the only loop over lanes that uses it, else an array of the lanes, which SIMD
registers hold (structs are one array for each member); an array over the block's threads, if regions share it. What
grows by one from lane to lane is the value of the first lane. A loop over lanes begins with loading what it uses from
these arrays and ends with storing what it changed, so that statements in it are printed as in every other shape.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.fission_calls import Fallback, strip_function, waits
from depin_node.compute.translate.fission_pieces import (
    Branch,
    Divergent,
    Lanes,
    Leave,
    Piece,
    Region,
    Repeat,
    Stride,
    Uniform,
    Warp,
    Whole,
)
from depin_node.compute.translate.masks import Masked
from depin_node.compute.translate.print_cpp import Printer, cpp
from depin_node.compute.translate.types import U32, Array, Pointer, Record, Reference, Scalar, Type
from depin_node.compute.translate.uniformity import STRIP, VOTES, changed_in

if TYPE_CHECKING:
    from depin_node.compute.translate.fission_print import BlockPrinter

_PLAIN = "#pragma clang loop vectorize(disable) unroll(disable)\n"
_VECTORISE = "#pragma clang loop vectorize(assume_safety)\n"
UNROLL_NODES_MAX = 48
"""Uniform loops around lanes are unrolled, if their bodies are not larger than this: fuel is counted at each turn."""
REGISTERS_LANES_MAX = 32
"""Of a strip; what wider ones have of a variable is in memory anyway."""
_SPLIT_MAX = 8
"""Structs of up to so many numbers are kept member by member."""


class FissionPrinter(Printer):
    """Prints statements of lanes: ``carried`` variables are declared already, ``leave`` ends a thread."""

    carried: set[t.Variable]
    leave = "return;\n"

    def declaration(self, node: t.Declare) -> str:
        """Return a declaration, as an assignment if the variable is there already."""
        variable = node.variable
        if variable not in self.carried or node.bare:
            return super().declaration(node)
        name, type_ = variable.cpp, variable.type
        if isinstance(type_, Array) and node.value is not None:
            fresh = super().declaration(t.Declare(node.line, t.Variable("", "fresh", type_, "local"), node.value))
            return f"{{ {fresh}__builtin_memcpy(&{name}, &fresh, sizeof fresh); }}\n"
        if isinstance(type_, Array):
            return f"cuda::clear(&{name}, sizeof {name});\n"
        value = f"CUDA_UNSET({cpp(type_)})" if node.value is None else self.expression(node.value)
        return f"{name} = {value};\n"

    def _print_return(self, node: t.Return) -> str:
        return self.leave


@dataclass
class _Uses:
    """How the loops over lanes of a strip use a variable."""

    lanes: int = 0
    repeated: bool = False
    """By a loop that is repeated, or outside of such loops."""


class Strip:
    """Prints what one strip does in one region."""

    def __init__(self, block: "BlockPrinter", region: Region, width: int, *, full: bool, done: str) -> None:
        self.block, self.plan, self.region, self.width, self.full = block, block.plan, region, width, full
        self.printer = FissionPrinter(self.plan.facts, waits=False)
        self.printer.carried, self.printer._function = set(), block.entry
        self._pieces = self.plan.pieces(region, full=full)
        self._strides = set(self.plan.strides)
        self._uses: dict[t.Variable, _Uses] = {}
        self._depth = 0
        self._steps: list[str] = []
        self._done = done
        self._counting = True
        self._body()
        self._counting = False

    def text(self) -> str:
        """Return the strip's code."""
        body = self._body()
        lines = ["{\n"]
        changed = changed_in(self.region.body)
        for variable in in_order_of_names(self._uses):
            kind = self._kind(variable)
            if kind == "uniform":
                lines.append(f"{cpp(variable.type)} {variable.cpp} = {{}};\n")
            elif kind == "stride":
                lines.append(f"{cpp(variable.type)} first_{variable.cpp};\n")
            elif kind == "strip":
                if isinstance(variable.type, Reference):
                    raise Fallback(f"{variable.name}: a reference is used by several loops over lanes")
                lines += [f"{cpp(type_)} a_{name}[{self.width}];\n" for name, type_, _ in self._parts(variable)]
                if variable in self.plan.carried:
                    lines.append(self._copy(variable, "a_{0}[l] = s_{0}[base + l];"))
        end = ""
        for variable in in_order_of_names(self._uses):
            if self._kind(variable) == "strip" and variable in self.plan.carried and variable in changed:
                there = "" if self.full else "if (active >> l & 1) "
                end += self._copy(variable, there + "s_{0}[base + l] = a_{0}[l];")
        return "".join([*lines, body, end, "}\n"])

    def _copy(self, variable: t.Variable, template: str) -> str:
        inner = " ".join(template.format(name) for name, _, _ in self._parts(variable))
        return f"for (u32 l = 0; l < {self.width}; ++l) {{ {inner} }}\n"

    def _parts(self, variable: t.Variable) -> list[tuple[str, Type, str]]:
        return parts_of(variable, self.plan.values.memory)

    def _kind(self, variable: t.Variable) -> str:
        """Return where a variable lives: block, uniform, strip, memory, lane."""
        uses = self._uses[variable]
        if variable in self._strides:
            return "stride"
        if variable in self.plan.hoisted:
            return "block"
        if self.plan.values.of(variable) <= STRIP:
            return "lane" if uses.lanes == 1 and not uses.repeated else "uniform"
        several = uses.lanes > 1 or uses.repeated
        if variable in self.plan.values.memory:
            lives_on = several or variable in self.plan.carried or variable in self.plan.values.escaping
            return "memory" if lives_on else "lane"
        if variable in self.plan.carried:
            return "strip" if several and self.width <= REGISTERS_LANES_MAX else "memory"
        return "strip" if uses.lanes > 1 or uses.lanes == 0 else "lane"

    def _body(self) -> str:
        text = self._all(self._pieces)
        vote = self.region.vote
        if vote is not None:
            text += self._lanes(Lanes([], False, [("votes += (u32)({} != 0);", vote.arguments[0])]))
        return text

    # ---- pieces

    def _all(self, pieces: Sequence[Piece]) -> str:
        return "".join(self._piece(piece) for piece in pieces)

    def _piece(self, piece: Piece) -> str:
        method: Callable[[Piece], str] = getattr(self, "_" + type(piece).__name__.lower())
        return method(piece)

    def _uniform(self, piece: Uniform) -> str:
        self._outside(piece.statement)
        self.printer.carried = self.plan.hoisted | set(self._uses)
        return self.printer.statement(piece.statement)

    def _stride(self, piece: Stride) -> str:
        name, type_ = piece.variable.cpp, cpp(piece.variable.type)
        self._uses.setdefault(piece.variable, _Uses())
        node = piece.statement
        if not isinstance(node, t.Declare):
            self._outside(node)
            self.printer.carried = set()
            return f"{{ {type_}& {name} = first_{name};\n{self.printer.statement(node)}}}\n"
        assert node.value is not None
        self.printer.carried = set()
        made = "".join(self.printer.declaration(self.plan.remade[v]) for v in self._remade_for(node.value))
        self._outside(node.value)
        return f"{{\nk.threadIdx.x = x0;\n{made}first_{name} = {self.printer.expression(node.value)};\n}}\n"

    def _remade_for(self, node: t.TreeNode) -> list[t.Variable]:
        return [v for v in self._in_order(self.plan.uses(node)) if v in self.plan.remade]

    def _leave(self, piece: Leave) -> str:
        return "break;\n" if piece.kind == "break" else f"goto {self._steps[-1]};\n"

    def _branch(self, piece: Branch) -> str:
        before, condition = self._condition(piece.condition, piece.level)
        return f"{before}if ({condition}) {{\n{self._all(piece.yes)}}} else {{\n{self._all(piece.no)}}}\n"

    def _condition(self, node: t.Expression, level: int) -> tuple[str, str]:
        """Return what comes before a condition, and the condition."""
        if level <= STRIP:
            self._outside(node)
            return "", self.printer.expression(node)
        yes = f"yes_{self.block.number()}"
        asked = self._lanes(Lanes([], False, [(f"{yes}[l] = (bool)({{}});", node)]))
        return f"u8 {yes}[{self.width}] = {{}};\n{asked}", f"cuda::agree(cuda::bits_of({yes}), {self._active})"

    @property
    def _active(self) -> str:
        return f"{(1 << self.width) - 1:#x}u" if self.full else "active"

    def _repeat(self, piece: Repeat) -> str:
        step = f"step_{self.block.number()}"
        self._steps = [*self._steps, step]
        self._depth += 1
        test = ""
        if piece.loop.condition is not None:
            before, condition = self._condition(piece.loop.condition, piece.level)
            test = f"{before}if (!({condition})) break;\n"
        body = self._all(piece.body)
        self._steps = self._steps[:-1]
        after = self._all(piece.step)
        self._depth -= 1
        label = f"{step}:;\n" if f"goto {step};" in body else ""
        first, last = ("", test) if piece.loop.do else (test, "")
        small = self.full and sum(1 for _ in t.walk(piece.loop.body)) <= UNROLL_NODES_MAX
        head = "#pragma clang loop unroll_count(4)\n" if small else ""
        if waits(piece.loop):  # unrolled it would be large, and no faster
            head = "#pragma clang loop unroll(disable)\n"
        return f"{head}for (;;) {{\n{first}{{\n{body}}}\n{label}{after}{last}}}\n"

    def _masked(self, piece: Masked) -> str:
        left = f"left_{self.block.number()}"
        asked: list[tuple[str, t.Expression]] = [(f"{left} |= {{}};", t.Name(U32, 0, piece.mask))]
        before = self._lanes(Lanes(piece.before, False, asked))
        self._depth += 1
        body = self._lanes(Lanes(piece.body, False, asked))
        self._depth -= 1
        return f"u32 {left} = 0;\n{before}while ({left}) {{\n{left} = 0;\n{body}}}\n"

    def _divergent(self, piece: Divergent) -> str:
        assert piece.loop.condition is not None
        there = f"there_{self.block.number()}"
        bounds = list(self._bounds(piece.loop.condition))
        self._depth += 1
        asked = (
            self._all_within(there, bounds)
            if bounds
            else self._lanes(Lanes([], False, [(f"{there} += (bool)({{}}) ? 1u : 0u;", piece.loop.condition)]))
        )
        body = self._all(piece.body) + self._all(piece.step)
        self._depth -= 1
        rest = self._lanes(Lanes([piece.loop], True), own=True)
        return (
            f"u32 {there};\nfor (;;) {{\n{there} = 0;\n{asked}if ({there} != {self.width}) break;\n{body}}}\n"
            f"if ({there}) {{\n{rest}}}\n"
        )

    def _bounds(self, node: t.Expression) -> Iterator[tuple[t.Variable, t.Expression, t.Expression]]:
        """Yield the comparisons that a condition consists of, if all are of strides with what is the same everywhere.

        What is yielded is the stride, the side of the comparison that it is on, and the comparison.
        """
        if isinstance(node, t.Binary) and node.op == "&&":
            left, right = list(self._bounds(node.left)), list(self._bounds(node.right))
            yield from [*left, *right] if left and right else []
        elif isinstance(node, t.Binary) and node.op in ("<", "<=", ">", ">="):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                name = side
                while isinstance(name, t.Cast) and name.kind == "value" and _is_integer(name.type):
                    name = name.operand
                if isinstance(name, t.Name) and name.variable in self._strides and self.plan.is_condition(other):
                    yield name.variable, side, node

    def _all_within(self, there: str, bounds: list[tuple[t.Variable, t.Expression, t.Expression]]) -> str:
        """Return code that counts all lanes as there if comparisons hold at both ends of a strip and between."""
        text, self.printer.carried = f"{there} = {self.width};\n", set()
        for variable, side, comparison in bounds:
            self._outside(comparison)
            name, type_ = variable.cpp, cpp(variable.type)
            low, holds = self.printer.expression(side), self.printer.expression(comparison)
            text += (
                f"{{ {type_} {name} = first_{name}; const {cpp(side.type)} low = {low}; const bool holds = {holds};\n"
                f"{name} += {self.width - 1}; if (!(holds && {holds} && low < {low})) {there} = 1; }}\n"
            )
        return text

    def _warp(self, piece: Warp) -> str:
        wait = piece.wait
        if wait.function == "__syncwarp" or wait.target is None:
            return ""
        number = self.block.number()
        together = self.plan.values.of(wait.target) <= STRIP
        use = self._uses.setdefault(wait.target, _Uses())
        use.lanes += 2 if self._counting else 0
        use.repeated |= together
        lanes, before, arguments = Lanes([]), "", []
        if wait.function in VOTES:
            before = f"u8 votes_{number}[{self.width}] = {{}};\n"
            lanes.yields.append((f"votes_{number}[l] = ({{}}) != 0;", wait.arguments[1]))
            arguments = [f"cuda::bits_of(votes_{number})", self._active]
            rest = [wait.arguments[0]]
        else:
            value = wait.arguments[1]
            before = f"{cpp(value.type)} given_{number}[{self.width}];\n"
            lanes.yields.append((f"given_{number}[l] = {{}};", value))
            arguments = [f"given_{number}", self._active]
            rest = wait.arguments[2:]
        for place, node in enumerate(rest):
            if self.plan.values.level(node) <= STRIP:
                self._outside(node)
                arguments.append(self.printer.expression(node))
                continue
            name = f"given_{number}_{place}"
            before += f"{cpp(node.type)} {name}[{self.width}];\n"
            lanes.yields.append((f"{name}[l] = {{}};", node))
            arguments.append(name)
        call = f"cuda::{wait.function}(a_{wait.target.cpp}, {', '.join(arguments)});\n"
        if together:
            call = f"{wait.target.cpp} = cuda::{wait.function}({', '.join(arguments[:2])});\n"
        return f"{before}{self._lanes(lanes)}{call}"

    def _whole(self, piece: Whole) -> str:
        node = piece.declaration
        assert isinstance(node.value, t.Call)
        (given,) = node.value.arguments
        before, variables = "", [node.variable]
        if isinstance(given, t.Name) and self.plan.is_of_lanes(given.variable):
            argument = f"a_{given.variable.cpp}"
            variables.append(given.variable)
        else:
            argument = f"given_{self.block.number()}"
            lanes = self._lanes(Lanes([], False, [(f"{argument}[l] = {{}};", given)]))
            before = f"f32 {argument}[{self.width}];\n{lanes}"
        for variable in variables:
            self._uses.setdefault(variable, _Uses()).lanes += 2 if self._counting else 0
        return f"{before}cuda::{strip_function(node.value)}(a_{node.variable.cpp}, {argument});\n"

    # ---- lanes

    def _outside(self, node: t.TreeNode) -> None:
        """Note that a node is computed outside of loops over lanes."""
        for variable in self.plan.uses(node) if self._counting else ():
            self._uses.setdefault(variable, _Uses()).repeated = True

    def _lanes(self, lanes: Lanes, *, own: bool = False) -> str:
        """Return a loop over lanes; ``own``: what is declared in it belongs to it alone."""
        nodes: list[t.TreeNode] = [*lanes.body, *(node for _, node in lanes.yields)]
        used = {variable for node in nodes for variable in self.plan.uses(node)}
        declared = {part.variable for node in nodes for part in t.walk(node) if isinstance(part, t.Declare)}
        if own:
            used -= declared
        if self._counting:
            for variable in used - set(self.plan.remade):
                uses = self._uses.setdefault(variable, _Uses())
                uses.lanes += 1
                uses.repeated |= bool(self._depth) and variable in self.plan.carried
            return ""
        copied = lanes.serial and self.full
        start, end, carried, outside, after = "", "", set(), "", ""
        changed = changed_in(nodes)
        commit = ""
        for variable in self._in_order(used):
            if variable in self.plan.remade:
                if variable not in declared:
                    self.printer.carried = set()
                    start += self.printer.declaration(self.plan.remade[variable])
                continue
            kind, name, type_ = self._kind(variable), variable.cpp, cpp(variable.type)
            if kind == "lane":
                continue
            if kind == "stride":
                start += f"{type_} {name} = first_{name} + ({type_})l;\n"
                carried.add(variable)
                continue
            if kind in ("block", "uniform"):
                if variable in changed:
                    carried.add(variable)
                    outside += f"{type_} const was_{name} = {name}; {type_} will_{name} = {name};\n"
                    start += f"{type_} {name} = was_{name};\n"
                    commit += f"will_{name} = {name};\n"
                    after += f"{name} = will_{name};\n"
                continue
            carried.add(variable)
            if variable in self.plan.values.memory:
                start += f"auto& {name} = s_{name}[base + l];\n"
                if variable not in self.plan.carried:
                    self.block.in_memory.add(variable)
                continue
            array = "s_{0}[base + l]" if kind == "memory" else "r_{0}[l]" if copied else "a_{0}[l]"
            parts = self._parts(variable)
            if len(parts) == 1 and not parts[0][2]:
                start += f"{type_} {name} = {array.format(name)};\n"
            else:
                start += f"{type_} {name};\n"
                start += "".join(f"{name}{member} = {array.format(part)};\n" for part, _, member in parts)
            if variable in changed:
                end += "".join(f"{array.format(part)} = {name}{member};\n" for part, _, member in parts)
            if kind == "strip" and copied:
                outside += "".join(f"{cpp(of)} r_{part}[{self.width}];\n" for part, of, _ in parts)
                outside += self._copy(variable, "r_{0}[l] = a_{0}[l];")
                after += self._copy(variable, "a_{0}[l] = r_{0}[l];") if variable in changed else ""
        return self._loop(lanes, nodes, carried, (outside, start, commit, end, after))

    def _loop(
        self, lanes: Lanes, nodes: list[t.TreeNode], carried: set[t.Variable], texts: tuple[str, str, str, str, str]
    ) -> str:
        outside, start, commit, end, after = texts
        label = f"next_{self.block.number()}"
        gone = "" if self.full else " active &= ~(1u << l);"
        self.printer.carried = carried
        self.printer.leave = f"{{ cuda::ended[base + l] = 1;{gone} goto {label}; }}\n"
        body = "".join(self.printer.statement(node) for node in lanes.body)
        body += "".join(template.format(self.printer.expression(node)) + "\n" for template, node in lanes.yields)
        head = f"for (u32 l = 0; l < {self.width}; ++l) {{\n"
        if self.full and not self.region.ordered and self.plan.may_vectorise(lanes):
            head = _VECTORISE + head
        elif self.full and self._depth and sum(1 for node in nodes for _ in t.walk(node)) <= UNROLL_NODES_MAX:
            head = "#pragma clang loop unroll_count(16)\n" + head
        if not self.full:
            head = _PLAIN + head
            head += "if (!(active >> l & 1)) continue;\n"
        if self._asks_for_place(nodes, start):
            in_row = self.full or not self.region.whole_warps
            head += "k.threadIdx.x = x0 + l;\n" if in_row else "cuda::set_place(k, base + l);\n"
        ends = f"goto {label};" in body
        leave = f"if (!active) goto {self._done};\n" if ends and not self.full and self.region.whole_warps else ""
        inner = f"{start}{{\n{body}{commit}}}\n{label + ':;' if ends else ''}\n{end}"
        return f"{{\n{outside}{head}{inner}}}\n{after}{leave}}}\n"

    def _asks_for_place(self, nodes: list[t.TreeNode], start: str) -> bool:
        if "k.threadIdx" in start:
            return True
        for node in nodes:
            for part in t.walk(node):
                if isinstance(part, t.ThreadName) and part.name == "threadIdx":
                    return True
                if isinstance(part, t.Call) and isinstance(part.function, t.Function):
                    return True
        return False

    def _in_order(self, variables: set[t.Variable]) -> list[t.Variable]:
        """Sort variables so that those remade of others come after these."""
        out: list[t.Variable] = []

        def add(variable: t.Variable) -> None:
            if variable in out:
                return
            if variable in self.plan.remade:
                for other in in_order_of_names(self.plan.uses(self.plan.remade[variable]) - {variable}):
                    add(other)
            out.append(variable)

        for variable in in_order_of_names(variables):
            add(variable)
        return [v for v in out if v in variables or v in self.plan.remade]


def _is_integer(type_: Type) -> bool:
    return isinstance(type_, Scalar) and type_.kind in "iu"


def in_order_of_names(variables: Iterable[t.Variable]) -> list[t.Variable]:
    """Return variables in an order that does not change from run to run."""
    return sorted(variables, key=lambda variable: variable.cpp)


def parts_of(variable: t.Variable, memory: set[t.Variable]) -> list[tuple[str, Type, str]]:
    """Return the arrays that hold a variable: name, type of an element, which member."""
    type_ = variable.type
    if isinstance(type_, Record) and not type_.is_union and variable not in memory:
        plain = all(isinstance(member.type, Scalar | Pointer) for member in type_.fields)
        if plain and 0 < len(type_.fields) <= _SPLIT_MAX:
            return [(f"{variable.cpp}_{f.name}", f.type, f".{f.name}") for f in type_.fields]
    return [(variable.cpp, type_, "")]
