# SPDX-License-Identifier: Apache-2.0
"""A changed configuration is taken as a whole or not at all."""

from __future__ import annotations

import random

import pytest

from epp.config.catalog import collect
from epp.contract.errors import ConfigError
from epp.observe.log.logs import open_log
from epp.service.flags.parsing import parse
from epp.service.served import ServedPool

GOOD = "plugins:\n- type: queue-scorer\n"
# Every plugin can be constructed, only the metrics pages could not be read.
UNREADABLE_CA = """
plugins:
- type: prefix-cache-scorer
- {type: queue-scorer}
- {type: metrics-data-source, parameters: {scheme: https, insecureSkipVerify: false, caCertPath: /no/such/ca.crt}}
"""


class Nowhere:
    def write(self, data: bytes | bytearray) -> None:
        """A log that nobody reads."""


async def test_what_fails_last_changes_nothing() -> None:
    log = open_log(Nowhere())
    served = ServedPool(parse(["--config-text", GOOD], {}), log, lambda: 0.0, random.Random(1), collect())

    def state() -> tuple[object, ...]:
        return served.assembly, served.scraper, served.director.plan, served.pool._hooks[:]

    before = state()
    with pytest.raises(ConfigError, match=r"/no/such/ca\.crt"):
        served.use(served.check(UNREADABLE_CA, "bad"))
    assert state() == before
    await served.stop()
    log.close()
