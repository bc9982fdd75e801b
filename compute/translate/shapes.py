"""The code shapes: how the threads of a block run one after another and still do what CUDA says.

*loop*: for kernels without barriers. Threads are iterations of loops over z, y, x; CUDA lets them run in any order, so
the loop over x may be vectorised, unless there are atomics (their order shows) or private memory (one copy of which
would serve all lanes). Rows that pass the leading guard as a whole run without it (guard.py). Kernels with loops take
the fission shape in blocks that are all full strips: there neighbouring threads go through loops together. Long
calculations without loops become several loops over wide strips, which compute long functions as a whole.

*fission*: for most kernels with barriers, shuffles and votes. The body is cut where threads wait, and what lies between
two waits becomes loops over strips of threads (fission.py, fission_print.py).

*coroutine*: for everything. A thread is a C++20 coroutine that waits at barriers and warp functions;
headers/coroutines.h schedules them warp by warp, lane by lane.

A shape is a function from one kernel's typed tree to C++ text: its functions, its shared memory and ``run``.
``print_unit`` puts the kernels of a unit side by side, each in a namespace of its own, so that they may have different
shapes, and exports ``argbuf``, ``run0``, ``run1``, … (abi.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.abi import ARGUMENT_BYTES, Slot, slot_offsets
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.fission import Plan
from depin_node.compute.translate.fission_calls import Fallback, strip_function
from depin_node.compute.translate.fission_print import WIDE, WIDTH, BlockPrinter
from depin_node.compute.translate.guard import Guard, find_guard
from depin_node.compute.translate.includes import includes
from depin_node.compute.translate.print_cpp import GuardPrinter, Printer, cpp, print_records
from depin_node.compute.translate.print_trial import TrialPrinter
from depin_node.compute.translate.ranges import Ranges, find_ranges
from depin_node.compute.translate.semantics import Facts, body_of
from depin_node.compute.translate.types import BOOL
from depin_node.compute.translate.uniformity import reached

INLINE_NODES_MAX = 20_000
"""Functions are inlined into the kernel's loop, which vectorising needs, unless that makes it larger than this."""
Shape = Literal["loop", "fission", "coroutine"]
_INLINE = "inline __attribute__((always_inline)) "


def print_loop(kernel: t.Kernel, facts: Facts, slots: Sequence[Slot], *, strips: bool = False) -> tuple[Shape, str]:
    """Return the loop shape of a kernel that does not synchronise.

    Args:
        kernel: the kernel.
        facts: about it.
        slots: its parameters.
        strips: whether blocks that are all full strips may take the fission shape, if that turns loops inside out.

    Returns:
        The shape of most blocks, and the text.
    """
    printer, entry = _printer(facts, waits=False), kernel.entry
    arguments = ", ".join(["k", *(p.cpp for p in entry.parameters)])
    text, guard, body = _common(kernel, printer, facts), find_guard(entry), body_of(entry)
    ranges = find_ranges(entry, guard.body if guard else body)
    if guard is None and ranges.indices:
        guard = Guard([], t.Literal(BOOL, entry.line, "true"), body)
    each = "CUDA_EACH_X"
    if not facts.has_atomics and not facts.private_memory and not facts.prints:
        each = "#pragma clang loop vectorize(assume_safety)\nCUDA_EACH_X"
    if guard is None:
        rows = f"CUDA_EACH_ROW {{\n{each} {entry.cpp}({arguments});\n}}\n"
    else:
        holds = f"[&] {{ return {entry.cpp}_holds({arguments}); }}"
        rows = (
            f"CUDA_EACH_ROW if (cuda::whole_row(k, {holds})) {{\n"
            f"{each} {entry.cpp}_inside({arguments});\n}} else {{\nCUDA_EACH_X {entry.cpp}({arguments});\n}}\n"
        )
        text += _guard_functions(entry, guard, ranges, facts, printer)
    block = _block_of_strips(kernel, guard, facts, may_spread=not ranges.indices) if strips else None
    if block is None:
        return "loop", text + _run(entry, slots, rows, is_trial=facts.trial)
    whole = f"k.blockDim.x % {block.width} == 0" + (f" && cuda::whole_block(k, {holds})" if guard else "")
    rows = f"if ({whole}) {{\n{entry.cpp}_block({arguments});\n}} else {{\n{rows}}}\n"
    return block.shape, text + block.text + _run(entry, slots, rows, is_trial=facts.trial)


class _Block(NamedTuple):
    """A function for blocks whose rows are made of strips of ``width``, and what shape that is."""

    shape: Shape
    width: int
    text: str


def _block_of_strips(kernel: t.Kernel, guard: Guard | None, facts: Facts, *, may_spread: bool) -> _Block | None:
    """Return the function for blocks that are all full strips, of threads that pass the guard; None: not worth it."""
    entry = kernel.entry if guard is None else replace(kernel.entry, body=guard.body)
    with_loops = {f for f in kernel.functions if any(isinstance(node, t.Loop) for node in reached(f))}
    long = {f for f in kernel.functions if any(map(strip_function, reached(f)))}
    if not with_loops and not may_spread:
        return None
    for inlined in (with_loops or long, set[t.Function]()):
        known = replace(facts, synchronising=inlined - facts.recursive - {kernel.entry})
        try:
            plan = Plan(replace(kernel, entry=entry), known, apart=not with_loops and bool(inlined))
            if with_loops and not plan.returns and plan.turns_loops():
                return _Block("fission", WIDTH, BlockPrinter(plan, entry, full=True).text(_INLINE))
            if not with_loops and not plan.returns and plan.spreads():
                return _Block("loop", WIDE, BlockPrinter(plan, entry, full=True, width=WIDE).text(_INLINE))
        except Fallback:  # some functions cannot be inlined
            continue
    return None


def print_coroutine(kernel: t.Kernel, facts: Facts, slots: Sequence[Slot]) -> str:
    """Return the coroutine shape."""
    printer, entry = _printer(facts, waits=True), kernel.entry
    arguments = ", ".join(["k", *(p.cpp for p in entry.parameters)])
    call, text = f"{entry.cpp}({arguments})", _common(kernel, printer, facts)
    if not printer.is_task(entry):  # nothing waits: a coroutine that runs to its end
        text += f"static cuda::Task<void> whole(cuda::Thread& k{_parameters(entry)}) {{ {call}; co_return; }}\n"
        call = f"whole({arguments})"
    block = f"cuda::run_block(k, [&](cuda::Thread& k) {{ return {call}; }});\n"
    return text + _run(entry, slots, block, is_trial=facts.trial)


def print_fission(kernel: t.Kernel, facts: Facts, slots: Sequence[Slot]) -> str:
    """Return the fission shape.

    Raises:
        Fallback: the kernel has none.
    """
    plan, entry = Plan(kernel, facts), kernel.entry
    called = [f for f in kernel.functions if f is not entry and f not in facts.synchronising]
    common = _common(replace(kernel, functions=called), Printer(facts, waits=False), facts)
    arguments = ", ".join(["k", *(p.cpp for p in entry.parameters)])
    block = BlockPrinter(plan, entry).text(_INLINE)
    return common + block + _run(entry, slots, f"{entry.cpp}_block({arguments});\n", is_trial=facts.trial)


def print_kernel(kernel: t.Kernel, facts: Facts, slots: Sequence[Slot], wanted: Shape | None) -> tuple[Shape, str]:
    """Return the shape of a kernel, the fastest that takes it if none is wanted, and its text.

    Raises:
        Unsupported: it cannot take the shape that is wanted.
    """
    waits = kernel.entry in facts.synchronising
    if wanted == "loop" and waits:
        raise Unsupported("a kernel that synchronises cannot take the loop shape", kernel.entry.line, 1)
    if wanted == "loop":
        return print_loop(kernel, facts, slots)
    if wanted == "fission":
        try:
            return "fission", print_fission(kernel, facts, slots)
        except Fallback as reason:
            text = f"this kernel cannot take the fission shape: {reason}"
            raise Unsupported(text, kernel.entry.line, 1) from None
    if wanted is None:
        try:
            if waits:
                return "fission", print_fission(kernel, facts, slots)
            return print_loop(kernel, facts, slots, strips=True)
        except (Unsupported, RecursionError):  # told with its line
            raise
        except Exception:  # noqa: BLE001 - a Fallback; or a fault of ours, where the slower shape is right all the same
            return "coroutine", print_coroutine(kernel, facts, slots)
    return "coroutine", print_coroutine(kernel, facts, slots)


_LAUNCH = ("i64 b0", "i64 b1", *(f"u32 {name}" for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared_mem")))


def print_unit(unit: t.Unit, kernels: Sequence[str], facts: Sequence[Facts]) -> str:
    """Return the whole C++ text of a unit.

    Args:
        unit: what the kernels have in common.
        kernels: the text of each, as its shape printed it.
        facts: of each.
    """
    lines = [print_records(unit.records)]
    printer = Printer(facts[0], waits=False)  # what facts tell of records and tables is the same for all
    for item in unit.globals:
        assert isinstance(item.value, t.Initialise)
        lines.append(f"static {cpp(item.variable.type)} {item.variable.cpp} = {printer.braces(item.value)};")
    lines.append(
        f"alignas(16) static u8 argument_bytes[{ARGUMENT_BYTES}];\n"
        'extern "C" __attribute__((export_name("argbuf"))) u8* argbuf() { return argument_bytes; }'
    )
    arguments = ", ".join(parameter.partition(" ")[2] for parameter in _LAUNCH)
    for number, text in enumerate(kernels):
        lines.append(
            f"namespace kernel{number} {{\n{text}}}\n"
            f'extern "C" __attribute__((export_name("run{number}"))) void run{number}({", ".join(_LAUNCH)}) '
            f"{{ kernel{number}::run({arguments}); }}"
        )
    text = "\n".join(lines) + "\n"
    return includes(text) + text


def _printer(facts: Facts, *, waits: bool) -> Printer:
    return (TrialPrinter if facts.trial else Printer)(facts, waits=waits)


def _parameters(function: t.Function) -> str:
    return "".join(f", {cpp(p.type)} {p.cpp}" for p in function.parameters)


def _run(entry: t.Function, slots: Sequence[Slot], block: str, *, is_trial: bool) -> str:
    """Return ``run``, which does ``block`` for each block of its range."""
    arguments = _arguments(entry, slots) + (_given(entry, slots) if is_trial else "")
    return (
        f"static inline void run({', '.join(_LAUNCH)}) {{\n"
        "cuda::check_launch(b0, b1, gx, gy, gz, bx, by, bz, shared_mem);\n"
        f"{arguments}CUDA_EACH_BLOCK {{\nclear_shared(shared_mem);\n{block}}}\n}}\n"
    )


def _common(kernel: t.Kernel, printer: Printer, facts: Facts) -> str:
    inline = _inlined(kernel, facts)
    attributes = {function: _INLINE if function in inline else "" for function in kernel.functions}
    lines = [f"alignas(16) static {cpp(variable.type)} {variable.cpp};" for variable in kernel.shared]
    clear = "".join(f"cuda::clear(&{v.cpp}, sizeof {v.cpp}); " for v in kernel.shared)
    if facts.trial:
        watch = "".join(f"cuda::watch(&{v.cpp}, sizeof {v.cpp}); " for v in kernel.shared)
        clear = f"cuda::watch_none(); {watch}cuda::watch(cuda::dynamic_shared, dynamic); {clear}"
    lines.append(f"static void clear_shared(u32 dynamic) {{ {clear}cuda::clear_dynamic(dynamic); }}")
    lines += [f"{printer.signature(function, attributes[function])};" for function in kernel.functions]
    lines += [printer.function(function, attributes[function]) for function in kernel.functions]
    return "\n".join(lines) + "\n"


def _arguments(entry: t.Function, slots: Sequence[Slot]) -> str:
    """Return the loading of the kernel's parameters from the argument buffer."""
    lines = []
    for variable, slot, offset in zip(entry.parameters, slots, slot_offsets(slots), strict=True):
        name, type_ = variable.cpp, cpp(variable.type)
        if slot.pointer:
            lines.append(f"{type_} {name} = ({type_})(u32)cuda::load<u64>(argument_bytes + {offset});\n")
        elif slot.dtype == "bool" and slot.lanes == 1:
            lines.append(f"bool {name} = cuda::load<u8>(argument_bytes + {offset}) != 0;\n")
        else:
            lines.append(f"{type_} {name} = cuda::load<{type_}>(argument_bytes + {offset});\n")
    return "".join(lines)


def _given(entry: t.Function, slots: Sequence[Slot]) -> str:
    """Return how a trial tells which arrays the kernel was given: their sizes are beside their addresses (abi.py)."""
    lines = ["cuda::given_count = 0;\n"]
    for variable, slot, offset in zip(entry.parameters, slots, slot_offsets(slots), strict=True):
        if slot.pointer:
            size = f"cuda::load<u32>(argument_bytes + {offset + 4})"
            lines.append(f'cuda::give({variable.cpp}, {size}, "{slot.name}");\n')
    return "".join(lines)


def _guard_functions(entry: t.Function, guard: Guard, ranges: Ranges, facts: Facts, printer: Printer) -> str:
    parameters = _parameters(entry)
    checked = GuardPrinter(facts, waits=False)
    needed = [*guard.declarations, *(d for d in ranges.declarations if d not in guard.declarations)]
    declarations = "".join(checked.declaration(declaration) for declaration in needed)
    tests = "".join(
        f"fine &= !cuda::beyond({checked.expression(node.base)}, {checked.expression(node.index)});\n"
        for node in ranges.indices
    )
    printer.in_range = {id(node.index) for node in ranges.indices}
    holds = (
        f"static {_INLINE}bool {entry.cpp}_holds(cuda::Thread& k{parameters}) {{\nbool fine = true;\n{declarations}"
        f"bool inside = {checked.expression(guard.condition)};\n{tests}return fine && inside;\n}}\n"
    )
    head = f"static {_INLINE}void {entry.cpp}_inside(cuda::Thread& k{parameters})"
    return holds + printer.definition(entry, guard.body, head, task=False)


def _inlined(kernel: t.Kernel, facts: Facts) -> set[t.Function]:
    """Choose the functions to inline always: all that are not recursive, as long as the whole stays small."""
    sizes: dict[t.Function, int] = {}

    def size(function: t.Function) -> int:
        if function not in sizes:
            sizes[function] = INLINE_NODES_MAX  # of a recursive call
            total = 0
            for node in t.walk(body_of(function)):
                total += 1
                if isinstance(node, t.Call) and isinstance(node.function, t.Function):
                    total += size(node.function)
            sizes[function] = min(total, 1 << 40)
        return sizes[function]

    chosen = {f for f in kernel.functions if f not in facts.recursive}
    if size(kernel.entry) <= INLINE_NODES_MAX:
        return chosen
    return {f for f in chosen if sizes.get(f, INLINE_NODES_MAX) < INLINE_NODES_MAX // 100 or f is kernel.entry}
