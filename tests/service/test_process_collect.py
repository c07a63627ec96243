# SPDX-License-Identifier: Apache-2.0
"""The garbage collector's long walk is over before anybody is served."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

import pytest

from epp.observe.log.bridge import bridge
from epp.observe.log.logs import open_log
from epp.service import process
from epp.service.flags.parsing import parse


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, data: bytes | bytearray) -> None:
        self.text += bytes(data).decode()


async def test_it_comes_before_the_listeners_and_what_lives_is_frozen_after(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    open_listeners = process.open_listeners

    async def opened(*arguments: Any) -> Any:
        done.append("listen")
        return await open_listeners(*arguments)

    monkeypatch.setattr(process, "open_listeners", opened)
    monkeypatch.setattr(gc, "collect", lambda *_: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    argv = ["--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]
    lines = Lines()
    log = open_log(lines)
    undo = bridge(log)
    try:
        serving = asyncio.create_task(process.Process(parse(argv, {}), log).serve())
        async with asyncio.timeout(20):
            while "freeze" not in done and not serving.done():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        assert await serving == 0
    finally:
        undo()
        log.close()
    assert done == ["collect", "listen", "freeze"]
