"""Cutting what arrives in any pieces back into what was meant."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.client import api, futures
from depin_node.client.parts import Part, Piece
from depin_node.core import errors
from depin_node.core.local import NotRunningError
from depin_node.core.views import ErrorView


def cut(data, places):
    bounds = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return iter([data[a:b] for a, b in pairwise(bounds)])


@given(st.lists(st.binary(max_size=20), max_size=10), st.lists(st.integers(0, 200), max_size=10))
def test_results_come_out_as_they_went_in_however_they_were_cut(results, places):
    parts = cut(b"".join(results), places)
    assert [bytes(part) for part in futures._resized(parts, [len(result) for result in results])] == results


@given(st.binary(min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=3), st.sampled_from([-1, 1]))
def test_a_result_of_another_length_is_an_error(data, places, difference):
    with pytest.raises(errors.TransportError):
        list(futures._resized(cut(data, places), [len(data) + difference]))


@given(st.lists(st.sampled_from([b'{"a":1}', b"", b'{"text":"\\n"}']), max_size=6), st.lists(st.integers(0, 100)))
def test_events_come_out_as_they_went_in_however_they_were_cut(events, places):
    stream = b"".join(b"data: " + event + b"\n\n" if event else b": still here\n\n" for event in events)
    assert list(api._events(cut(stream, places))) == events


def test_an_event_without_end_is_an_error(monkeypatch):
    monkeypatch.setattr(api, "EVENT_BYTES_MAX", 1000)
    with pytest.raises(errors.TransportError, match="without end"):
        list(api._events(iter([b"x" * 600, b"x" * 600])))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("config", errors.ConfigError),
        ("not_found", errors.NotFoundError),
        ("trapped", errors.TaskTrapped),
        ("resource", errors.ResourceError),
        ("not_running", NotRunningError),
        ("from another version", errors.DepinError),
    ],
)
def test_errors_of_the_node_are_raised_as_what_they_were(code, kind):
    assert api.error_for(code) is kind


@pytest.mark.parametrize(
    ("code", "message", "kind", "says"),
    [
        ("violation", "Job: malformed (…)", errors.ConfigError, "on /d does not understand this (Job: malformed (…))"),
        ("not_found", "Not Found", errors.ConfigError, "of another version of depin-node than this command"),
        ("not_found", "there is no job 3fa9", errors.NotFoundError, "there is no job 3fa9"),
    ],
)
def test_a_node_that_does_not_understand_may_be_of_another_version(code, message, kind, says):
    error = api.error_of(ErrorView(code, message), Path("/d"))
    assert type(error) is kind
    assert says in str(error)


def test_a_part_is_shown_without_its_numbers():
    part = Part(3, {"y": [Piece((slice(0, 512), slice(8, 16)), np.zeros((512, 8), np.float32))]})
    piece = "<Piece [0:512, 8:16]: float32 (512, 8)>"
    assert repr(part) == f"Part(task=3, outputs={{'y': [{piece}]}}, is_provisional=False)"
