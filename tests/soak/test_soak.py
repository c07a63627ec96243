# SPDX-License-Identifier: Apache-2.0
"""A short soak, and proof that a soak can fail: causes are told apart, and each defect is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.soak.ledger import Ledger, Lost, Window
from tests.soak.run import Settings, Soak
from tests.soak.scenario import HARMFUL, HARMLESS, MOST_DISTURBED, plan
from tests.soak.verdict import Findings
from tests.soak.watch import MIB, Reading, Watch, sums

GATEWAYS = ("tls", "plain")


@pytest.mark.envoy
@pytest.mark.timeout(110)
def test_nothing_is_lost_without_a_cause(tmp_path: Path) -> None:
    told: list[str] = []
    settings = Settings(20.0, seed=7, connections=24, rate_per_s=60.0, stop_s=2.0, rotate_s=3.0)
    findings = uvloop.run(Soak(settings, tmp_path, told.append).run())
    # How long a turn of the loop takes on a busy machine is for the long form to judge.
    defects = [defect for defect in findings.defects() if not defect.startswith("the loop of")]
    assert defects == [], "\n".join([*told, *findings.lines()])
    assert set(findings.events) >= {"kill", "hang", "refuse", "metrics_lie", "slow", "terminate", "crash", "stop"}
    assert sum(counts["answered"] for counts in findings.clients.values()) > 300


def test_the_same_seed_plans_the_same_and_all_of_it_comes() -> None:
    assert plan(3, 120.0, 6, GATEWAYS, 5.0) == plan(3, 120.0, 6, GATEWAYS, 5.0) != plan(4, 120.0, 6, GATEWAYS, 5.0)
    for seed in range(20):
        events = plan(seed, 120.0, 6, GATEWAYS, 5.0)
        assert {event.kind for event in events} == {*HARMFUL, *HARMLESS, "terminate", "crash", "stop"}
        for event in events:
            assert 0 <= event.at_s <= 120
            meanwhile = [e for e in events if e.at_s <= event.at_s < e.at_s + e.for_s and e.kind in HARMFUL]
            assert len(meanwhile) <= MOST_DISTURBED
            assert len({e.target for e in meanwhile}) == len(meanwhile)
            if event.kind in ("terminate", "crash"):
                assert event.at_s < 60


def lost(**more: Any) -> Lost:
    values: dict[str, Any] = {"begin_s": 10.0, "end_s": 11.0, "what": "503", "pod": "a", "told": "", **more}
    return Lost("id", "tls", "whole", **values)


@pytest.mark.parametrize(
    ("window", "loss", "cause"),
    [
        (Window("a", "kill", 9, 12), lost(), "kill"),
        (Window("a", "kill", 11, 12), lost(), "kill"),
        (Window("a", "kill", 5, 9.6), lost(), "kill"),
        (Window("a", "kill", 5, 9.4), lost(), None),
        (Window("a", "kill", 11.1, 12), lost(), None),
        (Window("b", "kill", 9, 12), lost(), None),
        (Window("tls", "crash", 9, 12), lost(pod=""), "crash"),
        (Window("plain", "crash", 9, 12), lost(), None),
        # What is slow explains that nothing came in time, and nothing else.
        (Window("a", "slow", 9, 12), lost(), None),
        (Window("a", "slow", 9, 12), lost(timed_out=True), "slow"),
        (Window("tls", "stop", 9, 12), lost(), None),
        (Window("tls", "stop", 9, 12), lost(timed_out=True), "stop"),
    ],
)
def test_a_loss_is_blamed_on_what_can_have_caused_it(window: Window, loss: Lost, cause: str | None) -> None:
    explained, strange = Ledger([window], [loss]).attribute()
    assert (explained, strange) == (({cause: 1}, []) if cause else ({}, [loss]))


def findings(**more: Any) -> Findings:
    values: dict[str, Any] = {
        "seconds": 100.0,
        "clients": {"tls": Counter(whole=1)},
        "latencies_s": [0.1],
        "events": ["kill"],
        "explained": Counter(),
        "strange": [],
        "left": {},
        "watches": {"tls": watch()},
        "disturbed": lambda *_: False,
        "complaints": {"tls": ['{"level":"warn"}']},
        "failures": [],
        "exit_codes": {"tls": 0},
        **more,
    }
    return Findings(**values)


def watch(
    *, growth_mib: float = 0.0, descriptors: int = 0, busy_s: float = 0.001, held_s: float = 0.001, requests: int = 9000
) -> Watch:  # fmt: skip
    """Readings of 100 s; the growth is that of the second half."""
    sizes = [int((50 + growth_mib * at_s / 50) * MIB) for at_s in range(101)]
    counts = [20 + descriptors * at_s // 50 for at_s in range(101)]
    pairs = enumerate(zip(sizes, counts, strict=True))
    return Watch([Reading(at_s, 1, size, count, busy_s, held_s, requests) for at_s, (size, count) in pairs])


def test_a_good_run_is_good() -> None:
    assert list(findings().defects()) == []
    assert list(findings().lines())[-1] == "verdict: good"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"left": {"tls epp_in_flight_requests": 1.0}}, "still in flight at the end: tls epp_in_flight_requests = 1"),
        ({"strange": [lost()]}, "lost without a cause: "),
        ({"watches": {"tls": watch(growth_mib=4)}}, "memory of tls grew in the second half by 0.0 MiB while it filled"),
        ({"watches": {"tls": watch(growth_mib=4)}}, "and 4.0 MiB after that"),
        ({"watches": {"tls": watch(growth_mib=30, requests=100)}}, "by 30.0 MiB while it filled and 0.0 MiB after"),
        ({"watches": {"tls": watch(descriptors=20)}}, "20 more descriptors"),
        ({"watches": {"tls": watch(busy_s=0.025, held_s=0.03)}}, "the loop of tls was busy for 25 ms"),
        ({"watches": {"tls": watch(held_s=0.1)}}, "the loop of tls was held for 100 ms"),
        ({"complaints": {"tls": ['{"level":"error","msg":"a 1"}'] * 2}}, "tls logged 2 times: error a #"),
        ({"complaints": {"tls": ["Traceback"]}}, "the picker or Envoy of tls logged 1 times: Traceback"),
        ({"strange": [lost()] * 30}, "lost without a cause: 10 more"),
        ({"failures": ["KeyError()"]}, "the soak itself failed: KeyError()"),
        ({"exit_codes": {"tls": -9}}, "ended with exit code -9"),
    ],
)
def test_each_defect_is_found(more: dict[str, Any], words: str) -> None:
    found = findings(**more)
    assert any(words in defect for defect in found.defects())
    assert list(found.lines())[-1].startswith("verdict: FAILED")


def test_a_turn_is_not_judged_while_the_picker_is_disturbed() -> None:
    found = findings(watches={"tls": watch(busy_s=1.0, held_s=1.0)}, disturbed=lambda *_: True)
    assert list(found.defects()) == []


def test_sums_add_up_the_series_of_a_name() -> None:
    page = '# HELP a b\na{x="1"} 1\na{x="2"} 2.5\nb 7\na_total 9\n'
    assert sums(page) == {"a": 3.5, "b": 7.0, "a_total": 9.0}
