# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request: named and routed anew, refused, or answered."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc import BodyMode, End, HttpRequest, Immediate
from tests.extproc import messages
from tests.gateway.exchanges import Bench
from tests.gateway.test_naming import FILE, TYPE, form

CHAT = b'{"model": "pooled", "messages": [{"role": "user", "content": "hi"}]}'


def chat(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **more}).encode()


def test_a_pools_request_gets_its_header_and_the_stream_ends() -> None:
    stream = Bench().ask(CHAT)
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    assert stream.removed == []
    assert stream.body == CHAT
    assert stream.exchange.finished


def test_a_backends_request_goes_on_and_its_answer_is_asked_for_plain() -> None:
    stream = Bench().ask(chat("plain"), accept_encoding="gzip")
    assert stream.set_headers == {"x-ai-eg-model": "plain"}
    assert stream.removed == ["accept-encoding"]
    assert not stream.exchange.finished


def test_a_clients_copy_of_the_header_is_overwritten() -> None:
    bench = Bench()
    for _ in range(2):
        assert bench.ask(CHAT, x_ai_eg_model="plain").set_headers == {"x-ai-eg-model": "pooled"}


def test_an_unknown_model_is_envoys_to_refuse() -> None:
    bench = Bench()
    stream = bench.ask(chat("modèle"))
    assert stream.set_headers == {"x-ai-eg-model": "modèle"}
    assert stream.exchange.finished
    assert 'epp_gateway_requests_total{model="other",outcome="passed"} 1' in bench.page()


def test_models_are_those_of_the_listener() -> None:
    bench = Bench()
    assert not bench.ask(CHAT, listener="8080").exchange.finished
    assert not bench.ask(chat("any"), listener="8080").exchange.finished
    # Of all listeners the first one's entry, but any name that may lead to a backend is counted.
    for listener in (None, "81"):
        assert bench.ask(CHAT, listener=listener).exchange.finished
        assert not bench.ask(chat("any"), listener=listener).exchange.finished


@given(st.lists(st.integers(0, len(CHAT)), max_size=6))
def test_however_the_body_is_cut(cuts: list[int]) -> None:
    stream = Bench().stream()
    stream.head("/v1/chat/completions")
    edges = [0, *sorted(cuts), len(CHAT)]
    for start, stop in itertools.pairwise(edges):
        stream.send(messages.body(CHAT[start:stop], False))
    stream.send(messages.body(b"", True))
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    assert stream.body == CHAT
    assert stream.exchange.finished


def test_a_body_that_ends_with_trailers() -> None:
    stream = Bench().stream()
    stream.head("/v1/chat/completions")
    stream.send(messages.body(CHAT, False))
    stream.send(messages.trailers())
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    assert messages.kinds([reply.SerializeToString() for reply in stream.replied])[-1] == "request_trailers"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions?x=1", b'{"model":"pooled","prompt":"a"}'),
        ("/v1/embeddings", b'{"model":"pooled","input":["a"]}'),
        ("/v1/responses", b'{"model":"pooled","input":"a"}'),
        ("/v1/messages", b'{"model":"pooled","messages":[]}'),
        ("/v1/messages/count_tokens", b'{"model":"pooled","messages":[]}'),
        ("/v1/rerank", b'{"model":"pooled"}'),
        ("/v1/score", b'{"model":"pooled"}'),
        ("/tokenize", b'{"model":"pooled","prompt":"a"}'),
        ("/v1/images/generations", b'{"model":"pooled","prompt":"a"}'),
    ],
)
def test_every_api(path: str, body: bytes) -> None:
    assert Bench().ask(body, path).set_headers == {"x-ai-eg-model": "pooled"}


def test_forms() -> None:
    stream = Bench().ask(form(FILE, ('name="model"', b"pooled")), "/v1/audio/transcriptions", content_type=TYPE)
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}


def test_a_compressed_body_is_read_and_passed_on_as_it_is() -> None:
    packed = gzip.compress(CHAT)
    stream = Bench().ask(packed, content_encoding="gzip")
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    assert stream.body == packed


def test_a_compressed_stream_to_a_pool_goes_on_plain_so_that_its_picker_can_ask_for_the_usage() -> None:
    plain = chat("pooled", stream=True)
    stream = Bench().ask(gzip.compress(plain), content_encoding="gzip")
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    assert stream.body == plain
    asked = gzip.compress(chat("pooled", stream=True, stream_options={"include_usage": True}))
    assert Bench().ask(asked, content_encoding="gzip").body == asked


async def test_a_long_compressed_body_is_inflated_in_a_thread() -> None:
    bench = Bench()
    long = gzip.compress(b'{"model": "pooled"' + b" " * 70_000 + b"}", compresslevel=0)
    stream = bench.ask(long, content_encoding="gzip")
    assert stream.exchange.awaiting is not None
    stream.replied += messages.decoded(stream.exchange.decided(await stream.exchange.awaiting))
    assert stream.set_headers == {"x-ai-eg-model": "pooled"}
    stream = bench.ask(b"x" * 70_000, content_encoding="gzip")
    assert stream.exchange.awaiting is not None
    stream.replied += messages.decoded(stream.exchange.decided(await stream.exchange.awaiting))
    assert stream.immediate[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/nothing", CHAT, {}, 404, "path_unknown"),
        ("/", CHAT, {}, 404, "path_unknown"),
        ("/v1/load_lora_adapter", CHAT, {}, 404, "path_unknown"),
        ("/v1/models", CHAT, {}, 405, "method_not_allowed"),
        ("/v1/chat/completions", b"", {}, 400, "body_missing"),
        ("/v1/chat/completions", b"{", {}, 400, "invalid_json"),
        ("/v1/chat/completions", b'{"messages": []}', {}, 400, "model_missing"),
        ("/v1/chat/completions", b'{"model": ""}', {}, 400, "model_missing"),
        ("/v1/chat/completions", b'{"model": "a\\nb"}', {}, 400, "model_invalid"),
        ("/v1/chat/completions", b"\x1f\x8b junk", {"content_encoding": "gzip"}, 400, "encoding_invalid"),
        ("/v1/chat/completions", CHAT, {"content_encoding": "br"}, 415, "encoding_invalid"),
        ("/v1/chat/completions", gzip.compress(b" " * 200_000), {"content_encoding": "gzip"}, 413, "body_too_large"),
        ("/v1/audio/transcriptions", b"{}", {"content_type": "application/json"}, 400, "invalid_form"),
        ("/v1/audio/transcriptions", form(FILE), {"content_type": TYPE}, 400, "model_missing"),
    ],
)
def test_refusals(path: str, body: bytes, headers: dict[str, str], status: int, code: str) -> None:
    bench = Bench()
    told, document, sent = bench.ask(body, path, **headers).immediate
    assert (told, document["error"]["code"]) == (status, code)
    assert document["error"]["type"] == "invalid_request_error"
    assert document["error"]["message"]
    assert sent["content-type"] == "application/json"
    page = bench.page()
    assert f'epp_gateway_refused_total{{reason="{code}"}} 1' in page
    assert 'epp_gateway_requests_total{model="other",outcome="refused"} 1' in page
    assert "epp_gateway_streams_open 0" in page


def test_anthropics_errors_have_anthropics_shape() -> None:
    status, document, _ = Bench().ask(b"{}", "/v1/messages").immediate
    assert (status, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")
    assert set(document["error"]) == {"type", "message"}
    assert Bench().ask(b"{}", "/v1/messages/batches").immediate[1]["error"]["type"] == "not_found_error"


def test_a_body_over_the_limit_is_refused_before_its_end() -> None:
    stream = Bench().stream()
    stream.head("/v1/chat/completions")
    for _ in range(3):
        stream.send(messages.body(b" " * 40_000, False))
    status, document, _ = stream.immediate
    assert (status, document["error"]["code"]) == (413, "body_too_large")
    assert stream.exchange.finished


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods(method: str) -> None:
    stream = Bench().stream()
    stream.head("/v1/chat/completions", method, end=True)
    status, document, headers = stream.immediate
    assert (status, document["error"]["code"], headers["allow"]) == (405, "method_not_allowed", "POST")


def test_a_mode_that_shows_no_body() -> None:
    stream = Bench().stream()
    pairs = ((":method", "POST"), (":path", "/v1/completions"))
    stream.send(messages.headers(*pairs, mode=BodyMode.STREAMED))
    status, document, _ = stream.immediate
    assert (status, document["error"]["code"]) == (500, "body_not_shown")


def get(bench: Bench, path: str, listener: str | None = "80") -> tuple[int, dict[str, Any]]:
    stream = bench.stream(listener)
    stream.head(path, "GET", end=True)
    return stream.immediate[:2]


def test_the_list_of_models() -> None:
    bench = Bench()
    status, document = get(bench, "/v1/models")
    assert (status, document["object"]) == (200, "list")
    assert [model["id"] for model in document["data"]] == ["pooled", "plain", "asks", "hides/it"]
    assert document["data"][0] == {"id": "pooled", "object": "model", "created": 0, "owned_by": "epp"}
    assert [model["id"] for model in get(bench, "/v1/models?limit=1", "8080")[1]["data"]] == ["pooled"]
    assert 'outcome="answered"} 2' in bench.page()


def test_one_model() -> None:
    bench = Bench()
    assert get(bench, "/v1/models/hides/it") == (
        200, {"id": "hides/it", "object": "model", "created": 0, "owned_by": "epp"}
    )  # fmt: skip
    assert get(bench, "/v1/models/hides%2Fit")[0] == 200
    status, document = get(bench, "/v1/models/nobody")
    assert (status, document["error"]["code"]) == (404, "model_not_found")


def test_a_path_that_is_no_utf_8_is_refused_in_words() -> None:
    passage = Bench().stream().handler
    http = HttpRequest({":method": "POST", ":path": "/v1/\udcff"}, CHAT, True, BodyMode.FULL_DUPLEX_STREAMED, {})
    answer = passage.request(http)
    assert isinstance(answer, Immediate)
    assert (answer.status, "/v1/?" in json.loads(answer.body)["error"]["message"]) == (404, True)


def test_a_line_for_each_refused_request_at_a_limited_rate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "epp.gateway")
    bench = Bench()
    for _ in range(30):
        bench.ask(b'{"secret": 1}', "/v1/completions?key=hidden", authorization="Bearer hidden", x_request_id="r-1")
    assert len(caplog.records) == 10
    bench.clock.advance(1.0)
    bench.ask(b"{}", "/v1/completions")
    fields = caplog.records[-1].fields  # type: ignore[attr-defined]
    assert fields["lines_left_out"] == 20
    first = caplog.records[0]
    assert first.fields == {  # type: ignore[attr-defined]
        "status": 400, "reason": "model_missing", "path": "/v1/completions", "x-request-id": "r-1"
    }  # fmt: skip
    assert "hidden" not in str(vars(first))
    assert "secret" not in str(vars(first))


def test_a_new_configuration_holds_for_new_requests() -> None:
    from epp.gateway.models import Served
    from tests.gateway.exchanges import config

    bench = Bench()
    old = bench.stream()
    old.head("/v1/chat/completions")
    bench.gate.served = Served(config(pathPrefixes=["/new"]), bench.meter)
    old.send(messages.body(CHAT, True))
    assert old.set_headers == {"x-ai-eg-model": "pooled"}
    assert bench.ask(CHAT).immediate[0] == 404
    assert bench.ask(CHAT, "/new/v1/chat/completions").set_headers == {"x-ai-eg-model": "pooled"}


def test_what_fails_within_is_one_500(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_body: bytes) -> str:
        raise RuntimeError("defect")

    monkeypatch.setattr("epp.gateway.handler.model_in_json", broken)
    status, document, _ = Bench().ask(CHAT).immediate
    assert (status, document["error"]["type"], document["error"]["code"]) == (500, "server_error", "internal")
    assert "defect" in caplog.text


def test_every_end_is_counted_once() -> None:
    bench = Bench()
    gone = bench.stream()
    gone.head("/v1/chat/completions")
    assert "epp_gateway_streams_open 1" in bench.page()
    gone.exchange.close(End.GONE)
    waiting = bench.ask(chat("plain"))
    waiting.exchange.close(End.GONE)
    bench.ask(chat("plain")).answer(b"{}", status="500")
    bench.ask(chat("plain")).answer(b"{}")
    page = bench.page()
    for model, outcome in (("other", "aborted"), ("plain", "aborted"), ("plain", "failed"), ("plain", "complete")):
        assert f'epp_gateway_requests_total{{model="{model}",outcome="{outcome}"}} 1' in page
    assert "epp_gateway_streams_open 0" in page
