"""Runs a launch: all threads of a block range side by side.

Each step takes the runnable threads with the lowest program counter (compilers lay code out so that this brings
diverged threads together again, and nothing depends on it) through one basic block. Threads that come to a barrier or a
warp function wait; when nobody can run, warps whose lanes are all there are answered, then blocks whose threads are.
Memory is one array of bytes; shared and local memory have addresses of their own in it for each block and thread, so
that generic addresses are plain. A called function runs to its end for the threads that call it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import Lanes, decode
from .parse import SIZES, Function, Instruction, Module, Variable, dtype, literal

RUNS, WAITS, ENDED = 0, 1, 2
GUARD = 256
"""Bytes between allocations, which nobody may touch."""
STACK = 4096
"""Local memory of a thread."""
STEPS_MAX = 2_000_000
GARBAGE = 0xDEADBEEF
DEADLOCK = "no thread can go on"


class PtxError(Exception):
    """The text uses what strict kernels may not, or what this interpreter lacks; or a rule of PTX is broken."""


class Trap(PtxError):
    """The kernel ended itself."""


class Memory:
    """All spaces, in one array; address 0 is nobody's."""

    def __init__(self, size: int) -> None:
        self.bytes = np.zeros(-(-size // 16) * 16 + 2 * GUARD, np.uint8)
        self.owned = np.zeros(len(self.bytes) // 16, bool)
        self.top = GUARD

    def take(self, size: int) -> int:
        """Return the address of that many bytes of zeros."""
        address, self.top = self.top, self.top + -(-size // GUARD) * GUARD + GUARD
        self.owned[address // 16 : -(-(address + size) // 16)] = True
        if self.top > len(self.bytes):
            raise PtxError("out of memory")
        return address

    def places(self, addresses: NDArray[np.uint64], type_: np.dtype, count: int = 1) -> NDArray[np.int64]:
        """Return indices into ``view(type_)``; all addresses have to be owned and aligned."""
        at = addresses.astype(np.int64)
        end = at + (type_.itemsize * count - 1)
        inside = (at >= 0) & (end < len(self.bytes))
        if not (inside.all() and self.owned[at // 16].all() and self.owned[end // 16].all()):
            raise PtxError("an access outside of all memory")
        if (at % (type_.itemsize * count)).any():
            raise PtxError("a misaligned access")
        return at // type_.itemsize

    def view(self, type_: np.dtype) -> Lanes:
        """Return all of it, as numbers."""
        return self.bytes.view(type_)


class Launch:
    """What all frames share."""

    def __init__(self, module: Module, memory: Memory, blocks: int, block: Sequence[int], addresses: Mapping[str, int]):
        self.module, self.memory, self.addresses = module, memory, addresses
        bx, by, bz = block
        self.threads, self.blocks, self.block = bx * by * bz, blocks, tuple(block)
        self.lanes = -(-self.threads // 32) * 32
        total = self.blocks * self.lanes
        inner = np.arange(total) % self.lanes
        self.block_of, self.exists = np.arange(total) // self.lanes, inner < self.threads
        self.special = {
            "%tid.x": inner % bx,
            "%tid.y": inner // bx % by,
            "%tid.z": inner // (bx * by),
            "%ctaid.x": self.block_of,
            "%ctaid.y": 0 * inner,
            "%ctaid.z": 0 * inner,
            **{f"%ntid.{axis}": inner * 0 + size for axis, size in zip("xyz", block, strict=True)},
            **{f"%nctaid.{axis}": inner * 0 + size for axis, size in zip("xyz", (blocks, 1, 1), strict=True)},
            "%laneid": inner % 32,
        }
        self.special = {name: values.astype(np.uint32) for name, values in self.special.items()}
        self.shared: dict[str, NDArray[np.uint64]] = {}
        self.stack = np.zeros(total, np.uint64)
        self.steps = 0

    def share(self, variables: Sequence[Variable], dynamic: int) -> None:
        """Lay out shared memory, one copy for each block, full of garbage."""
        for variable in variables:
            size = variable.size or dynamic
            copies = np.array([self.memory.take(size) for _ in range(self.blocks)], np.uint64)
            for address in copies.tolist():
                self.memory.bytes[address : address + size] = 0xA5
            self.shared[variable.name] = copies[self.block_of]


def run_kernel(
    module: Module,
    name: str,
    blocks: int,
    block: Sequence[int],
    arguments: Sequence[Any],
    *,
    shared_mem: int = 0,
) -> list[NDArray[Any]]:
    """Launch an entry on a row of blocks.

    Args:
        module: parsed.
        name: of the entry.
        blocks: how many.
        block: threads in x, y and z.
        arguments: arrays for pointers, bytes for values.
        shared_mem: bytes of dynamic shared memory.

    Returns:
        What the arrays hold afterwards, in order.

    Raises:
        PtxError: see there.
    """
    function = module.functions[name]
    shared = [v for v in (*module.variables, *function.variables) if v.space == "shared"]
    fixed = [v for v in module.variables if v.space in ("global", "const")]
    lanes = blocks * (-(-int(np.prod(block)) // 32) * 32)
    arrays = [a for a in arguments if isinstance(a, np.ndarray)]
    size = sum(2 * GUARD + a.nbytes for a in arrays) + sum(2 * GUARD + v.size for v in fixed) + 4 * GUARD
    size += blocks * sum(2 * GUARD + (v.size or shared_mem) for v in shared) + lanes * (STACK + 2 * GUARD)
    memory = Memory(size)
    addresses = {}
    for variable in fixed:
        address = addresses[variable.name] = memory.take(variable.size)
        memory.bytes[address : address + len(variable.data)] = np.frombuffer(variable.data, np.uint8)
    launch = Launch(module, memory, blocks, (*block, 1, 1)[:3], addresses)
    launch.share(shared, shared_mem)
    launch.stack[:] = [memory.take(STACK) for _ in range(lanes)]
    places, values = [], []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raw = np.ascontiguousarray(argument).reshape(-1).view(np.uint8)
            address = memory.take(raw.size)
            memory.bytes[address : address + raw.size] = raw
            places.append((address, argument))
            values.append(int(address).to_bytes(8, "little"))
        else:
            values.append(bytes(argument))
    if len(values) != len(function.parameters):
        raise PtxError(f"{name} has {len(function.parameters)} parameters")
    who = np.arange(len(launch.block_of))
    given = {}
    for parameter, value in zip(function.parameters, values, strict=True):
        raw = np.frombuffer(value.ljust(parameter.size, b"\0"), np.uint8)
        given[parameter.name] = np.broadcast_to(raw, (len(who), len(raw)))
    with np.errstate(all="ignore"):
        Frame(launch, function, who, given, launch.exists).run()
    return [memory.bytes[at : at + a.nbytes].copy().view(a.dtype).reshape(a.shape) for at, a in places]


class Frame:
    """One function, for the threads ``who`` of a launch: their registers and program counters."""

    def __init__(
        self, launch: Launch, function: Function, who: NDArray[Any], parameters: dict[str, Lanes], alive: Lanes
    ) -> None:
        self.launch, self.function, self.who, self.parameters = launch, function, who, dict(parameters)
        self.registers: dict[str, Lanes] = {}
        self.pc = np.zeros(len(who), np.int64)
        self.state = np.where(alive, RUNS, ENDED)
        self.symbols = {name: np.full(len(who), at, np.uint64) for name, at in launch.addresses.items()}
        self.symbols |= {name: copies[who] for name, copies in launch.shared.items()}
        self.depth = launch.stack[who].copy()
        for variable in function.variables:
            if variable.space == "local":
                top = launch.stack[who]
                top += (-top) % np.uint64(max(variable.align, 16))
                self.symbols[variable.name] = top.copy()
                launch.stack[who] = top + np.uint64(variable.size)
        self._decoded: dict[int, tuple[str, list[str], Callable[..., Lanes]]] = {}

    def run(self) -> dict[str, Lanes]:
        """Run to the end; return the parameter space, where results are."""
        blocks = self.function.blocks
        while True:
            running = self.state == RUNS
            if not running.any():
                if (self.state == ENDED).all():
                    break
                self._answer()
                continue
            at = int(self.pc[running].min())
            chosen = np.nonzero(running & (self.pc == at))[0]
            self.launch.steps += 1
            if self.launch.steps > STEPS_MAX:
                raise PtxError("the kernel does not end")
            if at >= len(blocks):
                self.state[chosen] = ENDED
                continue
            self.pc[chosen] = at + 1
            for instruction in blocks[at]:
                try:
                    self._execute(instruction, chosen)
                except (KeyError, IndexError) as error:
                    raise PtxError(f"not understood: {instruction.text} ({error!r})") from error
        self.launch.stack[self.who] = self.depth
        return self.parameters

    # ---- operands

    def _type_of(self, register: str) -> str:
        types = self.function.registers
        return types[register] if register in types else types[register.rstrip("0123456789") + "<"]

    def register(self, name: str) -> Lanes:
        """Return a register of all threads; it starts as garbage."""
        if name not in self.registers:
            type_ = dtype(self._type_of(name))
            self.registers[name] = np.frombuffer(b"\xcd" * (type_.itemsize * len(self.who)), type_).copy()
            if type_.kind == "b":
                self.registers[name][:] = True
        return self.registers[name]

    def read(self, operand: str, type_: str, chosen: NDArray[Any]) -> Lanes:
        """Return an operand of the chosen threads as that type."""
        wanted = dtype(type_)
        if operand in self.launch.special:
            values = self.launch.special[operand][self.who[chosen]]
        elif operand.startswith("%"):
            values = self.register(operand)[chosen]
        elif operand in self.symbols:
            values = self.symbols[operand][chosen]
        elif operand.startswith(("0f", "0d")):
            bits = np.array([literal(operand)], f"u{4 if operand[1] == 'f' else 8}")
            values = np.repeat(bits, len(chosen))
        elif wanted.kind == "b":
            values = np.full(len(chosen), bool(int(operand, 0)))
        else:
            mask = (1 << 8 * wanted.itemsize) - 1
            values = np.full(len(chosen), literal(operand) & mask, f"u{wanted.itemsize}")
        return _as(values, wanted)

    def write(self, name: str, values: Lanes, chosen: NDArray[Any]) -> None:
        """Set a register of the chosen threads; ``_`` is nobody's."""
        if name != "_":
            register = self.register(name)
            register[chosen] = _as(np.ascontiguousarray(values), register.dtype)

    def address(self, operand: str, chosen: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the addresses of ``[base+offset]``."""
        base, _, offset = operand.strip("[]").partition("+")
        if base.isdigit():
            base, offset = base, "0"
        values = self.read(base.strip(), "u64", chosen)
        return values + np.uint64(int(offset or 0) & (2**64 - 1))

    # ---- instructions

    def _execute(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        op = instruction.op
        if instruction.guard is not None:
            name, negated = instruction.guard
            holds = self.register(name)[chosen] != negated
            if op == "bra":
                self.pc[chosen[holds]] = self.function.labels[instruction.operands[0]]
                return
            others, chosen = chosen[~holds], chosen[holds]
            if not len(chosen):
                return
            del others  # they go on with the next instruction
        method = getattr(self, f"_{op}", None)
        if method is not None:
            method(instruction, chosen)
            return
        self._compute(instruction, chosen)

    def _compute(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        known = self._decoded.get(id(instruction))
        if known is None:
            known = self._decoded[id(instruction)] = decode(instruction)
        result, types, function = known
        target, *operands = instruction.operands
        if len(operands) != len(types):
            raise PtxError(f"operands: {instruction.text}")
        values = function(*(self.read(o, type_, chosen) for o, type_ in zip(operands, types, strict=True)))
        self.write(target, np.asarray(values).astype(dtype(result), copy=False), chosen)

    def _mov(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        target, source = instruction.operands
        type_ = instruction.words[-1]
        if target.startswith("{"):
            parts = target.strip("{} ").split(",")
            values = self.read(source, type_, chosen).view(f"u{SIZES[type_] // len(parts)}").reshape(-1, len(parts))
            for k, part in enumerate(parts):
                self.write(part.strip(), values[:, k].copy(), chosen)
        elif source.startswith("{"):
            parts = source.strip("{} ").split(",")
            width = SIZES[type_] // len(parts)
            columns = [self.read(part.strip(), f"b{8 * width}", chosen) for part in parts]
            self.write(target, np.stack(columns, 1).view(f"u{SIZES[type_]}").reshape(-1), chosen)
        else:
            self.write(target, self.read(source, type_, chosen), chosen)

    def _cvta(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        self.write(instruction.operands[0], self.read(instruction.operands[1], "u64", chosen), chosen)

    def _ld(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        targets, type_, source = _vector(instruction.operands[0]), instruction.words[-1], instruction.operands[1]
        numbers = dtype(type_)
        if "param" in instruction.words:
            name, _, offset = source.strip("[]").partition("+")
            raw = self.parameters[name][chosen]
            for k, target in enumerate(targets):
                start = int(offset or 0) + k * numbers.itemsize
                values = np.ascontiguousarray(raw[:, start : start + numbers.itemsize]).view(numbers).reshape(-1)
                self._extend(target, values, chosen)
            return
        places = self.launch.memory.places(self.address(source, chosen), numbers, len(targets))
        memory = self.launch.memory.view(numbers)
        for k, target in enumerate(targets):
            self._extend(target, memory[places + k], chosen)

    def _extend(self, target: str, values: Lanes, chosen: NDArray[Any]) -> None:
        """Write what was loaded: a register may be wider than it."""
        if target == "_":
            return
        register = self.register(target)
        if register.dtype.itemsize > values.dtype.itemsize:
            wide = values.astype(f"{'i' if values.dtype.kind == 'i' else 'u'}{register.dtype.itemsize}")
            register[chosen] = wide.view(register.dtype)
        else:
            self.write(target, values, chosen)

    def _st(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        target, type_ = instruction.operands[0], instruction.words[-1]
        sources, numbers = _vector(instruction.operands[1]), dtype(type_)
        if "param" in instruction.words:
            name, _, offset = target.strip("[]").partition("+")
            start = int(offset or 0)
            raw = self.parameters.get(name)
            if raw is None or raw.shape[1] < start + numbers.itemsize * len(sources) or not raw.flags.writeable:
                grown = np.zeros((len(self.who), start + numbers.itemsize * len(sources)), np.uint8)
                if raw is not None:
                    grown[:, : raw.shape[1]] = raw[:, : grown.shape[1]]
                raw = self.parameters[name] = grown
            for k, source in enumerate(sources):
                values = np.ascontiguousarray(self._narrow(source, type_, chosen)).view(np.uint8)
                at = start + k * numbers.itemsize
                raw[chosen, at : at + numbers.itemsize] = values.reshape(len(chosen), -1)
            return
        places = self.launch.memory.places(self.address(target, chosen), numbers, len(sources))
        memory = self.launch.memory.view(numbers)
        for k, source in enumerate(sources):
            memory[places + k] = self._narrow(source, type_, chosen)

    def _narrow(self, source: str, type_: str, chosen: NDArray[Any]) -> Lanes:
        """Return what is stored: of a wider register the low part."""
        if source.startswith("%") and source not in self.launch.special:
            register = self.register(source)[chosen]
            if register.dtype.itemsize > SIZES[type_]:
                return _as(register.view(f"u{register.dtype.itemsize}").astype(f"u{SIZES[type_]}"), dtype(type_))
        return self.read(source, type_, chosen)

    def _atom(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        *_, kind, type_ = instruction.words
        target, place, *operands = instruction.operands
        self._atomic(kind, type_, target, place, operands, chosen)

    def _red(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        *_, kind, type_ = instruction.words
        place, *operands = instruction.operands
        self._atomic(kind, type_, "_", place, operands, chosen)

    def _atomic(
        self, kind: str, type_: str, target: str, place: str, operands: Sequence[str], chosen: NDArray[Any]
    ) -> None:
        numbers = dtype(type_)
        places = self.launch.memory.places(self.address(place, chosen), numbers)
        values = [self.read(operand, type_, chosen) for operand in operands]
        memory, old = self.launch.memory.view(numbers), np.empty(len(chosen), numbers)
        for k in np.random.default_rng(len(chosen)).permutation(len(chosen)):  # their order is nobody's promise
            at = places[k]
            old[k] = before = memory[at]
            memory[at] = _ATOMIC[kind](before, *(column[k] for column in values))
        self.write(target, old, chosen)

    def _membar(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        """All memory is one, and in order."""

    _fence = _membar

    # ---- where a thread goes on

    def _bra(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        self.pc[chosen] = self.function.labels[instruction.operands[0]]

    def _brx(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        table = [self.function.labels[name] for name in self.function.tables[instruction.operands[1]]]
        self.pc[chosen] = np.array(table)[self.read(instruction.operands[0], "u32", chosen)]

    def _ret(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        self.state[chosen] = ENDED

    def _exit(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        if not self.function.entry:
            raise PtxError("exit in a function")
        self.state[chosen] = ENDED

    def _trap(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        raise Trap("trap")

    def _call(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        *results, name, arguments = (
            instruction.operands if len(instruction.operands) > 1 else [*instruction.operands, "()"]
        )
        function = self.launch.module.functions[name]
        given = [word.strip() for word in arguments.strip("()").split(",") if word.strip()]
        parameters = {p.name: self.parameters[g][chosen] for p, g in zip(function.parameters, given, strict=True)}
        frame = Frame(self.launch, function, self.who[chosen], parameters, np.ones(len(chosen), bool))
        after = frame.run()
        for word, result in zip((results or ["()"])[0].strip("()").split(","), function.results, strict=False):
            raw = np.zeros((len(self.who), result.size), np.uint8)
            found = after.get(result.name)
            if found is not None:
                raw[chosen, : found.shape[1]] = found[:, : result.size]
            self.parameters[word.strip()] = raw

    # ---- waiting

    def _wait(self, instruction: Instruction, chosen: NDArray[Any]) -> None:
        if not self.function.entry:
            raise PtxError("a called function waits for other threads")
        if instruction.guard is not None:
            raise PtxError("a guarded barrier")
        self.state[chosen] = WAITS

    _bar = _barrier = _shfl = _vote = _wait

    def _answer(self) -> None:
        """Let threads go on that have waited for enough others."""
        waiting, answered = self.state == WAITS, False
        for pc in np.unique(self.pc[waiting]):
            instruction = self.function.blocks[pc - 1][-1]
            if instruction.op in ("shfl", "vote") or instruction.words[0] == "warp":
                answered |= self._answer_warps(instruction, waiting & (self.pc == pc))
        if not answered and not self._answer_blocks(waiting):
            raise PtxError(DEADLOCK)

    def _answer_warps(self, instruction: Instruction, here: Lanes) -> bool:
        operand = instruction.operands[0 if instruction.words[0] == "warp" else -1]
        everybody = np.arange(len(self.who))
        masks = self.read(operand, "u32", everybody).reshape(-1, 32)
        weights = np.uint32(1) << np.arange(32, dtype=np.uint32)
        arrived = (here.reshape(-1, 32) * weights).sum(1, dtype=np.uint32)[:, None]
        ended = ((self.state == ENDED).reshape(-1, 32) * weights).sum(1, dtype=np.uint32)[:, None]
        ready = here.reshape(-1, 32) & ((masks & ~(arrived | ended)) == 0)
        if not ready.any():
            return False
        if (ready & ((masks & weights) == 0)).any():
            raise PtxError("a lane names a mask without itself")
        there = (ready * weights).sum(1, dtype=np.uint32)[:, None] & masks
        chosen = np.nonzero(ready.reshape(-1))[0]
        if instruction.op == "shfl":
            self._shuffle(instruction, chosen, there)
        elif instruction.op == "vote":
            self._count_votes(instruction, chosen, there, weights)
        self.state[chosen] = RUNS
        return True

    def _shuffle(self, instruction: Instruction, chosen: NDArray[Any], there: Lanes) -> None:
        target, value, source, clamp, _ = instruction.operands
        if instruction.words[:2] != ("sync", "idx") or (self.read(clamp, "u32", chosen) != 31).any():
            raise PtxError(f"not understood: {instruction.text}")
        everybody = np.arange(len(self.who))
        values, lanes = self.read(value, "b32", everybody), self.read(source, "u32", everybody) & np.uint32(31)
        picked = values[everybody // 32 * 32 + lanes]
        takes_part = there.reshape(-1) >> lanes & np.uint32(1)
        register, _, predicate = target.partition("|")
        self.write(register, np.where(takes_part, picked, GARBAGE).astype("u4")[chosen], chosen)
        if predicate:
            self.write(predicate, np.ones(len(chosen), bool), chosen)

    def _count_votes(self, instruction: Instruction, chosen: NDArray[Any], there: Lanes, weights: Lanes) -> None:
        target, vote, _ = instruction.operands
        name, _, negated = vote.rpartition("!")
        votes = self.read(negated, "pred", np.arange(len(self.who))) != bool(name or vote.startswith("!"))
        ballot = (votes.reshape(-1, 32) * weights).sum(1, dtype=np.uint32)[:, None] & there
        kind = instruction.words[1]
        result = {"ballot": ballot, "any": ballot != 0, "all": ballot == there}[kind]
        result = np.broadcast_to(result, there.shape).reshape(-1)
        self.write(target, result[chosen], chosen)

    def _answer_blocks(self, waiting: Lanes) -> bool:
        shape = (self.launch.blocks, self.launch.lanes)
        ready = ((waiting | (self.state == ENDED)).reshape(shape).all(1) & waiting.reshape(shape).any(1))[:, None]
        answered = False
        at_barrier = np.zeros(len(self.who), bool)
        for pc in np.unique(self.pc[waiting]):
            instruction = self.function.blocks[pc - 1][-1]
            if instruction.op in ("bar", "barrier") and instruction.words[0] != "warp":
                at_barrier |= waiting & (self.pc == pc)
        ready &= (at_barrier == waiting).reshape(shape).all(1)[:, None]
        going = waiting & np.broadcast_to(ready, shape).reshape(-1)
        for pc in np.unique(self.pc[going]):
            instruction, chosen = self.function.blocks[pc - 1][-1], np.nonzero(going & (self.pc == pc))[0]
            self._check_barrier(instruction, chosen, going)
            if "red" in instruction.words:
                self._reduce(instruction, chosen, shape)
            self.state[chosen] = RUNS
            answered = True
        return answered

    def _check_barrier(self, instruction: Instruction, chosen: NDArray[Any], going: Lanes) -> None:
        place = instruction.operands[1 if "red" in instruction.words else 0]
        if place != "0":
            raise PtxError(f"not understood: {instruction.text}")
        if instruction.op == "bar" and "red" not in instruction.words:
            raise PtxError("an aligned barrier: divergent threads may not come to it")

    def _reduce(self, instruction: Instruction, chosen: NDArray[Any], shape: tuple[int, int]) -> None:
        target, _, vote = instruction.operands
        here = np.zeros(len(self.who), bool)
        here[chosen] = True
        votes = (self.read(vote, "pred", np.arange(len(self.who))) & here).reshape(shape).sum(1)
        total = here.reshape(shape).sum(1)
        kind = instruction.words[1]
        result = {"popc": votes.astype("u4"), "and": votes == total, "or": votes > 0}[kind]
        self.write(target, result[self.launch.block_of[self.who[chosen]]], chosen)


def _as(values: Lanes, wanted: np.dtype) -> Lanes:
    if values.dtype == wanted:
        return values
    if values.dtype.itemsize == wanted.itemsize:
        return values.view(wanted)
    if wanted.kind != "b" and values.dtype.kind != "b" and values.dtype.kind != "f":
        return values.astype(f"u{wanted.itemsize}").view(wanted)  # the low part, as of cvt.u16.u32
    raise PtxError(f"{values.dtype} is not {wanted}")


def _vector(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]


_ATOMIC: dict[str, Callable[..., Any]] = {
    "add": lambda old, v: (np.array([old]) + np.array([v]))[0],
    "exch": lambda old, v: v,
    "min": min,
    "max": max,
    "and": lambda old, v: old & v,
    "or": lambda old, v: old | v,
    "xor": lambda old, v: old ^ v,
    "inc": lambda old, v: 0 if old >= v else old + 1,
    "dec": lambda old, v: v if old == 0 or old > v else old - 1,
    "cas": lambda old, expected, v: v if old == expected else old,
}
