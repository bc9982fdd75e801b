"""A process takes as many descriptors as it may have, and never fewer than it has."""

import resource

import pytest

from depin_node.core.descriptors import WANTED, allow_more


@pytest.fixture
def hard():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_is_raised_as_far_as_is_allowed_and_never_lowered(hard):
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    allow_more()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(WANTED, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    allow_more()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
