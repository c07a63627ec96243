# SPDX-License-Identifier: Apache-2.0
"""What is told of a decision, through real Envoy: the debug page, `epp explain`, the scores, the response header."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from epp.observe.decision.reader import read_decisions
from tests.e2e.client import JSON, chat, post
from tests.e2e.pod import POD_HEADER
from tests.e2e.stack import PATIENCE_S, ROOT, SEED_YAML, Epp, Page, connection_manager, stack

pytestmark = pytest.mark.envoy

SCORES = "x-gateway-destination-endpoint-scores"
CONFIG = f"--config-text={SEED_YAML}"


def ended(epp: Epp, request_id: str) -> dict[str, Any]:
    """The record of a request, once it tells how that ended."""
    url = f"http://127.0.0.1:{epp.metrics_port}/debug/decisions?full=1&request_id={request_id}"
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                [record] = json.loads(response.read())["decisions"]
            if record["outcome"]["state"] == "ended":
                return dict(record)
        except urllib.error.HTTPError as error:
            assert error.code == 404
        assert time.monotonic() < deadline_s, f"{request_id} never ended"
        time.sleep(0.01)


def written(epp: Epp, count: int) -> Page:
    """The metrics page, once so many lines are in the decision log."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        page = epp.metrics()
        if page.sum("epp_decision_log_lines_total") == count:
            return page
        assert time.monotonic() < deadline_s, f"{count} lines are never written"
        time.sleep(0.01)


def explain(epp: Epp, *argv: str) -> str:
    command = [sys.executable, "-m", "epp", "explain", *argv, "--url", f"127.0.0.1:{epp.metrics_port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return " ".join(done.stdout.split())


def show_scores(document: dict[str, Any]) -> None:
    """Envoy puts the scores that it was told into a response header."""
    shown = {"key": "x-told-scores", "value": f"%DYNAMIC_METADATA(envoy.lb:{SCORES})%"}
    route_config = connection_manager(document)["route_config"]
    route_config.setdefault("response_headers_to_add", []).append({"header": shown})


def test_who_answered_and_why_can_be_asked_afterwards() -> None:
    with stack(CONFIG, "--emit-endpoint-scores", "--emit-decision-header", count=3, adapt=show_scores) as parts:
        body = chat("a prompt that comes twice, so that the second time it is known " * 20)
        for number in (1, 2):
            answer = post(parts.port, body, {**JSON, "x-request-id": f"id-{number}"})
            assert answer.status == 200
            served = answer.get(POD_HEADER)
            record = ended(parts.epp, f"id-{number}")
        assert record["address"] == served
        [profile] = record["profiles"]
        assert profile["picked"]["scores"]["prefix-cache-scorer"]["weighted"] == 2.0
        assert profile["margin"] == 2.0
        assert len(profile["others"]) == 1
        assert profile["picked"]["signals"]["age_s"]["waiting"] < 5.0
        assert record["charged"]["tokens"] < record["request"]["prompt_tokens"]
        outcome = record["outcome"]
        assert (outcome["status"], outcome["cause"], outcome["told_by"]) == (200, "natural", "response")
        assert outcome["usage"]["completion_tokens"] == 178
        assert 0 < outcome["first_byte_s"] <= outcome["duration_s"]

        words = explain(parts.epp, "id-2")
        assert f"sent to {record['endpoint']} at {served}" in words
        assert "it ended after" in words
        assert "with status 200" in words

        told = json.loads(answer.get("x-told-scores"))
        scored = [profile["picked"], profile["runner_up"], *profile["others"]]
        assert told == {one["address"]: one["total"] for one in scored}
        told_header = answer.get("x-epp-decision")
        assert told_header.startswith(f"endpoint={record['endpoint']}; address={served}; total=2.500; runner-up=")
        assert told_header.endswith("; margin=2.000; candidates=3")
        line = parts.epp.say("Request ended")
        assert line["outcome"]["status"] == 200


def test_nothing_of_it_is_told_unless_asked() -> None:
    with stack(CONFIG, "--debug-endpoints=false", adapt=show_scores) as parts:
        answer = post(parts.port, chat("x"), JSON)
        assert answer.status == 200
        assert answer.get("x-told-scores") in ("", "-")
        assert answer.get("x-epp-decision") == ""
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{parts.epp.metrics_port}/debug/decisions", timeout=5)
        assert refused.value.code == 404
        refused.value.close()


def test_a_response_that_is_not_seen_carries_no_header_and_that_is_said_at_the_start() -> None:
    with stack(CONFIG, "--emit-decision-header", "--response-phase=release") as parts:
        parts.epp.say("--emit-decision-header sets nothing with --response-phase=release")
        answer = post(parts.port, chat("x"), {**JSON, "x-request-id": "unseen"})
        assert answer.status == 200
        assert answer.get("x-epp-decision") == ""
        assert f"at {answer.get(POD_HEADER)}" in explain(parts.epp, "unseen")


def test_the_decision_log_is_written_while_the_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    flags = (f"--decision-log={path}", "--decision-log-prefix-hashes", "--decision-log-max-bytes=64Ki")
    with stack(CONFIG, *flags, count=3) as parts:
        served = {}
        for wave in (range(15), range(15, 30)):
            for number in wave:
                answer = post(
                    parts.port, chat("the same words again " * 4000), {**JSON, "x-request-id": f"id-{number}"}
                )
                served[f"id-{number}"] = answer.get(POD_HEADER)
            # The file turns over between two writes; each wave is at least one.
            page = written(parts.epp, len(served))
        parts.epp.signal(signal.SIGINT)
        assert parts.epp.ended() == 0
        assert page.sum("epp_decision_log_lines_dropped_total") == 0
        found = list(read_decisions(path))
        assert {one.id: one.addresses[one.chosen] for one in found} == served
        assert len(list(tmp_path.iterdir())) > 1
        chains = {tuple(one.prompt_hashes.prompts[0]) for one in found if one.prompt_hashes is not None}
        assert len(chains) == 1
        for one in found:
            totals = one.profile.totals()
            assert totals.tolist() == one.profile.total
            assert totals[one.profile.picked[0]] == totals.max()
            assert one.outcome.status == 200
