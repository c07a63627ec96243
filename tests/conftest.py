# SPDX-License-Identifier: Apache-2.0
"""Runs `async def` tests: each on an event loop of its own, with `asyncio.run`. No plugin is needed.

Async fixtures are not supported; use async context managers. A test that wants uvloop calls `uvloop.run` itself.

Property tests try the same examples in every run, and none of them fails for being slow: the machine may be busy.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "same-everywhere", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same-everywhere")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Await a coroutine function; everything else is pytest's."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
