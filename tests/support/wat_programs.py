"""Programs whose kernels are written in WebAssembly text: what a compiler would never emit, without a compiler."""

import numpy as np
import wasmtime

from depin_node.compute.programs.program import Blocks, Buffer, Kernel, Launch, Parameter, Program, Scalar, Unit

N, BLOCK = 1024, 64
ARGUMENTS = 1024  # where argbuf is

HEAD = """(module
  (import "env" "memory" (memory 2))
  (func (export "argbuf") (result i32) (i32.const 1024))
"""
RUN = """
  (func (export "run0") (param $b0 i64) (param $b1 i64) (param $gx i32) (param $gy i32) (param $gz i32)
        (param $bx i32) (param $by i32) (param $bz i32) (param $shared i32)
    (local $i i32) (local $end i32) (local $x i32) (local $y i32)
    (local.set $x (i32.wrap_i64 (i64.load (i32.const 1024))))
    (local.set $y (i32.wrap_i64 (i64.load (i32.const 1032))))
    (local.set $i (i32.mul (i32.wrap_i64 (local.get $b0)) (local.get $bx)))
    (local.set $end (i32.mul (i32.wrap_i64 (local.get $b1)) (local.get $bx)))
"""
EACH = """
    (loop $next
      (i32.store (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2)))
                 (i32.load (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $end))))
"""


def wasm(text: str) -> bytes:
    """Return the module for a text."""
    return bytes(wasmtime.wat2wasm(text))


def copying(before: str = "", after: str = "", *, head: str = HEAD, extra: str = "") -> bytes:
    """Return a module that copies x to y, 4 bytes a thread, with instructions before and after."""
    return wasm(head + extra + RUN + before + EACH + after + "))")


def program(
    module: bytes | None = None,
    *,
    n: int = N,
    tasks: int = 4,
    block: int = BLOCK,
    dtype: str = "float32",
    role: str = "out",
    source: str = "",
    scalars: tuple[Scalar, ...] = (),
) -> Program:
    """Return a program over x and y of ``n`` elements, cut into tasks; ``scalars`` follow as parameters."""
    parameters = (
        Parameter("x", True, dtype, 1, True),
        Parameter("y", True, dtype, 1, False),
        *(Parameter(f"s{i}", False, s.dtype, 1, False) for i, s in enumerate(scalars)),
    )
    return Program(
        2,
        (Unit(copying() if module is None else module, source),),
        (Kernel("copy", 0, 0, parameters, True),),
        (Buffer("x", "in", dtype, (n,), (), None), Buffer("y", role, dtype, (n,), (block,), None)),
        (Launch(0, ((-(-n // block), 1, 1),), (block, 1, 1), 0, (0, 1, *scalars)),),
        Blocks(tasks),
        (),
    )


def numbers(n: int = N, dtype: str = "float32") -> np.ndarray:
    """Return distinct numbers, none of them zero."""
    return np.arange(1, n + 1).astype(dtype)


TRAP = "(unreachable)"
ENDLESS = "(loop $forever (br $forever))"
FAR = "(i32.store (i32.const -8) (i32.const 1))"
NEAR = "(i32.store (i32.add (local.get $y) (i32.const 4096)) (i32.const 1))"  # just behind y
BEFORE = "(i32.store (i32.sub (local.get $x) (i32.const 4)) (i32.const 1))"
DIVIDE = "(drop (i32.div_s (i32.const 1) (i32.sub (local.get $i) (local.get $i))))"
RECURSION = "(func $deep (result i32) (i32.add (call $deep) (call $deep)))"
FILL = "(loop $forever (memory.fill (local.get $y) (i32.const 1) (i32.const 4096)) (br $forever))"
GROW = "(if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))"
ELSEWHERE = """(i32.store (i32.add (local.get $y) (i32.and (i32.add (i32.shl (local.get $end) (i32.const 2))
    (i32.const 16)) (i32.const 4095))) (i32.const 1))"""
SPOIL_INPUT = "(memory.fill (local.get $x) (i32.const 255) (i32.const 4096))"

REFUSED_MODULES = {
    "not wasm": (b"MZ" + bytes(100), "not WebAssembly"),
    "empty": (b"", "not WebAssembly"),
    "cut": (copying()[:-20], "ends early"),
    "foreign import": (wasm('(module (import "env" "open" (func)))'), "may import env.memory only"),
    "wasi": (wasm('(module (import "wasi_snapshot_preview1" "fd_write" (func)))'), "may import env.memory only"),
    "two imports": (
        wasm('(module (import "env" "memory" (memory 1)) (import "env" "g" (global i32)))'),
        "may import env.memory only",
    ),
    "no import": (wasm("(module)"), "does not import"),
    "own memory": (wasm("(module (memory 1))"), "memory of its own"),
    "8 GiB": (wasm('(module (import "env" "memory" (memory i64 131072)))'), "64-bit"),
    "4 GiB of its own": (wasm('(module (import "env" "memory" (memory 65536)))'), "65536 pages"),
    "shared": (wasm('(module (import "env" "memory" (memory 1 2 shared)))'), "shared"),
    "start function": (copying(extra="(func $go) (start $go)"), "start function"),
    "exported global": (copying(extra='(global (export "g") i32 (i32.const 1))'), "not a function"),
    "exported memory": (copying(extra='(export "memory" (memory 0))'), "not a function"),
    "exported vectors": (copying(extra='(func (export "more") (param v128))'), "not of integers"),
    "exported vector": (copying(extra='(global (export "g") v128 (v128.const i32x4 0 0 0 0))'), "not a function"),
    "table bomb": (copying(extra="(table 4000000000 funcref)"), "table"),
    "two tables": (copying(extra="(table 1 funcref) (table 1 funcref)"), "table"),
    "too large": (copying(extra=f'(data (i32.const 2048) "{"x" * (4 << 20)}")'), "bytes, at most"),
}
UNSTARTABLE_MODULES = {
    "no exports": (wasm(HEAD.replace('(export "argbuf")', "") + ")"), "exports"),
    "extra export": (copying(extra='(func (export "more"))'), "exports"),
    "wrong type": (wasm(HEAD + '(func (export "run0")))'), "exports"),
    "argbuf above its memory": (
        copying(head=HEAD.replace("const 1024", "const 131072")),
        "argument buffer",
    ),
    "argbuf traps": (copying(head=HEAD.replace("(i32.const 1024))", "(unreachable))")), "does not start"),
    "argbuf loops": (
        copying(head=HEAD.replace("(i32.const 1024))", "(loop $l (br $l)) (i32.const 0))")),
        "does not start",
    ),
    "data outside": (copying(extra='(data (i32.const -4) "12345678")'), "does not start"),
    "relaxed simd": (
        copying("(drop (i8x16.relaxed_swizzle (v128.const i32x4 0 0 0 0) (v128.const i32x4 0 0 0 0)))"),
        "not valid",
    ),
    "tail call": (
        copying(extra="(func $f (return_call $f))"),
        "not valid",
    ),
}
"""Modules that pass the outline's check and are refused by the device."""
BAD_TASKS = {
    "trap": (copying(TRAP), "trapped", "stopped itself"),
    "endless loop": (copying(ENDLESS), "timed_out", "did not end"),
    "endless fill": (copying(FILL), "timed_out", "did not end"),
    "far write": (copying(FAR), "trapped", "outside its memory"),
    "near write": (copying(NEAR), "trapped", "between its arrays"),
    "write before": (copying(BEFORE), "trapped", "between its arrays"),
    "another's tile": (copying("", ELSEWHERE), "trapped", "to y outside the tiles"),
    "division by zero": (copying(DIVIDE), "trapped", "divided an integer by zero"),
    "recursion": (copying("(drop (call $deep))", extra=RECURSION), "trapped", "recursion too deep"),
}
