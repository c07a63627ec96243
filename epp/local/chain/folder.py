# SPDX-License-Identifier: Apache-2.0
"""A private directory for the files of one run: keys, Envoy's bootstrap, configurations.

Only the owner may read it (0700, files 0600). It is removed at the end of the run. A run that was killed cannot do
that: each holds a lock in its directory, and the next run removes those whose lock nobody holds, keys and all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from epp.contract.errors import StartError
from epp.local.gateway.secrets import write_private

_PREFIX = "epp-up-"
_LOCK = "lock"


class Folder:
    """Make it with `private_folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        """A file that only its owner can read. Raises `StartError`."""
        path = self.path / name
        write_private(path, text)
        return path


@contextlib.contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Folder]:
    """A new directory, removed at the end; those that killed runs left beside it are removed at the beginning. Raises
    `StartError` where none can be made."""
    beside = parent or Path(tempfile.gettempdir())
    sweep(beside)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=beside))
        lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(
            f"no private directory can be made in {beside}: {error.strerror or error}; set $TMPDIR"
        ) from None
    path = beside / made.name.removeprefix(".")
    try:
        # Under the name that others sweep only when it is held.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(path)
        yield Folder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep(beside: Path) -> None:
    """Remove our own directories there that no run holds any more."""
    for path in beside.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
                continue
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
