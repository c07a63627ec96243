# SPDX-License-Identifier: Apache-2.0
"""Batches, bounds, and streams that are slow, broken or missing."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from epp.observe.log.buffer import Buffer
from epp.observe.log.writer import FileDescriptor, LineWriter


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make_buffer(clock: ManualClock) -> Buffer:
    return Buffer(clock, limit_bytes=100, flush_bytes=40, delay_s=0.1)


def told(count: int) -> bytes:
    return b"dropped %d\n" % count


def test_a_line_is_due_after_the_delay_of_the_first_line() -> None:
    clock = ManualClock()
    buffer = make_buffer(clock)
    assert buffer.due_in_s() == math.inf
    assert buffer.add(b"one\n")
    clock.now_s += 0.06
    assert not buffer.add(b"two\n"), "the time at which the buffer is due does not change"
    assert buffer.due_in_s() == pytest.approx(0.04)
    clock.now_s += 0.04
    assert buffer.due_in_s() == pytest.approx(0.0, abs=1e-9)
    assert buffer.take() == (b"one\ntwo\n", 0)
    assert buffer.due_in_s() == math.inf


def test_many_waiting_bytes_are_due_at_once() -> None:
    buffer = make_buffer(ManualClock())
    assert [buffer.add(b"x" * 15) for _ in range(4)] == [True, False, True, False]
    assert buffer.due_in_s() == 0.0


def test_an_urgent_line_is_due_at_once() -> None:
    buffer = make_buffer(ManualClock())
    buffer.add(b"info\n")
    assert buffer.add(b"error\n", urgent=True)
    assert buffer.due_in_s() == 0.0


def test_what_is_being_written_counts_against_the_limit() -> None:
    buffer = make_buffer(ManualClock())
    buffer.add(b"a" * 60)
    data, _ = buffer.take()
    buffer.add(b"b" * 40)
    buffer.add(b"c")
    assert buffer.dropped == 1
    assert len(data) == 60
    buffer.written()
    assert not buffer.idle, "lines wait, and one drop is untold"
    buffer.add(b"d" * 60)
    assert buffer.take() == (b"b" * 40 + b"d" * 60, 1)
    buffer.written()
    assert buffer.idle


def test_a_batch_is_written_in_one_piece_when_the_clock_says_so(stream: Any) -> None:
    clock = ManualClock()
    writer = LineWriter(stream, told, clock=clock, delay_s=0.01)
    for number in range(5):
        writer.add(b"line %d\n" % number)
    clock.now_s += 0.01
    assert stream.entered.wait(10)
    writer.close()
    assert stream.writes == [b"line 0\nline 1\nline 2\nline 3\nline 4\n"]


def test_an_error_is_written_at_once(stream: Any) -> None:
    writer = LineWriter(stream, told, clock=ManualClock(), delay_s=1e6)
    writer.add(b"info\n")
    writer.add(b"error\n", urgent=True)
    assert stream.entered.wait(10), "the clock stands still: only urgency can have written this"
    writer.close()
    assert stream.text == "info\nerror\n"


def test_a_slow_stream_does_not_block_and_drops_are_counted_and_told(stream: Any) -> None:
    stream.open.clear()
    writer = LineWriter(stream, told, limit_bytes=1000, flush_bytes=100, delay_s=0.0)
    writer.add(b"f" * 99 + b"\n")
    assert stream.entered.wait(10), "from here on the writing thread is stuck"
    for _ in range(20):
        writer.add(b"x" * 99 + b"\n")
    assert writer.dropped == 11
    stream.open.set()
    assert writer.flush(10)
    writer.add(b"after\n")
    writer.close()
    lines = stream.text.splitlines()
    assert lines == ["f" * 99] + ["x" * 99] * 9 + ["dropped 11", "after"]


def test_closing_writes_what_waits_and_later_lines_are_lost(stream: Any) -> None:
    writer = LineWriter(stream, told, delay_s=1e6)
    writer.add(b"last words\n")
    writer.close()
    writer.add(b"too late\n")
    writer.close()
    assert stream.text == "last words\n"
    assert writer.dropped == 1


def test_closing_does_not_wait_for_a_stuck_stream(stream: Any) -> None:
    stream.open.clear()
    writer = LineWriter(stream, told, delay_s=0.0)
    writer.add(b"line\n")
    assert stream.entered.wait(10)
    writer.close(timeout_s=0.01)
    assert stream.writes == []
    stream.open.set()
    writer.close()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("write to closed file")])
def test_a_broken_stream_is_given_up_silently(error: Exception) -> None:
    class Broken:
        def write(self, data: bytes | bytearray, /) -> None:
            raise error

    writer = LineWriter(Broken(), told)
    writer.add(b"one\n", urgent=True)
    writer.flush(10)
    writer.add(b"two\n")
    assert writer.dropped == 1
    writer.close()


def test_a_pipe_without_reader_is_given_up_silently() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = LineWriter(FileDescriptor(write_end), told)
    writer.add(b"one\n", urgent=True)
    writer.flush(10)
    writer.add(b"two\n", urgent=True)
    writer.close()
    os.close(write_end)
    assert writer.dropped == 1


def test_a_non_blocking_descriptor_is_written_completely() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    data = os.urandom(1 << 20)
    received = bytearray()

    def read() -> None:
        while piece := os.read(read_end, 65536):
            received.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    FileDescriptor(write_end).write(data)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert bytes(received) == data


def test_lines_of_many_threads_stay_whole(stream: Any) -> None:
    writer = LineWriter(stream, told, flush_bytes=64)
    threads = [
        threading.Thread(target=lambda n=n: [writer.add(b"%d:%d\n" % (n, i)) for i in range(500)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    lines = stream.text.splitlines()
    for n in range(4):
        assert [line for line in lines if line.startswith(f"{n}:")] == [f"{n}:{i}" for i in range(500)]
    assert len(lines) == 2000


PROGRAM = """
from epp.observe.log.logs import INFO, open_log
log = open_log(delay_s=1000.0)
log.write(INFO, "written at exit")
"""


def test_lines_are_written_when_the_process_exits() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert '"msg":"written at exit"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_process_without_standard_error_works() -> None:
    program = "import os; os.close(2)\n" + PROGRAM
    subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, timeout=60, check=True)
    closed = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, PROGRAM]
    subprocess.run(closed, stdin=subprocess.DEVNULL, timeout=60, check=True)
