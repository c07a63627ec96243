# SPDX-License-Identifier: Apache-2.0
"""A stand-in of its own for each test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver.client import Client
from tests.apiserver.server import ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made
