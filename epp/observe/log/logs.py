# SPDX-License-Identifier: Apache-2.0
"""Log lines: one JSON object (or one console line) each, with the fields in the order zap prints them.

A level is the verbosity (`-v`) from which on it is printed: 2 is the default, 3 verbose, 4 debug, 5 trace. Errors and
warnings are always printed. Lines never hold prompt text or header values; whoever writes one keeps to that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from epp.contract.endpoints import Clock
from epp.observe.log.stamps import STAMPS, Stamp
from epp.observe.log.writer import LineWriter, Stream, stderr_stream

ERROR = 0
WARN = 1
INFO = 2
VERBOSE = 3
DEBUG = 4
TRACE = 5
LEVEL_NAMES = ("error", "warn", "info", "info", "debug", "trace")

Encode = Callable[[dict[str, Any]], bytes]


def encode_json(record: dict[str, Any]) -> bytes:
    """One line of JSON, newline included."""
    try:
        return orjson.dumps(record, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        pass
    try:
        # What orjson refuses: lone surrogates (bytes of a header that are no UTF-8), huge integers, odd keys.
        text = json.dumps(record, default=_plain, skipkeys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps({str(name): str(value) for name, value in record.items()}, ensure_ascii=False)
    # Escaped, a lone surrogate is JSON that strict readers refuse, so it becomes a question mark.
    return text.encode(errors="replace") + b"\n"


def encode_console(record: dict[str, Any]) -> bytes:
    """Time, level, caller, message and the other fields as JSON, separated by tabs."""
    fields = dict(record)
    head = [str(fields.pop(name, "")) for name in ("ts", "level", "caller", "msg")]
    head[1] = head[1].upper()
    # A message must not be able to fake a second line.
    text = "\t".join(part.encode("unicode_escape").decode() if not part.isprintable() else part for part in head)
    return text.encode(errors="backslashreplace") + (b"\t" + encode_json(fields) if fields else b"\n")


ENCODERS: Mapping[str, Encode] = {"json": encode_json, "console": encode_console}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


class _Core:
    """What all `Log` objects of one service share."""

    __slots__ = ("encode", "stamp", "verbosity", "writer")

    def __init__(self, writer: LineWriter, encode: Encode, stamp: Stamp, verbosity: int) -> None:
        self.writer = writer
        self.encode = encode
        self.stamp = stamp
        self.verbosity = max(verbosity, WARN)


class Log:
    """Writes lines for one room (`caller`). `named` makes the same log for another room."""

    __slots__ = ("_caller", "_core")

    def __init__(self, core: _Core, caller: str) -> None:
        self._core = core
        self._caller = caller

    def named(self, caller: str) -> Log:
        """The same log, with lines that say they come from `caller`."""
        return Log(self._core, caller)

    @property
    def verbosity(self) -> int:
        """The highest level that is printed, at least `WARN`."""
        return self._core.verbosity

    @property
    def lines_dropped(self) -> int:
        """Lines lost because nobody read them fast enough."""
        return self._core.writer.dropped

    def enabled(self, level: int) -> bool:
        """Whether a line of `level` would be printed: ask before making costly fields."""
        return level <= self._core.verbosity

    def write(self, level: int, msg: str, fields: Mapping[str, Any] | None = None) -> None:
        """One line. `fields` holds plain values and none of the names level, ts, caller, msg. Never raises."""
        core = self._core
        if level > core.verbosity:
            return
        record = {"level": LEVEL_NAMES[min(level, TRACE)], "ts": core.stamp(), "caller": self._caller, "msg": msg}
        if fields:
            record.update(fields)
        core.writer.add(core.encode(record), level == ERROR)

    def flush(self) -> None:
        """Wait a moment until everything written so far is out."""
        self._core.writer.flush()

    def close(self) -> None:
        """Write what waits; later lines are lost. Also happens when the process exits."""
        self._core.writer.close()


def open_log(
    stream: Stream | None = None,
    *,
    encoder: str = "json",
    verbosity: int = INFO,
    caller: str = "epp",
    times: str = "rfc3339",
    wall: Clock = time.time,
    **writer_options: Any,
) -> Log:
    """The log of a process, on standard error unless `stream` is given.

    * encoder: a key of `ENCODERS`; times: a key of `STAMPS`; wall: Unix time in seconds
    * writer_options: `clock`, `limit_bytes`, `flush_bytes`, `delay_s` of `LineWriter`
    """
    encode = ENCODERS[encoder]
    stamp = STAMPS[times](wall)

    def dropped_line(count: int) -> bytes:
        msg = "Log lines dropped: standard error is read too slowly, or a line was too long"
        return encode({"level": "warn", "ts": stamp(), "caller": "log", "msg": msg, "dropped": count})

    writer = LineWriter(stream or stderr_stream(), dropped_line, **writer_options)
    return Log(_Core(writer, encode, stamp, verbosity), caller)
