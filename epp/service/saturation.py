# SPDX-License-Identifier: Apache-2.0
"""The saturation detector of a pool: the configuration's, else the default one with the thresholds that the variables
SD_* of the seed era give.

The default one does not make us read metrics pages; where none are read for the configuration's sake, there is no
detector, and nobody is refused.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from epp.config.build import Assembly
from epp.contract.endpoints import Clock
from epp.contract.plugins import SCRAPED, PluginContext, Reads, SaturationDetector
from epp.director import Plan
from epp.plugins.detectors.utilization import UtilizationDetector
from epp.scheduling.guard import Guarded
from epp.service.flags.options import Options
from epp.signals.poll.scraper import Scraper

DEFAULT = "utilization-detector"
READS = Reads.WAITING | Reads.KV_UTILIZATION
POLLS = 4
"""A page is late when so many more of the endpoint should have come since: 200 ms at the Go EPP's pace of 50 ms."""


def with_detector(plan: Plan, assembly: Assembly, options: Options, clock: Clock) -> Plan:
    """`plan` with its detector, where it has one."""
    named = assembly.detector
    if named is not None:
        guarded = next((guarded for guarded in plan.plugins if guarded.name == named.name), None)
        return replace(plan, detector=guarded or Guarded(named.name, named.object, clock))
    if not assembly.reads & SCRAPED:
        return plan
    context = PluginContext(DEFAULT, clock, random.Random(0))
    made: SaturationDetector = UtilizationDetector(_thresholds(options), context)
    return replace(plan, detector=Guarded(DEFAULT, made, clock))


def detector_reads(plan: Plan, reads: Reads) -> Reads:
    """What metrics pages are read for, given what they are read for otherwise."""
    return reads | READS if plan.detector is not None and reads & SCRAPED else reads


def follow_pace(plan: Plan, scraper: Scraper) -> None:
    """Let every detector know how old a page may be that `scraper` reads as it should."""
    places = [guarded.plugin for guarded in (*plan.plugins, plan.detector) if guarded is not None]
    for plugin in places:
        if isinstance(plugin, UtilizationDetector):
            plugin.polled_within_s = partial(_polled_within_s, scraper)


def _polled_within_s(scraper: Scraper) -> float:
    # The request that ends idleness finds pages of the slow pace.
    return POLLS * scraper.interval_s + scraper.settings.idle_interval_s


def _thresholds(options: Options) -> UtilizationDetector.Parameters:
    defaults = UtilizationDetector.Parameters()
    staleness_s = options.saturation_metrics_staleness_threshold_s
    return UtilizationDetector.Parameters(
        queueDepthThreshold=options.saturation_queue_depth_threshold or defaults.queueDepthThreshold,
        kvCacheUtilThreshold=options.saturation_kv_utilization_threshold or defaults.kvCacheUtilThreshold,
        metricsStalenessThreshold=defaults.metricsStalenessThreshold if staleness_s is None else f"{staleness_s:.9f}s",
    )
