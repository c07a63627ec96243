# SPDX-License-Identifier: Apache-2.0
"""A file that changes: edits, renames, swapped symlinks, halves, and its disappearance."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.errors import ConfigError, DiscoveryError
from epp.contract.plugins import Kind, spec_of
from epp.discovery.file import MAX_FILE_BYTES, FileDiscovery, read_file
from epp.discovery.plugin import FileDiscoveryPlugin
from epp.testing import make_context


def text(*names: str) -> str:
    return "endpoints:\n" + "".join(
        f"- {{name: {n}, address: 10.0.0.{i + 1}, port: 80}}\n" for i, n in enumerate(names)
    )


def put(path: Path, content: str) -> None:
    path.write_text(content)


class Watched:
    """A discovery whose polls the test makes happen. `between` runs while it waits for a change to settle."""

    def __init__(self, path: Path) -> None:
        self.published: list[list[str]] = []
        self.between: Callable[[], object] | None = None
        self.slept: list[float] = []
        self._turn = asyncio.Semaphore(0)
        self._asleep = asyncio.Semaphore(0)
        self.discovery = FileDiscovery(str(path), poll_s=1.0, settle_s=0.2, sleep=self._sleep)
        self.task = asyncio.create_task(self.discovery.run(self._publish))

    async def started(self) -> None:
        waiting = asyncio.create_task(self._asleep.acquire())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            waiting.cancel()
            await self.task

    async def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self._turn.release()
            await self._asleep.acquire()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds == 1.0:
            self._asleep.release()
            await self._turn.acquire()
        elif self.between:
            self.between()

    def _publish(self, specs: Sequence[EndpointSpec]) -> None:
        self.published.append([spec.name for spec in specs])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "endpoints.yaml"
    path.write_text(text("a"))
    return path


async def watch(path: Path) -> Watched:
    watched = Watched(path)
    assert isinstance(watched.discovery, Discovery)
    await watched.started()
    return watched


async def test_changes_are_published_and_nothing_else(path: Path) -> None:
    watched = await watch(path)
    await watched.poll(3)
    assert watched.published == [["a"]]
    put(path, text("a", "b"))
    await watched.poll(3)
    put(path, text("c"))
    await watched.poll()
    put(path, "endpoints: []\n")
    await watched.poll()
    os.utime(path, (0, 0))
    await watched.poll()
    assert watched.published == [["a"], ["a", "b"], ["c"], []]


async def test_a_change_of_the_same_size_and_time_is_seen(path: Path) -> None:
    watched = await watch(path)
    times = os.stat(path)
    put(path, text("b"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    await watched.poll()
    assert watched.published == [["a"], ["b"]]


async def test_renamed_over_and_deleted_and_written_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "epp.discovery")
    watched = await watch(path)
    other = path.with_name("new")
    other.write_text(text("b"))
    other.rename(path)
    await watched.poll()
    assert watched.published[-1] == ["b"]
    os.unlink(path)
    await watched.poll()
    assert caplog.messages == []
    await watched.poll(3)
    assert len(caplog.messages) == 1
    assert "cannot be read: No such file" in caplog.messages[0]
    assert "1 endpoints, is kept" in caplog.messages[0]
    put(path, text("c"))
    await watched.poll()
    assert watched.published == [["a"], ["b"], ["c"]]


async def test_a_kubelets_symlink_swap(tmp_path: Path) -> None:
    def version(name: str, *names: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoints.yaml").write_text(text(*names))
        link = tmp_path / "..data_tmp"
        link.symlink_to(name)
        link.rename(tmp_path / "..data")

    version("..2024_1", "a")
    path = tmp_path / "endpoints.yaml"
    path.symlink_to("..data/endpoints.yaml")
    watched = await watch(path)
    version("..2024_2", "a", "b")
    (tmp_path / "..2024_1" / "endpoints.yaml").unlink()
    await watched.poll()
    version("..2024_3", "b")
    await watched.poll()
    assert watched.published == [["a"], ["a", "b"], ["b"]]


async def test_a_file_that_is_being_written_is_not_taken(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "epp.discovery")
    watched = await watch(path)
    whole = text("a", "b", "c")
    # A valid file, but only the beginning of one.
    put(path, whole[: whole.index("- {name: c")])
    watched.between = lambda: path.write_text(whole)
    await watched.poll()
    assert watched.published == [["a"]]
    watched.between = None
    await watched.poll()
    assert watched.published == [["a"], ["a", "b", "c"]]
    assert caplog.messages == []


async def test_a_half_that_cannot_be_parsed_is_looked_at_again_before_it_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epp.discovery")
    watched = await watch(path)
    caplog.clear()
    whole = text("a", "b")
    put(path, whole[:-4])
    await watched.poll()
    put(path, whole)
    await watched.poll()
    assert watched.published == [["a"], ["a", "b"]]
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_a_file_that_stays_broken_is_said_once_and_the_last_good_state_kept(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epp.discovery")
    watched = await watch(path)
    caplog.clear()
    good = text("a")
    put(path, "endpoints: [")
    await watched.poll(10)
    assert watched.published == [["a"]]
    (message,) = caplog.messages
    assert str(path) in message
    assert "line " in message
    put(path, "endpoint: []")
    await watched.poll(10)
    assert len(caplog.messages) == 2
    put(path, good)
    await watched.poll(3)
    assert len(caplog.messages) == 3
    assert "again as it was" in caplog.messages[2]
    assert watched.published == [["a"]]


async def test_a_version_without_any_usable_entry_is_not_taken(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = await watch(path)
    put(path, "endpoints: [{name: x}]")
    await watched.poll(3)
    assert watched.published == [["a"]]
    assert "no entry can be used; line 1: address, port must be given" in caplog.messages[-1]


async def test_a_file_that_never_rests_is_taken_after_a_while(path: Path) -> None:
    watched = await watch(path)
    names = iter(range(100))
    watched.between = lambda: path.write_text(text(f"n{next(names)}"))
    put(path, text("x"))
    await watched.poll(4)
    assert watched.published == [["a"]]
    await watched.poll()
    assert len(watched.published) == 2


async def test_bad_entries_are_logged_and_the_others_used(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "epp.discovery")
    put(path, text("a", "b") + "- {name: c, address: nowhere, port: 80}\n- {name: d, address: 10.0.0.1, port: 80}\n")
    watched = await watch(path)
    assert watched.published == [["a", "b", "d"]]
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"endpoints file {path}: line 4: address 'nowhere'")
    assert "default/d has the address of default/a" in caplog.messages[1]


async def test_many_bad_entries_do_not_fill_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "epp.discovery")
    put(path, "endpoints:\n" + "- {name: c}\n" * 1000)
    watched = await watch(path)
    assert watched.published == [[]]
    assert len(caplog.messages) == 21
    assert "980 more" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_text("endpoints: ["), "line "),
        (lambda path: path.write_text(""), "it holds nothing"),
        (lambda path: path.write_bytes(b"#" * (MAX_FILE_BYTES + 1)), "over 1048576 bytes"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read: Too many levels"),
    ],
)
async def test_a_file_that_is_no_use_at_the_start(path: Path, prepare: Callable[[Path], object], message: str) -> None:
    prepare(path)
    watched = Watched(path)
    with pytest.raises(DiscoveryError) as caught:
        await watched.started()
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert watched.published == []


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(DiscoveryError, match=r"cannot be read: .*null"):
        read_file("a\x00b")


def test_a_file_of_the_largest_size_is_read(path: Path) -> None:
    path.write_bytes(b"#" * MAX_FILE_BYTES)
    assert len(read_file(str(path))) == MAX_FILE_BYTES


async def test_an_unwatched_file_is_read_once(path: Path) -> None:
    published: list[int] = []
    ready = asyncio.Event()

    def publish(specs: Sequence[EndpointSpec]) -> None:
        published.append(len(specs))
        ready.set()

    async def never(_: float) -> None:
        raise AssertionError("an unwatched file is not polled")

    task = asyncio.create_task(FileDiscovery(str(path), watch=False, sleep=never).run(publish))
    await ready.wait()
    await asyncio.sleep(0)
    assert published == [1]
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_plugin(path: Path) -> None:
    spec = spec_of(FileDiscoveryPlugin)
    assert spec is not None
    assert (spec.type, spec.kinds) == ("file-discovery", frozenset({Kind.DISCOVERY}))
    plugin = spec.factory(FileDiscoveryPlugin.Parameters(path=str(path)), make_context())
    assert isinstance(plugin, Discovery)
    published: asyncio.Queue[list[str]] = asyncio.Queue()
    task = asyncio.create_task(plugin.run(lambda specs: published.put_nowait([spec.id for spec in specs])))
    assert await published.get() == ["default/a"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConfigError, match="path is empty"):
        spec.factory(FileDiscoveryPlugin.Parameters(path=""), make_context())
