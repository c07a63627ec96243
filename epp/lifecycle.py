# SPDX-License-Identifier: Apache-2.0
"""What every server process of ours has around it: a log and an event loop, and two signals that end it.

SIGTERM is a wish: what waits goes on waiting, as long as it may. A second one, or SIGINT, is hurry: nothing is waited
for any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from epp.contract.errors import EppError
from epp.observe.log.bridge import bridge
from epp.observe.log.logs import Log


def run_logged(serve: Callable[[], Coroutine[Any, Any, int]], lines: Log, log: logging.Logger) -> int:
    """Run `serve` to its exit code, with the standard library's log going to `lines`, which is closed at the end. An
    `EppError` is a line of `log` for each mistake, and 1."""
    import uvloop

    undo = bridge(lines)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    except EppError as error:
        for line in error.log_lines:
            log.error("%s", line)
        return 1
    finally:
        undo()
        lines.close()


class Stop:
    """Whether the process was told to stop. `asked`: it was; `hurry`: and is not to wait."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    def listen(self) -> None:
        """Hear signals, on the running loop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told, False)
        loop.add_signal_handler(signal.SIGINT, self._told, True)

    def _told(self, hurry: bool) -> None:
        if hurry or self.asked.is_set():
            self.hurry.set()
        self.asked.set()

    def patience_s(self, seconds: float) -> float:
        """`seconds`, or 0 for somebody in a hurry."""
        return 0.0 if self.hurry.is_set() else seconds

    async def pause(self, seconds: float) -> None:
        """Wait, until somebody is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurry.wait(), seconds)

    async def finish(self, close: Callable[[float], Awaitable[None]], seconds: float) -> None:
        """`close(seconds)`, which lets what is under way finish; `close(0)` as soon as somebody is in a hurry."""
        finishing = asyncio.ensure_future(close(seconds))
        hurry = asyncio.create_task(self.hurry.wait())
        await asyncio.wait((finishing, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if finishing.done():
            return finishing.result()
        finishing.cancel()
        await asyncio.wait((finishing,))
        return await close(0.0)
