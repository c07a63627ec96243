# SPDX-License-Identifier: Apache-2.0
"""A changed configuration is taken as a whole or not at all."""

from __future__ import annotations

import random

import pytest

from epp.config.catalog import collect
from epp.contract.errors import ConfigError
from epp.observe.log.logs import open_log
from epp.observe.metrics.page import page
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


COSTS = "plugins: [{type: queue-scorer}, {type: llm-request-costs}]\n"


async def test_what_plugins_count_outlives_a_reload() -> None:
    log = open_log(Nowhere())
    served = ServedPool(parse(["--config-text", COSTS], {}), log, lambda: 0.0, random.Random(1), collect())
    series = ("m", "someone", "input")
    for configuration in (served.check(COSTS, "again"), served.check(GOOD, "without"), served.check(COSTS, "back")):
        served._meter.counter("epp_llm_tokens", "", ("model", "tenant", "type")).add(series, 5)
        served.use(configuration)
    text = page(served.recorder.registry)[0].decode()
    assert 'epp_llm_tokens_total{model="m",tenant="someone",type="input"} 15' in text
    assert "# HELP epp_llm_tokens_total [ALPHA] Tokens of answers" in text
    await served.stop()
    log.close()


@pytest.mark.parametrize(("phase", "said"), [("full", 0), ("auto", 0), ("headers", 1), ("release", 1)])
async def test_a_phase_that_does_not_follow_answers_to_the_end_a_plugin_wants(
    phase: str, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(Nowhere())
    options = parse(["--config-text", COSTS, f"--response-phase={phase}"], {})
    served = ServedPool(options, log, lambda: 0.0, random.Random(1), collect())
    told = [record.message for record in caplog.records if "not complete" in record.message]
    assert len(told) == said
    assert all(f"(llm-request-costs), --response-phase={phase} does not" in line for line in told)
    await served.stop()
    log.close()
