# SPDX-License-Identifier: Apache-2.0
"""A lease that is given up is taken at once by a candidate that watches it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from epp.election.election import Election, Timing
from epp.election.watching import lease_watch
from epp.kube.access import find_access
from epp.kube.api import Api
from tests.apiserver.server import ApiServer


def nothing(*_: object) -> None:
    """Nobody listens."""


async def true(found: Callable[[], object]) -> None:
    """Wait until `found()` is."""
    while not found():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


RARELY = Timing(lease_s=3600, renew_s=600.0, retry_s=300.0)


@pytest.mark.parametrize(("may_watch", "timing"), [(True, RARELY), (False, Timing())], ids=["watch", "no watch"])
async def test_a_lease_that_was_given_up_is_taken(tmp_path: Path, may_watch: bool, timing: Timing) -> None:
    """By watching, at once, however rarely it is asked for; without the right to watch, at the next turn."""
    with ApiServer(namespace="n") as server:
        if not may_watch:
            server.rules.deny("watch", "leases")
            server.rules.deny("list", "leases")
        access = find_access({"KUBECONFIG": str(server.kubeconfig(tmp_path / "config"))})
        assert access is not None
        api = Api(access)
        one, two = (
            Election(api, "n", "lease", name, clock=time.monotonic, rng=random.Random(7), tell=nothing, timing=timing)
            for name in ("one", "two")
        )
        tasks = [asyncio.create_task(one.run(nothing))]
        async with asyncio.timeout(20):
            await true(lambda: one.leading)
            tasks += [
                asyncio.create_task(two.run(nothing)),
                asyncio.create_task(lease_watch(api, "n", "lease", two.look, random.Random(7)).run()),
            ]
            await true(lambda: two.holder == "one" and (not may_watch or server.watching))
            await one.release()
            await true(lambda: two.leading)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await api.close()
