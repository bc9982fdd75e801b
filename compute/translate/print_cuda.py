"""The typed tree as CUDA C++ for GPUs: the text that travels with a program beside its WebAssembly module.

It is what print_cpp.py prints, over another header (strict.h, device.h and strict_threads.h): the same fixed types, the
same functions of the namespace ``cuda``, so that a GPU gives the bits that WebAssembly gives. What is added here is
what clang promises to wasm and NVRTC to nobody: signed integers wrap, a division by zero ends the task, and operands
with effects are evaluated from left to right.

Each kernel of a unit becomes ``run0``, ``run1``, … as in the module, ``extern "C" __global__``, with the parameters

    i64 b0, u32 gx, u32 gy, u32 gz, u32 shared_mem, and then the kernel's own.

The GPU launches b1 − b0 blocks in a row, which are the blocks [b0, b1) of the launch grid gx × gy × gz, and
``shared_mem`` bytes of dynamic shared memory. All shared memory that a kernel reaches is set to zero first: reading it
before writing is then defined, at the price of one store for every 4 bytes and one barrier for each block.

The text is made of the words in ``devices/gpu/strict.py`` and nothing else: no preprocessor, no ``asm``, no templates,
no text in quotes but ``extern "C"``. ``printf`` is left out, its arguments are evaluated: a GPU's task has no log.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.print_cpp import Printer, cpp, print_records
from depin_node.compute.translate.semantics import SYNCHRONISING, Facts, body_of, root
from depin_node.compute.translate.types import Pointer, Reference, Scalar, Type

HEAD = "i64 b0, u32 gx, u32 gy, u32 gz, u32 shared_mem"
_LITERALS = {
    "__builtin_inff()": "cuda::INF_32",
    "__builtin_inf()": "cuda::INF_64",
    '__builtin_nanf("")': "cuda::NAN_32",
    '__builtin_nan("")': "cuda::NAN_64",
}
_WRAPPING = {"+": "add", "-": "sub", "*": "mul"}
_DIVISIONS = {"/": "div", "%": "rem"}


def print_cuda(unit: t.Unit, facts: Sequence[Facts]) -> str:
    """Return the CUDA text of a unit.

    Args:
        unit: the kernels, and what they have in common.
        facts: of each kernel.
    """
    recursive = set[t.Function]().union(*(one.recursive for one in facts))
    printer = CudaPrinter(replace(facts[0], recursive=recursive), unit.functions)
    lines = [print_records(unit.records)]
    tables = TablePrinter(facts[0], waits=False)
    for item in unit.globals:
        value = tables.braces(item.value) if isinstance(item.value, t.Initialise) else tables.expression(item.value)
        lines.append(f"static __device__ {cpp(item.variable.type)} {item.variable.cpp} = {value};")
    shared = dict.fromkeys(variable for kernel in unit.kernels for variable in kernel.shared)
    lines += [f"static __shared__ __align__(16) {cpp(v.type)} {v.cpp};" for v in shared]
    waiting = set[t.Function]().union(*(one.synchronising for one in facts)) - recursive
    attributes = {function: "__forceinline__ " if function in waiting else "" for function in unit.functions}
    lines += [f"{printer.signature(function, attributes[function])};" for function in unit.functions]
    lines += [printer.function(function, attributes[function]) for function in unit.functions]
    lines += [_entry(number, kernel) for number, kernel in enumerate(unit.kernels)]
    return "\n".join(line for line in lines if line) + "\n"


def _entry(number: int, kernel: t.Kernel) -> str:
    entry = kernel.entry
    parameters = "".join(f", {cpp(p.type)} {p.cpp}" for p in entry.parameters)
    arguments = ", ".join(["k", *(p.cpp for p in entry.parameters)])
    clear = [f"cuda::clear({v.cpp});" for v in kernel.shared]
    if kernel.dynamic:
        clear.append("cuda::clear_bytes(cuda::dynamic_shared, shared_mem);")
    if clear:
        clear.append("cuda::__syncthreads();")
    lines = ["cuda::Thread k = cuda::this_thread(b0, gx, gy, gz);", *clear, f"{entry.cpp}({arguments});"]
    head = f'extern "C" __global__ void __launch_bounds__(cuda::THREADS) run{number}({HEAD}{parameters})'
    return "\n".join([head + " {", *lines, "}"])


class TablePrinter(Printer):
    """Prints the values of tables: they have to be constant expressions, in which C++ refuses all that is undefined."""

    def _literal(self, node: t.Literal) -> str:
        return _LITERALS.get(node.text, node.text)

    def _binary(self, node: t.Binary) -> str:
        return f"({self.expression(node.left)} {node.op} {self.expression(node.right)})"

    def _cast(self, node: t.Cast) -> str:
        if node.kind == "value" and t.is_float(node.operand.type):
            return f"(({cpp(node.type)}){self.expression(node.operand)})"
        return super()._cast(node)


class CudaPrinter(Printer):
    """Prints functions for the strict header."""

    narrow = False
    may_store_canonical = False

    def __init__(self, facts: Facts, functions: Sequence[t.Function]) -> None:
        super().__init__(facts, waits=False)
        self.effects = Effects(functions)
        self._temporaries = 0

    def _literal(self, node: t.Literal) -> str:
        return _LITERALS.get(node.text, node.text)

    def _unary(self, node: t.Unary) -> str:
        if not _is_signed(node.type):
            return super()._unary(node)
        if node.op == "-":
            return f"cuda::sub<{cpp(node.type)}>(0, {self.expression(node.operand)})"
        if node.op.endswith(("++", "--")):
            after, by = "_after" if node.op[0] == "p" else "", "1" if node.op.endswith("+") else "-1"
            return f"cuda::increment{after}({self.place(node.operand)}, {by})"
        return super()._unary(node)

    def _binary(self, node: t.Binary) -> str:
        if node.op in ("&&", "||", ","):
            return super()._binary(node)
        if self.effects.order_shows([node.left, node.right]):
            operands = [node.left, node.right]
            return self._in_order(operands, [False, False], cpp(node.type), lambda names: self._operate(node, *names))
        if isinstance(node.type, Scalar) and node.op in (*_WRAPPING, *_DIVISIONS):
            return self._operate(node, self.expression(node.left), self.expression(node.right))
        return super()._binary(node)

    def _operate(self, node: t.Binary, left: str, right: str) -> str:
        type_ = cpp(node.type)
        if node.op in _WRAPPING and _is_signed(node.type) and not isinstance(node.left.type, Pointer):
            return f"cuda::{_WRAPPING[node.op]}<{type_}>({left}, {right})"
        if node.op in _DIVISIONS and _is_integer(node.type) and not _divides_always(node.right):
            return f"cuda::{_DIVISIONS[node.op]}<{type_}>({left}, {right})"
        if node.op in ("<<", ">>"):
            return f"cuda::{'shl' if node.op == '<<' else 'shr'}<{type_}>({left}, {right})"
        text = f"({left} {node.op} {right})"
        return f"(({type_}){text})" if node.op == "-" and isinstance(node.left.type, Pointer) else text

    def _assign(self, node: t.Assign) -> str:
        names = _WRAPPING | _DIVISIONS
        divides = node.op in _DIVISIONS and not _divides_always(node.right)
        if isinstance(node.left.type, Pointer) or not (divides or (node.op in names and _is_signed(node.compute))):
            return super()._assign(node)
        if not _is_integer(node.compute):
            return super()._assign(node)
        function = f"cuda::{names[node.op]}_wrapping<{cpp(node.compute)}>"
        left, right = self.place(node.left), self.expression(node.right)
        if isinstance(node.left, t.Name) or not self.effects.order_shows([node.left, node.right]):
            return f"{function}({left}, {right})"
        result, a, b = cpp(node.left.type), self._fresh(), self._fresh()  # C++ evaluates the right side first
        declared = f"{cpp(node.right.type)} {b} = {right}; {result}& {a} = {left};"
        return f"[&]() -> {result}& {{ {declared} return {function}({a}, {b}); }}()"

    def _cast(self, node: t.Cast) -> str:
        if node.kind == "decay" and isinstance(node.operand, t.Name) and node.operand.variable.storage == "dynamic":
            return f"(({cpp(node.type)})cuda::dynamic_shared)"
        return super()._cast(node)

    def _call(self, node: t.Call) -> str:
        if node.function == "printf":
            values = [f"((void){self.expression(a)})" for a in node.arguments if self.effects.has(a)]
            return "(" + ", ".join([*values, str(len(node.arguments) - 1)]) + ")"
        function = node.function
        if isinstance(function, t.Function):
            references = [isinstance(parameter.type, Reference) for parameter in function.parameters]
            name, first, result = function.cpp, ["k"], cpp(function.result)
        else:
            references, name, first, result = [False] * len(node.arguments), f"cuda::{function}", [], cpp(node.type)

        def call(arguments: Sequence[str]) -> str:
            return f"{name}({', '.join([*first, *arguments])})"

        if self.effects.order_shows(node.arguments):
            return self._in_order(node.arguments, references, result, call)
        return call([self.expression(argument) for argument in node.arguments])

    def _in_order(
        self,
        operands: Sequence[t.Expression],
        references: Sequence[bool],
        result: str,
        use: Callable[[Sequence[str]], str],
    ) -> str:
        """Return a use of operands that are evaluated from left to right: C++ leaves their order open."""
        names, lines = [], []
        for operand, reference in zip(operands, references, strict=True):
            name, mark, value = self._fresh(), "&" if reference else "", operand
            if isinstance(operand, t.Temporary):  # it lives as long as the name
                mark, value = "", operand.operand
            text = self.braces(value) if isinstance(value, t.Initialise) else self.expression(value)
            lines.append(f"{cpp(operand.type)}{mark} {name} = {text};")
            names.append(name)
        return f"[&]() -> {result} {{ {' '.join(lines)} return {use(names)}; }}()"

    def _fresh(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}_"


class Effects:
    """Which expressions change something that another expression may see."""

    def __init__(self, functions: Sequence[t.Function]) -> None:
        self._acting: set[t.Function] = set()
        while True:  # until no function is added: each round follows calls one step further
            found = {f for f in functions if f not in self._acting and self._acts(f)}
            if not found:
                break
            self._acting |= found

    def has(self, node: t.Expression) -> bool:
        """Whether evaluating an expression has an effect."""
        return any(
            isinstance(part, t.Assign)
            or (isinstance(part, t.Unary) and part.op.endswith(("++", "--")))
            or (isinstance(part, t.Call) and self._call_acts(part))
            for part in t.walk(node)
        )

    def order_shows(self, operands: Sequence[t.Expression]) -> bool:
        """Whether the order of evaluation may show: one acts, and another acts or reads."""
        acting = [self.has(operand) for operand in operands]
        reading = [any(isinstance(n, t.Name | t.Call) for n in t.walk(operand)) for operand in operands]
        return any(acting) and sum(a or r for a, r in zip(acting, reading, strict=True)) > 1

    def _call_acts(self, node: t.Call) -> bool:
        if isinstance(node.function, t.Function):
            return node.function in self._acting
        if node.function.startswith("__ld"):
            return False
        by_name = node.function.startswith(("atomic", "__st", "__trap", "__threadfence", "printf"))
        return by_name or node.function in SYNCHRONISING or any(isinstance(a.type, Pointer) for a in node.arguments)

    def _acts(self, function: t.Function) -> bool:
        for node in t.walk(body_of(function)):
            target = None
            if isinstance(node, t.Assign):
                target = root(node.left)
            elif isinstance(node, t.Unary) and node.op.endswith(("++", "--")):
                target = root(node.operand)
            elif isinstance(node, t.Call) and self._call_acts(node):
                return True
            if target is not None and not _is_own(target):
                return True
        return False


def _is_own(target: t.Expression) -> bool:
    """Whether an lvalue is a function's own variable."""
    if not isinstance(target, t.Name) or isinstance(target.variable.type, Reference):
        return False
    return target.variable.storage in ("local", "parameter")


def _is_integer(type_: Type) -> bool:
    return isinstance(type_, Scalar) and type_.kind in "iu"


def _is_signed(type_: Type) -> bool:
    return isinstance(type_, Scalar) and type_.kind == "i"


def _divides_always(divisor: t.Expression) -> bool:
    """Whether no dividend makes a division by this fail: a literal that is neither 0 nor -1."""
    while isinstance(divisor, t.Cast) and divisor.kind == "value":
        divisor = divisor.operand
    digits = divisor.text.rstrip("ul") if isinstance(divisor, t.Literal) else ""
    return digits.isdigit() and 0 < int(digits) < 128  # no conversion changes it
