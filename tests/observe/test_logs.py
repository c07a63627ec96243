# SPDX-License-Identifier: Apache-2.0
"""The form of a line, levels, and what a line may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from epp.observe.log.logs import DEBUG, ERROR, INFO, TRACE, VERBOSE, WARN, Log


def test_fields_are_in_the_order_zap_prints_them(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log().named("director")
    log.write(INFO, "Request handled", {"x-request-id": "r1", "n": 3})
    log.flush()
    assert stream.text == (
        '{"level":"info","ts":"2025-09-19T08:52:53Z","caller":"director","msg":"Request handled",'
        '"x-request-id":"r1","n":3}\n'
    )


def test_the_time_is_that_of_the_line(make_log: Callable[..., Log], stream: Any) -> None:
    seconds = iter([0.0, 0.99, 1.0, 86400.0 * 366, 1758271973.999])
    log = make_log(wall=lambda: next(seconds))
    for _ in range(5):
        log.write(INFO, "tick")
    log.flush()
    assert [record["ts"] for record in stream.records()] == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:01Z",
        "1971-01-02T00:00:00Z",
        "2025-09-19T08:52:53Z",
    ]


@pytest.mark.parametrize(
    ("verbosity", "names"),
    [
        (0, ["error", "warn"]),
        (1, ["error", "warn"]),
        (2, ["error", "warn", "info"]),
        (3, ["error", "warn", "info", "info"]),
        (4, ["error", "warn", "info", "info", "debug"]),
        (5, ["error", "warn", "info", "info", "debug", "trace"]),
        (9, ["error", "warn", "info", "info", "debug", "trace", "trace"]),
    ],
)
def test_verbosity_decides_what_is_printed(
    make_log: Callable[..., Log], stream: Any, verbosity: int, names: list[str]
) -> None:
    log = make_log(verbosity=verbosity)
    levels = [ERROR, WARN, INFO, VERBOSE, DEBUG, TRACE, 7]
    for level in levels:
        log.write(level, "line")
    log.flush()
    assert [record["level"] for record in stream.records()] == names
    assert [log.enabled(level) for level in levels] == [i < len(names) for i in range(len(levels))]


def test_numpy_values_and_objects_are_printed_plainly(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log()
    log.write(INFO, "values", {"f": np.float64(0.5), "i": np.int64(7), "path": ValueError("x"), "nan": float("nan")})
    log.flush()
    record = stream.records()[0]
    assert (record["f"], record["i"], record["path"], record["nan"]) == (0.5, 7, "x", None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("\udcff", "?"), ("é\udcff", "é?"), ({3: math.nan}, "{3: nan}"), (1 << 70, 1 << 70), ({3: 1}, {"3": 1})],
    ids=["lone surrogate", "beside other characters", "no number", "huge integer", "odd key"],
)
def test_what_the_fast_encoder_refuses_is_still_printed(
    make_log: Callable[..., Log], stream: Any, value: object, shown: object
) -> None:
    log = make_log()
    log.write(INFO, "odd", {"value": value})
    log.flush()
    assert json.loads(stream.text)["value"] == shown


def test_a_value_that_cannot_be_encoded_does_not_raise(make_log: Callable[..., Log], stream: Any) -> None:
    circular: list[Any] = []
    circular.append(circular)
    log = make_log()
    log.write(INFO, "odd", {"value": circular})
    log.flush()
    assert stream.records()[0]["value"] == "[[...]]"


def test_console_lines(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log(encoder="console").named("service")
    log.write(WARN, "Certificate expires", {"days": 3})
    log.write(INFO, "two\nlines\u2028é \udcff")
    log.flush()
    lines = stream.text.split("\n")
    assert lines[0] == '2025-09-19T08:52:53Z\tWARN\tservice\tCertificate expires\t{"days":3}'
    assert lines[1].split("\t")[3] == "two\\nlines\\u2028\\xe9 \\udcff"
    assert len(lines) == 3


def test_dropped_lines_are_told_in_the_log_itself(make_log: Callable[..., Log], stream: Any) -> None:
    stream.open.clear()
    log = make_log(limit_bytes=1000, delay_s=0.0)
    log.write(ERROR, "first")
    assert stream.entered.wait(10)
    for _ in range(50):
        log.write(INFO, "x" * 100)
    dropped = log.lines_dropped
    stream.open.set()
    log.flush()
    records = stream.records()
    notes = [record for record in records if record["caller"] == "log"]
    assert [note["dropped"] for note in notes] == [dropped]
    assert notes[0]["level"] == "warn"
    assert len(records) == 51 - dropped + 1


def test_a_named_log_shares_verbosity_and_stream(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log(verbosity=4)
    assert log.named("signals").verbosity == 4
    log.write(INFO, "a")
    log.named("signals").write(INFO, "b")
    log.flush()
    assert [orjson.loads(line)["caller"] for line in stream.text.splitlines()] == ["epp", "signals"]
