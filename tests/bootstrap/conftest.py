"""What tests of the shells share."""

import threading

import pytest

from depin_node.compute.programs import validation


@pytest.fixture
def readers(monkeypatch):
    """The threads in which programs are read. Not the one that serves peers: a stranger's can take seconds."""
    threads = []
    validate = validation.validate

    def seen(program):
        threads.append(threading.current_thread())
        validate(program)

    monkeypatch.setattr(validation, "validate", seen)
    return threads
