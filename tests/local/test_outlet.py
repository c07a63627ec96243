# SPDX-License-Identifier: Apache-2.0
"""A reader that stops: whoever writes goes on, what is too much is counted, what is taken is whole."""

from __future__ import annotations

import asyncio
import io
import os
import select
from collections.abc import Iterator
from typing import TextIO

import pytest

from epp.local.outlet import Outlet, write_whole
from epp.local.report import Printer

PIPE_BYTES = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reader's end, and the writer's as a text."""
    reader, writer = os.pipe()
    out = os.fdopen(writer, "w")
    yield reader, out
    os.close(reader)
    out.close()


def read_to(reader: int, end: bytes) -> bytes:
    found = bytearray()
    while not found.endswith(end):
        found += os.read(reader, 1 << 16)
    return bytes(found)


def read_all(reader: int, outlet: Outlet) -> None:
    """Read until nothing waits any more; the last of it may still be in the pipe."""
    while outlet.waiting_bytes:
        if select.select([reader], [], [], 0.01)[0]:
            os.read(reader, 1 << 16)


def test_who_writes_goes_on_when_nobody_reads_and_what_is_too_much_is_counted(pipe: tuple[int, TextIO]) -> None:
    reader, out = pipe
    outlet = Outlet(out, most_bytes=PIPE_BYTES)
    held = "x" * (2 * PIPE_BYTES - 1) + "\n"
    outlet.write(held)
    for _ in range(1000):
        outlet.write("y\n")
    assert outlet.waiting_bytes == len(held)
    assert read_to(reader, b"\n").decode() == held
    read_all(reader, outlet)
    outlet.write("end\n")
    assert read_to(reader, b"end\n").decode() == "(nobody read; lines that are not shown: 1000)\nend\n"
    outlet.close(1.0)


def test_the_end_does_not_wait_for_who_does_not_read(pipe: tuple[int, TextIO]) -> None:
    reader, out = pipe
    outlet = Outlet(out)
    outlet.write("x" * PIPE_BYTES * 2)
    outlet.close(0.01)
    assert outlet.waiting_bytes
    read_all(reader, outlet)


def test_a_reader_that_is_slow_gets_all_of_it(pipe: tuple[int, TextIO]) -> None:
    reader, out = pipe
    printer = Printer(out)
    lines = [f"{number} äöü" for number in range(20_000)]
    for text in lines:
        printer.line(text)
    assert read_to(reader, f"\n{lines[-1]}\n".encode()).decode().splitlines() == lines
    printer.close()


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        printer = Printer(out)
        printer.line("one")
        printer.close()
        printer.line("two")
        printer.close()


async def test_data_are_written_whole_while_other_work_goes_on(pipe: tuple[int, TextIO]) -> None:
    reader, out = pipe
    text = "y" * (5 * PIPE_BYTES) + "\n"
    writing = asyncio.create_task(write_whole(out, text))
    os.set_blocking(reader, False)
    got = bytearray()
    while not got.endswith(b"\n"):
        await asyncio.sleep(0.001)
        assert not (writing.done() and not got)
        try:
            got += os.read(reader, 1 << 16)
        except BlockingIOError:
            continue
    await writing
    assert got.decode() == text


def test_what_is_only_in_memory_is_written_at_once() -> None:
    out = io.StringIO()
    Printer(out).line("one")
    assert out.getvalue() == "one\n"
