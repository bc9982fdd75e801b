"""What the operating system denies a worker: tried from inside, with each layer alone, with all, and with none."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import uuid

import numpy as np
import pytest
import trio
from wat_programs import BAD_TASKS, numbers, program

from depin_node.compute.programs.program import encode_program
from depin_node.compute.sandbox.config import LAYERS, PoolConfig, WorkerConfig
from depin_node.compute.sandbox.pool import open_pool
from depin_node.core.errors import TaskCrashed, TaskRejected

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
SUPPORT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
PATIENCE_S = 60.0

FILES = ("read", "list", "write", "tmp", "library", "reopen", "environ", "mem")
TCP = ("connect", "listen")
OUTSIDE = ("ptrace", "kill", "signal_parent", "vm_read", "connect_abstract")
SOCKETS = ("inet", "inet6", "unix", "netlink", "pair", "udp", "connect_path")
PROCESSES = ("fork", "run", "execve", "pidfd", "limits_of_parent", "io_uring", "unshare", "memfd")
MEMORY = ("allocate", "allocate_shared")
PRIVILEGED = ("chroot", "raise_limit")
ATTEMPTS = (*FILES, *TCP, *OUTSIDE, *SOCKETS, *PROCESSES, *MEMORY, *PRIVILEGED)
ROOT_ONLY = {"ptrace", "vm_read", "mem", "chroot"}
"""What may fail without confinement too, where the tests do not run as root."""
PERHAPS_OFF = {"inet6", "io_uring"}
"""What a machine may have switched off."""


class Surroundings:
    """What an intruder would like to get at, and a victim that it would like to kill."""

    def __init__(self, folder):
        self.folder, self.secret = folder, ctypes.create_string_buffer(b"secret!")
        self.port, self.path, self.abstract = (
            socket.create_server(("127.0.0.1", 0)),
            socket.socket(socket.AF_UNIX),
            None,
        )
        self.path.bind(str(folder / "socket"))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.name = uuid.uuid4().hex
        self.abstract.bind("\0" + self.name)
        for listener in (self.path, self.abstract):
            listener.listen(8)
        self.victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def needs(self):
        return json.dumps({
            "folder": str(self.folder),
            "port": self.port.getsockname()[1],
            "path": str(self.folder / "socket"),
            "abstract": self.name,
            "victim": self.victim.pid,
            "parent": os.getpid(),
            "address": ctypes.addressof(self.secret),
        })  # fmt: skip

    def close(self):
        for listener in (self.port, self.path, self.abstract):
            listener.close()
        self.victim.kill()
        self.victim.communicate()


@pytest.fixture
def surroundings(tmp_path):
    found = Surroundings(tmp_path)
    yield found
    found.close()


async def intrude(surroundings, layers, attempts=ATTEMPTS, device="Intruder"):
    """Return what became of each attempt in a worker with these layers, and which of the layers held."""
    worker = WorkerConfig(f"intruder_device:{device}", (SUPPORT,), nice=0, layers=layers)
    candidate = program(source=" ".join(attempts) + surroundings.needs())
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(worker, spare=False)) as pool:
            assert await pool.device_class() == "intruder"
            layers_told = [layer for layer in pool.layers() if layer.name != "resident"]  # that is the node's own
            held = {layer.name for layer in layers_told if layer.active}
            reasons = {layer.name: layer.detail for layer in layers_told}
            lease = await pool.acquire("test")
            with pytest.raises(TaskRejected) as told:
                await lease.load(
                    encode_program(candidate), {0: numbers().tobytes()}, seconds=30, memory_limit_bytes=1 << 26
                )
            await lease.aclose()
    found = dict(item.split("=") for item in str(told.value).split())
    assert set(found) == set(attempts)
    return found, held, reasons


def require(held, reasons, *layers):
    for layer in layers:
        if layer not in held:
            pytest.skip(f"{layer} is not here: {reasons[layer]}")


def denied(found, by):
    return {name for name, outcome in found.items() if outcome in by}


async def test_without_layers_an_intruder_gets_everything(surroundings):
    """So that what is denied in the other tests is denied by the layers."""
    found, held, reasons = await intrude(surroundings, (), (*ATTEMPTS, "thread", "clone3"))
    assert not held
    assert set(reasons.values()) == {"switched off"}
    assert found.pop("clone3") == "EINVAL"
    failed = {name for name, outcome in found.items() if outcome != "done"}
    assert failed - PERHAPS_OFF <= (set() if os.geteuid() == 0 else ROOT_ONLY)
    assert surroundings.victim.wait(PATIENCE_S) == -signal.SIGKILL


async def test_with_all_layers_an_intruder_gets_nothing(surroundings):
    found, held, reasons = await intrude(surroundings, LAYERS, (*ATTEMPTS, "thread", "clone3"))
    require(held, reasons, *LAYERS)
    assert found.pop("thread") == "done"
    assert found.pop("clone3") == "ENOSYS"
    assert found.pop("allocate") == "ENOMEM"
    assert set(found.values()) == {"EPERM"}
    assert surroundings.victim.poll() is None
    assert not (surroundings.folder / "made").exists()
    assert not (surroundings.folder / "folder").exists()


async def test_landlock_alone_denies_files_tcp_and_what_is_outside(surroundings):
    attempts = [name for name in ATTEMPTS if name not in ("chroot", "connect_path")]
    found, held, reasons = await intrude(surroundings, ("landlock",), [*attempts, "read_in_thread", "pdeathsig"])
    require(held, reasons, "landlock")
    assert held == {"landlock"}
    expected = {*FILES, "run", "read_in_thread", "ptrace", "vm_read"}
    abi = int(reasons["landlock"].split(":")[0].removeprefix("ABI "))
    expected |= set(TCP) if abi >= 4 else set()
    expected |= {"kill", "signal_parent", "connect_abstract"} if abi >= 6 else set()
    assert denied(found, ("EACCES", "EPERM")) == expected
    assert {found[name] for name in FILES} == {"EACCES"}
    assert not denied(found, ("ENOMEM",))


async def test_seccomp_alone_denies_every_call_that_is_not_listed(surroundings):
    found, held, reasons = await intrude(surroundings, ("seccomp",), [*ATTEMPTS, "thread", "read_in_thread", "clone3"])
    require(held, reasons, "seccomp")
    assert held == {"seccomp"}
    assert found.pop("clone3") == "ENOSYS"
    assert set(found) - denied(found, ("EPERM",)) == {"thread", "allocate", "raise_limit"}  # other layers' part
    assert surroundings.victim.poll() is None


async def test_the_memory_limit_alone_refuses_eight_gib(surroundings):
    found, held, _ = await intrude(surroundings, ("memory",), ["allocate", "allocate_shared", "thread"])
    assert held == {"memory"}
    assert found == {"allocate": "ENOMEM", "allocate_shared": "done", "thread": "done"}


async def test_without_capabilities_root_cannot_raise_the_limit_nor_change_its_root(surroundings):
    if os.geteuid():
        pytest.skip("only root has capabilities")
    attempts = ["raise_limit", "chroot", "ptrace", "read", "pdeathsig"]
    found, held, _ = await intrude(surroundings, ("memory", "capabilities"), attempts)
    assert held == {"memory", "capabilities"}
    assert found == {"raise_limit": "EPERM", "chroot": "EPERM", "ptrace": "EPERM", "read": "done", "pdeathsig": "done"}


async def test_threads_of_before_are_held_by_seccomp_and_the_lack_of_landlock_is_told(surroundings):
    found, held, reasons = await intrude(surroundings, LAYERS, ["read", "inet", "fork"], "EarlyThreadIntruder")
    assert "landlock" not in held
    assert "2 threads" in reasons["landlock"] or "this kernel" in reasons["landlock"]
    require(held, reasons, "seccomp")
    assert set(found.values()) == {"EPERM"}


async def test_real_programs_run_in_all_layers():
    """A large input and large results, traps and time-outs."""
    n = 1 << 21  # 8 MiB
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WorkerConfig(nice=0), spare=False)) as pool:
            lease = await pool.acquire("test")
            candidate = encode_program(program(n=n, tasks=2))
            await lease.load(candidate, {0: numbers(n).tobytes()}, seconds=30, memory_limit_bytes=1 << 28)
            await lease.submit((task.to_bytes(16, "little"), task) for task in range(2))
            results = lease.results()
            for result in [await anext(results), await anext(results)]:
                half = numbers(n)[result.task * n // 2 : (result.task + 1) * n // 2]
                np.testing.assert_array_equal(np.frombuffer(result.outputs[0].data, "float32"), half)
            await lease.aclose()
            for module, code, reason in BAD_TASKS.values():
                lease = await pool.acquire("test")
                await lease.load(
                    encode_program(program(module)), {0: numbers().tobytes()}, seconds=0.3, memory_limit_bytes=1 << 26
                )
                await lease.submit([(bytes(16), 1)])
                error = (await anext(lease.results())).error
                assert (error.code, reason in str(error)) == (code, True)
                await lease.aclose()


async def test_a_layer_that_is_missing_is_told_and_the_worker_runs(tmp_path):
    """On a kernel without landlock, as far as the worker can tell."""
    (tmp_path / "old_kernel.py").write_text(
        "from depin_node.compute.devices.wasm import WasmDevice\n"
        "from depin_node.compute.sandbox import landlock\n"
        "class Device(WasmDevice):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        landlock._CREATE_RULESET = 999  # a number that no kernel knows\n"
    )
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WorkerConfig("old_kernel:Device", (str(tmp_path),)), spare=False)) as pool:
            assert await pool.device_class() == "wasm-1"
            layers = {layer.name: layer for layer in pool.layers()}
            assert not layers["landlock"].active
            assert "this kernel has none" in layers["landlock"].detail
            lease = await pool.acquire("test")
            await lease.load(
                encode_program(program()), {0: numbers().tobytes()}, seconds=30, memory_limit_bytes=1 << 26
            )
            await lease.submit([(bytes(16), 1)])
            assert (await anext(lease.results())).error is None
            await lease.aclose()


async def test_what_is_imported_too_late_ends_the_worker_with_a_word(tmp_path):
    (tmp_path / "forgetful.py").write_text(
        "class Device:\n"
        "    device_class = 'forgetful'\n"
        "    def load(self, program, inputs, limits):\n"
        "        import wave\n"
    )
    with trio.fail_after(PATIENCE_S):
        async with open_pool(PoolConfig(WorkerConfig("forgetful:Device", (str(tmp_path),)), spare=False)) as pool:
            lease = await pool.acquire("test")
            with pytest.raises(TaskCrashed, match="exit code 1"):
                await lease.load(
                    encode_program(program()), {0: numbers().tobytes()}, seconds=30, memory_limit_bytes=1 << 26
                )
            await lease.aclose()
