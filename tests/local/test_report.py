# SPDX-License-Identifier: Apache-2.0
"""What `epp up` reads from the picker's log, sends, and tells."""

from __future__ import annotations

import asyncio
import io
import json
import shlex

import pytest

from epp.local.client import Outcome
from epp.local.decisions import DecisionLog, Handled, last_words, read_handled
from epp.local.report import Follow, Printer, as_json, curl, request_lines, summary
from epp.local.scenario import MODEL, TUTORIAL_BODY, Ask, groups

LINE = {
    "level": "info",
    "msg": "Request handled",
    "x-request-id": "r-1",
    "endpoint": "{NamespacedName:default/127.0.1.2-8000 Address:127.0.1.2 Labels:map[a:b c:d]}",
    "decision": {"address": "127.0.1.2:8000"},
    "why": "127.0.1.2-8000 2.500 (prefix-cache-scorer 1x2); runner-up 127.0.1.1-8000 0.500 (prefix-cache-scorer 0x2)",
}


def outcome(*, status: int = 200, pod: str = "a", cached: int | None = 16, error: str = "") -> Outcome:
    details = None if cached is None else {"cached_tokens": cached}
    usage = {"prompt_tokens": 32, "completion_tokens": 5, "prompt_tokens_details": details}
    handled = read_handled(LINE) if status == 200 else None
    ask = Ask("chat", "/v1/chat/completions", {})
    return Outcome(ask, "r-1", status, pod, 12.5, 3.0, usage if status == 200 else {}, error, handled)


def test_a_handled_line_is_read() -> None:
    handled = read_handled(LINE)
    assert handled is not None
    assert (handled.request_id, handled.pod) == ("r-1", "127.0.1.2-8000")
    assert handled.decision == {"address": "127.0.1.2:8000"}
    assert read_handled({"msg": "other"}) is None


async def test_decisions_go_to_who_expects_them_and_others_to_whoever_follows() -> None:
    others: list[Handled] = []
    complaints: list[str] = []
    log = DecisionLog(others.append, complaints.append)
    log.expect("r-1")
    log.expect("r-2")
    for line in (
        "not json",
        "{broken",
        json.dumps(LINE),
        json.dumps({**LINE, "x-request-id": "r-9"}),
        json.dumps({"level": "error", "msg": "scrape failed", "error": "timeout"}),
        json.dumps({"level": "info", "msg": "fine"}),
    ):
        log.line(line)
    taken = await log.take("r-1", 5.0)
    assert taken is not None
    assert taken.why == LINE["why"]
    assert [handled.request_id for handled in others] == ["r-9"]
    assert complaints == ["scrape failed: timeout"]
    assert await log.take("r-2", 0.0) is None
    asyncio.get_running_loop().call_soon(log.line, json.dumps({**LINE, "x-request-id": "r-3"}))
    log.expect("r-3")
    assert await log.take("r-3", 5.0) is not None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "it said nothing"),
        (["", "  plain  ", ""], "plain"),
        (['{"level":"error","msg":"bad","error":"why"}', '{"level":"info","msg":"bye"}'], "bad: why"),
        (['{"level":"info","msg":"bye"}'], "info: bye"),
        (['{"level":"error","msg":"old"}', "epp: no plugin is called 'x'"], "epp: no plugin is called 'x'"),
    ],
)
def test_the_last_words_of_a_program_are_its_last_error(lines: list[str], words: str) -> None:
    assert last_words(lines) == words


def test_the_first_requests_are_the_tutorials_and_the_next_is_a_stream() -> None:
    asks = [ask for group in groups(12) for ask in group]
    assert len(asks) == 12
    assert [ask.body for ask in asks[:3]] == [TUTORIAL_BODY] * 3
    assert asks[3].stream
    assert {ask.path for ask in asks} == {"/v1/chat/completions", "/v1/completions"}
    assert max(len(group) for group in groups(12)) == 4
    system = {ask.body["messages"][0]["content"] for ask in asks[4:7]}
    assert len(system) == 1
    assert len(system.pop()) > 1000


@pytest.mark.parametrize("count", [0, 1, 9, 12, 40])
def test_as_many_requests_as_wished(count: int) -> None:
    assert sum(len(group) for group in groups(count)) == count


def test_a_request_and_the_reason_for_its_pod_are_a_line_each() -> None:
    head, why = request_lines(3, outcome())
    assert head.split()[:2] == ["3", "chat"]
    assert "16/32 prompt tokens cached" in head
    assert LINE["why"] in why
    head, why = request_lines(4, outcome(status=503, pod="", error="no endpoint"))
    assert "503" in head
    assert "no endpoint" in head
    assert why.strip() == "-> no pod"


def test_the_json_has_requests_totals_and_the_hit_ratio() -> None:
    failed = outcome(status=500, pod="", error="x")
    found = as_json([outcome(), outcome(pod="b", cached=None), failed])
    assert [r["pod"] for r in found["requests"]] == ["a", "b", ""]
    assert [r["status"] for r in found["requests"]] == [200, 200, 500]
    first = found["requests"][0]
    assert first["latency_ms"] == 12.5
    assert first["decision"] == {"address": "127.0.1.2:8000"}
    assert found["totals"] == {
        "requests": 3,
        "ok": 2,
        "failed": 1,
        "by_pod": {"a": 1, "b": 1},
        "prompt_tokens": 64,
        "cached_tokens": 16,
        "completion_tokens": 10,
    }
    assert found["hit_ratio"] == 0.25
    assert as_json([])["hit_ratio"] is None
    assert "25%" in summary([outcome(), outcome(cached=None)])
    assert summary([outcome()]).startswith("1 request, 0 failed; ")
    assert summary([outcome(), outcome()]).startswith("2 requests, 0 failed; ")


def test_the_curl_line_is_the_tutorials_request() -> None:
    words = shlex.split(curl("http://localhost:8080"))
    assert words[0] == "curl"
    assert words[-1] == "http://localhost:8080/v1/chat/completions"
    assert "x-user-id: user123" in words
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == MODEL
    assert [message["content"] for message in body["messages"]] == ["You are a poet.", "Write a poem about clouds."]


def test_under_load_few_of_the_others_are_shown() -> None:
    out = io.StringIO()
    handled = read_handled(LINE)
    assert handled is not None
    seconds = iter([5.1] * 30 + [6.0])
    follow = Follow(Printer(out), clock=lambda: next(seconds), later=lambda delay_s, call: None)
    for _ in range(31):
        follow.handled(handled)
    lines = out.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[10].strip() == "(and 20 more)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_rewritten_on_a_terminal_and_a_line_elsewhere() -> None:
    for out, text in ((Terminal(), "\rone\rtwo\nend\n"), (io.StringIO(), "one\ntwo\nend\n")):
        printer = Printer(out)
        printer.progress("one")
        printer.progress("two")
        printer.line("end")
        assert out.getvalue() == text
