# SPDX-License-Identifier: Apache-2.0
"""The row `ratelimit` without processes: what is put next to what, and that the question meets the rules."""

from __future__ import annotations

from benchmarks.ratelimit import BUDGET, rows
from benchmarks.ratelimit_peers import RULES, question
from epp.protos.rls_pb2 import RateLimitRequest
from epp.ratelimit.engine import Engine
from epp.ratelimit.ledger import open_ledger
from epp.ratelimit.rules import rules_from_yaml


def run(cpu_us: float) -> dict[str, float]:
    return {"calls": 1000, "cpu_us": cpu_us, "p50_ms": 1.0, "p99_ms": 2.0}


def test_medians_and_the_budget() -> None:
    [row] = rows([run(50), run(70), run(900)], [run(200), run(350), run(350)])
    assert (row.value, row.reference, row.ratio, row.budget) == (70, 350, 0.2, BUDGET)
    assert row.verdict == "ok"
    [row] = rows([run(200)], [run(350)])
    assert row.verdict == "over"


async def test_a_question_is_counted() -> None:
    engine = Engine(open_ledger(None))
    engine.install(rules_from_yaml(RULES, "bench"))
    answer = await engine.should_rate_limit(RateLimitRequest.FromString(question(3)))
    assert answer.statuses[0].limit_remaining == 999_999
