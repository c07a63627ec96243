# SPDX-License-Identifier: Apache-2.0
"""Which detector a pool gets, by its configuration and the variables of the seed era."""

from __future__ import annotations

import random

import pytest

from epp.config.build import Assembly, assemble
from epp.config.catalog import Catalog
from epp.config.load import load_text
from epp.contract.plugins import Reads
from epp.plugins.detectors.utilization import UtilizationDetector
from epp.service.flags.options import Options
from epp.service.flags.parsing import parse
from epp.service.saturation import READS, detector_reads, follow_pace, with_detector
from epp.service.wiring import plan_of
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings
from epp.testing import FakeClock, make_endpoints

SCORER = "plugins: [{type: running-requests-size-scorer}]\n"
RANDOM = "plugins: [{type: random-picker}]\n"
NAMED = "plugins: [{type: random-picker}, {type: utilization-detector, parameters: {queueDepthThreshold: 2}}]\n"


def options(**environ: str) -> Options:
    return parse(["--endpoints=127.0.0.1:1"], environ)


def assembly_of(text: str) -> Assembly:
    return assemble(load_text(text, Catalog()), FakeClock(), 1)


def detector_of(text: str, **environ: str) -> UtilizationDetector | None:
    assembly, clock = assembly_of(text), FakeClock()
    plan = with_detector(plan_of(assembly, clock), assembly, options(**environ), clock)
    assert plan.detector is None or isinstance(plan.detector.plugin, UtilizationDetector)
    return plan.detector.plugin if plan.detector is not None else None


@pytest.mark.parametrize(
    ("text", "environ", "saturation"),
    [
        (SCORER, {}, 4 / 5),
        (SCORER, {"SD_QUEUE_DEPTH_THRESHOLD": "2"}, 2.0),
        (SCORER, {"SD_QUEUE_DEPTH_THRESHOLD": "100", "SD_KV_CACHE_UTIL_THRESHOLD": "0.4"}, 1.25),
        (SCORER, {"SD_METRICS_STALENESS_THRESHOLD": "1ms"}, 1.0),
        # What the configuration says goes before the variables.
        (NAMED, {"SD_QUEUE_DEPTH_THRESHOLD": "100"}, 2.0),
    ],
)
def test_thresholds(text: str, environ: dict[str, str], saturation: float) -> None:
    detector = detector_of(text, **environ)
    assert detector is not None
    endpoints = make_endpoints(waiting=[4.0], kv_utilization=[0.5], age_s=0.1, now_s=0.0)
    assert detector.saturation(endpoints) == pytest.approx(saturation)


def test_without_metrics_pages_there_is_no_detector_unless_one_is_declared() -> None:
    assert detector_of(RANDOM) is None
    assert detector_of(NAMED) is not None


def test_a_declared_one_is_guarded_once() -> None:
    assembly, clock = assembly_of(NAMED), FakeClock()
    plan = with_detector(plan_of(assembly, clock), assembly, options(), clock)
    assert plan.detector in plan.plugins


def test_what_the_detector_needs_is_read_where_pages_are_read() -> None:
    assembly, clock = assembly_of(SCORER), FakeClock()
    plan = with_detector(plan_of(assembly, clock), assembly, options(), clock)
    assert detector_reads(plan, Reads.RUNNING) == Reads.RUNNING | READS
    assert detector_reads(plan, Reads.NOTHING) is Reads.NOTHING
    assert detector_reads(plan_of(assembly, clock), Reads.RUNNING) is Reads.RUNNING


@pytest.mark.parametrize(
    ("interval_s", "idle_interval_s", "age_s", "saturation"),
    [
        (0.05, 0.0, 0.19, 0.0),
        (0.05, 0.0, 0.21, 1.0),
        (1.0, 0.0, 3.9, 0.0),
        (1.0, 0.0, 4.1, 1.0),
        (0.05, 5.0, 5.1, 0.0),
        (0.05, 5.0, 5.3, 1.0),
    ],
)
def test_pages_are_not_stale_for_being_read_seldom(
    interval_s: float, idle_interval_s: float, age_s: float, saturation: float
) -> None:
    assembly, clock = assembly_of(SCORER), FakeClock()
    plan = with_detector(plan_of(assembly, clock), assembly, options(), clock)
    settings = ScrapeSettings(interval_s=interval_s, idle_interval_s=idle_interval_s)
    follow_pace(plan, Scraper(lambda _endpoint, _sample: True, Reads.WAITING, settings, random.Random(1)))
    assert plan.detector is not None
    assert plan.detector.plugin.saturation(make_endpoints(1, age_s=age_s, now_s=0.0)) == saturation
