import pytest
from nodes import Nodes, running_nodes


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
