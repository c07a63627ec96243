# SPDX-License-Identifier: Apache-2.0
"""A changed configuration is taken as a whole or not at all."""

from __future__ import annotations

import pytest

from epp.contract.errors import ConfigError
from epp.observe.log.logs import open_log
from epp.service.flags.parsing import parse
from epp.service.process import Process

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
    process = Process(parse([], {}), log)
    process._use(process._check(GOOD, "good"))
    before = (
        process._assembly,
        process._scraper,
        process._director and process._director.plan,
        process._pool._hooks[:],
    )
    with pytest.raises(ConfigError, match=r"/no/such/ca\.crt"):
        process._use(process._check(UNREADABLE_CA, "bad"))
    after = (process._assembly, process._scraper, process._director and process._director.plan, process._pool._hooks)
    assert after == before
    assert process._scraper is not None
    process._scraper.stop()
    log.close()
