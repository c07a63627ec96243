# SPDX-License-Identifier: Apache-2.0
"""Lines that rooms write with the standard `logging` module, into the same log.

`logging.getLogger("epp.signals").warning("...", extra={"fields": {...}})` becomes a line with caller "signals". An
exception becomes the field `error`; where it came from is added as `stack` at verbosity debug, still in one line.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from epp.observe.log.logs import DEBUG, ERROR, INFO, TRACE, VERBOSE, WARN, Log

VERBOSE_LEVEL = 15
"""The standard module's number for verbosity 3, which it has no name for."""
TRACE_LEVEL = 5

_STANDARD_LEVELS = (
    (logging.ERROR, ERROR),
    (logging.WARNING, WARN),
    (logging.INFO, INFO),
    (VERBOSE_LEVEL, VERBOSE),
    (logging.DEBUG, DEBUG),
)
_STACK_FRAMES = 8
_ERROR_CHARACTERS = 500


class BridgeHandler(logging.Handler):
    """Hands records to `log`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._rooms: dict[str, Log] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A record that cannot be formatted is written unformatted."""
        level = next((ours for theirs, ours in _STANDARD_LEVELS if record.levelno >= theirs), TRACE)
        if not self._log.enabled(level):
            return
        try:
            msg = record.getMessage()
        except (TypeError, ValueError, KeyError):
            msg = str(record.msg)
        self._room(record.name).write(level, msg, self._fields(record))

    def _room(self, name: str) -> Log:
        log = self._rooms.get(name)
        if log is None:
            log = self._rooms[name] = self._log.named(name.split(".")[1] if name.startswith("epp.") else name)
        return log

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = dict(getattr(record, "fields", None) or {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
            if self._log.enabled(DEBUG):
                fields["stack"] = short_stack(error.__traceback__)
        return fields


def short_stack(trace: TracebackType | None) -> str:
    """The innermost frames in one line, the innermost first: `score (load.py:31) < run (scheduler.py:88)`."""
    frames = traceback.extract_tb(trace)[-_STACK_FRAMES:]
    return " < ".join(f"{f.name} ({f.filename.rsplit('/', 1)[-1]}:{f.lineno})" for f in reversed(frames))


def standard_level(verbosity: int) -> int:
    """The standard module's level for a verbosity of `WARN` or more."""
    levels = {WARN: logging.WARNING, INFO: logging.INFO, VERBOSE: VERBOSE_LEVEL, DEBUG: logging.DEBUG}
    return levels.get(verbosity, TRACE_LEVEL)


def bridge(log: Log) -> Callable[[], None]:
    """Send the standard module's records to `log`: those of `epp.*` as its verbosity says, others from warnings on.

    Returns what undoes it.
    """
    handler = BridgeHandler(log)
    root, ours = logging.getLogger(), logging.getLogger("epp")
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(standard_level(log.verbosity))

    def undo() -> None:
        root.removeHandler(handler)
        ours.setLevel(before)

    return undo
