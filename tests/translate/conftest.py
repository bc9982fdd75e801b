from collections.abc import Iterator
from typing import Any

import pytest
from kernel_host import Host

from depin_node.compute.translate import CompiledKernel, compile_kernel


@pytest.fixture(scope="session")
def host() -> Host:
    return Host()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and theirs out of each other's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DEPIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def build() -> Any:
    """The compiler, with a default name."""

    def compile_(code: str, name: str = "k", *options: str, **more: Any) -> CompiledKernel:
        return compile_kernel(code, name, options, **more)

    return compile_
