# SPDX-License-Identifier: Apache-2.0
"""Which plugin says when the pool is saturated, by every way in which a document could ever say it."""

from __future__ import annotations

import pytest

from epp.config.build import assemble
from epp.config.catalog import Catalog
from epp.config.configuration import Configuration
from epp.config.findings import ConfigErrors
from epp.config.load import load_text
from epp.contract.plugins import Reads
from epp.plugins.detectors.utilization import UtilizationDetector
from epp.testing import FakeClock

PLUGINS = "plugins:\n- type: running-requests-size-scorer\n"
DECLARED = PLUGINS + "- type: utilization-detector\n  name: mine\n  parameters: {queueDepthThreshold: 9}\n"
PROFILE = "schedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: running-requests-size-scorer\n"
DETECTOR_READS = Reads.WAITING | Reads.KV_UTILIZATION


def load(text: str) -> Configuration:
    return load_text(text, Catalog())


@pytest.mark.parametrize(
    "text",
    [
        PLUGINS,
        PLUGINS + "saturationDetector: {pluginRef: utilization-detector}\n",
        PLUGINS + "flowControl: {saturationDetector: {pluginRef: utilization-detector}}\n",
        PLUGINS + "saturationDetector: {}\n",
        DECLARED + PROFILE,
    ],
)
def test_the_default_one_is_the_services_own(text: str) -> None:
    found = load(text)
    assert found.detector is None
    assert not found.reads & DETECTOR_READS
    assert assemble(found, FakeClock(), 1).detector is None


@pytest.mark.parametrize(
    "section",
    [
        "saturationDetector: {pluginRef: mine}\n",
        "flowControl:\n  saturationDetector: {pluginRef: mine}\n",
        "flowControl:\n  saturationDetector: {pluginRef: mine}\nsaturationDetector: {pluginRef: utilization-detector}\n",
        "flowControl: {maxRequests: 5}\nsaturationDetector: {pluginRef: mine}\n",
    ],
)
def test_one_that_is_named(section: str) -> None:
    found = load(DECLARED + PROFILE + section)
    assert found.detector == "mine"
    assert found.reads & DETECTOR_READS == DETECTOR_READS
    named = assemble(found, FakeClock(), 1).detector
    assert named is not None
    assert isinstance(named.object, UtilizationDetector)


def test_thresholds_in_the_document_itself_make_one() -> None:
    found = load(PLUGINS + "saturationDetector:\n  queueDepthThreshold: 9\n  metricsStalenessThreshold: 1s\n")
    assert found.detector == "utilization-detector"
    parameters = found.instance("utilization-detector").parameters
    assert (parameters.queueDepthThreshold, parameters.metricsStalenessThreshold) == (9, "1s")
    assert parameters.kvCacheUtilThreshold == 0.8
    # It says when, and does not choose.
    assert found.profiles[0].filters == ()


def test_a_declared_one_of_the_default_name_is_it_and_filters_in_an_implied_profile() -> None:
    found = load(PLUGINS + "- type: utilization-detector\n")
    assert found.detector == "utilization-detector"
    assert found.profiles[0].filters == ("utilization-detector",)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (PLUGINS + "saturationDetector: {pluginRef: nobody}\n",
         "line 3: saturationDetector references undefined plugin 'nobody'; allowed: utilization-detector"),
        (PLUGINS + "flowControl: {saturationDetector: {pluginRef: running-requests-size-scorer}}\n",
         ("line 3: flowControl.saturationDetector: 'running-requests-size-scorer' (running-requests-size-scorer) is no"
         " saturation detector; allowed: utilization-detector")),
        (PLUGINS + "saturationDetector:\n  kvCacheUtilThreshold: 1.5\n", "line 4: "),
        (PLUGINS + "- type: utilization-detector\n  parameters: {queueDepthThreshold: 0}\n", "line 4: "),
        (PLUGINS + "- type: utilization-detector\n  parameters: {metricsStalenessThreshold: soon}\n", "line 4: "),
    ],
)  # fmt: skip
def test_mistakes(text: str, mistake: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(text)
    [found] = caught.value.mistakes
    assert str(found).startswith(mistake)
