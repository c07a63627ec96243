# SPDX-License-Identifier: Apache-2.0
"""The helpers for plugin authors: they make what the service would, and say so when they cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from epp.api import Endpoints, InferenceRequest, PluginContext, scorer
from epp.testing import FakeClock, RecordingMeter, make_context, make_endpoints, make_plugin, make_request


def test_columns_hold_what_was_given_in_order() -> None:
    endpoints = make_endpoints(
        waiting=[1, 2, 3],
        running=7,
        kv_utilization=(0.1, 0.2, 0.3),
        block_size_tokens=16,
        num_blocks=[100, 200, 300],
        in_flight_requests=np.array([4.0, 5.0, 6.0]),
        in_flight_tokens=[10, 20, 30],
        age_s=[0.05, 2, math.inf],
        labels=[{"a": "x"}, {}, {"a": "y"}],
    )
    assert len(endpoints) == 3
    assert endpoints.waiting.tolist() == [1, 2, 3]
    assert endpoints.running.tolist() == [7, 7, 7]
    assert endpoints.kv_utilization.tolist() == [0.1, 0.2, 0.3]
    assert endpoints.block_size_tokens.tolist() == [16, 16, 16]
    assert endpoints.num_blocks.tolist() == [100, 200, 300]
    assert endpoints.in_flight_requests.tolist() == [4, 5, 6]
    assert endpoints.in_flight_tokens.tolist() == [10, 20, 30]
    np.testing.assert_allclose(endpoints.age_s, [0.05, 2, math.inf])
    assert endpoints.label("a").tolist() == ["x", None, "y"]


def test_identities_are_distinct_and_know_their_rows() -> None:
    endpoints = make_endpoints(600)
    listed = list(endpoints)
    assert [endpoint.name for endpoint in listed[:2]] == ["pod-0", "pod-1"]
    assert len({endpoint.address for endpoint in listed}) == 600
    assert [endpoint.row for endpoint in listed] == endpoints.rows.tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_row_equals_its_position_in_a_dense_table(count: int) -> None:
    endpoints = make_endpoints(count, waiting=3)
    assert endpoints.rows.tolist() != list(range(count))
    # A plugin that reads a column by position instead of by row does not see the values.
    assert endpoints.columns.waiting[:count].tolist() != endpoints.waiting.tolist()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "how many endpoints? give a count or a list of values"),
        ({"waiting": 3}, "how many endpoints? give a count or a list of values"),
        ({"waiting": [1, 2], "running": [1]}, "lists differ in length: waiting 2, running 1"),
        ({"count": 3, "labels": [{}]}, "lists differ in length: labels 1, count 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        make_endpoints(**arguments)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        ("", (), 0),
        ("abcd", (b"abcd",), 1),
        ("abcde", (b"abcde\0\0\0",), 2),
        ("é", ("é".encode() + b"\0\0",), 1),
        ([1, 2**32 - 1], (b"\x01\0\0\0\xff\xff\xff\xff",), 2),
    ],
)
def test_request_prompt(prompt: str | list[int], prompts: tuple[bytes, ...], tokens: int) -> None:
    request = make_request(prompt)
    assert request.prompts == prompts
    assert request.prompt_tokens == tokens


def test_request_fields() -> None:
    request = make_request("Hi", model="base", headers={"X-Team": "a"}, priority=3)
    assert (request.model, request.target_model, request.priority) == ("base", "base", 3)
    assert request.headers == {"x-team": "a"}
    assert make_request(model="base", target_model="adapter").target_model == "adapter"


def test_fake_clock() -> None:
    clock = FakeClock(5.0)
    clock.advance(0.25)
    assert clock() == 5.25
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_context_is_seeded() -> None:
    clock = FakeClock()
    context = make_context("mine", seed=3, clock=clock)
    assert (context.name, context.clock) == ("mine", clock)
    assert context.rng.random() == make_context(seed=3).rng.random() != make_context(seed=4).rng.random()


def test_a_meter_keeps_what_is_counted() -> None:
    meter = RecordingMeter()
    counter = make_context(meter=meter).meter.counter("mine", "", ("who",))
    counter.add(("a",))
    make_context(meter=meter).meter.counter("mine", "", ("who",)).add(("a",), 2.5)
    assert meter.counted == {"mine": {("a",): 3.5}}
    with pytest.raises(ValueError, match="has the labels"):
        meter.counter("mine", "", ())
    with pytest.raises(ValueError, match="has the labels"):
        counter.add(("a", "b"))
    with pytest.raises(ValueError, match="grows"):
        counter.add(("a",), -1)
    assert make_context().meter.counter("mine", "", ()) is not counter


@scorer("takes-context")
class TakesContext:
    """A plugin without parameters that wants its context."""

    def __init__(self, context: PluginContext) -> None:
        self.name = context.name

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> Any:
        return np.zeros(len(endpoints))


def test_make_plugin_gives_the_context() -> None:
    assert make_plugin(TakesContext).name == "takes-context"
    assert make_plugin(TakesContext, context=make_context("mine")).name == "mine"


def test_make_plugin_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="is no plugin: put @scorer"):
        make_plugin(FakeClock)
    with pytest.raises(TypeError, match=r"^takes-context takes no parameters, got speed$"):
        make_plugin(TakesContext, speed=3)
