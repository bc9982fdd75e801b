"""Fuzzing what arrives as data: programs, modules, CUDA texts, job files."""

import copy
import functools
import os
import random
import re
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import device_programs as dp
import msgspec
import numpy as np
from fuzzing import Finding, mutate, target
from wat_programs import copying, numbers, program

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.gpu.strict import refuse_hostile_cuda
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs.jobfile import JobFile, load_job
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.module import scan_module
from depin_node.compute.programs.parts import finer, parts_of
from depin_node.compute.programs.program import Blocks, Program, Swap, encode_program, program_id
from depin_node.compute.programs.shards import owned_boxes, result_bytes, result_bytes_max, result_sizes
from depin_node.compute.programs.slices import held_bytes, held_shape
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.programs.walk import is_walkable, of_task, one_step, step_at, step_count, until_step
from depin_node.compute.programs.work import work
from depin_node.core.errors import ConfigError, TaskError, TaskRejected

CPU_S_MAX = 5.0
GROWTH_KIB_MAX = 512 << 10
EDGES = (0, 1, 2, 3, 7, 255, 256, 1024, 65535, 2**24, 2**31 - 1, 2**32 - 1, 2**32, 2**63, -1, 0.0, 1e308)
VALUES: tuple[Any, ...] = (
    *EDGES,
    None,
    True,
    "",
    "out",
    "temp",
    "in",
    "int32",
    "bool",
    "float64",
    "wrap",
    b"",
    [],
    [0],
)


def bounded(data: bytes, call: Callable[[], Any], *expected: type[Exception]) -> Any:
    """Return what a call returns, or None for an expected error; anything else, much time or memory is a finding."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = None
    try:
        result = call()
    except expected:
        pass
    except Exception as error:  # whatever it is, it is the finding
        raise Finding(f"{type(error).__name__}: {error}", data) from error
    took_s = time.process_time() - began
    if took_s > CPU_S_MAX:
        raise Finding(f"it took {took_s:.1f} s", data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > GROWTH_KIB_MAX:
        raise Finding(f"it took {grown >> 10} MiB", data)
    return result


# Programs


@functools.cache
def _programs() -> tuple[bytes, ...]:
    tiny = bytes.fromhex("0061736d01000000020f0103656e76066d656d6f7279020001")
    found = [program(), dp.saxpy(), dp.smoothing(), dp.halving(), dp.product()]
    found += [dp.cut_stencil(edge) for edge in ("clamp", "wrap", "constant", "none")]
    found.append(msgspec.structs.replace(found[2], steps=2 * found[2].steps[0].steps))  # its rounds written out
    small = []
    for one in found:
        units = tuple(msgspec.structs.replace(unit, module=tiny, cuda="") for unit in one.units)
        small.append(encode_program(msgspec.structs.replace(one, units=units)))
    return tuple(small)


def _nodes(value: list[Any]) -> list[tuple[list[Any], int]]:
    """Return every place in nested lists."""
    places = [(value, index) for index in range(len(value))]
    for child in value:
        if isinstance(child, list):
            places += _nodes(child)
    return places


def _change_tree(tree: list[Any], chance: random.Random, other: list[Any]) -> None:
    places = _nodes(tree)
    where, index = chance.choice(places)
    match chance.choice((0, 0, 0, 2, 2, 2, 3, 4, 5, 5, 6)):
        case 0:
            alike = [value for value in VALUES if type(value) is type(where[index])]
            where[index] = copy.deepcopy(chance.choice(alike if alike and chance.randrange(8) else VALUES))
        case 2 if isinstance(where[index], int):
            where[index] += chance.choice((-1, 1, 1 << 8, 1 << 16))
        case 3:
            where[index:index] = [copy.deepcopy(where[index]) for _ in range(chance.choice((1, 1, 2, 40, 400)))]
        case 4:
            del where[index]
        case 5:
            places = _nodes(other)
            alike = [(a, b) for a, b in places if type(a[b]) is type(where[index])]
            source, at = chance.choice(alike if alike and chance.randrange(8) else places)
            where[index] = copy.deepcopy(source[at])
        case _:
            for _ in range(chance.choice((1, 2, 7, 8, 30))):
                steps = [tree[4] if chance.randrange(2) else [copy.deepcopy(where[index])]]
                times = chance.choice((1, 2, 5, 2**24))
                tree[4] = [["until", 0, times, *steps] if chance.randrange(3) == 0 else ["repeat", times, *steps]]


def _program_bytes(chance: random.Random) -> bytes:
    data, other = chance.choice(_programs()), chance.choice(_programs())
    if not chance.randrange(4):
        return mutate(data, chance, other)
    tree, second = msgspec.msgpack.decode(data), msgspec.msgpack.decode(other)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if isinstance(tree, list) and len(tree) > 4:
            _change_tree(tree, chance, second)
    with suppress(OverflowError, RecursionError, ValueError):  # what cannot be written is no input
        return msgspec.msgpack.encode(tree)
    return data


def _ask(data: bytes) -> None:
    """Decode a program and ask what a node asks of it before it runs anything."""
    found = decode_program(data)
    assert encode_program(found) == data, "another encoding"
    program_id(found)
    memory_bytes(found)
    assert work(found).size >= 0
    assert found.exact in (True, False)
    most, sizes = result_bytes_max(found), result_sizes(found)
    for task in {0, found.tasks // 2, found.tasks - 1}:
        for buffer in found.buffers:
            assert all(length >= 0 for length in held_shape(found, buffer, task))
            held_bytes(found, buffer, task)
        outputs = range(len(found.outputs))
        if isinstance(found.shards, Blocks):
            for output in outputs:
                owned_boxes(found, task, output)
        assert sizes(task) == tuple(result_bytes(found, task, output) for output in outputs)
        assert sum(sizes(task)) <= most, "more than the most"
        if is_walkable(found, task):
            _walk(of_task(found, task))
    if (parts := parts_of(found, 4)) > 1:
        _read_again(finer(found, parts))


def _walk(whole: Program) -> None:
    """Read what both ends of a dispute run: the task alone, its first steps, and single ones."""
    _read_again(whole)
    last = step_count(whole.steps) - 1
    for step in {0, 1, last // 2, last}:
        _read_again(until_step(whole, step + 1).program)
        if not isinstance(step_at(whole.steps, step), Swap):
            _read_again(one_step(whole, step).program)


def _read_again(made: Program) -> None:
    try:
        decode_program(encode_program(made))
    except TaskRejected as error:
        raise AssertionError(f"what a node makes of a valid program is refused: {error}") from error


@target
def program_decoding(chance: random.Random) -> bytes:
    """Programs with parts changed: refused, or valid, and then every size of them can be asked for."""
    data = _program_bytes(chance)
    bounded(data, lambda: _ask(data), TaskRejected)
    return data


# Modules

_LITTLE = TaskLimits(0.02, 64 << 20)


@functools.cache
def _modules() -> tuple[bytes, ...]:
    table = "(table 1 funcref) (elem (i32.const 0) $f) (func $f) (global i32 (i32.const 7))"
    log = '(func (export "log") (result i32) (i32.const 4096))'
    return (copying(), copying(extra=table), copying(extra='(data (i32.const 2048) "abcdefgh")'), copying(extra=log))


@functools.cache
def _device() -> WasmDevice:
    return WasmDevice()


def _load_and_run(module: bytes) -> None:
    one = program(module, tasks=1, n=64)
    scan_module(module)
    loaded = _device().load(decode_program(encode_program(one)), {0: Input(numbers(64).view(np.uint8).data)}, _LITTLE)
    loaded.run(0, _LITTLE, [memoryview(bytearray(result_bytes(one, 0, 0)))])


@target
def module_loading(chance: random.Random) -> bytes:
    """Modules with bytes changed: refused by the scan or the engine, or run, with little time, to a coded end."""
    data = mutate(chance.choice(_modules()), chance, chance.choice(_modules()))
    bounded(data, lambda: _load_and_run(data), TaskError)
    return data


# CUDA texts

_HOSTILE = (
    *(
        '#include "x"',
        "%:",
        "??=",
        "\\\n",
        "asm(",
        '"C"',
        '"s"',
        "'a'",
        'R"(',
        "::",
        " : :",
        "cuda",
        "cuda::",
        "clock64",
    ),
    *("template<", "[[", "/*", "//", "\x00", "é", "\r", "\f", "\x1a", "__FILE__", "extern", "{" * 3000, "_Pragma"),
    *("1e+", ".5", "0x1p-3", "1'000", "u8", "operator", "goto", "$", "@", "`", "a" * 70, "R1", "v1_x", "new", "\u2028"),
)


@functools.cache
def _texts() -> tuple[str, ...]:
    return (dp.unit().cuda,)


@target
def strict_text(chance: random.Random) -> bytes:
    """CUDA texts with pieces changed: refused, or without directive, comment, foreign string or name."""
    text = chance.choice(_texts())
    start = chance.randrange(len(text))
    text = text[start : start + chance.choice((100, 1000, 5000))] if chance.randrange(2) else text
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text) + 1)
        cut = chance.choice((0, 0, 1, 5))
        text = text[:at] + chance.choice(_HOSTILE) * chance.choice((1, 1, 1, 2, 300)) + text[at + cut :]
    data = text.encode()

    def check() -> None:
        refuse_hostile_cuda(text)
        bare = text.replace('"C"', "")
        assert text.isascii(), "not ASCII"
        for sign in ("#", "%:", "??", "\\", '"', "'", "/*", "//", "@", "$", "`", "\0"):
            assert sign not in bare, f"{sign!r} is let through"
        known = r"(cuda\s*::\s*)+\w+|\b\d[\w.]*"  # what our header has; and 0x0.asm is one number to a preprocessor
        words = re.findall(r"\w+", re.sub(known, "", bare))
        assert not {"asm", "_Pragma", "template", "operator", "goto", "new", "clock64", "__FILE__"} & set(words), (
            "a word"
        )

    bounded(data, check, TaskRejected)
    return data


# Job files

_ONE = """name = "shade"
[kernel]
file = "shade.cu"
name = "shade"
[launch]
grid = ["ceil(cols / 16)", "ceil(rows / 16)"]
block = [16, 16]
[args]
z = { in = "dem.npy" }
shade = { out = "float32", shape = ["rows", "cols"], tile = [16, 16] }
rows = { int32 = "z.shape[0]" }
cols = { int32 = "z.shape[1]" }
cell = { float32 = 90.0 }
[shards]
by = "blocks"
count = 4
[verify]
policy = "quorum"
k = 2
n = 3
[limits]
seconds = 60
memory_mib = 512
"""
_STEPS = """name = "smooth"
[kernels.smooth]
file = "shade.cu"
[arrays]
u = { inout = "dem.npy", axis = 0, halo = 1, edge = "clamp" }
v = { temp = "int16", shape = ["u.shape[0]", "u.shape[1]"] }
[numbers]
cols = "u.shape[1]"
[[steps]]
repeat = 3
steps = [{ launch = "smooth", grid = ["ceil(cols / 16)", "shard.rows"], block = 16, args = ["u", "v", "cols"] },
         { swap = ["u", "v"] }]
[shards]
by = "axis"
count = 2
"""
_WORDS = (
    *(
        "0",
        "-1",
        "1e400",
        "nan",
        "9" * 40,
        "true",
        '""',
        '"x"',
        '"job:00:y"',
        '"../../etc/passwd"',
        '"/dev/zero"',
        "[]",
    ),
    *(
        "{}",
        "[[steps]]",
        "[args]",
        "[kernels.a]",
        "{ in = 1 }",
        '"2 ** 9 ** 9"',
        '"ceil(1 / 0)"',
        '"(" * 99',
        '"1 << 62"',
    ),
    *("repeat", "until", "\u202e", "1979-05-27", "=", "\n", '"' + "(" * 500 + '"', '"z.shape[9]"', "[[[[[[]]]]]]"),
)


@functools.cache
def _folder() -> tuple[Path, Any]:
    keep = tempfile.TemporaryDirectory(prefix="depin-fuzz-jobs-")
    folder = Path(keep.name)
    np.save(folder / "dem.npy", np.zeros((40, 50), "int16"))
    (folder / "shade.cu").write_text('extern "C" __global__ void shade() {}')
    return folder, keep


@target
def job_files(chance: random.Random) -> bytes:
    """Job files with words changed: a job, or an error that says what is wrong."""
    text, other = chance.choice((_ONE, _STEPS)), chance.choice((_ONE, _STEPS))
    if chance.randrange(3):
        words = text.replace("[", " [ ").split(" ") if chance.randrange(4) == 0 else text.splitlines(keepends=True)
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(len(words))
            match chance.randrange(4):
                case 0:
                    del words[at : at + chance.choice((1, 2))]
                case 1:
                    words[at:at] = [chance.choice(other.splitlines(keepends=True))]
                case 2 if "=" in words[at]:
                    words[at] = words[at].partition("=")[0] + f"= {chance.choice(_WORDS)}\n"
                case _:
                    pieces = words[at].split(" ")
                    pieces[chance.randrange(len(pieces))] = chance.choice(_WORDS)
                    words[at] = " ".join(pieces)
            words = words or [""]
        text = ("" if "\n" in words[0] or len(words) > 40 else " ").join(words)
        data = text.encode(errors="surrogatepass")
    else:
        data = mutate(text.encode(), chance, other.encode())
    folder, _ = _folder()
    path = folder / f"job-{os.getpid()}.toml"
    path.write_bytes(data)

    def check() -> None:
        try:
            found = load_job(path)
        except ConfigError as error:
            if not all(c.isprintable() for line in str(error).splitlines() for c in line):
                raise Finding("control characters in a message", data) from error
            raise
        assert isinstance(found, JobFile)

    bounded(data, check, ConfigError)
    return data
