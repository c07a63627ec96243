# SPDX-License-Identifier: Apache-2.0
"""What `GET /sim/state` tells: the books of a pod and its engine at this moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epp.local.sim.accounts import Accounts
from epp.local.sim.driver import Driver
from epp.local.sim.faults import Faults


@dataclass(frozen=True, slots=True)
class State:
    """Reads what is asked for, when it is asked for. `page` renders the metrics page, without faults."""

    name: str
    clock: Callable[[], float]
    started_s: float
    accounts: Accounts
    faults: Faults
    driver: Driver
    page: Callable[[], bytes]

    def told(self) -> dict[str, Any]:
        """As JSON tells it. `requests` includes those that are open; `models` only those that have ended."""
        self.driver.catch_up()
        engine = self.driver.engine
        blocks = engine.blocks
        return {
            "name": self.name,
            "uptime_s": round(self.clock() - self.started_s, 3),
            "requests": self.accounts.total().told(),
            "models": {name: account.told() for name, account in self.accounts.by_model().items()},
            "engine": {
                "running": len(engine.running),
                "waiting": len(engine.waiting),
                "kv_utilization": blocks.utilization,
                "blocks": {"size": blocks.size, "held": blocks.held, "cached": blocks.cached},
                "preemptions": engine.preemptions,
                "slowdown": engine.slowdown,
            },
            "faults_struck": self.faults.struck,
        }
