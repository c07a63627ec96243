# SPDX-License-Identifier: Apache-2.0
"""How long a run of `epp up` goes on: until its work is over, a part ends, or somebody tells it to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from epp.local.report import Printer
from epp.local.stack import PartEnded

_LAST_LINES = 5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_told(
    work: Coroutine[Any, Any, int],
    printer: Printer,
    *,
    tried_out: Callable[[], bool],
    stop: Callable[[], Awaitable[None]],
    kill: Callable[[], None],
) -> int:
    """The exit code of `work`; when told to end before it is over, 0 if it has `tried_out` what it started, else 130.

    Whatever happens, `stop` is awaited at the end; who tells us to end a second time gets `kill` at once. Raises what
    `work` does, of a `PartEnded` the part's last lines are shown first.
    """
    stopping = asyncio.Event()

    def told() -> None:
        if stopping.is_set():
            kill()
        stopping.set()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told)
    task = asyncio.ensure_future(work)
    ending = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, ending], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return 0 if tried_out() else 130
    except PartEnded as error:
        for line in error.lines[-_LAST_LINES:]:
            printer.line(f"  | {line}")
        raise
    finally:
        ending.cancel()
        task.cancel()
        await asyncio.wait([task])
        printer.progress("stopping ...")
        await stop()
        printer.line("everything is stopped")
        printer.close()
