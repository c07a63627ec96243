# SPDX-License-Identifier: Apache-2.0
"""What an answer costs, and what the client sees of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.plugins.costs.llm_request_costs import LlmRequestCosts
from tests.extproc import messages
from tests.gateway.exchanges import Bench, Stream

USAGE = {"prompt_tokens": 24, "completion_tokens": 178, "total_tokens": 202}
ANSWER = json.dumps({"object": "chat.completion", "choices": [{"message": {"content": "x"}}], "usage": USAGE}).encode()
COSTS = {"io.envoy.ai_gateway": {"llm_input_token": 24.0, "llm_output_token": 178.0, "llm_total_token": 202.0}}
SSE = "text/event-stream"


def chat(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **more}).encode()


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


WORDS = b"".join(event(choices=[{"delta": {"content": word}}]) for word in ("a", "b", "c"))
LAST = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def asked(model: str = "plain", bench: Bench | None = None, **more: Any) -> Stream:
    return (bench or Bench()).ask(chat(model, **more), x_user_id="alice")


def test_a_json_answer() -> None:
    bench = Bench()
    stream = asked(bench=bench)
    assert stream.answer(ANSWER[:50], ANSWER[50:]) == ANSWER
    assert stream.metadata == COSTS
    page = bench.page()
    assert 'epp_llm_tokens_total{model="plain",tenant="alice",type="input"} 24' in page
    assert 'epp_llm_tokens_total{model="plain",tenant="alice",type="output"} 178' in page


def test_metadata_comes_with_the_last_piece_alone() -> None:
    stream = asked(stream=True)
    stream.answer(WORDS, LAST, DONE, kind=SSE)
    assert [reply.HasField("dynamic_metadata") for reply in stream.replied[-3:]] == [False, False, True]
    assert stream.metadata == COSTS


def test_anthropic() -> None:
    stream = Bench().ask(chat("plain"), "/v1/messages")
    stream.answer(json.dumps({"type": "message", "usage": {"input_tokens": 3, "output_tokens": 4}}).encode())
    values = {"llm_input_token": 3.0, "llm_output_token": 4.0, "llm_total_token": 7.0}
    assert stream.metadata == {"io.envoy.ai_gateway": values}


@pytest.mark.parametrize("status", ["400", "404", "500", "503"])
def test_no_costs_for_errors(status: str) -> None:
    stream = asked()
    stream.answer(ANSWER, status=status)
    assert stream.metadata == {}


def test_no_costs_where_the_answer_tells_none() -> None:
    bench = Bench()
    stream = asked(bench=bench)
    stream.answer(b'{"choices": []}')
    assert stream.metadata == {}
    assert 'epp_llm_answers_without_usage_total{model="plain"} 1' in bench.page()


def test_paths_that_tell_no_usage_are_not_missed() -> None:
    bench = Bench()
    stream = bench.ask(b'{"model": "plain", "prompt": "a"}', "/tokenize")
    stream.answer(b'{"tokens": [1]}')
    assert stream.metadata == {}
    assert "epp_llm_answers_without_usage_total{" not in bench.page()


def test_costs_come_with_trailers() -> None:
    stream = asked()
    message = messages.ProcessingRequest.FromString(messages.response_headers())
    message.response_headers.headers.headers.add(key="content-type", raw_value=b"application/json")
    stream.send(message.SerializeToString())
    stream.send(messages.response_body(ANSWER, False))
    assert stream.metadata == {}
    stream.send(messages.response_trailers())
    assert stream.metadata == COSTS


@pytest.mark.parametrize(
    ("model", "more", "asks"),
    [
        ("plain", {"stream": True}, False),
        ("pooled", {"stream": True}, False),
        ("asks", {"stream": True}, True),
        ("hides/it", {"stream": True}, True),
        ("asks", {}, False),
        ("asks", {"stream": True, "stream_options": {"include_usage": True}}, False),
    ],
)
def test_who_is_made_to_tell(model: str, more: dict[str, Any], asks: bool) -> None:
    before = chat(model, **more)
    after = Bench().ask(before).body
    if not asks:
        assert after == before
    else:
        assert json.loads(after) == {**json.loads(before), "stream_options": {"include_usage": True}}


def test_a_compressed_request_that_is_made_to_tell_goes_on_plain() -> None:
    import gzip

    stream = Bench().ask(gzip.compress(chat("asks", stream=True)), content_encoding="gzip")
    assert json.loads(stream.body)["stream_options"] == {"include_usage": True}
    assert stream.removed == ["accept-encoding", "content-encoding"]


def test_on_shows_the_usage_to_the_client() -> None:
    stream = asked("asks", stream=True)
    assert stream.answer(WORDS, LAST, DONE, kind=SSE) == WORDS + LAST + DONE
    assert stream.metadata == COSTS


@given(st.lists(st.integers(0, len(WORDS + LAST + DONE)), max_size=8))
def test_hidden_keeps_it_from_the_client_however_the_answer_is_cut(cuts: list[int]) -> None:
    whole = WORDS + LAST + DONE
    edges = [0, *sorted(cuts), len(whole)]
    stream = asked("hides/it", stream=True)
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(edges)]
    assert stream.answer(*pieces, kind=SSE) == WORDS + DONE
    assert stream.metadata == COSTS


def test_what_the_client_asked_for_is_not_hidden() -> None:
    stream = asked("hides/it", stream=True, stream_options={"include_usage": True})
    assert stream.answer(WORDS, LAST, DONE, kind=SSE) == WORDS + LAST + DONE


def test_an_error_to_a_stream_is_left_as_it_is() -> None:
    stream = asked("hides/it", stream=True)
    error = b'{"error": {"message": "no", "usage": {"prompt_tokens": 1}}}'
    assert stream.answer(error, status="400") == error
    assert stream.metadata == {}


def test_cel_sees_the_model_and_the_backend() -> None:
    pytest.importorskip("cel")
    costs = [{"metadataKey": "price", "type": "CEL", "cel": "model == 'm' && backend == 'b' ? input_tokens * 2u : 0u"}]
    entry = {"target": "backend", "name": "b", "counts": True, "costs": costs}
    bench = Bench(listeners={"80": {"models": {"m": entry}}}, metadataNamespace="ours")
    stream = bench.ask(chat("m"))
    stream.answer(ANSWER)
    assert stream.metadata == {"ours": {"price": 48.0}}


def test_a_defect_in_costs_never_breaks_an_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(LlmRequestCosts, "on_response_end", broken)
    stream = asked()
    assert stream.answer(ANSWER) == ANSWER
    assert stream.metadata == {}
    assert "defect" in caplog.text
