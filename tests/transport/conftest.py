# SPDX-License-Identifier: Apache-2.0
"""Both transports, and both event loops for tests that ask for `loop_factory`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest
import uvloop

from epp.transport import grpcio, h2

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TRANSPORTS = {"h2": h2.listen, "grpcio": grpcio.listen}


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop the test runs on."""
    return LOOPS[request.param]


@pytest.fixture(params=TRANSPORTS)
def listen(request: pytest.FixtureRequest) -> Callable[..., object]:
    """`listen` of one transport."""
    return TRANSPORTS[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function on the loop its `loop_factory` makes; the others are run as everywhere."""
    factory = pyfuncitem.funcargs.get("loop_factory")
    if factory is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
