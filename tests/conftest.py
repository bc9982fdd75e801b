"""What all tests share: nodes, and how ``make test`` spreads over the cores (pytest-xdist, ``--dist loadgroup``).

Tests of real hosts and processes wait on clocks: they stay on one worker, one after the other, as without xdist. All
others go file by file to whichever worker is free, so what a module has set up is set up once.
"""

import signal

import pytest
from nodes import Nodes, running_nodes


def pytest_configure() -> None:
    """Have Ctrl-C work in what tests start: a shell that runs ``make test`` in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each test into the group that runs on one worker."""
    if not config.pluginmanager.has_plugin("xdist"):
        return
    for item in items:
        group = "net" if item.get_closest_marker("net") else item.path.relative_to(config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def nodes(tmp_path) -> Nodes:
    """Start real nodes: ``a, b = nodes.mesh(lenders=1)``; they end with the test."""
    with running_nodes(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def module_nodes(tmp_path_factory) -> Nodes:
    """As ``nodes``, for all tests of a module."""
    with running_nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started
