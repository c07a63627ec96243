# SPDX-License-Identifier: Apache-2.0
"""Changed files, polled without a process: what is applied, what is counted, what is said and how often."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from epp.ratelimit.reload import Reloader
from epp.ratelimit.sources import Loaded, Sources
from tests.ratelimit.process.support import rules


class World:
    """A file, and what became of its versions."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rules.yaml"
        self.file.write_text(rules(100))
        self.sources = Sources([self.file])
        self.applied: list[int] = []
        self.news = asyncio.Event()
        self.reloader = Reloader(self.sources, self._apply, self.sources.digest(), interval_s=0.0)

    def _apply(self, loaded: Loaded) -> None:
        self.applied += [limit.requests for limit in loaded.book.limits()]
        self.news.set()

    async def poll(self, text: str | None = None) -> bool:
        if text is not None:
            self.file.write_text(text)
        return await self.reloader.poll()

    @property
    def counted(self) -> tuple[int, int, bool]:
        counts = self.reloader.counts
        return counts.good, counts.bad, counts.failing


async def test_good_ones_are_applied_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert not await world.poll()
    assert await world.poll(rules(200))
    assert not await world.poll()
    assert await world.poll(rules(300))
    assert (world.applied, world.counted) == ([200, 300], (2, 0, False))


async def test_a_bad_one_is_said_once_until_it_is_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    for _ in range(3):
        assert not await world.poll("domain: [")
    assert (world.applied, world.counted, len(caplog.records)) == ([], (0, 1, True), 1)
    assert not await world.poll("domain: d\nrules: []\n")
    assert (world.counted, len(caplog.records)) == ((0, 2, True), 2)
    assert not await world.poll(rules(100))
    assert (world.applied, world.counted) == ([], (0, 2, False))


async def test_a_file_that_is_gone_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    world.file.unlink()
    for _ in range(3):
        assert not await world.poll()
    [record] = caplog.records
    assert "cannot be read: No such file" in record.getMessage()
    assert world.counted == (0, 0, True)
    assert await world.poll(rules(5))
    assert (world.applied, world.counted) == ([5], (1, 0, False))


async def test_a_fault_of_ours_does_not_end_the_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    failed = asyncio.Event()
    real = world.sources.load

    def load() -> Loaded:
        if not failed.is_set():
            loop.call_soon_threadsafe(failed.set)
            raise ZeroDivisionError
        return real()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Sources, "load", lambda _self: load())
    polling = asyncio.create_task(world.reloader.run())
    try:
        world.file.write_text(rules(6))
        await asyncio.wait_for(failed.wait(), 10)
        world.file.write_text(rules(7))
        await asyncio.wait_for(world.news.wait(), 10)
    finally:
        polling.cancel()
    assert world.applied == [7]
