# SPDX-License-Identifier: Apache-2.0
"""Lines written with the standard `logging` module."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from epp.observe.log.bridge import TRACE_LEVEL, VERBOSE_LEVEL, BridgeHandler, bridge
from epp.observe.log.logs import Log, open_log


@contextmanager
def bridged(log: Log) -> Iterator[None]:
    undo = bridge(log)
    try:
        yield
    finally:
        undo()
        log.flush()


def fail() -> None:
    raise KeyError("no such endpoint\nsecond line")


def test_rooms_messages_and_fields(make_log: Callable[..., Log], stream: Any) -> None:
    with bridged(make_log()):
        logging.getLogger("epp.signals.poll.reader").warning(
            "No answer from %s", "a", extra={"fields": {"failures": 3}}
        )
        logging.getLogger("epp").info("hello")
        logging.getLogger("somebody.else").error("boom")
    lines = [(r["level"], r["caller"], r["msg"], r.get("failures")) for r in stream.records()]
    assert lines == [
        ("warn", "signals", "No answer from a", 3),
        ("info", "epp", "hello", None),
        ("error", "somebody.else", "boom", None),
    ]
    assert list(stream.records()[0]) == ["level", "ts", "caller", "msg", "failures"]


@pytest.mark.parametrize(("verbosity", "count"), [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)])
def test_levels_follow_verbosity(make_log: Callable[..., Log], stream: Any, verbosity: int, count: int) -> None:
    levels = [logging.CRITICAL, logging.WARNING, logging.INFO, VERBOSE_LEVEL, logging.DEBUG, TRACE_LEVEL]
    logger = logging.getLogger("epp.config")
    with bridged(make_log(verbosity=verbosity)):
        for level in levels:
            logger.log(level, "line")
        assert [logger.isEnabledFor(level) for level in levels] == [i < count for i in range(len(levels))]
    names = [record["level"] for record in stream.records()]
    assert names == ["error", "warn", "info", "info", "debug", "trace"][:count]


def test_other_packages_are_heard_from_warnings_on(make_log: Callable[..., Log], stream: Any) -> None:
    with bridged(make_log(verbosity=5)):
        logging.getLogger("asyncio").debug("Using selector")
        logging.getLogger("asyncio").info("info")
    assert stream.text == ""


@pytest.mark.parametrize(("verbosity", "has_stack"), [(2, False), (4, True)])
def test_an_exception_is_one_line(make_log: Callable[..., Log], stream: Any, verbosity: int, has_stack: bool) -> None:
    with bridged(make_log(verbosity=verbosity)):
        try:
            fail()
        except KeyError:
            logging.getLogger("epp.scheduling").exception("Plugin failed", extra={"fields": {"plugin": "p"}})
    assert stream.text.count("\n") == 1
    record = stream.records()[0]
    assert (record["level"], record["plugin"]) == ("error", "p")
    assert record["error"] == "KeyError: 'no such endpoint\\nsecond line'"
    assert ("stack" in record) is has_stack
    if has_stack:
        assert record["stack"].startswith("fail (test_bridge.py:")
        assert " < test_an_exception_is_one_line (" in record["stack"]


def test_long_errors_are_cut(make_log: Callable[..., Log], stream: Any) -> None:
    with bridged(make_log()):
        try:
            raise ValueError("x" * 10_000)
        except ValueError:
            logging.getLogger("epp.requests").exception("Parser failed")
    assert len(stream.records()[0]["error"]) == 500


def test_a_record_that_cannot_be_formatted_is_still_a_line(make_log: Callable[..., Log], stream: Any) -> None:
    log = make_log()
    record = logging.LogRecord("epp.config", logging.WARNING, __file__, 1, "%d plugins", ("three",), None)
    BridgeHandler(log).emit(record)
    log.flush()
    assert stream.records()[0]["msg"] == "%d plugins"


def test_undo_restores_what_was() -> None:
    root, ours = logging.getLogger(), logging.getLogger("epp")
    before = (list(root.handlers), ours.level)

    class Nothing:
        def write(self, data: bytes | bytearray, /) -> None:
            """Forget `data`."""

    log = open_log(Nothing(), verbosity=4)
    undo = bridge(log)
    assert ours.level == logging.DEBUG
    assert len(root.handlers) == len(before[0]) + 1
    undo()
    log.close()
    assert (list(root.handlers), ours.level) == before
