# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: one clear line that names the thing and the remedy, never a traceback, nothing else disturbed."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import time
import zlib
from collections.abc import Iterator

import pytest

from tests.e2e.client import Answer, chat, get, post
from tests.e2e.pod import ANSWER
from tests.e2e.stack import SEED_YAML, Stack, envoy, pods, serving, stack

pytestmark = pytest.mark.envoy

MIB = 1024 * 1024
MODES = ("FULL_DUPLEX_STREAMED", "BUFFERED")


@pytest.fixture(scope="module", params=MODES)
def running(request: pytest.FixtureRequest) -> Iterator[Stack]:
    config = {"request_body_mode": request.param, "response_body_mode": request.param}
    if request.param == "BUFFERED":
        config["buffer_bytes"] = 32 * MIB
    with stack("--config-text", SEED_YAML, **config) as started:
        yield started


def refused(answer: Answer, status: int, text: str) -> None:
    """`answer` is the envelope with `text` in its one line."""
    assert answer.status == status, answer
    [line] = answer.body.decode().splitlines()
    assert line.startswith("inference error: ")
    assert text in line


BAD_BODIES = {
    "not JSON": (b"hello", "BadRequest - error unmarshaling request bodyMap"),
    "cut off": (b'{"model": "m", "messages": [', "BadRequest - error unmarshaling request bodyMap"),
    "binary": (bytes(range(256)), "BadRequest - error unmarshaling request bodyMap"),
    "a list": (b"[1, 2]", "BadRequest - invalid chat completions request"),
    "no model": (b'{"messages": [{"role": "user", "content": "x"}]}', "BadRequest - model not found in request body"),
    "model is a number": (
        b'{"model": 7, "messages": [{"role": "user"}]}',
        "BadRequest - model in request body is not a string",
    ),
    "no messages": (b'{"model": "m"}', "must have valid messages field"),
    "empty messages": (b'{"model": "m", "messages": []}', "must have valid messages field"),
    "messages of another kind": (b'{"model": "m", "messages": "hi"}', "must have valid messages field"),
    "nested without end": (b'{"model": "m", "messages": ' + b"[" * 100_000, "BadRequest"),
}


@pytest.mark.parametrize(("body", "text"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_cannot_be_read(running: Stack, body: bytes, text: str) -> None:
    since = len(running.epp.lines)
    refused(post(running.port, body, {"x-request-id": "bad"}), 400, text)
    record = running.epp.say("Request refused", since)
    assert (record["level"], record["status"], record["code"]) == ("info", 400, "BadRequest")
    assert post(running.port, chat("next")).status == 200
    running.epp.settled()
    assert running.epp.complaints() == []


def test_a_completion_without_prompt(running: Stack) -> None:
    refused(post(running.port, b'{"model": "m"}', path="/v1/completions"), 400, "must have prompt field")


def test_20_megabytes(running: Stack) -> None:
    body = chat(random.Random(7).randbytes(10 * MIB).hex())
    arrived = post(running.port, body, {"x-do": "echo"})
    assert arrived.status == 200
    assert arrived.json()["sha256"] == hashlib.sha256(body).hexdigest()
    running.epp.settled()


@pytest.mark.parametrize("content_bytes", [200_000, 2_000_000], ids=["small", "inflated in a thread"])
def test_a_gzip_body_is_read_and_forwarded_as_it_came(running: Stack, content_bytes: int) -> None:
    rng = random.Random(2)
    words = [rng.randbytes(4).hex() for _ in range(30_000)] if content_bytes > MIB else ["compressed"]
    packed = gzip.compress(chat(" ".join(rng.choices(words, k=content_bytes // 9))))
    # Above 64 KiB a thread inflates.
    assert (len(packed) > 65_536) == (content_bytes > MIB)
    request_id = f"gzip-{content_bytes}"
    answer = post(running.port, packed, {"content-encoding": "gzip", "x-do": "echo", "x-request-id": request_id})
    arrived = answer.json()
    assert arrived["sha256"] == hashlib.sha256(packed).hexdigest()
    assert ["content-encoding", "gzip"] in arrived["headers"]
    assert running.epp.handled(request_id)["model"] == "m"


def test_a_large_gzip_body_that_is_not_json(running: Stack) -> None:
    packed = gzip.compress(random.Random(1).randbytes(200_000))
    answer = post(running.port, packed, {"content-encoding": "gzip"})
    refused(answer, 400, "error unmarshaling request bodyMap")


def test_encodings_that_cannot_be_read(running: Stack) -> None:
    for encoding in ("br", "zstd", "gzip, br"):
        answer = post(running.port, b"whatever", {"content-encoding": encoding})
        refused(answer, 415, f"'{encoding}' cannot be read; send the body plain or with one of: gzip, deflate")


def test_a_body_that_is_not_what_its_encoding_says(running: Stack) -> None:
    refused(post(running.port, b"no gzip at all", {"content-encoding": "gzip"}), 400, "the body is not valid gzip")
    packed = gzip.compress(chat("cut"))
    refused(post(running.port, packed[:-9], {"content-encoding": "gzip"}), 400, "the gzip body is cut off")


@pytest.mark.parametrize("mode", MODES)
def test_bodies_over_the_limit(mode: str) -> None:
    limits = {"buffer_bytes": 8 * MIB} if mode == "BUFFERED" else {}
    with stack("--max-body-size=1Mi", request_body_mode=mode, response_body_mode=mode, **limits) as small:
        large = chat("x" * (MIB + 1))
        refused(
            post(small.port, large), 413, "BodyTooLarge - the body is longer than 1048576 bytes; raise --max-body-s"
        )
        bomb = zlib.compress(b"0" * (64 * MIB))
        assert len(bomb) < 100_000
        refused(post(small.port, bomb, {"content-encoding": "deflate"}), 413, "inflates to more than 1048576 bytes")
        assert post(small.port, chat("x" * (MIB - 1000)), {"x-do": "echo"}).status == 200
        small.epp.settled()
        assert small.epp.complaints() == []


@pytest.mark.parametrize("flags", [[], ["--endpoints="], ["--config-text", SEED_YAML]], ids=["none", "empty", "config"])
def test_no_endpoints_at_all(flags: list[str]) -> None:
    with serving(*flags) as epp, envoy(epp.port) as gateway:
        [warning] = epp.complaints()
        assert "give --endpoints IP:PORT,... or --endpoints-file FILE" in warning
        for answer in (post(gateway.port, chat("anyone?")), get(gateway.port, "/v1/models")):
            refused(answer, 503, "ServiceUnavailable - failed to find endpoint candidates")
            assert answer.get("x-llm-d-request-dropped-reason") == "rejected-no-endpoints"
        epp.settled()
        assert len(epp.complaints()) == 1


@pytest.mark.parametrize("kind", ["garbage", "silent"])
def test_a_pod_whose_metrics_page_is_no_use(kind: str) -> None:
    with pods("127.0.0.1:0") as good, pods("127.0.0.1:0", metrics=kind) as bad:
        [bad_address] = bad.addresses
        flags = (f"--endpoints={good.addresses[0]},{bad_address}", "--config-text", SEED_YAML, "--seed=1")
        with serving(*flags) as epp, envoy(epp.port) as gateway:
            line = epp.say("metrics cannot be read, its last values are kept")["msg"]
            assert f"endpoint default/{bad_address.replace(':', '-')}: " in line
            answers = [post(gateway.port, chat(f"prompt {n} " * 20)) for n in range(20)]
            assert {(a.status, a.body) for a in answers} == {(200, ANSWER)}
            page = epp.settled()
            name = f"default/{bad_address.replace(':', '-')}"
            assert page.sum("epp_scrape_failures_total", endpoint=name) > 0
            assert page.sum("epp_scrape_failures_total") == page.sum("epp_scrape_failures_total", endpoint=name)
            # Said once, not at every poll.
            time.sleep(0.3)
            assert [json.loads(c)["msg"] for c in epp.complaints()] == [line]
