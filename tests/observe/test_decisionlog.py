# SPDX-License-Identifier: Apache-2.0
"""Decisions in a file: written, turned over, read back, decided again."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoints
from epp.contract.errors import StartError
from epp.contract.requests import Cause, Completion, InferenceRequest, Usage
from epp.contract.snapshot import snapshot
from epp.observe.decision.file import DecisionLog
from epp.observe.decision.line import BLOCK_TOKENS, MOST_BLOCKS, LineMaker, prompt_hashes
from epp.observe.decision.reader import LogError, read_decisions
from epp.observe.decision.record import MOST_CANDIDATES, Record
from epp.observe.decision.rotation import RotatingFile
from epp.testing import make_endpoints, make_request

SECRET = "the text of a prompt that nobody may read in a log "


def routed(
    number: int, raws: list[list[float]] | None = None, weights: list[float] | None = None, endpoints: Any = None
) -> tuple[Record, InferenceRequest]:
    """A record and its request; the best of the candidates is picked, the last one fell by a filter."""
    rng = np.random.default_rng(number)
    raws = raws or rng.random((2, 3)).tolist()
    weights = weights or [2.0, 0.5]
    count = len(raws[0])
    endpoints = endpoints or make_endpoints(count + 1, waiting=np.arange(count + 1) * 1.0, running=0.1, age_s=0.25)
    left = endpoints.where(np.arange(count + 1) < count)
    traces = tuple(
        ScoreTrace(f"scorer-{at}", weight, np.array(raw))
        for at, (raw, weight) in enumerate(zip(raws, weights, strict=True))
    )
    total = np.zeros(count)
    for trace in traces:
        total += trace.weighted
    fell = FilterTrace("warm", count + 1, endpoints.rows[count:])
    result = ProfileResult("default", left, (fell,), traces, total, (int(total.argmax()),))
    decision = Decision(
        f"id-{number}", "m", "target", "default", {"default": result}, count + 1, 1000.0, snapshot(endpoints)
    )
    record = Record(decision, 999.75, 1000.0, 0.0002, 96.0, number)
    request = make_request(SECRET * 20, max_output_tokens=7, stream=True, body_bytes=999)
    record.describe(request)
    return record, request


def ended(record: Record) -> Record:
    record.completion = Completion(Cause.COMPLETE, True, 200, Usage(24, 178, 202, 16), 2.5, 0.125, 999)
    record.told_by = "response"
    return record


def maker(run: str = "run") -> LineMaker:
    return LineMaker(run, 500.0)


def writing(path: Path, **options: Any) -> DecisionLog:
    return DecisionLog(path, maker(), pause=lambda seconds: None, **options)


def test_what_is_written_is_read_back_and_decided_again(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = writing(path, max_bytes=20_000, older_files=50)
    records = []
    for number in range(100):
        record, request = routed(number)
        log.routed(record, request)
        log.ended(ended(record))
        records.append(record)
    log.close()
    assert log.counts == (100, 0)
    found = list(read_decisions(path))
    assert [one.number for one in found] == list(range(100))
    for one, record in zip(found, records, strict=True):
        result = record.decision.result
        assert one.profile.totals().tolist() == result.total.tolist() == one.profile.total
        assert one.profile.best() == one.profile.picked[0] == result.picked[0]
        assert one.endpoints[one.chosen] == record.decision.target.id
        assert one.addresses[one.chosen] == record.decision.target.address
    text = path.read_text()
    assert SECRET[:20] not in text
    assert "prompt_hashes" not in text


def test_a_line_in_full(tmp_path: Path) -> None:
    record, _ = routed(1, [[0.5, 3.0], [0.25, 0.0]], [1.0, 2.0])
    line = json.loads(maker().line(ended(record)))
    assert {name: line[name] for name in line if name not in ("signals", "age_s", "profiles", "outcome")} == {
        "v": 1, "run": "run", "number": 1, "id": "id-1", "received_s": 1499.75, "decided_s": 1500.0,
        "scheduling_s": 0.0002, "model": "m", "target_model": "target", "priority": 0, "stream": True,
        "body_bytes": 999, "prompt_tokens": len(SECRET * 20) // 4, "max_output_tokens": 7, "candidates": 3,
        "endpoints": ["default/pod-0", "default/pod-1", "default/pod-2"],
        "addresses": ["127.0.1.1:8000", "127.0.1.2:8000", "127.0.1.3:8000"], "primary": "default",
        "charged_tokens": 96.0,
    }  # fmt: skip
    assert line["signals"]["waiting"] == [0.0, 1.0, 2.0]
    assert line["signals"]["running"] == [0.1] * 3
    assert "scraped_at_s" not in line["signals"]
    assert line["age_s"]["waiting"] == [0.25] * 3
    assert line["profiles"] == [
        {
            "name": "default",
            "endpoints": [0, 1],
            "omitted": 0,
            "filters": [{"name": "warm", "before": 3, "dropped": 1, "endpoints": [2]}],
            "scorers": [
                {"name": "scorer-0", "weight": 1.0, "raw": [0.5, 3.0], "error": None},
                {"name": "scorer-1", "weight": 2.0, "raw": [0.25, 0.0], "error": None},
            ],
            "total": [1.0, 1.0],
            "picked": [0],
        }
    ]
    assert line["outcome"]["usage"]["cached_tokens"] == 16
    assert line["outcome"]["told_by"] == "response"


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_totals_survive_the_file_to_the_last_bit(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    values = st.floats(-2, 2) | st.sampled_from([np.inf, -np.inf, 1e300, 1e-300])
    raws = data.draw(st.lists(st.lists(values, min_size=count, max_size=count), min_size=1, max_size=4))
    weights = data.draw(st.lists(st.floats(-3, 100), min_size=len(raws), max_size=len(raws)))
    record, _ = routed(1, raws, weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one"
        path.write_bytes(maker().line(ended(record)))
        [one] = read_decisions(path)
    assert one.profile.totals().tolist() == record.decision.result.total.tolist()
    assert one.profile.best() == record.decision.result.picked[0]


def test_files_turn_over_and_the_oldest_leave(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(path, 100, 2)
    for number in range(10):
        file.write(b"%04d%s\n" % (number, b"x" * 45))
    file.close()
    kept = {one.name: one.read_bytes().count(b"\n") for one in tmp_path.iterdir()}
    assert kept == {"log": 2, "log.1": 2, "log.2": 2}
    assert path.read_bytes().startswith(b"0008")
    assert (tmp_path / "log.2").read_bytes().startswith(b"0004")
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_is_longer_than_its_limit_by_a_single_write_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(path, 100, 3)
    for length in (60, 40, 1, 150, 99):
        file.write(b"x" * (length - 1) + b"\n")
    file.close()
    sizes = {one.name: one.stat().st_size for one in tmp_path.iterdir()}
    assert sizes == {"log": 99, "log.1": 150, "log.2": 1, "log.3": 100}


def test_without_older_files_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(path, 10, 0)
    for line in (b"123456\n", b"234567\n", b"a line longer than the file may be\n", b"3\n"):
        file.write(line)
    file.close()
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"log": b"3\n"}


def test_what_is_no_regular_file_is_never_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    file = RotatingFile(path, 10, 2)
    for line in (b"123456\n", b"234567\n"):
        file.write(line)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert os.read(reader, 100) == b"123456\n234567\n"
    finally:
        os.close(reader)
        file.close()
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_line_that_a_crash_cut_is_closed_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = maker().line(ended(routed(1)[0]))
    path.write_bytes(line + line[: len(line) // 2])
    log = writing(path)
    log.ended(ended(routed(2)[0]))
    log.close()
    assert [one.number for one in read_decisions(path)] == [1, 2]


def test_what_is_no_decision_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = maker().line(ended(routed(1)[0]))
    for bad, told in ((b'{"a": 1}\n', "is no decision"), (good.replace(b'{"v":1', b'{"v":2'), "is of version 2")):
        path.write_bytes(good + bad)
        with pytest.raises(LogError) as failure:
            list(read_decisions(path))
        assert str(failure.value).startswith(f"{path}:2 {told}")
    with pytest.raises(LogError, match="cannot be read: No such file"):
        list(read_decisions(tmp_path / "none"))


@pytest.mark.parametrize("text", [b"plugins:\n- type: queue-scorer\n", b"\n\n{\n", b"\xff\xfe\x00", b"no newline"])
def test_a_file_that_is_no_decision_log_is_refused_at_its_first_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    number = 1 + len(text) - len(text.lstrip(b"\n"))
    with pytest.raises(LogError) as failure:
        list(read_decisions(path))
    assert str(failure.value) == (
        f"{path}:{number} is no decision; expected one JSON object in each line, as --decision-log writes"
    )


def test_a_log_of_nothing_but_a_line_cut_short_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = maker().line(ended(routed(1)[0]))
    for length in (0, 1, 4, 7, len(line) // 2):
        path.write_bytes(line[:length])
        assert list(read_decisions(path)) == []
    path.write_bytes(line[:40] + b"\n" + line)
    assert [one.number for one in read_decisions(path)] == [1]


def test_a_path_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        StartError, match=r"--decision-log .* cannot be written: No such file or directory; name a file"
    ):
        writing(tmp_path / "no" / "log")
    with pytest.raises(StartError, match="Is a directory"):
        writing(tmp_path)


def test_too_many_at_once_are_dropped_and_counted(tmp_path: Path) -> None:
    held, go = threading.Event(), threading.Event()

    def stuck(seconds: float) -> None:
        held.set()
        go.wait(20)

    log = DecisionLog(tmp_path / "log", maker(), most_waiting=5, pause=stuck, hash_key=b"k")
    record, request = routed(1)
    big = ended(routed(2, np.zeros((40, 120)).tolist(), [1.0] * 40)[0])
    while not held.is_set():
        log.ended(big)
    lost = log.dropped
    for _ in range(20):
        log.ended(ended(record))
        log.routed(record, request)
    assert log.dropped - lost >= 15
    go.set()
    log.close()
    written = len(list(read_decisions(tmp_path / "log")))
    assert log.written == written > 0


def test_a_disk_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = writing(tmp_path / "log")
    works = RotatingFile.write
    failed = threading.Semaphore(0)

    def full(self: RotatingFile, lines: bytes | bytearray) -> None:
        failed.release()
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.ERROR, "epp.observe"):
        monkeypatch.setattr(RotatingFile, "write", full)
        for number in (1, 2):
            log.ended(ended(routed(number)[0]))
            assert failed.acquire(timeout=10)
        monkeypatch.setattr(RotatingFile, "write", works)
        log.ended(ended(routed(3)[0]))
        log.close()
    assert [one.number for one in read_decisions(tmp_path / "log")] == [3]
    assert (log.written, log.dropped) == (1, 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"--decision-log {tmp_path / 'log'}: No space left on device; decisions are lost until it can be written again"
    ]


def test_a_record_that_cannot_be_written_down_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = writing(tmp_path / "log")
    bare = ended(routed(1)[0])
    bare.decision = Decision("x", "m", "m", "default", bare.decision.results, 3, 1.0)
    log.ended(bare)
    odd = ended(routed(2)[0])
    known = odd.decision
    odd.decision = Decision("\udcff", "m", "m", "default", known.results, 3, 1.0, known.known)
    log.ended(odd)
    log.close()
    assert [one.id for one in read_decisions(tmp_path / "log")] == ["?"]
    assert (log.written, log.dropped) == (1, 1)
    assert len(caplog.records) == 1


def test_prompts_are_told_as_keyed_hashes_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = writing(path, hash_key=b"key")
    for number in (1, 2):
        record, request = routed(number)
        log.routed(record, request)
        log.ended(ended(record))
    log.close()
    one, two = read_decisions(path)
    assert one.prompt_hashes is not None
    assert one.prompt_hashes.block_tokens == BLOCK_TOKENS
    [chain] = one.prompt_hashes.prompts
    assert len(chain) == len(SECRET * 20) // (4 * BLOCK_TOKENS) == len(set(chain))
    assert one.prompt_hashes == two.prompt_hashes
    assert SECRET[:20] not in path.read_text()


def test_hashes_agree_exactly_as_far_as_prompts_do() -> None:
    block = BLOCK_TOKENS * 4
    first = bytes(range(256)) * 4
    other = first[: 2 * block] + b"\xff" + first[2 * block + 1 :]
    one, two = prompt_hashes([first, other], b"k")
    assert (one[:2] == two[:2]).all()
    assert not (one[2:] == two[2:]).any()
    assert not (one == prompt_hashes([first], b"another")[0]).any()
    assert prompt_hashes([b"short"], b"k")[0].tolist() == []
    long = prompt_hashes([first * 1000, first * 1000, first * 1000], b"k")
    assert sum(map(len, long)) <= MOST_BLOCKS


def test_candidates_that_change_are_named_anew(endpoints: Callable[..., Endpoints]) -> None:
    lines = maker()
    small, large = make_endpoints(3), make_endpoints(4)
    told = [
        json.loads(lines.line(ended(routed(1, np.zeros((2, len(some) - 1)).tolist(), endpoints=some)[0])))["endpoints"]
        for some in (small, small, large, small)
    ]
    assert [len(names) for names in told] == [3, 3, 4, 3]


def test_of_a_large_pool_the_best_are_written(tmp_path: Path) -> None:
    record, _ = routed(1, np.random.default_rng(1).random((2, 500)).tolist())
    path = tmp_path / "log"
    path.write_bytes(maker().line(ended(record)))
    [one] = read_decisions(path)
    assert one.candidates == 501
    assert len(one.endpoints) == MOST_CANDIDATES
    assert one.profile.omitted == 500 - MOST_CANDIDATES
    assert one.profile.best() == one.profile.picked[0]
    assert one.endpoints[one.chosen] == record.decision.target.id
