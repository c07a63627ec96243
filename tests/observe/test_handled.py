# SPDX-License-Identifier: Apache-2.0
"""The line that shows which pod got a request, compared with one that GIE v0.5 printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from epp.contract.decision import Decision
from epp.contract.endpoints import Endpoint, Endpoints
from epp.observe.decision.handled import RequestLog, criticality, endpoint_text, go_map
from epp.observe.log.logs import VERBOSE, Log

SEED_LINE = (
    '{"level":"Level(-2)","ts":"2025-09-19T08:52:53Z","caller":"requestcontrol/director.go:251","msg":"Request handled",'
    '"x-request-id":"4a3f6247-d02f-4a57-9a90-9b25b2daa18c","model":"Qwen/Qwen2.5-0.5B-Instruct",'
    '"resolvedTargetModel":"Qwen/Qwen2.5-0.5B-Instruct","criticality":"Critical","model":"Qwen/Qwen2.5-0.5B-Instruct",'
    '"targetModel":"Qwen/Qwen2.5-0.5B-Instruct",'
    '"endpoint":"{NamespacedName:kserve-test/qwen-instruct-kserve-6899dd5fb8-tqwn8 Address:10.244.1.234 '
    "Labels:map[app.kubernetes.io/component:llminferenceservice-workload app.kubernetes.io/name:qwen-instruct "
    "app.kubernetes.io/part-of:llminferenceservice kserve.io/component:workload llm-d.ai/role:both "
    'pod-template-hash:6899dd5fb8]}"}'
)
SCORES = {"prefix-cache-scorer": (2.0, [0.75, 0.0]), "load-aware-scorer": (1.0, [0.5, 0.4])}


def test_the_line_shows_what_the_seed_shows(
    make_log: Callable[..., Log], stream: Any, decide: Callable[..., Decision]
) -> None:
    log = make_log()
    RequestLog(log).handled(decide(SCORES), priority=0)
    log.flush()
    ours: dict[str, Any] = json.loads(stream.text)
    seed: dict[str, str] = json.loads(SEED_LINE)
    assert list(ours) == [*seed, "why"], "the same fields in the same order, then ours"
    assert ours["level"] == "info"
    assert ours["caller"] == "director"
    for name in set(seed) - {"level", "caller"}:
        assert ours[name] == seed[name], name


def test_the_line_says_why(make_log: Callable[..., Log], stream: Any, decide: Callable[..., Decision]) -> None:
    log = make_log(verbosity=VERBOSE)
    decision = decide(SCORES)
    RequestLog(log).handled(decision)
    log.flush()
    record = stream.records()[0]
    assert record["decision"] == decision.as_dict()
    assert record["why"] == decision.explain()
    assert record["decision"]["profiles"][0]["picked"]["scores"]["prefix-cache-scorer"]["weighted"] == 1.5


@pytest.mark.parametrize(
    ("priority", "word"), [(10, "Critical"), (1, "Critical"), (0, "Critical"), (-1, "Sheddable"), (-10, "Sheddable")]
)
def test_criticality_of_a_priority(priority: int, word: str) -> None:
    assert criticality(priority) == word


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "map[]"),
        ({"b": "2", "a": "1"}, "map[a:1 b:2]"),
        ({"k": ""}, "map[k:]"),
        ({"B": "x", "a": "y"}, "map[B:x a:y]"),
    ],
)
def test_go_prints_maps_sorted(values: Mapping[str, str], text: str) -> None:
    assert go_map(values) == text


def test_the_address_is_the_ip_alone() -> None:
    endpoint = Endpoint("default", "127.0.1.1-8000", "fd00::1", 8000)
    assert endpoint_text(endpoint) == "{NamespacedName:default/127.0.1.1-8000 Address:fd00::1 Labels:map[]}"


def test_a_row_that_is_used_again_shows_the_new_endpoint(
    make_log: Callable[..., Log],
    stream: Any,
    decide: Callable[..., Decision],
    endpoints: Callable[..., Endpoints],
) -> None:
    log = make_log()
    request_log = RequestLog(log)
    candidates = endpoints(1)
    request_log.handled(decide(endpoints=candidates))
    candidates.columns.replace_endpoints((Endpoint("ns", "successor", "10.0.0.9", 8000, row=0, generation=1),))
    request_log.handled(decide(endpoints=Endpoints(candidates.columns, candidates.rows, 0.0)))
    request_log.handled(decide(endpoints=candidates))
    log.flush()
    names = [record["endpoint"].split(" ")[0].rpartition("/")[2] for record in stream.records()]
    first = "qwen-instruct-kserve-6899dd5fb8-tqwn8"
    assert names == [first, "successor", first]


def test_nothing_is_described_when_the_level_is_off(
    make_log: Callable[..., Log], stream: Any, decide: Callable[..., Decision]
) -> None:
    log = make_log(verbosity=1)
    RequestLog(log).handled(decide(SCORES))
    log.flush()
    assert stream.text == ""
