# SPDX-License-Identifier: Apache-2.0
"""The pool's gauges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epp.contract.endpoints import Columns, Endpoint, Endpoints
from epp.observe.metrics.pool import PoolCollector


def gauges(columns: Columns, now_s: float = 100.0) -> dict[str, float]:
    """Value by family (newest name) and, for endpoints, label."""
    values: dict[str, float] = {}
    for family, rows in PoolCollector(lambda: columns, lambda: now_s, 2.0, "pool").families():
        for labels, value in rows:
            assert labels["name"] == "pool"
            assert isinstance(value, int | float)
            name = family.names[0].name.removeprefix("llm_d_epp_")
            endpoint = labels.get("model_server_endpoint")
            values[name if endpoint is None else f"{name}/{endpoint}"] = value
    return values


def make_columns(*endpoints: Endpoint | None) -> Columns:
    columns = Columns(len(endpoints))
    columns.replace_endpoints(endpoints)
    columns.scraped_at_s[:] = 99.0
    return columns


def pod(name: str, namespace: str = "ns") -> Endpoint:
    return Endpoint(namespace, name, "10.0.0.1", 8000)


def test_means_and_deviations_over_fresh_endpoints() -> None:
    columns = make_columns(pod("a"), pod("b"), pod("stale"), None, pod("never"))
    columns.scraped_at_s[:] = [98.0, 99.5, 97.9, 99.9, -np.inf]
    columns.waiting[:] = [1.0, 4.0, 100.0, 100.0, 100.0]
    columns.running[:] = [10.0, 10.0, 100.0, 100.0, 100.0]
    columns.kv_utilization[:] = [0.111, 0.222, 1.0, 1.0, 1.0]
    # What was sent counts whatever is known of the endpoint, as long as it is there.
    columns.in_flight_requests[:] = [1.0, 0.0, 3.0, 9.0, 1.0]
    columns.in_flight_tokens[:] = [10.0, 0.0, 50.0, 90.0, 10.0]
    assert gauges(columns) == {
        "average_kv_cache_utilization": 0.17,
        "std_dev_kv_cache_utilization": 0.06,
        "average_queue_size": 2.5,
        "std_dev_queue_size": 1.5,
        "average_running_requests": 10.0,
        "std_dev_running_requests": 0.0,
        "ready_endpoints": 2,
        "epp_in_flight_requests": 5.0,
        "epp_in_flight_tokens": 70.0,
        "per_endpoint_queue_size/a": 1.0,
        "per_endpoint_queue_size/b": 4.0,
    }


def test_endpoints_that_must_not_be_chosen_count_for_nothing_but_what_is_in_flight() -> None:
    columns = make_columns(pod("a"), pod("b"))
    columns.replace_endpoints(columns.endpoints, frozenset({1}))
    columns.waiting[:] = [1.0, 100.0]
    columns.in_flight_requests[:] = [1.0, 2.0]
    values = gauges(columns)
    assert (values["ready_endpoints"], values["average_queue_size"], values["epp_in_flight_requests"]) == (1, 1.0, 3.0)
    assert {name for name in values if "/" in name} == {"per_endpoint_queue_size/a"}


@pytest.mark.parametrize("columns", [Columns(4), make_columns(), make_columns(None, None)])
def test_an_empty_pool_shows_zeros(columns: Columns) -> None:
    values = gauges(columns)
    assert len(values) == 9
    assert set(values.values()) == {0.0}


def test_equal_names_in_two_namespaces_stay_apart() -> None:
    values = gauges(make_columns(pod("a", "x"), pod("a", "y"), pod("b", "y")))
    assert {name for name in values if "/" in name} == {
        "per_endpoint_queue_size/x/a",
        "per_endpoint_queue_size/y/a",
        "per_endpoint_queue_size/b",
    }


def test_columns_that_grow_are_read_anew(endpoints: Callable[..., Endpoints]) -> None:
    columns = endpoints(2).columns
    columns.grow(8)
    columns.scraped_at_s[:2] = 100.0
    assert gauges(columns)["ready_endpoints"] == 2
