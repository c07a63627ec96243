# SPDX-License-Identifier: Apache-2.0
"""A file that is appended to and turned over when it is full: FILE, FILE.1 (the one before), ..., the oldest leaves.
What is no regular file, such as /dev/stdout, is written to and never turned over.

Blocking; used by one thread. Whole lines only: what a crash left of a last line is closed with a newline first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MODE = 0o640


class RotatingFile:
    """Holds at most `max_bytes` (or one write) in each of `older_files` files and the one being written."""

    def __init__(self, path: Path, max_bytes: int, older_files: int) -> None:
        """Opens the file. Raises OSError when that is not possible."""
        self._path = path
        self._max_bytes = max_bytes
        self._older_files = older_files
        self._fd = -1
        self._size = 0
        self._turns = True
        self._open()

    def write(self, lines: bytes | bytearray) -> None:
        """Append whole lines. Raises OSError; the next call tries again from the start."""
        if self._fd < 0:
            self._open()
        if self._turns and self._size and self._size + len(lines) > self._max_bytes:
            self._turn()
        rest = memoryview(lines)
        try:
            while rest:
                count = os.write(self._fd, rest)
                self._size += count
                rest = rest[count:]
        except OSError:
            # The disk may be full in the middle of a line.
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        status = os.fstat(fd)
        self._turns = stat.S_ISREG(status.st_mode)
        self._size = status.st_size
        if self._turns and self._size and os.pread(fd, 1, self._size - 1) != b"\n":
            self._size += os.write(fd, b"\n")

    def _turn(self) -> None:
        self.close()
        for number in range(self._older_files - 1, -1, -1):
            newer = numbered(self._path, number)
            if newer.exists():
                os.replace(newer, numbered(self._path, number + 1))
        if not self._older_files:
            os.truncate(self._path, 0)
        self._open()


def numbered(path: Path, number: int) -> Path:
    """FILE for 0, FILE.1 for the one before it, and so on."""
    return path.with_name(f"{path.name}.{number}") if number else path
