# SPDX-License-Identifier: Apache-2.0
"""A directory of files is followed, however its files change."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from epp.config.load import read_text
from epp.contract.errors import StartError
from epp.service.pools.folder import File, Files, Folder


class Watched:
    """A directory and what was told of it; `sleep` may do something once, as if others wrote meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Files] = []
        self.slept = 0
        self.meanwhile: list[Callable[[], object]] = []
        self.folder = Folder(path, read_text, sleep=self._sleep)

    def texts(self) -> dict[str, str]:
        return {stem: file.text for stem, file in self.told[-1].items()}

    async def poll(self) -> int:
        before = len(self.told)
        await self.folder.poll(self.told.append)
        return len(self.told) - before

    async def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        if self.meanwhile:
            self.meanwhile.pop(0)()


async def test_files_come_change_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("one")
    (tmp_path / "notes.txt").write_text("no configuration")
    (tmp_path / ".hidden.yaml").write_text("no configuration")
    watched = Watched(tmp_path)
    assert watched.folder.open() == {"a": File(tmp_path / "a.yaml", "one")}
    assert await watched.poll() == 0
    (tmp_path / "team.b.json").write_text("two")
    (tmp_path / "a.yaml").write_text("three")
    assert await watched.poll() == 1
    assert watched.texts() == {"a": "three", "team.b": "two"}
    (tmp_path / "a.yaml").unlink()
    assert await watched.poll() == 1
    assert watched.texts() == {"team.b": "two"}


async def test_yaml_counts_before_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("json")
    (tmp_path / "a.yml").write_text("yml")
    assert Watched(tmp_path).folder.open()["a"].text == "yml"


def _mounted(tmp_path: Path, version: str, files: dict[str, str]) -> None:
    """What a kubelet does with a ConfigMap."""
    data = tmp_path / version
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
        os.utime(data / name, (1_000_000_000, 1_000_000_000))
        if not (tmp_path / name).is_symlink():
            (tmp_path / name).symlink_to(f"..data/{name}")
    link = tmp_path / "..tmp"
    link.symlink_to(version)
    link.rename(tmp_path / "..data")


async def test_a_config_map_that_is_swapped(tmp_path: Path) -> None:
    _mounted(tmp_path, "..v1", {"a.yaml": "one", "b.yaml": "one"})
    watched = Watched(tmp_path)
    assert set(watched.folder.open()) == {"a", "b"}
    _mounted(tmp_path, "..v2", {"a.yaml": "two", "c.yaml": "two"})  # leaves b.yaml dangling
    assert await watched.poll() == 1
    assert watched.texts() == {"a": "two", "c": "two"}


async def test_the_middle_of_a_change_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one")
    watched = Watched(tmp_path)
    watched.folder.open()
    file.write_text("")
    watched.meanwhile = [lambda: file.write_text("whole text")]
    assert await watched.poll() == 1
    assert watched.texts() == {"a": "whole text"}
    file.unlink()
    watched.meanwhile = [lambda: file.write_text("whole text")]
    assert await watched.poll() == 0
    assert watched.slept == 3


async def test_what_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    folder = tmp_path / "b.yaml"
    folder.mkdir()
    files = Watched(tmp_path).folder.open()
    assert "not UTF-8" in files["a"].error
    assert "cannot be read" in files["b"].error
    missing = Watched(tmp_path / "none")
    with pytest.raises(StartError, match=r"none cannot be read: No such file.*; name a directory"):
        missing.folder.open()
    with caplog.at_level(logging.WARNING):
        assert await missing.poll() == await missing.poll() == 0
    assert len(caplog.records) == 1
