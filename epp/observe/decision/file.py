# SPDX-License-Identifier: Apache-2.0
"""The decision log: every routed request as a line of a file, once its end is known.

The event loop only appends to a queue; a thread makes the lines and writes them. After a few lines it sleeps for a
moment, which hands the interpreter to the loop, so a request waits for the making of a few lines at most. What does
not fit into the queue, or cannot be written, is lost and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from epp.contract.errors import StartError
from epp.contract.requests import InferenceRequest
from epp.observe.decision.line import LineMaker, PromptHashes, prompt_hashes
from epp.observe.decision.record import Record
from epp.observe.decision.rotation import RotatingFile

log = logging.getLogger("epp.observe")

MAX_BYTES = 100 << 20
OLDER_FILES = 4
MOST_WAITING = 4096
DELAY_S = 0.1
CLOSE_TIMEOUT_S = 5.0

_FLUSH_BYTES = 64 << 10
_SLICE_S = 0.0003
_PAUSE_S = 0.0002

_Waiting = tuple[Record, tuple[bytes, ...] | None]
"""An ended request, or, with its prompts, one that was just routed."""


class DecisionLog:
    """Writes to `path`. `maker` makes the lines; with `hash_key` prompts are told as hashes under that key.

    * written, dropped: lines since the start
    * most_waiting: records that may wait; more are dropped
    """

    def __init__(
        self,
        path: Path,
        maker: LineMaker,
        *,
        max_bytes: int = MAX_BYTES,
        older_files: int = OLDER_FILES,
        hash_key: bytes | None = None,
        most_waiting: int = MOST_WAITING,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `StartError` when the file cannot be written."""
        try:
            self._file = RotatingFile(path, max_bytes, older_files)
        except OSError as error:
            raise StartError(
                f"--decision-log {path} cannot be written: {error.strerror or error}; name a file in a directory that "
                "exists and may be written to"
            ) from None
        self.written = 0
        self._path = path
        self._maker = maker
        self._hash_key = hash_key
        self._most_waiting = most_waiting
        self._pause = pause
        self._waiting: deque[_Waiting] = deque()
        self._refused = 0
        self._lost = 0
        self._failing = False
        self._hashes: dict[int, PromptHashes] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="epp-decision-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost: too many at once, or the file could not be written."""
        return self._refused + self._lost

    @property
    def counts(self) -> tuple[int, int]:
        """Lines written and lost."""
        return self.written, self.dropped

    def routed(self, record: Record, request: InferenceRequest) -> None:
        """`request` was routed; its prompts are hashed if that was asked for. Never blocks, as `ended`."""
        if self._hash_key is not None and len(self._waiting) < self._most_waiting:
            self._waiting.append((record, request.prompts))

    def ended(self, record: Record) -> None:
        """The request ended: write its line."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append((record, None))
        else:
            self._refused += 1

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits and end the thread; what takes longer than the time is lost."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(DELAY_S)
            while self._waiting:
                self._batch()
        self._file.close()

    def _batch(self) -> None:
        """Make lines until enough bytes are there, and write them."""
        lines, count = bytearray(), 0
        slice_ends_s = time.perf_counter() + _SLICE_S
        while self._waiting and len(lines) < _FLUSH_BYTES:
            record, prompts = self._waiting.popleft()
            try:
                if prompts is None:
                    lines += self._maker.line(record, self._hashes.pop(record.number, None))
                    count += 1
                elif self._hash_key is not None:
                    self._keep(record.number, prompt_hashes(prompts, self._hash_key))
            except Exception as error:
                self._lost += 1
                self._complain(f"a decision could not be written down: {error!r}")
            if time.perf_counter() > slice_ends_s:
                self._pause(_PAUSE_S)
                slice_ends_s = time.perf_counter() + _SLICE_S
        if not lines:
            return
        try:
            self._file.write(lines)
        except OSError as error:
            self._lost += count
            self._complain(f"{error.strerror or error}; decisions are lost until it can be written again")
        else:
            self.written += count
            self._failing = False

    def _keep(self, number: int, hashes: PromptHashes) -> None:
        """Until the request ends; of requests whose end was dropped the oldest leave."""
        self._hashes[number] = hashes
        if len(self._hashes) > 8 * self._most_waiting:
            del self._hashes[next(iter(self._hashes))]

    def _complain(self, what: str) -> None:
        if not self._failing:
            self._failing = True
            log.error("--decision-log %s: %s", self._path, what)
