# SPDX-License-Identifier: Apache-2.0
"""What a client chose freely takes no more room in lines and records than anybody reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epp.contract.decision import Decision, ProfileResult, ScoreTrace
from epp.contract.errors import BadRequest
from epp.contract.requests import Cause, Completion
from epp.contract.snapshot import snapshot
from epp.observe.decision.file import DecisionLog
from epp.observe.decision.line import LineMaker
from epp.observe.decision.reader import read_decisions
from epp.observe.decision.record import Record
from epp.observe.log.limited import MOST_CHARACTERS, limited
from epp.observe.log.logs import VERBOSE, Log
from epp.observe.recorder import ERROR_CHARACTERS, Recorder
from epp.testing import FakeClock, make_endpoints, make_request

LONG = "m" * (5 << 20)
CUT = "m" * 253 + "..."


def test_what_is_longer_ends_in_dots() -> None:
    texts = ("", "m" * 256, "m" * 257, LONG, CUT, "\udcff" * 2)
    assert [limited(text) for text in texts] == ["", "m" * 256, CUT, CUT, CUT, "\udcff" * 2]


def decided(request_id: str, model: str, target_model: str, count: int = 2) -> Decision:
    endpoints = make_endpoints(count)
    raw = np.linspace(1.0, 0.0, count)
    result = ProfileResult("default", endpoints, (), (ScoreTrace("s", 1.0, raw),), raw, (0,))
    known = snapshot(endpoints)
    return Decision(request_id, model, target_model, "default", {"default": result}, count, 1.0, known)


@pytest.mark.parametrize("count", [2, 300])
def test_a_routed_requests_names_are_cut_everywhere(
    make_log: Callable[..., Log], stream: Any, tmp_path: Path, count: int
) -> None:
    log, clock = make_log(verbosity=VERBOSE), FakeClock()
    recorder = Recorder(log, lambda: make_endpoints(2).columns, clock, pool_name="p", staleness_s=2.0, version="0")
    path = tmp_path / "decisions.jsonl"
    recorder.decision_log = DecisionLog(path, LineMaker("run", 0.0))
    request = make_request("words", model=LONG, target_model=LONG, request_id=LONG, body_bytes=9)
    decision = decided(LONG, LONG, LONG, count)
    record = recorder.scheduled(0.0001, request, decision, 1.0)
    recorder.finished(
        request, recorder.started(request), Completion(Cause.COMPLETE, True, 200, None, 1.0, 0.5, 9), False, record
    )
    recorder.decision_log.close()
    log.flush()

    handled, ended = stream.records()
    for line in (handled, ended, handled["decision"]):
        assert {line[name] for name in ("x-request-id", "request_id", "model", "targetModel") if name in line} == {CUT}
    [one] = read_decisions(path)
    assert (one.id, one.model, one.target_model) == (CUT, CUT, CUT)
    [kept] = recorder.decisions.find(LONG)
    assert recorder.decisions.find(CUT) == [kept]
    told = kept.as_dict(2.0, 2.0)
    assert (told["request_id"], told["model"], told["target_model"]) == (CUT, CUT, CUT)
    assert recorder.decisions.bytes < 1 << 20
    assert max(map(len, stream.text.splitlines())) < 10_000
    assert decision.model == LONG, "the request itself is not touched"


def test_a_refused_requests_names_and_its_errors_text_are_cut(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log()
    recorder = Recorder(
        log, lambda: make_endpoints(2).columns, FakeClock(), pool_name="p", staleness_s=2.0, version="0"
    )
    request = make_request("words", model=LONG, request_id=LONG)
    recorder.refused(BadRequest(f"no parser registered matching path suffix for: /{LONG}"), request, None)
    log.flush()
    [line] = stream.records()
    assert (line["x-request-id"], line["model"]) == (CUT, CUT)
    assert line["error"].startswith("no parser registered matching path suffix for: /mm")
    assert len(line["error"]) == ERROR_CHARACTERS
    assert len(CUT) == MOST_CHARACTERS


def test_names_of_common_length_stay_whole() -> None:
    longest = "i" * MOST_CHARACTERS
    for decision in (decided("id", "m", "t"), decided(longest, longest, longest)):
        record = Record(decision, 0.0, 0.0, 0.0, 0.0)
        record.describe(make_request("words"))
        kept = record.decision
        assert (kept.request_id, kept.model, kept.target_model) == (
            decision.request_id,
            decision.model,
            decision.target_model,
        )
