"""The cache of compiled kernels: instant again, bounded, and never the reason for a failure or a wrong result."""

import os
from pathlib import Path

import pytest

from depin_node.compute.translate import CompiledKernel, CompiledUnit, cache, compile_kernel, compiler
from depin_node.compute.translate.cache import Cache, cache_folder

KERNEL = "__global__ void k(int* x) { x[0] = 5; }"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))
    return tmp_path / "compile"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the compiler was run")

    monkeypatch.setattr(compiler, "parse", refuse)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kernel"))


def test_the_second_time_is_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_kernel(KERNEL, "k")
    assert len(kept(folder)) == 1
    monkeypatch.setattr(compiler, "parse", lambda *_: pytest.fail("the compiler was run"))
    assert compile_kernel(KERNEL, "k", filename="another name.cu") == first
    with pytest.raises(pytest.fail.Exception):
        compile_kernel(KERNEL, "k", ["-DX"])


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_made_again(folder: Path, damage: bytes | None) -> None:
    first = compile_kernel(KERNEL, "k")
    (entry,) = kept(folder)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    assert compile_kernel(KERNEL, "k") == first
    assert entry.read_bytes() == whole


def test_a_damaged_precompiled_header_is_made_again(folder: Path) -> None:
    first = compile_kernel(KERNEL, "k")
    (header,) = folder.glob("surface-*.pch")
    header.write_bytes(header.read_bytes()[:1000])
    kept(folder)[0].unlink()
    assert compile_kernel(KERNEL, "k") == first
    assert compile_kernel(KERNEL + "//", "k").module == first.module
    assert next(folder.glob("surface-*.pch")).stat().st_size > 1000


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / "file"))
    assert compile_kernel(KERNEL, "k").exact


def test_the_oldest_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRIES_MAX", 3)
    store = Cache(tmp_path)
    kernel = CompiledKernel("k", 0, (), b"module", "cuda", "loop", True, (), 0)
    unit = CompiledUnit(b"module", "cuda", (kernel,))
    for number in range(3):
        store.put(f"{number}", unit)
        os.utime(tmp_path / f"{number}.kernel", (number, number))
    assert store.get("0") == unit  # used again: now the youngest
    store.put("3", unit)
    assert {path.stem for path in kept(tmp_path)} == {"0", "2", "3"}
    assert not list(tmp_path.glob(".*"))


def test_errors_are_not_kept(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(compiler.CompileError):
            compile_kernel("__global__ void k() { x; }", "k")
    assert kept(folder) == []


def test_the_folder_is_the_users_or_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path / "compile"
    monkeypatch.delenv("DEPIN_CACHE_DIR")
    assert cache_folder().parts[-2:] == ("depin-node", "compile")
