"""The shipped known-answer set: what wasm computes today, and the PTX interpreter; and CUBINs of it."""

import re

import msgspec
import numpy as np
import pytest
from make_known_answers import make, source
from strict_host import StrictHost

from depin_node.compute.devices.gpu import nvrtc, strict
from depin_node.compute.devices.gpu.known_answers import Array, Case, digest, known_answers, make_argument
from depin_node.compute.devices.gpu.ptx import why_not_strict

SET = known_answers()
AGAIN = "a bit has changed: if that is meant, run python tests/support/make_known_answers.py"


@pytest.fixture(scope="module")
def gpu() -> StrictHost:
    return StrictHost()


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DEPIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def answer(gpu: StrictHost, case: Case, cuda: str = SET.cuda) -> str:
    arguments = [make_argument(argument) for argument in case.arguments]
    return digest(gpu.run(cuda, case.entry, case.parameters, case.grid, case.block, arguments, strictly=False))


def test_wasm_gives_the_shipped_answers() -> None:
    made = make()
    assert [case.digest for case in made.cases] == [case.digest for case in SET.cases], AGAIN
    assert [case.arguments for case in made.cases] == [case.arguments for case in SET.cases], AGAIN


@pytest.mark.parametrize("architecture", [strict.ARCHITECTURES[0], strict.ARCHITECTURES[-1]])
def test_the_ptx_gives_the_shipped_answers_and_is_strict(architecture: int) -> None:
    """NVRTC 12.9 has two optimisers: an old one below compute capability 10."""
    gpu = StrictHost(architecture)
    assert why_not_strict(gpu.compile(SET.cuda)[0]) == []
    assert [answer(gpu, case) for case in SET.cases] == [case.digest for case in SET.cases], AGAIN


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (r"\(\((\w+) \* (\w+)\) \+ \((\w+ \* 0x[\w.]+\+1f)\)\)", r"cuda::fmaf(\1, \2, (\3))"),
        ("cuda::__shfl_up_sync", "cuda::__shfl_down_sync"),
        ("cuda::__float2int_rn", "cuda::__float2int_rz"),
    ],
)
def test_another_answer_is_noticed(gpu: StrictHost, right: str, wrong: str) -> None:
    changed = re.sub(right, wrong, SET.cuda)
    assert changed != SET.cuda
    few = (*SET.cases[-8:], *SET.cases[:3])  # conversions, integers and threads; arithmetic
    assert any(answer(gpu, case, changed) != case.digest for case in few)


@pytest.mark.parametrize("architecture", [strict.ARCHITECTURES[0], strict.ARCHITECTURES[-1]])
def test_there_is_a_cubin(architecture: int) -> None:
    cubin = nvrtc.to_cubin(strict.whole_text(SET.cuda, 128), strict.options(architecture, real=True))
    assert cubin.startswith(b"\x7fELF")


def test_the_file_is_small_and_covers_every_kernel() -> None:
    text = msgspec.json.encode(SET)
    assert len(text) < 200 << 10
    assert {case.entry for case in SET.cases} == set(range(len({name for name, _ in source()[1]})))


def test_inputs_have_every_kind_of_number() -> None:
    for name in ("float32", "float64"):
        values = make_argument(Array(name, 512, "bits", "x"))
        info = np.finfo(values.dtype)
        assert all(kind.any() for kind in (np.isnan(values), np.isinf(values), values == 0))
        assert ((np.abs(values) < info.tiny) & (values != 0)).any()
        near = make_argument(Array(name, 512, "near", "x"))
        assert (np.abs(near) <= 8).all()
        assert len(set(near.tolist())) > 500


def test_a_digest_takes_all_nans_for_one() -> None:
    a, b = (np.array([1, bits], np.uint32).view("f4") for bits in (0x7FC00000, 0xFFFFFFFF))
    assert digest([a]) == digest([b])
    assert digest([a]) != digest([a[::-1]])
