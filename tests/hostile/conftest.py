# SPDX-License-Identifier: Apache-2.0
"""One server under attack for the tests of a file, with a well-behaved peer beside them all the while."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.hostile.server import MIB, Server, attacked, running

collect_ignore = [] if sys.platform == "linux" else ["."]  # Memory is read from /proc.


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The echo service on libnghttp2 and uvloop; at the end its memory has peaked less than 16 MiB higher."""
    with running() as under_attack, attacked(under_attack, 16 * MIB):
        yield under_attack
