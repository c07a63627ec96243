# SPDX-License-Identifier: Apache-2.0
"""A changed file is handed on, a wrong one is not, however the file is replaced."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from epp.config.catalog import Catalog
from epp.config.configuration import Configuration
from epp.config.load import load_text
from epp.config.reload import ConfigWatcher
from epp.contract.errors import ConfigError

ONE = "plugins: [{type: queue-scorer}]\n"
TWO = "plugins: [{type: load-aware-scorer}]\n"
BAD = "plugins: [{type: queue-scoree}, {type: x}]\n"


class Watched:
    """A mounted ConfigMap with one file, its watcher, and what came of it."""

    def __init__(self, directory: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
        self.directory = directory
        self.applied: list[Configuration] = []
        self.refuse = False
        self.called = asyncio.Event()
        self.versions = 0
        self.caplog = caplog
        caplog.set_level(logging.INFO)
        self.write(ONE)
        self.path = directory / "config.yaml"
        self.path.symlink_to("..data/config.yaml")
        self.watcher = ConfigWatcher(
            self.path, lambda text, source: load_text(text, catalog, source=source), self.apply,
            logging.getLogger("test"), text=ONE, interval_s=0.001,
        )  # fmt: skip

    def write(self, text: str) -> None:
        """Replace the content as the kubelet does: a new directory, then the symlink swapped in one step."""
        self.versions += 1
        version = self.directory / f"..v{self.versions}"
        version.mkdir()
        (version / "config.yaml").write_text(text)
        os.utime(version / "config.yaml", (1, 1))
        (self.directory / "..data_tmp").symlink_to(version.name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")

    def apply(self, configuration: Configuration) -> None:
        if self.refuse:
            raise ConfigError("failed to create plugin 'a'")
        self.applied.append(configuration)
        self.called.set()

    def poll(self) -> bool:
        return asyncio.run(self.watcher.poll())

    def logged(self) -> list[str]:
        lines = [record.getMessage() for record in self.caplog.records if record.name == "test"]
        self.caplog.clear()
        return lines


@pytest.fixture
def watched(tmp_path: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(tmp_path, catalog, caplog)


def test_the_configuration_in_use_is_not_handed_on_again(watched: Watched) -> None:
    assert not watched.poll()
    watched.write(ONE)
    assert not watched.poll()
    assert watched.applied == []
    assert watched.logged() == []


def test_a_swapped_symlink_is_seen(watched: Watched) -> None:
    watched.write(TWO)
    assert watched.poll()
    assert not watched.poll()
    assert [c.profiles[0].scorers[0].name for c in watched.applied] == ["load-aware-scorer"]
    assert watched.logged() == [f"configuration {watched.path} changed and is in use"]


def test_a_wrong_file_is_logged_once_and_the_last_good_kept(watched: Watched) -> None:
    watched.write(BAD)
    assert not watched.poll()
    assert not watched.poll()
    (line,) = watched.logged()
    assert line.startswith(
        f"configuration kept as it is; the changed one is wrong: {watched.path}: line 1: plugin type 'queue-scoree' is"
        " not registered; did you mean 'queue-scorer'?"
    )
    watched.write(ONE)
    assert not watched.poll()
    assert watched.logged() == [f"configuration {watched.path} is again the one in use"]
    watched.write(TWO)
    assert watched.poll()
    assert len(watched.applied) == 1


def test_what_cannot_be_applied_counts_as_wrong(watched: Watched) -> None:
    watched.refuse = True
    watched.write(TWO)
    assert not watched.poll()
    assert watched.logged() == ["configuration kept as it is; the changed one is wrong: failed to create plugin 'a'"]


def test_a_file_that_vanishes_is_logged_once_and_found_again(watched: Watched) -> None:
    (watched.directory / "..data").unlink()
    assert not watched.poll()
    assert not watched.poll()
    assert watched.logged() == [
        (
            f"configuration kept as it is: {watched.path}: cannot be read: No such file or directory; give a readable YAML"
            " or JSON file"
        )
    ]
    watched.write(TWO)
    assert watched.poll()


def test_run_polls_until_cancelled(watched: Watched) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(watched.watcher.run())
        watched.write(TWO)
        await watched.called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_without_anything_in_use_the_first_good_version_is_handed_on(watched: Watched, catalog: Catalog) -> None:
    applied: list[Configuration] = []
    watcher = ConfigWatcher(
        watched.path, lambda text, source: load_text(text, catalog, source=source), applied.append,
        logging.getLogger("test"), text=None,
    )  # fmt: skip
    assert asyncio.run(watcher.poll())
    assert applied[0].source == str(watched.path)
