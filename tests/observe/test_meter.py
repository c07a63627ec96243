# SPDX-License-Identifier: Apache-2.0
"""The counters of plugins: bounded, exact in sum, and on a page that parses."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from epp.contract.errors import PluginError
from epp.contract.metering import Meter
from epp.observe.metrics.counts import RequestMetrics
from epp.observe.metrics.merged import MergedCollector
from epp.observe.metrics.meter import BoundedCounter, CountingMeter
from epp.observe.metrics.page import MetricsRegistry, page
from epp.observe.metrics.series import OTHER


def tokens(most_series: int = 1000, meter: CountingMeter | None = None) -> BoundedCounter:
    made = (meter or CountingMeter()).counter("my_tokens", "Help.", ("model", "tenant"), most_series=most_series)
    assert isinstance(made, BoundedCounter)
    return made


def values(counter: BoundedCounter) -> dict[tuple[str, ...], Any]:
    return {tuple(labels.values()): value for labels, value in counter.rows()}


def test_it_is_a_meter_and_shows_what_was_counted() -> None:
    meter: Meter = CountingMeter()
    counter = meter.counter("my_tokens", "Two\nlines.", ("model", "tenant"))
    counter.add(("llama", 'a"b\\c\n'), 24)
    counter.add(("llama", 'a"b\\c\n'), 1.5)
    counter.add(("qwen", ""))
    assert isinstance(meter, CountingMeter)
    body, _ = page(MetricsRegistry(meter), "")
    [family] = [one for one in text_string_to_metric_families(body.decode()) if one.name == "my_tokens"]
    assert family.type == "counter"
    assert {tuple(sample.labels.values()): sample.value for sample in family.samples} == {
        ("llama", 'a"b\\c\n'): 25.5, ("qwen", ""): 1.0,
    }  # fmt: skip
    assert "my_tokens_total{" in body.decode()


def test_a_counter_that_counted_nothing_is_not_on_the_page() -> None:
    meter = CountingMeter()
    tokens(meter=meter)
    assert b"my_tokens" not in page(MetricsRegistry(meter), "")[0]


def test_the_same_name_is_the_same_counter() -> None:
    meter = CountingMeter()
    first = tokens(10, meter)
    assert tokens(20, meter) is first
    assert first.most_series == 20
    assert tokens(5, meter).most_series == 20
    with pytest.raises(PluginError, match=r"has the labels \('model', 'tenant'\) already"):
        meter.counter("my_tokens", "", ("model",))


@pytest.mark.parametrize(
    ("name", "labels", "most", "told"),
    [
        ("my-tokens", (), 1, "not a name for a counter"),
        ("", (), 1, "not a name for a counter"),
        ("my_tokens_total", (), 1, "not a name for a counter"),
        ("epp_plugin_errors", (), 1, "shows something else by that name"),
        ("llm_d_epp_request_running", (), 1, "shows something else by that name"),
        ("process_files", (), 1, "shows something else by that name"),
        ("mine", ("a-b",), 1, "different names of letters"),
        ("mine", ("a", "a"), 1, "different names of letters"),
        ("mine", ("le",), 1, "different names of letters"),
        ("mine", ("pool",), 1, "different names of letters"),
        ("mine", ("__a",), 1, "different names of letters"),
        ("mine", ("a",), 0, "allowed: 1 and more"),
    ],
)
def test_what_cannot_be_a_counter(name: str, labels: tuple[str, ...], most: int, told: str) -> None:
    with pytest.raises(PluginError, match=told) as caught:
        CountingMeter().counter(name, "", labels, most_series=most)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("amount", [-1, -0.5, math.nan])
def test_counters_only_grow(amount: float) -> None:
    with pytest.raises(PluginError, match="only grow"):
        tokens().add(("a", "b"), amount)


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "c")])
def test_every_label_has_a_value(labels: tuple[str, ...]) -> None:
    with pytest.raises(PluginError, match="has the labels"):
        tokens().add(labels)


def test_the_first_nine_tenths_come_as_they_are_then_the_widest_label_is_other() -> None:
    counter = tokens(10)
    for number in range(9):
        counter.add(("llama", f"user-{number}"))
    assert set(values(counter)) == {("llama", f"user-{number}") for number in range(9)}
    for number in range(9, 20):
        counter.add(("llama", f"user-{number}"))
    counter.add(("llama", "user-3"), 5)
    shown = values(counter)
    assert len(shown) == 10
    assert shown[OTHER, OTHER] == 11
    assert shown["llama", "user-3"] == 6


def test_sums_over_the_narrow_labels_stay_right_while_there_is_room() -> None:
    counter = tokens(100)
    for number, model in itertools.product(range(200), ("llama", "qwen")):
        counter.add((model, f"user-{number}"))
    shown = values(counter)
    assert len(shown) <= 100
    for model in ("llama", "qwen"):
        assert shown[model, OTHER] > 0
        assert sum(value for labels, value in shown.items() if labels[0] == model) == 200


def test_what_is_no_fit_label_is_other() -> None:
    counter = tokens()
    counter.add(("llama", "x" * 257))
    counter.add(("llama", "\udcff"), 2)
    assert values(counter) == {("llama", OTHER): 3}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40).map(str), st.integers(0, 9)), max_size=300),
    st.integers(1, 30),
)
def test_whatever_comes_the_sum_is_right_and_the_bound_holds(added: list[tuple[str, str, int]], most: int) -> None:
    counter = tokens(most)
    for model, tenant, amount in added:
        counter.add((model, tenant), amount)
    shown = values(counter)
    assert len(shown) <= most
    assert sum(shown.values()) == sum(amount for _, _, amount in added)


def test_without_labels() -> None:
    counter = CountingMeter().counter("mine", "", (), most_series=1)
    counter.add(())
    counter.add((), 2)
    assert counter.rows() == [({}, 3.0)]


def test_many_pools_on_one_page() -> None:
    meters = {"a/x": CountingMeter(), "b/y": CountingMeter()}
    for meter in meters.values():
        tokens(meter=meter).add(("llama", "alice"), 3)
    merged = MergedCollector(lambda: [(pool, [meter]) for pool, meter in meters.items()])
    body = page(MetricsRegistry(RequestMetrics(), merged), "")[0].decode()
    assert 'my_tokens_total{model="llama",tenant="alice",pool="a/x"} 3.0' in body
    assert 'my_tokens_total{model="llama",tenant="alice",pool="b/y"} 3.0' in body


def test_reading_while_counting() -> None:
    meter = CountingMeter()
    counter, stop, failures = tokens(5000, meter), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                page(MetricsRegistry(meter), "")
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        counter.add(("llama", f"user-{number}"))
    stop.set()
    reader.join()
    assert failures == []
    assert sum(values(counter).values()) == 20_000
